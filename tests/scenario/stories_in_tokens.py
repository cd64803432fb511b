"""Every way to pay, or to seem to pay, in tokens that the runtime executes."""

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account
from spl.token import instructions as spl, models

from indexer.core.types import AMOUNT_MAX, Paid, Reason, Status
from indexer.demo.instructions import SYSTEM, batch, memo, with_references, with_signer
from indexer.demo.tokens import CLASSIC, TOKEN_2022, Token
from tests.scenario.ending import (
    PARTIAL_AND_REVIEW,
    PARTIALLY_PAID,
    SETTLED,
    Ending,
    clean,
    doubtful,
    settled,
    unpaid,
)
from tests.scenario.market import AMOUNT, FEE, Market, bound, key, mention, names, recipient
from tests.scenario.story import Stories, Told


IN_TOKENS = Stories()

MULTISIG_SIZE = 355
KEPT = FEE.of(AMOUNT)


# --------------------------------------------------------------------------- plain transfers


@IN_TOKENS.add
async def a_checked_transfer_settles(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    await market.buyer.run(market.account(payment, market.usdc))
    signature = await market.buyer.send(market.tokens(payment, market.usdc))
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def an_unchecked_transfer_settles(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    await market.buyer.run(market.account(payment, market.usdc))
    transfer = market.usdc.transfer_unchecked(market.buyer.key, recipient(payment), AMOUNT)
    signature = await market.buyer.send(bound(transfer, payment))
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def an_account_made_in_the_same_transaction_settles(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    return payment, settled(await market.pays(payment, market.usdc), amount=AMOUNT)


@IN_TOKENS.add
async def token_2022_settles(market: Market) -> Told:
    payment = await market.ask(market.modern)
    return payment, settled(await market.pays(payment, market.modern), amount=AMOUNT)


@IN_TOKENS.add
async def a_legacy_token_transaction_settles(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    signature = await market.pays(payment, market.usdc, version="legacy")
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def a_version_1_token_transaction_settles(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    signature = await market.pays(payment, market.usdc, version=1)
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def account_and_reference_out_of_a_lookup_table_settle(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    await market.buyer.run(market.account(payment, market.usdc))
    keys = [market.usdc.account(recipient(payment)), Pubkey.from_string(payment.terms.reference)]
    table = await market.buyer.create_lookup_table([*keys, market.usdc.mint])
    signature = await market.buyer.send(market.tokens(payment, market.usdc), lookup_tables=[table])
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def a_vault_off_the_curve_settles(market: Market) -> Told:
    vault, _ = Pubkey.find_program_address([bytes(Keypair().pubkey())], SYSTEM)
    payment = await market.ask(market.usdc, to=vault)
    return payment, settled(await market.pays(payment, market.usdc), amount=AMOUNT)


@IN_TOKENS.add
async def as_much_as_there_can_be_settles(market: Market) -> Told:
    payment = await market.ask(market.whole, AMOUNT_MAX)
    return payment, settled(await market.pays(payment, market.whole), amount=AMOUNT_MAX)


@IN_TOKENS.add
async def another_memo_than_asked_for_changes_nothing(market: Market) -> Told:
    payment = await market.ask(market.usdc, memo="order 7")
    signature = await market.buyer.send(
        market.account(payment, market.usdc), memo("thanks"), market.tokens(payment, market.usdc)
    )
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def two_token_transfers_in_one_transaction_add_up(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    signature = await market.buyer.send(
        market.account(payment, market.usdc),
        market.tokens(payment, market.usdc, 1),
        memo("and"),
        market.tokens(payment, market.usdc, AMOUNT - 1),
    )
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def the_owner_as_a_signer_before_a_writable_reference_settles(market: Market) -> Told:
    """What dApps make that pass the payer along in the list of multisig signers."""
    payment = await market.ask(market.usdc)
    transfer = market.usdc.transfer(market.buyer.key, recipient(payment), AMOUNT)
    transfer = with_signer(transfer, market.buyer.key)
    signature = await market.buyer.send(
        market.account(payment, market.usdc),
        with_references(transfer, names(payment), writable=True),
    )
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def a_multisig_settles(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    multisig, signers = await _multisig(market)
    await market.stock(market.usdc, multisig)
    transfer = models.TransferCheckedParams(
        program_id=CLASSIC,
        source=market.usdc.account(multisig),
        mint=market.usdc.mint,
        dest=market.usdc.account(recipient(payment)),
        owner=multisig,
        amount=AMOUNT,
        decimals=market.usdc.decimals,
        signers=[signer.pubkey() for signer in signers],
    )
    signature = await market.buyer.send(
        market.account(payment, market.usdc),
        bound(spl.transfer_checked(transfer), payment),
        signers=signers,
    )
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def a_delegate_settles(market: Market) -> Told:
    """Somebody who may spend from an account pays out of it."""
    payment, delegate = await market.ask(market.usdc), Keypair()
    approve = models.ApproveParams(
        program_id=CLASSIC,
        source=await market.auxiliary_account(market.usdc, market.buyer.key, AMOUNT),
        delegate=delegate.pubkey(),
        owner=market.buyer.key,
        amount=AMOUNT,
    )
    await market.buyer.run(spl.approve(approve), market.account(payment, market.usdc))
    transfer = market.usdc.transfer(
        delegate.pubkey(), recipient(payment), AMOUNT, source=approve.source
    )
    signature = await market.buyer.send(bound(transfer, payment), signers=[delegate])
    return payment, settled(signature, amount=AMOUNT)


# ------------------------------------------------------------------------------------- batches


@IN_TOKENS.add
async def a_transfer_in_a_batch_settles(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    tip = market.usdc.transfer(market.buyer.key, market.buyer.key, 5)
    signature = await market.buyer.send(
        market.account(payment, market.usdc), batch([tip, market.tokens(payment, market.usdc)])
    )
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def a_transfer_in_a_batch_of_token_2022_settles(market: Market) -> Told:
    payment = await market.ask(market.modern)
    signature = await market.buyer.send(
        market.account(payment, market.modern), batch([market.tokens(payment, market.modern)])
    )
    return payment, settled(signature, amount=AMOUNT)


@IN_TOKENS.add
async def a_reference_elsewhere_in_the_batch_pays_nothing(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    tip = bound(market.usdc.transfer(market.buyer.key, market.buyer.key, 5), payment)
    transfer = market.usdc.transfer(market.buyer.key, recipient(payment), AMOUNT)
    signature = await market.buyer.send(
        market.account(payment, market.usdc), batch([tip, transfer])
    )
    return payment, unpaid(signature, Reason.WRONG_RECIPIENT)


# ------------------------------------------------------------------------------ transfer fees


@IN_TOKENS.add
async def a_transfer_fee_leaves_a_rest_to_be_paid(market: Market) -> Told:
    """What arrives counts, not what was sent; the fee is withheld from the rest as well."""
    payment = await market.ask(market.taxed)
    first = await market.pays(payment, market.taxed, amount=AMOUNT)
    partial = await market.deployment.until(
        payment, lambda record: record.payment.state.received > 0
    )
    assert partial.payment.state.status is Status.PENDING
    assert partial.payment.state.paid is Paid.PARTIAL
    assert partial.payment.state.received == AMOUNT - KEPT
    rest = next(n for n in range(KEPT, 2 * KEPT) if n - FEE.of(n) == KEPT)
    second = await market.pays(payment, market.taxed, amount=rest)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.EXACT,
        received=AMOUNT,
        verdicts={first: clean(AMOUNT - KEPT), second: clean(KEPT)},
        events=(*PARTIALLY_PAID, *SETTLED),
    )


@IN_TOKENS.add
async def a_transfer_that_states_its_fee_counts_without_it(market: Market) -> Told:
    net = AMOUNT - KEPT
    payment = await market.ask(market.taxed, net)
    transfer = market.taxed.transfer_with_fee(market.buyer.key, recipient(payment), AMOUNT)
    signature = await market.buyer.send(
        market.account(payment, market.taxed), bound(transfer, payment)
    )
    return payment, settled(signature, amount=net)


@IN_TOKENS.add
async def a_transfer_fee_that_is_harvested_at_once_is_no_outflow(market: Market) -> Told:
    net = AMOUNT - KEPT
    payment = await market.ask(market.taxed, net)
    signature = await market.buyer.send(
        market.account(payment, market.taxed),
        market.tokens(payment, market.taxed),
        _harvest(market.taxed, recipient(payment)),
    )
    return payment, settled(signature, amount=net)


@IN_TOKENS.add
async def withheld_fees_paid_out_to_the_recipient_pay_nothing(market: Market) -> Told:
    payment = await market.ask(market.taxed, KEPT)
    merchant, token = recipient(payment), market.taxed
    await market.buyer.run(
        market.account(payment, token),
        token.transfer(market.buyer.key, merchant, AMOUNT),
        _harvest(token, merchant),
    )
    withdraw = Instruction(
        TOKEN_2022,
        bytes([26, 2]),
        [key(token.mint), key(token.account(merchant)), key(market.buyer.key, signer=True)],
    )
    signature = await market.buyer.send(withdraw, mention(payment))
    return payment, unpaid(signature, Reason.NOT_BOUND, doubt=True)


@IN_TOKENS.add
async def two_fees_of_which_one_is_not_ours_are_for_a_person(market: Market) -> Told:
    """Nobody can say which of the transfers a fee came out of: the worst is assumed."""
    payment = await market.ask(market.taxed)
    signature = await market.buyer.send(
        market.account(payment, market.taxed),
        market.tokens(payment, market.taxed),
        market.taxed.transfer(market.buyer.key, recipient(payment), AMOUNT),
    )
    least = AMOUNT - 2 * KEPT
    return payment, Ending(
        paid=Paid.PARTIAL,
        received=least,
        review=(Reason.BOOKS, Reason.FEE_UNKNOWN),
        verdicts={signature: doubtful(least, Reason.BOOKS, Reason.FEE_UNKNOWN)},
        events=PARTIAL_AND_REVIEW,
    )


@IN_TOKENS.add
async def an_unchecked_transfer_of_a_mint_with_a_fee_fails(market: Market) -> Told:
    payment = await market.ask(market.taxed)
    transfer = market.taxed.transfer_unchecked(market.buyer.key, recipient(payment), AMOUNT)
    await market.fails(market.account(payment, market.taxed), bound(transfer, payment))
    return payment, Ending()


# ------------------------------------------------------------------------------ what they use


def _harvest(token: Token, owner: Pubkey) -> Instruction:
    """What an account has withheld goes to the mint; anybody may ask for that."""
    return Instruction(token.program, bytes([26, 4]), [key(token.mint), key(token.account(owner))])


async def _multisig(market: Market) -> tuple[Pubkey, list[Keypair]]:
    """An owner of tokens who needs two signatures."""
    account, signers = Keypair(), [Keypair(), Keypair()]
    create = CreateAccountParams(
        from_pubkey=market.buyer.key,
        to_pubkey=account.pubkey(),
        lamports=await market.cluster.rent_exempt_minimum(MULTISIG_SIZE),
        space=MULTISIG_SIZE,
        owner=CLASSIC,
    )
    initialize = models.InitializeMultisig2Params(
        program_id=CLASSIC,
        multisig=account.pubkey(),
        m=2,
        signers=[signer.pubkey() for signer in signers],
    )
    await market.buyer.run(
        create_account(create), spl.initialize_multisig2(initialize), signers=[account]
    )
    return account.pubkey(), signers
