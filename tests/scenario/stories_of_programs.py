"""Transfers that another program called, as those of vaults and smart wallets are."""

from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from indexer.core.types import ASSOCIATED_TOKEN_PROGRAM, Reason
from indexer.demo.instructions import batch, sol_transfer
from tests.scenario.ending import settled, unpaid
from tests.scenario.forwarder import FORWARDING, called_by, deploy
from tests.scenario.market import AMOUNT, Market, bound, key, mention, recipient
from tests.scenario.story import Stories, Told


OF_PROGRAMS = Stories()


@OF_PROGRAMS.add
async def a_called_sol_transfer_settles(market: Market) -> Told:
    payment = await market.ask()
    signature = await market.buyer.send(called_by(market.forwarder, market.sol(payment)))
    return payment, settled(signature, amount=AMOUNT)


@OF_PROGRAMS.add
async def a_called_token_transfer_settles(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    signature = await market.buyer.send(
        market.account(payment, market.usdc),
        called_by(market.forwarder, market.tokens(payment, market.usdc)),
    )
    return payment, settled(signature, amount=AMOUNT)


@OF_PROGRAMS.add
async def a_transfer_several_calls_deep_settles(market: Market) -> Told:
    payment, token = await market.ask(market.usdc), market.usdc
    transfer = market.tokens(payment, token)
    for _ in range(3):
        transfer = called_by(await deploy(market.cluster, FORWARDING), transfer)
    signature = await market.buyer.send(market.account(payment, token), transfer)
    return payment, settled(signature, amount=AMOUNT)


@OF_PROGRAMS.add
async def a_called_batch_settles(market: Market) -> Told:
    payment, token = await market.ask(market.usdc), market.usdc
    transfers = batch([market.tokens(payment, token)])
    signature = await market.buyer.send(
        market.account(payment, token), called_by(market.forwarder, transfers)
    )
    return payment, settled(signature, amount=AMOUNT)


@OF_PROGRAMS.add
async def two_payments_by_two_calls_get_each_its_own(market: Market) -> list[Told]:
    merchant = Keypair().pubkey()
    first, second = [await market.ask(to=merchant) for _ in range(2)]
    signature = await market.buyer.send(
        called_by(market.forwarder, market.sol(first)),
        called_by(market.forwarder, market.sol(second)),
    )
    return [(payment, settled(signature, amount=AMOUNT)) for payment in (first, second)]


@OF_PROGRAMS.add
async def a_called_transfer_to_somebody_else_pays_nothing(market: Market) -> Told:
    payment = await market.ask()
    transfer = bound(sol_transfer(market.buyer.key, Keypair().pubkey(), AMOUNT), payment)
    signature = await market.buyer.send(called_by(market.forwarder, transfer))
    return payment, unpaid(signature, Reason.WRONG_RECIPIENT)


@OF_PROGRAMS.add
async def money_that_a_call_takes_back_pays_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(to=merchant.key)
    back = sol_transfer(merchant.key, market.buyer.key, AMOUNT)
    signature = await market.buyer.send(
        market.sol(payment), called_by(market.forwarder, back), signers=[merchant.keypair]
    )
    return payment, unpaid(signature, Reason.DEBITED, review=(Reason.DEBITED,), doubt=True)


@OF_PROGRAMS.add
async def a_called_transfer_whose_caller_alone_names_the_reference_pays_nothing(
    market: Market,
) -> Told:
    """The associated token program rescues tokens from an account of the recipient's account."""
    merchant, token = await market.wallet(), market.usdc
    payment = await market.ask(token, to=merchant.key)
    account = token.account(merchant.key)
    await merchant.run(token.create_account(merchant.key, merchant.key))
    await market.stock(token, account)
    recover = Instruction(
        Pubkey.from_string(ASSOCIATED_TOKEN_PROGRAM),
        bytes([2]),
        [
            key(token.account(account)),
            key(token.mint, writable=False),
            key(account),
            key(account),
            key(token.mint, writable=False),
            key(merchant.key, signer=True),
            key(token.program, writable=False),
        ],
    )
    signature = await merchant.send(bound(recover, payment))
    return payment, unpaid(signature, Reason.NOT_BOUND)


@OF_PROGRAMS.add
async def an_account_that_a_program_makes_at_the_recipient_is_for_a_person(market: Market) -> Told:
    """Somebody asked for SOL at an address that is a token account's."""
    owner = Keypair().pubkey()
    payment = await market.ask(to=market.usdc.account(owner), amount=1_000_000)
    signature = await market.buyer.send(
        market.usdc.create_account(market.buyer.key, owner), mention(payment)
    )
    created = Reason.ACCOUNT_CREATED
    return payment, unpaid(signature, created, review=(created,))


@OF_PROGRAMS.add
async def rent_that_a_program_adds_to_the_recipient_pays_nothing(market: Market) -> Told:
    """The same, where the address has some SOL already: then it is a transfer."""
    owner = Keypair().pubkey()
    payment = await market.ask(to=market.usdc.account(owner), amount=1_000_000)
    await market.cluster.fund_sol(recipient(payment), 1_000_000)
    signature = await market.buyer.send(
        market.usdc.create_account(market.buyer.key, owner), mention(payment)
    )
    return payment, unpaid(signature, Reason.NOT_BOUND)


@OF_PROGRAMS.add
async def a_mint_that_calls_a_hook_settles(market: Market) -> Told:
    """The accounts that the hook needs stand between the owner and the reference."""
    payment, token = await market.ask(market.hooked), market.hooked
    transfer = token.transfer(market.buyer.key, recipient(payment), AMOUNT)
    await market.fails(market.account(payment, token), bound(transfer, payment))
    hook = AccountMeta(market.hook, is_signer=False, is_writable=False)
    with_hook = Instruction(transfer.program_id, transfer.data, [*transfer.accounts, hook])
    signature = await market.buyer.send(market.account(payment, token), bound(with_hook, payment))
    return payment, settled(signature, amount=AMOUNT)
