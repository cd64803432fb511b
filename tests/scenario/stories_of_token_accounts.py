"""Tokens that come in other ways than by a payer's transfer, or to other accounts."""

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from spl.token import instructions as spl, models

from indexer.core.types import Paid, Reason
from indexer.demo.tokens import CLASSIC, WRAPPED_SOL, Token
from tests.scenario.ending import (
    PARTIAL_AND_REVIEW,
    Ending,
    doubtful,
    settled,
    unpaid,
)
from tests.scenario.market import AMOUNT, Market, bound, mention, recipient
from tests.scenario.story import Stories, Told


OF_TOKEN_ACCOUNTS = Stories()


# --------------------------------------------------------------------- who issues the tokens


@OF_TOKEN_ACCOUNTS.add
async def what_an_issuer_could_take_back_settles(market: Market) -> Told:
    payment = await market.ask(market.held_back)
    return payment, settled(await market.pays(payment, market.held_back), amount=AMOUNT)


@OF_TOKEN_ACCOUNTS.add
async def what_the_issuer_takes_back_at_once_pays_nothing(market: Market) -> Told:
    payment, token = await market.ask(market.held_back), market.held_back
    back = token.transfer(
        market.buyer.key, market.buyer.key, AMOUNT, source=token.account(recipient(payment))
    )
    signature = await market.buyer.send(
        market.account(payment, token), market.tokens(payment, token), back
    )
    return payment, unpaid(signature, Reason.DEBITED, review=(Reason.DEBITED,), doubt=True)


@OF_TOKEN_ACCOUNTS.add
async def a_frozen_account_cannot_be_paid(market: Market) -> Told:
    payment, token = await market.ask(market.held_back), market.held_back
    freeze = models.FreezeAccountParams(
        program_id=token.program,
        account=token.account(recipient(payment)),
        mint=token.mint,
        authority=market.buyer.key,
    )
    await market.buyer.run(market.account(payment, token), spl.freeze_account(freeze))
    await market.fails(market.tokens(payment, token))
    return payment, Ending()


