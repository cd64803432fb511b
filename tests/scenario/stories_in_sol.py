"""Every way to pay, or to seem to pay, in native SOL that the runtime executes.

Each story lets somebody do something and says how the payment must end.
"""

from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import (
    CreateAccountParams,
    CreateAccountWithSeedParams,
    WithdrawNonceAccountParams,
    create_account,
    create_account_with_seed,
    create_nonce_account,
    withdraw_nonce_account,
)
from spl.token import instructions as spl, models

from indexer.core.types import Paid, Reason, Status
from indexer.demo.instructions import (
    MEMO_V1,
    SYSTEM,
    memo,
    seeded,
    sol_transfer,
    sol_transfer_with_seed,
    with_references,
    with_signer,
)
from indexer.demo.tokens import CLASSIC
from tests.scenario.ending import (
    PARTIAL_AND_REVIEW,
    PARTIALLY_PAID,
    REVIEW,
    Ending,
    clean,
    doubtful,
    settled,
    unpaid,
)
from tests.scenario.market import AMOUNT, Market, bound, key, mention, names, recipient
from tests.scenario.story import Stories, Told


IN_SOL = Stories()

STAKE = Pubkey.from_string("Stake11111111111111111111111111111111111111")
RENT = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
CLOCK = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
STAKE_HISTORY = Pubkey.from_string("SysvarStakeHistory1111111111111111111111111")
STAKE_ACCOUNT_SIZE = 200


# --------------------------------------------------------------------------- plain transfers


@IN_SOL.add
async def a_legacy_transaction_settles(market: Market) -> Told:
    payment = await market.ask()
    return payment, settled(await market.pays(payment, version="legacy"), amount=AMOUNT)


@IN_SOL.add
async def a_version_0_transaction_settles(market: Market) -> Told:
    payment = await market.ask()
    return payment, settled(await market.pays(payment, version=0), amount=AMOUNT)


@IN_SOL.add
async def a_version_1_transaction_settles(market: Market) -> Told:
    payment = await market.ask()
    return payment, settled(await market.pays(payment, version=1), amount=AMOUNT)


@IN_SOL.add
async def recipient_and_reference_out_of_a_lookup_table_settle(market: Market) -> Told:
    """The watch key stays static: this runtime does not list what a table loads."""
    payment = await market.ask()
    reference = Pubkey.from_string(payment.terms.reference)
    table = await market.buyer.create_lookup_table([recipient(payment), reference])
    signature = await market.buyer.send(market.sol(payment), lookup_tables=[table])
    return payment, settled(signature, amount=AMOUNT)


@IN_SOL.add
async def whatever_follows_the_transfer_changes_nothing(market: Market) -> Told:
    """Wallets add instructions of their own, before and after."""
    payment = await market.ask()
    after = [memo("by your wallet"), sol_transfer(market.buyer.key, market.buyer.key, 1)]
    signature = await market.buyer.send(memo("before"), market.sol(payment), *after)
    return payment, settled(signature, amount=AMOUNT)


@IN_SOL.add
async def a_writable_reference_settles(market: Market) -> Told:
    payment = await market.ask()
    transfer = sol_transfer(market.buyer.key, recipient(payment), AMOUNT)
    transfer = with_references(transfer, names(payment), writable=True)
    return payment, settled(await market.buyer.send(transfer), amount=AMOUNT)


@IN_SOL.add
async def a_reference_that_signs_settles(market: Market) -> Told:
    reference = Keypair()
    payment = await market.ask(reference=reference.pubkey())
    transfer = sol_transfer(market.buyer.key, recipient(payment), AMOUNT)
    transfer = with_signer(transfer, reference.pubkey())
    signature = await market.buyer.send(transfer, signers=[reference])
    return payment, settled(signature, amount=AMOUNT)


@IN_SOL.add
async def a_signer_before_the_reference_settles(market: Market) -> Told:
    payment = await market.ask()
    transfer = sol_transfer(market.buyer.key, recipient(payment), AMOUNT)
    signature = await market.buyer.send(bound(with_signer(transfer, market.buyer.key), payment))
    return payment, settled(signature, amount=AMOUNT)


