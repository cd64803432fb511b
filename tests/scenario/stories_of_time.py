"""Deadlines that pass, with and without the money, and offers that are taken back."""

import asyncio
import base64

from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import (
    AdvanceNonceAccountParams,
    advance_nonce_account,
    create_nonce_account,
)
from solders.transaction import VersionedTransaction

from indexer.core.payment import Payment
from indexer.core.types import EventType, Paid, Reason, Status
from store import cursors
from tests.scenario.deployment import PATIENCE_S
from tests.scenario.ending import (
    EXPIRED,
    PARTIALLY_PAID,
    REVIEW,
    SETTLED,
    Ending,
    Events,
    clean,
)
from tests.scenario.market import AMOUNT, Market
from tests.scenario.story import Stories, Told


OF_TIME = Stories()

CANCELED: Events = (EventType.CANCELED,)

#: Seconds in which a payment is made in time also while the machine has other things to do.
IN_TIME_S = 8

#: In a nonce account's data, behind version, state and authority.
_NONCE_AT = 4 + 4 + 32


@OF_TIME.add
async def what_nobody_pays_expires(market: Market) -> Told:
    payment = await market.ask(expires_in_s=1)
    await market.deployment.until(payment, Status.EXPIRED)
    assert await _frontier_time(market) > payment.terms.expires_at
    return payment, Ending(status=Status.EXPIRED, events=EXPIRED)


@OF_TIME.add
async def a_part_that_came_in_time_does_not_keep_it_from_expiring(market: Market) -> Told:
    payment = await market.ask(expires_in_s=IN_TIME_S)
    part = await market.pays(payment, amount=AMOUNT // 2)
    await market.deployment.until(payment, Status.EXPIRED)
    return payment, Ending(
        status=Status.EXPIRED,
        paid=Paid.PARTIAL,
        received=AMOUNT // 2,
        verdicts={part: clean(AMOUNT // 2)},
        events=(*PARTIALLY_PAID, *EXPIRED),
    )


@OF_TIME.add
async def what_is_paid_within_the_grace_time_settles_late(market: Market) -> Told:
    payment = await market.ask(expires_in_s=1)
    await market.deployment.until(payment, Status.EXPIRED)
    signature = await market.pays(payment)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.EXACT,
        late=True,
        received=AMOUNT,
        verdicts={signature: clean(AMOUNT)},
        events=(*EXPIRED, *SETTLED),
    )


@OF_TIME.add
async def what_was_signed_in_time_and_sent_late_is_late(market: Market) -> Told:
    """A durable nonce keeps a signed transaction good for ever."""
    nonce, buyer = Keypair(), market.buyer
    await buyer.run(
        *create_nonce_account(buyer.key, nonce.pubkey(), buyer.key, AMOUNT), signers=[nonce]
    )
    payment = await market.ask(expires_in_s=1)
    advance = AdvanceNonceAccountParams(nonce_pubkey=nonce.pubkey(), authorized_pubkey=buyer.key)
    message = MessageV0.try_compile(
        buyer.key,
        [advance_nonce_account(advance), market.sol(payment)],
        [],
        await _nonce(market, nonce.pubkey()),
    )
    signed = VersionedTransaction(message, [buyer.keypair])
    await market.deployment.until(payment, Status.EXPIRED)
    signature = await market.cluster.send(signed)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.EXACT,
        late=True,
        received=AMOUNT,
        verdicts={signature: clean(AMOUNT)},
        events=(*EXPIRED, *SETTLED),
    )


@OF_TIME.add
async def what_is_paid_twice_within_the_grace_time_settles_once(market: Market) -> Told:
    payment = await market.ask(expires_in_s=1)
    await market.deployment.until(payment, Status.EXPIRED)
    first = await market.lands(await market.pays(payment))
    await market.deployment.until(payment, Status.SETTLED)
    second = await market.pays(payment, amount=AMOUNT + 1)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.OVER,
        late=True,
        received=2 * AMOUNT + 1,
        review=(Reason.PAID_AGAIN,),
        verdicts={first: clean(AMOUNT), second: clean(AMOUNT + 1)},
        events=(*EXPIRED, *SETTLED, *REVIEW),
    )