@OF_TOKEN_ACCOUNTS.add
async def new_tokens_for_the_recipient_pay_nothing(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    mint_to = market.usdc.mint_to(market.buyer.key, recipient(payment), AMOUNT)
    signature = await market.buyer.send(
        market.account(payment, market.usdc), mint_to, mention(payment)
    )
    return payment, unpaid(signature, Reason.NOT_BOUND)


@OF_TOKEN_ACCOUNTS.add
async def new_tokens_that_name_the_reference_pay_nothing(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    mint_to = market.usdc.mint_to(market.buyer.key, recipient(payment), AMOUNT)
    signature = await market.buyer.send(
        market.account(payment, market.usdc), bound(mint_to, payment)
    )
    return payment, unpaid(signature, Reason.NOT_BOUND)


@OF_TOKEN_ACCOUNTS.add
async def a_token_that_only_looks_alike_pays_nothing(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    signature = await market.buyer.send(
        market.account(payment, market.lookalike), market.tokens(payment, market.lookalike)
    )
    return payment, unpaid(signature, Reason.WRONG_MINT)


# ------------------------------------------------------------------- whose account it goes to


@OF_TOKEN_ACCOUNTS.add
async def a_transfer_to_somebody_else_pays_nothing(market: Market) -> Told:
    """Not even beside one to the recipient that does not name the payment."""
    payment, stranger = await market.ask(market.usdc), Keypair().pubkey()
    buyer, token = market.buyer.key, market.usdc
    signature = await market.buyer.send(
        market.account(payment, token),
        token.create_account(buyer, stranger),
        token.transfer(buyer, recipient(payment), AMOUNT),
        bound(token.transfer(buyer, stranger, AMOUNT), payment),
    )
    return payment, unpaid(signature, Reason.WRONG_RECIPIENT)


@OF_TOKEN_ACCOUNTS.add
async def another_account_of_the_recipient_is_for_a_person(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    account = await market.auxiliary_account(market.usdc, recipient(payment))
    transfer = _transfer_to(market, market.usdc, account)
    signature = await market.buyer.send(bound(transfer, payment))
    elsewhere = Reason.AUXILIARY_ACCOUNT
    return payment, unpaid(signature, elsewhere, review=(elsewhere,))


@OF_TOKEN_ACCOUNTS.add
async def an_associated_account_that_was_given_away_pays_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(market.usdc, to=merchant.key)
    await merchant.run(
        market.usdc.create_account(merchant.key, merchant.key),
        _give_away(market.usdc.account(merchant.key), merchant.key, market.buyer.key),
    )
    signature = await market.buyer.send(market.tokens(payment, market.usdc))
    return payment, unpaid(signature, Reason.WRONG_RECIPIENT)


@OF_TOKEN_ACCOUNTS.add
async def an_associated_account_that_is_given_away_at_once_pays_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(market.usdc, to=merchant.key)
    await market.stock(market.usdc, merchant.key)
    signature = await market.buyer.send(
        market.tokens(payment, market.usdc),
        _give_away(market.usdc.account(merchant.key), merchant.key, market.buyer.key),
        signers=[merchant.keypair],
    )
    return payment, unpaid(signature, Reason.WRONG_RECIPIENT, doubt=True)


@OF_TOKEN_ACCOUNTS.add
async def an_account_that_is_paid_and_closed_pays_nothing(market: Market) -> Told:
    """It has no balance before, and none after."""
    merchant = await market.wallet()
    payment = await market.ask(WRAPPED_SOL, to=merchant.key)
    close = models.CloseAccountParams(
        program_id=CLASSIC,
        account=WRAPPED_SOL.account(merchant.key),
        dest=merchant.key,
        owner=merchant.key,
    )
    payer = await market.wallet()
    await payer.run(*WRAPPED_SOL.wrap(payer.key, AMOUNT))
    signature = await payer.send(
        WRAPPED_SOL.create_account(payer.key, merchant.key),
        bound(WRAPPED_SOL.transfer(payer.key, merchant.key, AMOUNT), payment),
        spl.close_account(close),
        signers=[merchant.keypair],
    )
    return payment, unpaid(signature, Reason.WRONG_RECIPIENT)


@OF_TOKEN_ACCOUNTS.add
async def a_full_account_that_changes_hands_pays_nothing(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    account = await market.auxiliary_account(market.usdc, market.buyer.key, AMOUNT)
    give = _give_away(account, market.buyer.key, recipient(payment))
    signature = await market.buyer.send(give, mention(payment))
    return payment, unpaid(signature, Reason.NOT_BOUND, doubt=True)


@OF_TOKEN_ACCOUNTS.add
async def a_full_account_beside_one_unit_pays_one_unit(market: Market) -> Told:
    payment = await market.ask(market.usdc)
    account = await market.auxiliary_account(market.usdc, market.buyer.key, AMOUNT)
    signature = await market.buyer.send(
        market.account(payment, market.usdc),
        _give_away(account, market.buyer.key, recipient(payment)),
        market.tokens(payment, market.usdc, 1),
    )
    return payment, Ending(
        paid=Paid.PARTIAL,
        received=1,
        review=(Reason.BOOKS,),
        verdicts={signature: doubtful(1, Reason.BOOKS)},
        events=PARTIAL_AND_REVIEW,
    )


# -------------------------------------------------------------------------- out of own pocket


@OF_TOKEN_ACCOUNTS.add
async def the_recipients_other_account_pays_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(market.usdc, to=merchant.key)
    account = await market.auxiliary_account(market.usdc, merchant.key, AMOUNT)
    transfer = market.usdc.transfer(merchant.key, merchant.key, AMOUNT, source=account)
    signature = await merchant.send(
        market.usdc.create_account(merchant.key, merchant.key), bound(transfer, payment)
    )
    return payment, unpaid(signature, Reason.OWN_FUNDS, doubt=True)


@OF_TOKEN_ACCOUNTS.add
async def a_token_transfer_to_oneself_pays_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(market.usdc, to=merchant.key)
    await market.stock(market.usdc, merchant.key)
    transfer = market.usdc.transfer(merchant.key, merchant.key, AMOUNT)
    signature = await merchant.send(bound(transfer, payment))
    return payment, unpaid(signature, Reason.OWN_FUNDS, doubt=True)


@OF_TOKEN_ACCOUNTS.add
async def an_account_of_the_recipient_that_comes_and_goes_pays_nothing(market: Market) -> Told:
    """The customer's tokens pass through it, but only the recipient named the payment."""
    merchant, passing = await market.wallet(), Keypair()
    payment = await market.ask(market.usdc, to=merchant.key)
    token, account = market.usdc, passing.pubkey()
    close = models.CloseAccountParams(
        program_id=CLASSIC, account=account, dest=merchant.key, owner=merchant.key
    )
    onward = token.transfer(merchant.key, merchant.key, AMOUNT, source=account)
    signature = await market.buyer.send(
        market.account(payment, token),
        *await market.open_account(token, account, merchant.key, payer=market.buyer.key),
        _transfer_to(market, token, account),
        bound(onward, payment),
        spl.close_account(close),
        signers=[merchant.keypair, passing],
    )
    return payment, unpaid(signature, Reason.OWN_FUNDS)


@OF_TOKEN_ACCOUNTS.add
async def tokens_that_go_back_in_the_same_transaction_pay_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(market.usdc, to=merchant.key)
    signature = await market.buyer.send(
        market.account(payment, market.usdc),
        market.tokens(payment, market.usdc),
        market.usdc.transfer(merchant.key, market.buyer.key, AMOUNT),
        signers=[merchant.keypair],
    )
    return payment, unpaid(signature, Reason.DEBITED, review=(Reason.DEBITED,), doubt=True)


@OF_TOKEN_ACCOUNTS.add
async def tokens_that_are_burned_in_the_same_transaction_pay_nothing(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(market.usdc, to=merchant.key)
    burn = models.BurnParams(
        program_id=CLASSIC,
        account=market.usdc.account(merchant.key),
        mint=market.usdc.mint,
        owner=merchant.key,
        amount=AMOUNT,
    )
    signature = await market.buyer.send(
        market.account(payment, market.usdc),
        market.tokens(payment, market.usdc),
        spl.burn(burn),
        signers=[merchant.keypair],
    )
    return payment, unpaid(signature, Reason.DEBITED, review=(Reason.DEBITED,), doubt=True)


# ------------------------------------------------------------------------------ what they use


def _transfer_to(market: Market, token: Token, account: Pubkey) -> Instruction:
    transfer = models.TransferCheckedParams(
        program_id=token.program,
        source=token.account(market.buyer.key),
        mint=token.mint,
        dest=account,
        owner=market.buyer.key,
        amount=AMOUNT,
        decimals=token.decimals,
    )
    return spl.transfer_checked(transfer)


def _give_away(account: Pubkey, owner: Pubkey, to: Pubkey) -> Instruction:
    change = models.SetAuthorityParams(
        program_id=CLASSIC,
        account=account,
        authority=models.AuthorityType.ACCOUNT_OWNER,
        current_authority=owner,
        new_authority=to,
    )
    return spl.set_authority(change)
