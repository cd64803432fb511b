"""Wrapped SOL, which is a token, and what becomes of it where SOL was asked for."""

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from spl.token import instructions as spl, models

from indexer.core.types import Reason
from indexer.demo.instructions import (
    sol_transfer,
    unwrap_lamports,
)
from indexer.demo.tokens import CLASSIC, WRAPPED_SOL
from indexer.demo.wallet import Wallet
from tests.scenario.ending import (
    Ending,
    clean,
    doubtful,
    settled,
    unpaid,
)
from tests.scenario.market import AMOUNT, Market, bound, mention, recipient
from tests.scenario.story import Stories, Told


IN_WRAPPED_SOL = Stories()


@IN_WRAPPED_SOL.add
async def unwrapped_lamports_settle(market: Market) -> Told:
    payment, payer = await market.ask(), await _with_wrapped_sol(market, 3 * AMOUNT)
    signature = await payer.send(bound(_unwrap(payer, recipient(payment), AMOUNT), payment))
    return payment, settled(signature, amount=AMOUNT)


@IN_WRAPPED_SOL.add
async def everything_unwrapped_settles(market: Market) -> Told:
    payment, payer = await market.ask(), await _with_wrapped_sol(market, AMOUNT)
    signature = await payer.send(bound(_unwrap(payer, recipient(payment), None), payment))
    return payment, settled(signature, amount=AMOUNT)


@IN_WRAPPED_SOL.add
async def everything_unwrapped_of_what_was_wrapped_just_now_is_for_a_person(
    market: Market,
) -> Told:
    """How much that is stands in no instruction and in no balance."""
    payment, payer = await market.ask(), await market.wallet()
    unwrap = bound(_unwrap(payer, recipient(payment), None), payment)
    signature = await payer.send(*WRAPPED_SOL.wrap(payer.key, AMOUNT), unwrap)
    unknown = Reason.UNDECODABLE
    return payment, unpaid(signature, unknown, review=(unknown,), doubt=True)


@IN_WRAPPED_SOL.add
async def unwrapped_lamports_without_the_reference_pay_nothing(market: Market) -> Told:
    payment, payer = await market.ask(), await _with_wrapped_sol(market, AMOUNT)
    unwrap = _unwrap(payer, recipient(payment), AMOUNT)
    signature = await payer.send(unwrap, mention(payment))
    return payment, unpaid(signature, Reason.NOT_BOUND)


@IN_WRAPPED_SOL.add
async def the_recipients_own_wrapped_sol_pays_nothing(market: Market) -> Told:
    merchant = await _with_wrapped_sol(market, AMOUNT)
    payment = await market.ask(to=merchant.key)
    signature = await merchant.send(bound(_unwrap(merchant, merchant.key, AMOUNT), payment))
    return payment, unpaid(signature, Reason.OWN_FUNDS)


@IN_WRAPPED_SOL.add
async def wrapped_sol_is_not_sol(market: Market) -> Told:
    payment, payer = await market.ask(), await _with_wrapped_sol(market, AMOUNT)
    create = WRAPPED_SOL.create_account(payer.key, recipient(payment))
    transfer = WRAPPED_SOL.transfer(payer.key, recipient(payment), AMOUNT)
    signature = await payer.send(create, bound(transfer, payment))
    return payment, unpaid(signature, Reason.WRONG_MINT)


@IN_WRAPPED_SOL.add
async def lamports_to_the_recipients_wrapped_sol_account_are_for_a_person(market: Market) -> Told:
    payment = await market.ask()
    await market.buyer.run(market.account(payment, WRAPPED_SOL))
    account = WRAPPED_SOL.account(recipient(payment))
    transfer = sol_transfer(market.buyer.key, account, AMOUNT)
    signature = await market.buyer.send(bound(transfer, payment))
    elsewhere = Reason.AUXILIARY_ACCOUNT
    return payment, unpaid(signature, elsewhere, review=(elsewhere,))


@IN_WRAPPED_SOL.add
async def wrapped_sol_pays_where_it_was_asked_for(market: Market) -> Told:
    """Wrapped, paid and unwrapped again in one transaction, as wallets do it."""
    payment, payer = await market.ask(WRAPPED_SOL), await market.wallet()
    close = models.CloseAccountParams(
        program_id=CLASSIC, account=WRAPPED_SOL.account(payer.key), dest=payer.key, owner=payer.key
    )
    signature = await payer.send(
        *WRAPPED_SOL.wrap(payer.key, AMOUNT),
        WRAPPED_SOL.create_account(payer.key, recipient(payment)),
        bound(WRAPPED_SOL.transfer(payer.key, recipient(payment), AMOUNT), payment),
        spl.close_account(close),
    )
    return payment, settled(signature, amount=AMOUNT)


@IN_WRAPPED_SOL.add
async def lamports_are_not_wrapped_sol_not_even_once_they_are_synced(market: Market) -> Told:
    payment = await market.ask(WRAPPED_SOL)
    await market.buyer.run(market.account(payment, WRAPPED_SOL))
    account = WRAPPED_SOL.account(recipient(payment))
    sync = spl.sync_native(models.SyncNativeParams(program_id=CLASSIC, account=account))
    transfer = bound(sol_transfer(market.buyer.key, account, AMOUNT), payment)
    raw = await market.lands(await market.buyer.send(transfer))
    synced = await market.lands(await market.buyer.send(sync, mention(payment)))
    at_once = await market.buyer.send(transfer, sync)
    return payment, Ending(
        verdicts={
            raw: clean(0, Reason.WRONG_MINT),
            synced: doubtful(0, Reason.NOT_BOUND),
            at_once: doubtful(0, Reason.WRONG_MINT),
        }
    )


def _unwrap(payer: Wallet, destination: Pubkey, lamports: int | None) -> Instruction:
    return unwrap_lamports(
        program=CLASSIC,
        source=WRAPPED_SOL.account(payer.key),
        destination=destination,
        owner=payer.key,
        lamports=lamports,
    )


async def _with_wrapped_sol(market: Market, lamports: int) -> Wallet:
    payer = await market.wallet()
    await payer.run(*WRAPPED_SOL.wrap(payer.key, lamports))
    return payer