@OF_TIME.add
async def a_rest_that_comes_late_makes_all_of_it_late(market: Market) -> Told:
    payment = await market.ask(expires_in_s=IN_TIME_S)
    part = await market.pays(payment, amount=AMOUNT - 1)
    await market.deployment.until(payment, Status.EXPIRED)
    rest = await market.pays(payment, amount=2)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.OVER,
        late=True,
        received=AMOUNT + 1,
        verdicts={part: clean(AMOUNT - 1), rest: clean(2)},
        events=(*PARTIALLY_PAID, *EXPIRED, *SETTLED),
    )


@OF_TIME.add
async def what_is_paid_after_the_grace_time_is_for_a_person(market: Market) -> Told:
    payment = await market.ask(expires_in_s=1, grace_s=0)
    await _until_too_late(market, payment)
    signature = await market.pays(payment)
    return payment, Ending(
        status=Status.EXPIRED,
        paid=Paid.EXACT,
        late=True,
        received=AMOUNT,
        review=(Reason.LATE_AFTER_GRACE,),
        verdicts={signature: clean(AMOUNT)},
        events=(*EXPIRED, *REVIEW),
    )


@OF_TIME.add
async def a_part_after_the_grace_time_does_not_complete_it(market: Market) -> Told:
    payment = await market.ask(expires_in_s=IN_TIME_S, grace_s=0)
    part = await market.pays(payment, amount=AMOUNT - 1)
    await _until_too_late(market, payment)
    rest = await market.pays(payment, amount=1)
    return payment, Ending(
        status=Status.EXPIRED,
        paid=Paid.EXACT,
        late=True,
        received=AMOUNT,
        review=(Reason.LATE_AFTER_GRACE,),
        verdicts={part: clean(AMOUNT - 1), rest: clean(1)},
        events=(*PARTIALLY_PAID, *EXPIRED, *REVIEW),
    )


@OF_TIME.add
async def what_was_settled_in_time_is_not_late_for_what_comes_after(market: Market) -> Told:
    payment = await market.ask(expires_in_s=IN_TIME_S, grace_s=0)
    signature = await market.pays(payment)
    await _until_too_late(market, payment)
    more = await market.pays(payment, amount=7)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.OVER,
        received=AMOUNT + 7,
        verdicts={signature: clean(AMOUNT), more: clean(7)},
        events=SETTLED,
    )


@OF_TIME.add
async def what_is_canceled_stays_canceled_also_when_it_is_paid(market: Market) -> Told:
    payment = await market.ask()
    await market.deployment.cancel(payment)
    signature = await market.pays(payment)
    return payment, Ending(
        status=Status.CANCELED,
        paid=Paid.EXACT,
        received=AMOUNT,
        review=(Reason.PAID_AFTER_CANCEL,),
        verdicts={signature: clean(AMOUNT)},
        events=(*CANCELED, *REVIEW),
    )


@OF_TIME.add
async def what_is_canceled_with_a_part_paid_is_for_a_person(market: Market) -> Told:
    payment = await market.ask()
    part = await market.pays(payment, amount=1_000_000)
    await market.deployment.until(payment, lambda record: record.payment.state.received > 0)
    await market.deployment.cancel(payment)
    return payment, Ending(
        status=Status.CANCELED,
        paid=Paid.PARTIAL,
        received=1_000_000,
        review=(Reason.PAID_AFTER_CANCEL,),
        verdicts={part: clean(1_000_000)},
        events=(*PARTIALLY_PAID, *CANCELED, *REVIEW),
    )


@OF_TIME.add
async def what_is_canceled_does_not_expire(market: Market) -> Told:
    payment = await market.ask(expires_in_s=1, grace_s=0)
    await market.deployment.cancel(payment)
    await _until_too_late(market, payment)
    return payment, Ending(status=Status.CANCELED, events=CANCELED)


async def _until_too_late(market: Market, payment: Payment) -> None:
    """Waits until everything up to the deadline and its grace time is known."""
    deadline = payment.terms.expires_at + payment.terms.grace_s
    async with asyncio.timeout(PATIENCE_S):
        while await _frontier_time(market) <= deadline:
            await asyncio.sleep(0.05)


async def _nonce(market: Market, account: Pubkey) -> Hash:
    """What a nonce account holds, to be used as a blockhash."""
    answer = await market.cluster.call("getAccountInfo", str(account), {"encoding": "base64"})
    return Hash(base64.b64decode(answer["value"]["data"][0])[_NONCE_AT : _NONCE_AT + 32])


async def _frontier_time(market: Market) -> int:
    deployment = market.deployment
    frontier = await cursors.get(deployment.database, deployment.watch_key)
    return 0 if frontier is None or frontier.block_time is None else frontier.block_time
