"""Whatever becomes of callbacks, an inquiry finds the money, and nothing expires before one."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer import inquiries
from indexer.core.card_schedule import AT_EXPIRY_S, DAILY_S
from indexer.core.types import Status
from indexer.errors import StoreBroken, StoreError, StoreUnavailable
from store import cards, payments
from store.database import Rows, Statement
from tests.builders import NOW, make_event, make_payment
from tests.cards import EXPIRES_IN_S, GRACE_S
from tests.indexer.acquiring import acquiring
from tests.servers.fake_rpc import http
from tests.servers.faults import hang_up


EXPIRES_AT = NOW + EXPIRES_IN_S
PATIENCE_S = 90.0


async def test_with_all_callbacks_lost_an_inquiry_finds_the_money(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        payment = await it.expect()
        charge = await it.fake.pay(payment.terms.id)
        it.clock.now = NOW + 60

        assert await it.inquiries.check_due() == (True, False)

        record = await it.record(payment)
        assert record.payment.state.status is Status.SETTLED
        assert [each.id for each in record.charges] == [charge]
        assert await it.due_at(payment) == NOW + 180
        assert it.inquiries.checks == 1


async def test_nothing_is_asked_before_it_is_due(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        await it.expect()
        it.clock.now = NOW + 59

        assert await it.inquiries.check_due() == (True, False)

        assert it.fake.count("inquiry") == 0


async def test_a_payment_expires_by_an_answer_that_came_after_its_deadline(
    tmp_path: Path,
) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        it.clock.now = EXPIRES_AT
        assert (await it.check(payment)).payment.state.status is Status.PENDING
        assert await it.due_at(payment) == EXPIRES_AT + AT_EXPIRY_S
        it.clock.now = EXPIRES_AT + AT_EXPIRY_S

        await it.inquiries.check_due()

        assert await it.events(payment) == ["created", "expired"]
        assert await it.due_at(payment) == NOW + 1_800


@pytest.mark.parametrize("fault", [http(503), http(401), http(200, body=b"{}")])
async def test_it_does_not_expire_while_nobody_answers(
    tmp_path: Path, fault: Callable[..., Any]
) -> None:
    async with acquiring(tmp_path) as it:
        payment = await it.expect()
        it.clock.now = EXPIRES_AT + AT_EXPIRY_S
        it.fake.fail("inquiry", fault, times=9)

        assert await it.inquiries.check_due() == (False, False)

        assert await it.status(payment) == Status.PENDING
        assert "Paymob" in (it.inquiries.problem or "")
        assert await it.due_at(payment) == it.clock.now + inquiries.FAILED_PAUSE_S
        it.fake.heal()
        it.clock.now += inquiries.FAILED_PAUSE_S
        assert await it.inquiries.check_due() == (True, False)
        assert await it.status(payment) == Status.EXPIRED
        assert it.inquiries.problem is None


async def test_an_attempt_under_way_holds_up_its_end(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        payment = await it.expect()
        charge = await it.fake.begin(payment.terms.id)
        it.clock.now = EXPIRES_AT + AT_EXPIRY_S
        assert (await it.check(payment)).payment.state.status is Status.PROCESSING
        await it.fake.finish(charge)
        it.clock.now += 60

        state = (await it.check(payment)).payment.state

        assert (state.status, state.late) == (Status.SETTLED, True)


async def test_late_money_settles_within_the_grace_time_only(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        late, too_late = await it.expect(), await it.expect()
        for payment, now in (
            (late, EXPIRES_AT + GRACE_S),
            (too_late, EXPIRES_AT + GRACE_S + 1),
        ):
            it.clock.now = EXPIRES_AT + AT_EXPIRY_S
            await it.check(payment)
            await it.fake.pay(payment.terms.id)
            it.clock.now = now
            await it.check(payment)

        assert await it.events(late) == ["created", "expired", "settled"]
        assert (await it.record(too_late)).payment.state.review == ("late_after_grace",)
        assert await it.status(too_late) == Status.EXPIRED


async def test_a_refund_whose_callback_was_lost_is_found_later(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        payment = await it.expect()
        charge = await it.fake.pay(payment.terms.id)
        await it.check(payment)
        await it.fake.refund(charge)
        it.clock.now = EXPIRES_AT + AT_EXPIRY_S + 2 * DAILY_S

        assert (await it.check(payment)).payment.state.status is Status.REFUNDED

        assert await it.due_at(payment) == EXPIRES_AT + AT_EXPIRY_S + 3 * DAILY_S
        it.clock.now = EXPIRES_AT + AT_EXPIRY_S + 3 * DAILY_S
        await it.check(payment)
        assert await it.due_at(payment) is None, "no news is expected any more"


async def test_an_earlier_charge_is_asked_about_by_itself(tmp_path: Path) -> None:
    """An inquiry tells of the latest charge of an order only."""
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        payment = await it.expect()
        first = await it.fake.begin(payment.terms.id)
        await it.check(payment)
        await it.fake.decline(payment.terms.id)
        await it.fake.finish(first)

        record = await it.check(payment)

        assert record.payment.state.status is Status.SETTLED
        assert [each.state for each in record.charges] == ["paid", "declined"]


async def test_an_order_whose_answer_was_lost_is_asked_about_by_our_name_of_it(
    tmp_path: Path,
) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.fail("intention", hang_up(), after=True)
        payment = await it.expect()
        lost, second = (await it.record(payment)).orders
        assert (lost.order_id, lost.checkout_url) == (None, None)
        assert second.special_reference == f"{payment.terms.id}-2"
        it.fake.loses = True
        charge = await it.fake.pay(lost.special_reference)

        record = await it.check(payment)

        assert record.orders[0].order_id == it.fake.order(payment.terms.id).id
        assert [each.id for each in record.charges] == [charge]
        assert record.payment.state.status is Status.SETTLED


async def test_an_answer_about_another_order_is_none(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        payment, other = await it.expect(), await it.expect()
        await it.fake.begin(payment.terms.id)
        await it.check(payment)
        [charge] = (await it.record(payment)).charges
        it.fake.transactions[charge.id]["order"]["id"] = it.fake.order(other.terms.id).id
        it.fake.order(payment.terms.id).transactions.clear()
        it.fake.transactions[charge.id].update(pending=False, success=True)

        await it.check(payment)

        assert await it.status(payment) == Status.PROCESSING
        assert (await it.record(payment)).charges == (charge,)


async def test_an_answer_that_contradicts_the_last_one_is_none(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        payment = await it.expect()
        charge = await it.fake.begin(payment.terms.id)
        await it.check(payment)
        it.fake.transactions[charge].update(pending=False, success=True, amount_cents=1)
        it.clock.now = NOW + 180

        assert await it.inquiries.check_due() == (False, False)

        assert "contradicts itself" in (it.inquiries.problem or "")
        assert await it.status(payment) == Status.PROCESSING


async def test_a_payment_that_nobody_answers_about_holds_up_no_other(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        bad, good = await it.expect(), await it.expect()
        for payment in (bad, good):
            await it.fake.pay(payment.terms.id)
        it.fake.transactions[it.fake.order(bad.terms.id).transactions[0]]["currency"] = "XX"
        it.clock.now = NOW + 60

        assert await it.inquiries.check_due() == (True, False)

        assert await it.status(good) == Status.SETTLED
        assert (it.inquiries.checks, it.inquiries.failed_checks) == (1, 1)
        assert "1 payments" in (it.inquiries.problem or "")


async def test_when_nobody_answers_most_are_not_even_asked_about(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        for _ in range(12):
            await it.expect()
        it.fake.fail("inquiry", http(503), times=99)
        it.clock.now = NOW + 60

        assert await it.inquiries.check_due() == (False, False)

        assert it.fake.count("inquiry") < 12
        begun = 2 * inquiries.CHECKS_AT_ONCE - 1
        assert len(await cards.due(it.database, NOW + 60, 99)) >= 12 - begun


async def test_a_fault_of_ours_over_one_payment_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        bad, good = await it.expect(), await it.expect()
        for payment in (bad, good):
            await it.fake.pay(payment.terms.id)
        inquire, bad_order = it.client.inquire, (await it.record(bad)).orders[0].order_id

        async def buggy(*, order_id: int) -> Any:
            if order_id == bad_order:
                raise KeyError("a bug")
            return await inquire(order_id=order_id)

        monkeypatch.setattr(it.client, "inquire", buggy)
        it.clock.now = NOW + 60

        assert await it.inquiries.check_due() == (True, False)

        assert await it.status(good) == Status.SETTLED
        assert await it.status(bad) == Status.PENDING
        assert await it.due_at(bad) == NOW + 60 + inquiries.FAILED_PAUSE_S
        assert (it.inquiries.problem or "").endswith("a fault of ours: KeyError")


@pytest.mark.parametrize("error", [StoreUnavailable("disk full"), StoreBroken("malformed")])
async def test_a_store_that_fails_is_no_fault_of_the_payment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: StoreError
) -> None:
    async with acquiring(tmp_path) as it:
        payments_due = [await it.expect() for _ in range(3)]
        it.clock.now = NOW + 60

        async def fail(_: Sequence[Statement]) -> list[Rows]:
            await asyncio.sleep(0)
            raise error

        monkeypatch.setattr(it.database, "write", fail)
        with pytest.raises((type(error), ExceptionGroup)) as raised:
            await it.inquiries.check_due()

        is_alone = isinstance(error, StoreUnavailable)
        assert is_alone == (raised.type is StoreUnavailable), "what is broken ends the process"
        assert is_alone or raised.group_contains(StoreBroken)
        due = await cards.due(it.database, NOW + 60, 9)
        assert len(due) == len(payments_due), "they stay due"


async def test_a_round_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiries, "CHECKS_PER_ROUND", 2)
    async with acquiring(tmp_path) as it:
        for _ in range(3):
            await it.expect()
        it.clock.now = NOW + 60

        assert await it.inquiries.check_due() == (True, True)
        assert await it.inquiries.check_due() == (True, False)

        assert it.inquiries.checks == 3


async def test_it_runs_until_it_is_ended_through_every_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INTERVAL_S", "PAUSE_S", "AWAY_PAUSE_S_MAX"):
        monkeypatch.setattr(inquiries, name, 0.01)
    monkeypatch.setattr(inquiries, "FAILED_PAUSE_S", 0)
    async with acquiring(tmp_path) as it:
        it.fake.loses = True
        it.fake.fail("inquiry", http(503), times=5)
        payment = await it.expect()
        await it.fake.pay(payment.terms.id)
        it.clock.now = NOW + 60
        running = asyncio.create_task(it.inquiries.run())

        async with asyncio.timeout(PATIENCE_S):
            while await it.status(payment) != Status.SETTLED:
                await asyncio.sleep(0.01)

        assert it.fake.count("inquiry") == 6
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_payment_on_the_chain_is_never_asked_about(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        order = make_payment()
        await it.database.write(payments.insert(order, make_event(order)))
        await it.inquiries.check(order.terms.id)

        assert it.fake.calls == []
