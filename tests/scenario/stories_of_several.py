"""Several payments in one transaction, and several transactions for one payment."""

from solders.keypair import Keypair

from indexer.core.payment import Payment
from indexer.core.types import Paid, Reason, Status
from indexer.demo.instructions import sol_transfer
from indexer.demo.wallet import Wallet
from tests.scenario.ending import (
    PARTIAL_AND_REVIEW,
    PARTIALLY_PAID,
    REVIEW,
    SETTLED,
    Ending,
    clean,
    doubtful,
    settled,
    unpaid,
)
from tests.scenario.market import AMOUNT, FEE, Market, bound, mention, recipient
from tests.scenario.story import Stories, Told


OF_SEVERAL = Stories()


# ---------------------------------------------------------------- payments in one transaction


@OF_SEVERAL.add
async def two_payments_in_one_transaction_get_each_its_own_transfer(
    market: Market,
) -> list[Told]:
    first, second = await _two(market)
    signature = await market.buyer.send(market.sol(first), market.sol(second))
    return [(payment, settled(signature, amount=AMOUNT)) for payment in (first, second)]


@OF_SEVERAL.add
async def two_token_payments_in_one_transaction_get_each_its_own_transfer(
    market: Market,
) -> list[Told]:
    merchant = Keypair().pubkey()
    first, second = [await market.ask(market.usdc, to=merchant) for _ in range(2)]
    signature = await market.buyer.send(
        market.account(first, market.usdc),
        market.tokens(second, market.usdc),
        market.tokens(first, market.usdc),
    )
    return [(payment, settled(signature, amount=AMOUNT)) for payment in (first, second)]


@OF_SEVERAL.add
async def two_recipients_in_one_transaction_do_not_share_their_money(market: Market) -> list[Told]:
    first, second = await market.ask(), await market.ask()
    signature = await market.buyer.send(market.sol(first, AMOUNT - 1_000), market.sol(second))
    return [
        (
            first,
            Ending(
                paid=Paid.PARTIAL,
                received=AMOUNT - 1_000,
                verdicts={signature: clean(AMOUNT - 1_000)},
                events=PARTIALLY_PAID,
            ),
        ),
        (second, settled(signature, amount=AMOUNT)),
    ]


@OF_SEVERAL.add
async def a_transfer_that_names_two_payments_pays_the_one_it_names_first(
    market: Market,
) -> list[Told]:
    return await _one_transfer_for(market, *await _two(market))


@OF_SEVERAL.add
async def a_transfer_that_names_the_younger_payment_first_pays_that(market: Market) -> list[Told]:
    older, younger = await _two(market)
    return await _one_transfer_for(market, younger, older)


@OF_SEVERAL.add
async def a_transfer_goes_past_a_payment_that_it_cannot_pay(market: Market) -> list[Told]:
    in_sol = await market.ask()
    in_tokens = await market.ask(market.usdc, to=recipient(in_sol))
    transfer = market.usdc.transfer(market.buyer.key, recipient(in_tokens), AMOUNT)
    signature = await market.buyer.send(
        market.account(in_tokens, market.usdc), bound(transfer, in_sol, in_tokens)
    )
    return [
        (in_sol, unpaid(signature, Reason.WRONG_MINT)),
        (in_tokens, settled(signature, amount=AMOUNT)),
    ]


@OF_SEVERAL.add
async def a_payment_that_is_only_mentioned_gets_nothing(market: Market) -> list[Told]:
    paid, mentioned = await _two(market)
    signature = await market.buyer.send(mention(mentioned), market.sol(paid))
    return [
        (paid, settled(signature, amount=AMOUNT)),
        (mentioned, unpaid(signature, Reason.NOT_BOUND)),
    ]


@OF_SEVERAL.add
async def two_payments_whose_fees_cannot_be_told_apart_are_for_a_person(
    market: Market,
) -> list[Told]:
    merchant, token = Keypair().pubkey(), market.taxed
    payments = [await market.ask(token, to=merchant) for _ in range(2)]
    signature = await market.buyer.send(
        market.account(payments[0], token), *(market.tokens(each, token) for each in payments)
    )
    least = AMOUNT - 2 * FEE.of(AMOUNT)
    ending = Ending(
        paid=Paid.PARTIAL,
        received=least,
        review=(Reason.BOOKS, Reason.FEE_UNKNOWN),
        verdicts={signature: doubtful(least, Reason.BOOKS, Reason.FEE_UNKNOWN)},
        events=PARTIAL_AND_REVIEW,
    )
    return [(payment, ending) for payment in payments]


@OF_SEVERAL.add
async def two_payments_whose_transfers_state_their_fees_settle(market: Market) -> list[Told]:
    merchant, token, net = Keypair().pubkey(), market.taxed, AMOUNT - FEE.of(AMOUNT)
    payments = [await market.ask(token, net, to=merchant) for _ in range(2)]
    transfer = token.transfer_with_fee(market.buyer.key, merchant, AMOUNT)
    signature = await market.buyer.send(
        market.account(payments[0], token), *(bound(transfer, each) for each in payments)
    )
    return [(payment, settled(signature, amount=net)) for payment in payments]


# ---------------------------------------------------------------- transactions of one payment


