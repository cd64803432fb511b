"""What Paymob says of a charge moves the one payment that it is about, once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from indexer import callbacks
from indexer.core import events, settle
from indexer.core.paymob import CallbackKind
from indexer.core.types import ChargeState, Status, WebhookVerdict
from indexer.errors import SourceError
from indexer.inbox import Later
from store import everything
from store.database import Statement
from tests.builders import NOW
from tests.cards import CARD_AMOUNT, EXPIRES_IN_S, GRACE_S
from tests.indexer.acquiring import acquiring
from tests.servers.fake_paymob import FakeCallback
from tests.servers.fake_rpc import http


EXPIRES_AT = NOW + EXPIRES_IN_S
PATIENCE_S = 90.0


def changed(callback: FakeCallback, **fields: Any) -> FakeCallback:
    """The callback with other values in it: what stands after a `__` is inside of an object."""
    body = json.loads(callback.body)
    for name, value in fields.items():
        outer, _, inner = name.partition("__")
        target = body["obj"][outer] if inner else body["obj"]
        target[inner or outer] = value
    return FakeCallback(url=callback.url, body=json.dumps(body).encode())


async def test_a_callback_settles_the_payment_of_its_order(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment, other = await it.expect(), await it.expect()
        count = it.wakeups.count
        charge = await it.fake.pay(payment.terms.id)
        it.clock.now += 5

        [outcome] = await it.told()

        assert (outcome.verdict, outcome.payment_ids) == (WebhookVerdict.DONE, (payment.terms.id,))
        record = await it.record(payment)
        assert record.payment.state.status is Status.SETTLED
        assert record.payment.state.received == CARD_AMOUNT
        assert record.payment.state.settled_at == NOW + 5, "when it was received"
        assert [each.id for each in record.charges] == [charge]
        assert await it.events(payment) == ["created", "settled"]
        assert await it.status(other) == Status.PENDING
        assert it.wakeups.count == count + 1


async def test_the_time_of_a_callback_is_when_it_came_not_when_it_is_handled(
    tmp_path: Path,
) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        await it.fake.pay(payment.terms.id)
        event = await it.stored(it.fake.held.pop())
        it.clock.now = EXPIRES_AT + GRACE_S + 999

        await it.callbacks.handle(event)

        state = (await it.record(payment)).payment.state
        assert (state.status, state.late, state.settled_at) == (Status.SETTLED, False, NOW)


async def test_the_same_callback_again_changes_nothing(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        it.fake.copies = 3
        await it.fake.pay(payment.terms.id)

        outcomes = await it.told()

        assert {outcome.verdict for outcome in outcomes} == {WebhookVerdict.DONE}
        assert await it.events(payment) == ["created", "settled"]
        assert (await it.record(payment)).payment.version == 2


async def test_callbacks_in_another_order_lead_to_the_same(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        charge = await it.fake.begin(payment.terms.id)
        await it.fake.finish(charge)
        it.fake.held.reverse()

        await it.told()

        assert await it.events(payment) == ["created", "settled"]
        assert await it.status(payment) == Status.SETTLED


async def test_a_card_that_is_declined_leaves_the_payment_payable(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        await it.fake.begin(payment.terms.id)
        await it.told()
        assert await it.status(payment) == Status.PROCESSING
        await it.fake.decline(payment.terms.id)
        await it.told()
        assert await it.status(payment) == Status.FAILED
        await it.fake.decline(payment.terms.id)
        await it.fake.pay(payment.terms.id)

        await it.told()

        assert await it.events(payment) == ["created", "detected", "failed", "settled"]
        states = [charge.state for charge in (await it.record(payment)).charges]
        assert states == ["pending", "declined", "declined", "paid"]


async def test_a_saved_card_is_acknowledged_and_not_kept(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        await it.fake.save_card(payment.terms.id)

        [outcome] = await it.told()

        assert outcome.verdict is WebhookVerdict.DONE
        assert await it.status(payment) == Status.PENDING


async def test_a_redirect_is_as_good_as_a_callback(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        charge = await it.fake.pay(payment.terms.id)
        body = it.fake.redirect_query(charge).encode()

        outcome = await it.callbacks.handle(await it.event(CallbackKind.REDIRECT, body))

        assert outcome.verdict is WebhookVerdict.DONE
        assert await it.status(payment) == Status.SETTLED


async def test_a_payment_is_never_found_by_what_is_not_signed(tmp_path: Path) -> None:
    """The order is that of one payment, and says that it is that of another."""
    async with acquiring(tmp_path) as it:
        cheap, dear = await it.expect(amount=100), await it.expect(amount=999_999)
        await it.inquiries.check(cheap.terms.id)
        await it.fake.pay(cheap.terms.id)
        forged = changed(it.fake.held.pop(), order__merchant_order_id=dear.terms.id)

        outcome = await it.callbacks.handle(await it.stored(forged))

        assert outcome.verdict is WebhookVerdict.REFUSED
        assert outcome.payment_ids == (cheap.terms.id,)
        assert "order.merchant_order_id" in (outcome.detail or "")
        for payment in (cheap, dear):
            assert await it.status(payment) == Status.PENDING
            assert (await it.record(payment)).charges == ()
        assert await it.due_at(cheap) == NOW, "what it stood in place of is asked for"
        await it.check(cheap)
        assert await it.status(cheap) == Status.SETTLED


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"owner": 4_302_852}, "owner"),
        ({"integration_id": 1}, "integration_id"),
        ({"currency": "USD"}, "currency"),
        ({"amount_cents": 0}, "amount_cents"),
    ],
)
async def test_what_is_not_about_this_deployment_is_refused(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        await it.fake.pay(payment.terms.id)

        outcome = await it.callbacks.handle(await it.stored(changed(it.fake.held.pop(), **fields)))

        assert outcome.verdict is WebhookVerdict.REFUSED
        assert named in (outcome.detail or "")
        assert (await it.record(payment)).charges == ()


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"type":"TOKEN","obj":{}}'])
@pytest.mark.parametrize("kind", [CallbackKind.TRANSACTION, CallbackKind.REDIRECT])
async def test_a_body_that_is_none_is_refused(
    tmp_path: Path, kind: CallbackKind, body: bytes
) -> None:
    async with acquiring(tmp_path) as it:
        outcome = await it.callbacks.handle(await it.event(kind, body))

        assert outcome.verdict is WebhookVerdict.REFUSED


async def test_an_order_that_nobody_knows_is_looked_for_again_and_then_refused(
    tmp_path: Path,
) -> None:
    """A callback may come before the write that makes the payment."""
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        await it.fake.pay(payment.terms.id)
        strange = changed(it.fake.held.pop(), order__id=99)

        for attempts in range(callbacks.UNKNOWN_TRIES):
            with pytest.raises(Later):
                await it.callbacks.handle(await it.stored(strange, attempts=attempts))
        outcome = await it.callbacks.handle(
            await it.stored(strange, attempts=callbacks.UNKNOWN_TRIES)
        )

        assert (outcome.verdict, outcome.payment_ids) == (WebhookVerdict.REFUSED, ())


async def test_a_charge_that_changes_its_amount_or_its_payment_is_refused(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        one, other = await it.expect(), await it.expect()
        charge = await it.fake.begin(one.terms.id)
        [first] = it.fake.held
        await it.told()
        await it.fake.begin(other.terms.id)
        [second] = it.fake.held

        for forged in (
            changed(first, amount_cents=1, pending=False, success=True),
            changed(second, id=charge, pending=False, success=True),
        ):
            outcome = await it.callbacks.handle(await it.stored(forged))
            assert outcome.verdict is WebhookVerdict.REFUSED

        assert await it.status(one) == Status.PROCESSING
        assert await it.status(other) == Status.PENDING


async def test_a_payment_in_another_currency_is_not_paid_by_it(tmp_path: Path) -> None:
    """The setting may change between a payment and its callback."""
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        await it.fake.pay(payment.terms.id)
        await it.database.write([Statement("DROP TRIGGER payments_terms_are_final")])
        await it.database.write([Statement("UPDATE payments SET symbol = 'SAR'")])

        [outcome] = await it.told()

        assert outcome.verdict is WebhookVerdict.REFUSED
        assert await it.status(payment) == Status.PENDING


@pytest.mark.parametrize("tells_parents", [False, True])
async def test_a_refund_is_what_paymob_says_when_it_is_asked(
    tmp_path: Path, *, tells_parents: bool
) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.tells_parents = tells_parents
        payment = await it.expect()
        charge = await it.fake.pay(payment.terms.id)
        await it.fake.refund(charge, 2_000)
        await it.told()
        record = await it.record(payment)
        assert record.payment.state.status is Status.SETTLED
        assert record.payment.state.review == ("partially_refunded",)
        await it.fake.refund(charge)

        await it.told()

        record = await it.record(payment)
        assert record.payment.state.status is Status.REFUNDED
        assert [(each.id, each.state, each.refunded) for each in record.charges] == [
            (charge, ChargeState.REFUNDED, CARD_AMOUNT)
        ]
        assert (await it.events(payment))[-1] == "refunded"


async def test_a_void_before_and_after_it_was_settled(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        early, late = await it.expect(), await it.expect()
        for payment in (early, late):
            charge = await it.fake.pay(payment.terms.id)
            if payment is late:
                await it.told()
            else:
                it.fake.held.clear()
            await it.fake.void(charge)
            await it.told()

        assert await it.events(early) == ["created", "failed"]
        assert await it.events(late) == ["created", "settled", "refunded"]


async def test_a_refund_that_nobody_can_be_asked_about_waits(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        charge = await it.fake.pay(payment.terms.id)
        await it.told()
        await it.fake.refund(charge)
        [refund] = it.fake.held
        it.fake.fail("transaction", http(503))

        with pytest.raises(SourceError):
            await it.told()
        it.fake.held = [refund]
        await it.told()

        assert await it.status(payment) == Status.REFUNDED


async def test_a_second_payment_in_full_is_for_a_person(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        await it.fake.pay(payment.terms.id)
        await it.fake.pay(payment.terms.id)

        await it.told()

        state = (await it.record(payment)).payment.state
        assert (state.status, state.paid, state.review) == ("settled", "over", ("paid_again",))
        assert await it.events(payment) == ["created", "settled", "review"]


async def test_money_that_comes_after_a_cancellation_is_for_a_person(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        record = await it.record(payment)
        canceled = settle.cancel(record.payment, NOW + 1)
        change = events.of_change(record.payment, canceled, NOW + 1)
        await it.database.write(everything.save(record, canceled, events=change, now=NOW + 1))
        await it.fake.pay(payment.terms.id)

        await it.told()

        state = (await it.record(payment)).payment.state
        assert (state.status, state.review) == ("canceled", ("paid_after_cancel",))
        assert await it.events(payment) == ["created", "canceled", "review"]


async def test_many_callbacks_at_once_lose_nothing(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        for _ in range(4):
            await it.fake.decline(payment.terms.id)
        await it.fake.pay(payment.terms.id)
        stored = [await it.stored(each) for each in it.fake.held * 2]

        await asyncio.gather(*(it.callbacks.handle(event) for event in stored))

        record = await it.record(payment)
        assert len(record.charges) == 5
        assert record.payment.state.status is Status.SETTLED
        assert (await it.events(payment)).count("settled") == 1
