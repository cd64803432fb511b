"""Whoever looks at an open payment has it looked for: soon, not too often, at no risk."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from api import checks as checks_module
from api.checks import Checks
from indexer.core.types import Status
from indexer.errors import StoreUnavailable
from store import cards, payments, reference_checks
from store.database import Database, Rows, Statement, open_database
from store.migrate import migrate
from tests.api.running import NOW, running
from tests.builders import make_event, make_payment
from tests.cards import due_at, make_card_payment, stored_card


class Watch:
    """Monotonic seconds that move only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Writes:
    """Stands in for a database: counts what is written, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[object] = []
        self.error = error

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        if self.error is not None:
            raise self.error
        self.asked += [statement.parameters[0] for statement in batch]
        return []


def checks(writes: Writes, watch: Watch) -> Checks:
    return Checks(writes, watch)  # type: ignore[arg-type]  # only `write` is needed


async def test_the_same_payment_is_asked_about_once_in_a_while() -> None:
    writes, watch, payment = Writes(), Watch(), make_payment()
    asking = checks(writes, watch)

    for seconds in (0, 0, 5, 4.75, 0.25, 9.75, 0.25):
        watch.now += seconds
        await asking.ask(payment, NOW)

    assert len(writes.asked) == 3, "after 0, 10 and 20 seconds"


async def test_two_who_ask_at_once_are_one() -> None:
    writes, payment = Writes(), make_payment()
    asking = checks(writes, Watch())

    await asyncio.gather(*(asking.ask(payment, NOW) for _ in range(5)))

    assert len(writes.asked) == 1


@pytest.mark.parametrize("status", Status)
async def test_only_open_payments_are_asked_about(status: Status) -> None:
    writes = Writes()

    await checks(writes, Watch()).ask(make_payment(status=status), NOW)

    assert bool(writes.asked) is (status in {Status.PENDING, Status.PROCESSING})


@pytest.mark.parametrize("status", Status)
async def test_of_payments_by_card_also_those_that_failed(status: Status) -> None:
    writes = Writes()

    await checks(writes, Watch()).ask(make_card_payment(status=status), NOW)

    assert bool(writes.asked) is (status in {Status.PENDING, Status.PROCESSING, Status.FAILED})


async def test_an_acquirer_is_asked_less_often_than_a_node() -> None:
    writes, watch, payment = Writes(), Watch(), make_card_payment()
    asking = checks(writes, watch)

    for seconds in (0, 0, 10, 19.75, 0.25, 29.75):
        watch.now += seconds
        await asking.ask(payment, NOW)

    assert len(writes.asked) == 2, "after 0 and 30 seconds"


async def test_a_get_of_a_payment_by_card_has_the_acquirer_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        payment = (await stored_card(api.database, check_at=NOW + 3_600)).payment

        await api.get(f"/api/pay/{payment.terms.id}")
        assert await due_at(api.database, payment.terms.id) == NOW

        await api.database.write([cards.answered(payment.terms.id, NOW + 3_600)])
        await api.get(f"/api/pay/{payment.terms.id}")
        assert await due_at(api.database, payment.terms.id) == NOW + 3_600


async def test_one_without_watch_key_is_looked_at_anyway() -> None:
    writes = Writes()

    await checks(writes, Watch()).ask(make_payment(watch_key=None), NOW)

    assert writes.asked == []


async def test_what_is_remembered_has_a_bound_and_so_has_the_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks_module, "CHECKS_REMEMBERED_MAX", 3)
    writes, watch = Writes(), Watch()
    asking = checks(writes, watch)

    for number in range(1, 10):
        await asking.ask(make_payment(number), NOW)
    assert len(writes.asked) == len(asking._on_chain._asked) == 3

    watch.now += 10
    for number in range(1, 10):
        await asking.ask(make_payment(number), NOW)
    assert len(writes.asked) == 6


@pytest.mark.parametrize("error", [StoreUnavailable("disk full"), TimeoutError()])
async def test_a_write_that_fails_is_nobodys_problem(error: Exception) -> None:
    await checks(Writes(error), Watch()).ask(make_payment(), NOW)


async def test_a_write_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_module, "CHECK_ASK_TIMEOUT_S", 0.01)
    writes = Writes()

    async def hang(_batch: Sequence[Statement]) -> list[Rows]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(writes, "write", hang)
    async with asyncio.timeout(30):
        await checks(writes, Watch()).ask(make_payment(), NOW)


async def due(database: Database, now: int) -> list[str]:
    return [each.payment_id for each in await reference_checks.due(database, now, 10)]


async def test_what_was_asked_is_due_now(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    try:
        await migrate(database)
        payment = make_payment()
        await database.write(payments.insert(payment, make_event(payment)))
        await database.write([reference_checks.again_at(payment.terms.id, NOW + 3_600)])

        await Checks(database, Watch()).ask(payment, NOW + 60)

        assert await due(database, NOW + 59) == []
        assert await due(database, NOW + 60) == [payment.terms.id]
    finally:
        await database.close()


async def test_a_get_asks_and_answers_also_when_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as api:
        id_ = (await api.create())["id"]
        await api.database.write([reference_checks.again_at(id_, NOW + 3_600)])

        assert (await api.get(f"/api/pay/{id_}"))[0] == 200
        assert await due(api.database, NOW) == [id_]

        async def fail(_batch: Sequence[Statement]) -> list[Rows]:
            raise StoreUnavailable("disk full")

        other = (await api.create("other"))["id"]
        monkeypatch.setattr(api.database, "write", fail)
        assert (await api.get(f"/api/pay/{other}"))[0] == 200