@OF_SEVERAL.add
async def a_part_and_then_the_rest_settle(market: Market) -> Told:
    payment = await market.ask()
    part = await market.pays(payment, amount=AMOUNT - 1)
    record = await market.deployment.until(payment, lambda r: r.payment.state.received > 0)
    assert record.payment.state.status is Status.PENDING
    rest = await market.buyer.send(market.sol(payment, 1))
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.EXACT,
        received=AMOUNT,
        verdicts={part: clean(AMOUNT - 1), rest: clean(1)},
        events=(*PARTIALLY_PAID, *SETTLED),
    )


@OF_SEVERAL.add
async def two_people_who_share_a_bill_settle_it(market: Market) -> Told:
    payment = await market.ask()
    half, friend = AMOUNT // 2, await market.wallet()
    one = await market.lands(await market.buyer.send(market.sol(payment, half)))
    await market.deployment.until(payment, lambda r: r.payment.state.received == half)
    other = await friend.send(market.sol(payment, half, by=friend.key))
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.EXACT,
        received=AMOUNT,
        verdicts={one: clean(half), other: clean(half)},
        events=(*PARTIALLY_PAID, *SETTLED),
    )


@OF_SEVERAL.add
async def too_much_settles(market: Market) -> Told:
    payment = await market.ask()
    signature = await market.pays(payment, amount=AMOUNT + 7)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.OVER,
        received=AMOUNT + 7,
        verdicts={signature: clean(AMOUNT + 7)},
        events=SETTLED,
    )


@OF_SEVERAL.add
async def a_payment_that_is_paid_twice_settles_once_and_asks_for_a_person(market: Market) -> Told:
    payment = await market.ask()
    first = await market.pays(payment)
    await market.deployment.until(payment, Status.SETTLED)
    second = await market.pays(payment)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.OVER,
        received=2 * AMOUNT,
        review=(Reason.PAID_AGAIN,),
        verdicts={first: clean(AMOUNT), second: clean(AMOUNT)},
        events=(*SETTLED, *REVIEW),
    )


@OF_SEVERAL.add
async def dust_first_leaves_a_payment_payable(market: Market) -> Told:
    payment = await market.ask(to=(await market.wallet()).key)
    dust = await market.lands(await market.pays(payment, amount=1))
    await market.deployment.until(payment, lambda r: r.payment.state.received == 1)
    whole = await market.pays(payment)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.OVER,
        received=AMOUNT + 1,
        verdicts={dust: clean(1), whole: clean(AMOUNT)},
        events=(*PARTIALLY_PAID, *SETTLED),
    )


@OF_SEVERAL.add
async def a_failure_first_leaves_a_payment_payable(market: Market) -> Told:
    payment, poor = await market.ask(), Wallet(market.cluster)
    await market.cluster.fund_sol(poor.key, AMOUNT)
    await market.fails(market.sol(payment, AMOUNT, by=poor.key), by=poor)
    return payment, settled(await market.pays(payment), amount=AMOUNT)


@OF_SEVERAL.add
async def a_doubtful_payment_leaves_a_clean_one_to_settle(market: Market) -> Told:
    """Both are the recipient's money; the second is what nobody doubts."""
    merchant = await market.wallet()
    payment = await market.ask(to=merchant.key)
    back = sol_transfer(merchant.key, market.buyer.key, 1_000)
    first = await market.buyer.send(
        market.sol(payment, AMOUNT + 1_000), back, signers=[merchant.keypair]
    )
    await market.deployment.until(payment, lambda r: r.payment.state.received == AMOUNT)
    second = await market.pays(payment)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.OVER,
        received=2 * AMOUNT,
        review=(Reason.DEBITED,),
        verdicts={first: doubtful(AMOUNT, Reason.DEBITED), second: clean(AMOUNT)},
        events=(*REVIEW, *SETTLED),
    )


@OF_SEVERAL.add
async def a_refund_does_not_undo_the_payment(market: Market) -> Told:
    merchant = await market.wallet()
    payment = await market.ask(to=merchant.key)
    paid = await market.pays(payment)
    await market.deployment.until(payment, Status.SETTLED)
    refund = bound(sol_transfer(merchant.key, market.buyer.key, AMOUNT), payment)
    refunded = await merchant.send(refund)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.EXACT,
        received=AMOUNT,
        verdicts={paid: clean(AMOUNT), refunded: doubtful(0, Reason.OWN_FUNDS)},
        events=SETTLED,
    )


@OF_SEVERAL.add
async def money_that_bounces_between_friends_pays_each_its_own(market: Market) -> list[Told]:
    """Each is the other's customer: what one gets, the other gave."""
    one, other = await market.wallet(), await market.wallet()
    owed, owing = await market.ask(to=one.key), await market.ask(to=other.key)
    signature = await one.send(
        market.sol(owing, by=one.key),
        market.sol(owed, by=other.key),
        signers=[other.keypair],
    )
    debited = unpaid(signature, Reason.DEBITED, review=(Reason.DEBITED,), doubt=True)
    return [(owed, debited), (owing, debited)]


async def _two(market: Market) -> tuple[Payment, Payment]:
    """Two payments to one new wallet."""
    merchant = Keypair().pubkey()
    return await market.ask(to=merchant), await market.ask(to=merchant)


async def _one_transfer_for(market: Market, named_first: Payment, other: Payment) -> list[Told]:
    transfer = sol_transfer(market.buyer.key, recipient(named_first), AMOUNT)
    signature = await market.buyer.send(bound(transfer, named_first, other))
    taken = Reason.ALREADY_ALLOCATED
    return [
        (named_first, settled(signature, amount=AMOUNT)),
        (other, unpaid(signature, taken, review=(taken,))),
    ]