@IN_SOL.add
async def a_recipient_off_the_curve_settles(market: Market) -> Told:
    vault, _ = Pubkey.find_program_address([bytes(Keypair().pubkey())], SYSTEM)
    payment = await market.ask(to=vault)
    return payment, settled(await market.pays(payment), amount=AMOUNT)


@IN_SOL.add
async def a_recipient_who_pays_the_network_fee_still_got_everything(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(to=merchant.key)
    signature = await merchant.send(market.sol(payment), signers=[market.buyer.keypair])
    return payment, settled(signature, amount=AMOUNT)


@IN_SOL.add
async def two_transfers_in_one_transaction_add_up(market: Market) -> Told:
    payment = await market.ask()
    most, rest = market.sol(payment, AMOUNT - 1_000), market.sol(payment, 1_000)
    return payment, settled(await market.buyer.send(most, rest), amount=AMOUNT)


@IN_SOL.add
async def a_missing_memo_changes_nothing(market: Market) -> Told:
    payment = await market.ask(memo="order 7")
    return payment, settled(await market.buyer.send(market.sol(payment)), amount=AMOUNT)


@IN_SOL.add
async def another_memo_changes_nothing(market: Market) -> Told:
    payment = await market.ask(memo="order 7")
    other = [memo("order 8"), memo("order 9", program=MEMO_V1)]
    return payment, settled(await market.buyer.send(*other, market.sol(payment)), amount=AMOUNT)


@IN_SOL.add
async def the_memo_that_was_asked_for_changes_nothing_either(market: Market) -> Told:
    payment = await market.ask(memo="order 7, grüezi")
    return payment, settled(await market.pays(payment), amount=AMOUNT)


@IN_SOL.add
async def a_transfer_with_seed_settles(market: Market) -> Told:
    payment = await market.ask()
    await market.cluster.fund_sol(seeded(market.buyer.key, "till"), 10**9)
    transfer = sol_transfer_with_seed(market.buyer.key, "till", recipient(payment), AMOUNT)
    signature = await market.buyer.send(bound(transfer, payment))
    return payment, settled(signature, amount=AMOUNT)


# -------------------------------------------------------------------------- out of own pocket


@IN_SOL.add
async def a_transfer_to_oneself_pays_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(to=merchant.key)
    signature = await merchant.send(market.sol(payment, by=merchant.key))
    return payment, unpaid(signature, Reason.OWN_FUNDS, doubt=True)


@IN_SOL.add
async def a_transfer_with_seed_out_of_the_recipients_own_till_pays_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    await market.cluster.fund_sol(seeded(merchant.key, "till"), 10**9)
    payment = await market.ask(to=merchant.key)
    transfer = sol_transfer_with_seed(merchant.key, "till", merchant.key, AMOUNT)
    signature = await merchant.send(bound(transfer, payment))
    return payment, unpaid(signature, Reason.OWN_FUNDS)


@IN_SOL.add
async def money_that_goes_back_in_the_same_transaction_pays_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(to=merchant.key)
    back = sol_transfer(merchant.key, market.buyer.key, AMOUNT)
    signature = await market.buyer.send(market.sol(payment), back, signers=[merchant.keypair])
    return payment, unpaid(signature, Reason.DEBITED, review=(Reason.DEBITED,), doubt=True)


@IN_SOL.add
async def money_that_goes_back_is_not_hidden_by_other_money(market: Market) -> Told:
    merchant, stranger = await market.wallet(), await market.wallet()
    payment = await market.ask(to=merchant.key)
    back = sol_transfer(merchant.key, market.buyer.key, AMOUNT)
    other = sol_transfer(stranger.key, merchant.key, AMOUNT)
    signature = await market.buyer.send(
        market.sol(payment), back, other, signers=[merchant.keypair, stranger.keypair]
    )
    return payment, unpaid(signature, Reason.DEBITED, review=(Reason.DEBITED,), doubt=True)


@IN_SOL.add
async def a_part_that_goes_back_leaves_a_part(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(to=merchant.key)
    back = sol_transfer(merchant.key, market.buyer.key, 1_000)
    signature = await market.buyer.send(market.sol(payment), back, signers=[merchant.keypair])
    return payment, Ending(
        paid=Paid.PARTIAL,
        received=AMOUNT - 1_000,
        review=(Reason.DEBITED,),
        verdicts={signature: doubtful(AMOUNT - 1_000, Reason.DEBITED)},
        events=PARTIAL_AND_REVIEW,
    )


@IN_SOL.add
async def a_full_payment_beside_an_outflow_waits_for_a_person(market: Market) -> Told:
    """More than was asked for came, and less than that went back."""
    merchant = await market.wallet()
    payment = await market.ask(to=merchant.key)
    back = sol_transfer(merchant.key, market.buyer.key, 1_000)
    signature = await market.buyer.send(
        market.sol(payment, AMOUNT + 1_000), back, signers=[merchant.keypair]
    )
    return payment, Ending(
        status=Status.PROCESSING,
        paid=Paid.EXACT,
        received=AMOUNT,
        review=(Reason.DEBITED,),
        verdicts={signature: doubtful(AMOUNT, Reason.DEBITED)},
        events=REVIEW,
    )


# ----------------------------------------------------------- lamports that come in other ways


@IN_SOL.add
async def creating_the_recipients_account_is_for_a_person(market: Market) -> Told:
    merchant = Keypair()
    payment = await market.ask(to=merchant)
    create = CreateAccountParams(
        from_pubkey=market.buyer.key,
        to_pubkey=merchant.pubkey(),
        lamports=AMOUNT,
        space=0,
        owner=SYSTEM,
    )
    signature = await market.buyer.send(bound(create_account(create), payment), signers=[merchant])
    created = Reason.ACCOUNT_CREATED
    return payment, unpaid(signature, created, review=(created,))


@IN_SOL.add
async def creating_the_recipients_account_with_a_seed_is_for_a_person(market: Market) -> Told:
    account = seeded(market.buyer.key, "new till")
    payment = await market.ask(to=account)
    create = CreateAccountWithSeedParams(
        from_pubkey=market.buyer.key,
        to_pubkey=account,
        base=market.buyer.key,
        seed="new till",
        lamports=AMOUNT,
        space=0,
        owner=SYSTEM,
    )
    signature = await market.buyer.send(bound(create_account_with_seed(create), payment))
    created = Reason.ACCOUNT_CREATED
    return payment, unpaid(signature, created, review=(created,))


@IN_SOL.add
async def a_withdrawal_from_a_nonce_account_is_for_a_person(market: Market) -> Told:
    nonce, payment = Keypair(), await market.ask()
    buyer = market.buyer.key
    landed = await market.buyer.run(
        *create_nonce_account(buyer, nonce.pubkey(), buyer, 2 * AMOUNT), signers=[nonce]
    )
    await market.cluster.slot_after(landed.slot)
    withdraw = WithdrawNonceAccountParams(
        nonce_pubkey=nonce.pubkey(),
        authorized_pubkey=buyer,
        to_pubkey=recipient(payment),
        lamports=AMOUNT,
    )
    signature = await market.buyer.send(bound(withdraw_nonce_account(withdraw), payment))
    created = Reason.ACCOUNT_CREATED
    return payment, unpaid(signature, created, review=(created,))


@IN_SOL.add
async def a_program_that_pays_out_lamports_pays_nothing(market: Market) -> Told:
    """A stake account's money comes without any transfer, as from any other program."""
    payment = await market.ask()
    payout = await _payout(market, recipient(payment))
    signature = await market.buyer.send(payout, mention(payment))
    return payment, unpaid(signature, Reason.NOT_BOUND)


@IN_SOL.add
async def a_payout_beside_one_lamport_pays_one_lamport(market: Market) -> Told:
    """The recipient gets the whole amount, out of money that was owed anyway."""
    payment = await market.ask(to=(await market.wallet()).key)
    payout = await _payout(market, recipient(payment))
    signature = await market.buyer.send(payout, market.sol(payment, 1))
    return payment, Ending(
        paid=Paid.PARTIAL, received=1, verdicts={signature: clean(1)}, events=PARTIALLY_PAID
    )


@IN_SOL.add
async def excess_lamports_of_a_token_account_pay_nothing(market: Market) -> Told:
    payment, payer = await market.ask(), await market.wallet()
    account = market.usdc.account(payer.key)
    await payer.run(
        market.usdc.create_account(payer.key, payer.key), sol_transfer(payer.key, account, AMOUNT)
    )
    withdraw = Instruction(
        CLASSIC,
        bytes([38]),
        [key(account), key(recipient(payment)), key(payer.key, signer=True, writable=False)],
    )
    signature = await payer.send(bound(withdraw, payment))
    return payment, unpaid(signature, Reason.NOT_BOUND)


@IN_SOL.add
async def the_rent_of_a_closed_account_pays_nothing(market: Market) -> Told:
    payment, payer = await market.ask(), await market.wallet()
    await payer.run(market.usdc.create_account(payer.key, payer.key))
    close = models.CloseAccountParams(
        program_id=CLASSIC,
        account=market.usdc.account(payer.key),
        dest=recipient(payment),
        owner=payer.key,
    )
    signature = await payer.send(bound(spl.close_account(close), payment))
    return payment, unpaid(signature, Reason.NOT_BOUND)


@IN_SOL.add
async def less_than_the_rent_exempt_minimum_fails_and_pays_nothing(market: Market) -> Told:
    payment = await market.ask()
    await market.fails(market.sol(payment, 1_000))
    return payment, Ending()


# --------------------------------------------------------------------- where the reference is


@IN_SOL.add
async def a_reference_on_a_memo_only_pays_nothing(market: Market) -> Told:
    payment = await market.ask()
    transfer = sol_transfer(market.buyer.key, recipient(payment), AMOUNT)
    signature = await market.buyer.send(mention(payment), transfer)
    return payment, unpaid(signature, Reason.NOT_BOUND)


@IN_SOL.add
async def a_reference_on_a_transfer_to_somebody_else_pays_nothing(market: Market) -> Told:
    payment = await market.ask()
    transfer = sol_transfer(market.buyer.key, recipient(payment), AMOUNT)
    elsewhere = bound(sol_transfer(market.buyer.key, Keypair().pubkey(), AMOUNT), payment)
    signature = await market.buyer.send(transfer, elsewhere)
    return payment, unpaid(signature, Reason.WRONG_RECIPIENT)


async def _payout(market: Market, to: Pubkey) -> Instruction:
    """Takes the amount out of a new stake account that nobody delegated."""
    stake, owner = Keypair(), market.buyer.key
    rent = await market.cluster.rent_exempt_minimum(STAKE_ACCOUNT_SIZE)
    create = CreateAccountParams(
        from_pubkey=owner,
        to_pubkey=stake.pubkey(),
        lamports=rent + AMOUNT,
        space=STAKE_ACCOUNT_SIZE,
        owner=STAKE,
    )
    no_lockup = bytes(8 + 8 + 32)
    initialize = Instruction(
        STAKE,
        bytes(4) + bytes(owner) * 2 + no_lockup,
        [key(stake.pubkey()), key(RENT, writable=False)],
    )
    await market.buyer.run(create_account(create), initialize, signers=[stake])
    accounts: list[AccountMeta] = [
        key(stake.pubkey()),
        key(to),
        key(CLOCK, writable=False),
        key(STAKE_HISTORY, writable=False),
        key(owner, signer=True, writable=False),
    ]
    return Instruction(STAKE, b"\4\0\0\0" + AMOUNT.to_bytes(8, "little"), accounts)
