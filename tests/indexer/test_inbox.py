"""Every stored webhook comes to an end, in spite of everything, and none delays another."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from api.wakeups import Wakeups
from indexer import inbox as inbox_module
from indexer.core.types import WebhookSource, WebhookVerdict
from indexer.errors import (
    Conflict,
    SourceRejected,
    SourceUnavailable,
    StoreBroken,
    StoreUnavailable,
)
from indexer.inbox import (
    AT_ONCE,
    ATTEMPTS_MAX,
    HELD_UP_ATTEMPTS,
    HELD_UP_ATTEMPTS_MAX,
    Handler,
    Inbox,
    Later,
)
from store import webhook_events
from store.database import Database, Rows, Statement, open_database
from store.migrate import migrate
from store.webhook_events import Outcome, WebhookEvent
from tests.builders import NOW, make_payment
from tests.indexer.receiving import PATIENCE_S, arrive, ended, event_of
from tests.indexer.stage import Clock
from tests.servers.fake_rpc import eventually
from tests.store.keeping import create


HELIUS, QUICKNODE, PAYMOB = WebhookSource
WAITING, DONE, IGNORED, REFUSED, FAILED, _ = WebhookVerdict
ORDER = make_payment()
HANDLED = Outcome(verdict=DONE, detail="looked at", payment_ids=(ORDER.terms.id,))


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    await create(database, ORDER)
    yield database
    await database.close()


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(inbox_module, "BREATH_S", 0.001)
    monkeypatch.setattr(inbox_module, "PAUSE_S", 0.01)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


class Told:
    """A handler that answers by a script, the last line for ever, and remembers whom it saw."""

    def __init__(self, *script: Outcome | Exception) -> None:
        self._script = list(script)
        self.seen: list[int] = []

    async def __call__(self, event: WebhookEvent) -> Outcome:
        self.seen.append(event.id)
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def running(
    database: Database,
    handlers: Mapping[WebhookSource, Handler],
    clock: Callable[[], float],
    wakeups: Wakeups | None = None,
) -> AsyncIterator[tuple[Inbox, asyncio.Task[None]]]:
    inbox = Inbox(database, handlers, clock=clock, wait=(wakeups or Wakeups()).wait)
    task = asyncio.create_task(inbox.run())
    try:
        yield inbox, task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# --------------------------------------------------------------------------- the plain way


@pytest.mark.parametrize(
    "outcome",
    [
        HANDLED,
        Outcome(verdict=IGNORED, detail="it names nobody here"),
        Outcome(verdict=REFUSED, detail="the body is not JSON"),
    ],
    ids=lambda outcome: outcome.verdict,
)
async def test_an_event_ends_as_its_handler_says(
    database: Database, clock: Clock, outcome: Outcome
) -> None:
    told = Told(outcome)
    event_id = await arrive(database, now=NOW)
    async with running(database, {HELIUS: told}, clock):
        [event] = await ended(database, event_id)

    assert (event.verdict, event.detail) == (outcome.verdict, outcome.detail)
    assert event.payment_ids == outcome.payment_ids
    assert event.attempts == 1
    assert told.seen == [event_id]


async def test_what_is_stored_while_it_waits_is_begun_when_woken(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "POLL_INTERVAL_S", 10 * PATIENCE_S)
    wakeups = Wakeups()
    async with running(database, {HELIUS: Told(HANDLED)}, clock, wakeups):
        for n in range(20):  # wherever the inbox is just now
            event_id = await arrive(database, [n], now=NOW)
            wakeups.wake()
            await ended(database, event_id)


async def test_what_is_stored_while_it_looks_is_not_slept_over(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "POLL_INTERVAL_S", 10 * PATIENCE_S)
    wakeups, read, ids = Wakeups(), database.read, list[int]()

    async def read_just_before(batch: Sequence[Statement]) -> list[Rows]:
        rows = await read(batch)
        if "webhook_events_waiting" in batch[0].sql and not ids:
            ids.append(0)
            ids[0] = await arrive(database, now=NOW)
            wakeups.wake()
        return rows

    monkeypatch.setattr(database, "read", read_just_before)
    async with running(database, {HELIUS: Told(HANDLED)}, clock, wakeups):
        await eventually(lambda: ids and ids[0])
        await ended(database, *ids)


async def test_what_another_process_stored_is_found_without_being_woken(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    other = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    async with running(database, {HELIUS: Told(HANDLED)}, clock):
        await ended(database, await arrive(other, now=NOW))
    await other.close()


async def test_events_begin_in_the_order_in_which_they_came(
    database: Database, clock: Clock
) -> None:
    told = Told(HANDLED)
    ids = [await arrive(database, [n], now=NOW) for n in range(3 * AT_ONCE)]
    async with running(database, {HELIUS: told}, clock):
        await ended(database, *ids)

    assert told.seen == ids


async def test_a_full_inbox_is_emptied_without_a_wait_between(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "POLL_INTERVAL_S", 10 * PATIENCE_S)
    ids = [await arrive(database, [n], now=NOW) for n in range(5 * AT_ONCE)]
    async with running(database, {HELIUS: Told(HANDLED)}, clock):
        await ended(database, *ids)


async def test_a_source_without_a_handler_waits_for_one(database: Database, clock: Clock) -> None:
    ours, others = await arrive(database, now=NOW), await arrive(database, source=PAYMOB, now=NOW)
    async with running(database, {HELIUS: Told(HANDLED)}, clock):
        await ended(database, ours)
    assert (await event_of(database, others)).verdict is WAITING

    async with running(database, {PAYMOB: Told(HANDLED)}, clock):
        await ended(database, others)


# -------------------------------------------------------------------------- not held up


async def test_slow_events_hold_up_neither_each_other_nor_other_sources(
    database: Database, clock: Clock
) -> None:
    gate = asyncio.Event()
    begun: list[int] = []

    async def slow(event: WebhookEvent) -> Outcome:
        begun.append(event.id)
        await gate.wait()
        return HANDLED

    crowd = [await arrive(database, [n], now=NOW) for n in range(AT_ONCE + 3)]
    async with running(database, {HELIUS: slow, QUICKNODE: Told(HANDLED)}, clock):
        await eventually(lambda: len(begun) == AT_ONCE)
        await ended(database, await arrive(database, source=QUICKNODE, now=NOW))
        assert begun == crowd[:AT_ONCE], "no more of a source are under way than it has places"

        gate.set()
        await ended(database, *crowd)

    assert begun == crowd, "nothing was begun twice while it was under way"


async def test_one_that_is_put_off_does_not_keep_the_next_one_waiting(
    database: Database, clock: Clock
) -> None:
    first = await arrive(database, [1], now=NOW)

    async def handle(event: WebhookEvent) -> Outcome:
        if event.id == first:
            raise Later("not yet")
        return HANDLED

    second = await arrive(database, [2], now=NOW)
    async with running(database, {HELIUS: handle}, clock):
        await ended(database, second)

        event = await event_of(database, first)
        assert (event.verdict, event.detail, event.attempts) == (WAITING, "not yet", 1)


# ------------------------------------------------------------------------------ tried again


NOT_YET = [
    Later("no node has it"),
    SourceUnavailable("a timeout"),
    SourceRejected("no such method"),
    StoreUnavailable("locked"),
    Conflict("somebody was faster"),
]


@pytest.mark.parametrize("error", NOT_YET, ids=repr)
async def test_what_cannot_be_said_yet_is_tried_again_after_a_pause(
    database: Database, clock: Clock, error: Exception
) -> None:
    told = Told(error, error, HANDLED)
    event_id = await arrive(database, now=NOW)
    async with running(database, {HELIUS: told}, clock):
        for attempt, pause_s in ((1, 1), (2, 2)):
            async with asyncio.timeout(PATIENCE_S):
                while (event := await event_of(database, event_id)).attempts != attempt:
                    await asyncio.sleep(0.005)
            assert event.verdict is WAITING
            assert event.detail == str(error)
            assert event.next_try_at == int(clock()) + pause_s
            clock.now += pause_s
        [event] = await ended(database, event_id)

    assert (event.verdict, event.attempts) == (DONE, 3)


async def test_it_is_given_up_after_minutes_of_growing_pauses(
    database: Database, clock: Clock
) -> None:
    told = Told(Later("5x: no node has it", payment_ids=(ORDER.terms.id,)))
    event_id = await arrive(database, now=NOW)
    begun, pauses = clock.now, []
    async with running(database, {HELIUS: told}, clock), asyncio.timeout(PATIENCE_S):
        while (event := await event_of(database, event_id)).verdict is WAITING:
            assert event.next_try_at is not None
            if event.next_try_at > clock.now:
                pauses.append(event.next_try_at - clock.now)
                clock.now = event.next_try_at
            await asyncio.sleep(0.005)

    assert event.verdict is FAILED
    assert event.detail == f"given up after {ATTEMPTS_MAX} attempts: 5x: no node has it"
    assert event.payment_ids == (ORDER.terms.id,), "what it was about as far as is known"
    assert len(told.seen) == event.attempts == ATTEMPTS_MAX
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert 120 <= clock.now - begun <= 300


async def test_what_others_hold_up_is_tried_for_a_day(database: Database, clock: Clock) -> None:
    away = SourceUnavailable("no answer")
    told = Told(*[away] * HELD_UP_ATTEMPTS_MAX)
    event_id = await arrive(database, now=NOW)
    begun = clock.now
    async with running(database, {HELIUS: told}, clock), asyncio.timeout(PATIENCE_S):
        while (event := await event_of(database, event_id)).verdict is WAITING:
            assert event.next_try_at is not None
            clock.now = max(clock.now, event.next_try_at)
            await asyncio.sleep(0.005)

    assert (event.verdict, event.attempts) == (FAILED, HELD_UP_ATTEMPTS_MAX)
    assert 80_000 <= clock.now - begun <= 90_000


async def test_what_holds_events_up_for_long_is_told_until_it_is_over(
    database: Database, clock: Clock
) -> None:
    told = Told(*[SourceUnavailable("a timeout")] * HELD_UP_ATTEMPTS, HANDLED)
    event_id = await arrive(database, now=NOW)
    async with running(database, {HELIUS: told}, clock) as (inbox, _), asyncio.timeout(PATIENCE_S):
        for attempt in range(1, HELD_UP_ATTEMPTS + 1):
            assert inbox.problem is None
            while (await event_of(database, event_id)).attempts != attempt:
                await asyncio.sleep(0.005)
            clock.now += 100 * (attempt < HELD_UP_ATTEMPTS)
        assert inbox.problem == "webhooks that are held up: 1; the last one: a timeout"

        clock.now += 100
        await ended(database, event_id)
        assert inbox.problem is None


async def test_what_is_held_up_no_more_is_told_no_more(database: Database, clock: Clock) -> None:
    """The chain answers again, and knows nothing of the transaction: that is no problem of ours."""
    told = Told(*[SourceUnavailable("a timeout")] * HELD_UP_ATTEMPTS, Later("no node has it"))
    event_id = await arrive(database, now=NOW)
    async with running(database, {HELIUS: told}, clock) as (inbox, _), asyncio.timeout(PATIENCE_S):
        for attempt in range(1, HELD_UP_ATTEMPTS + 2):
            while (await event_of(database, event_id)).attempts != attempt:
                await asyncio.sleep(0.005)
            clock.now += 100 * (attempt < HELD_UP_ATTEMPTS)
            if attempt == HELD_UP_ATTEMPTS:
                assert inbox.problem is not None
                clock.now += 100
        assert inbox.problem is None


async def test_what_was_made_up_is_no_problem_of_ours(database: Database, clock: Clock) -> None:
    told = Told(Later("no node has it"))
    event_id = await arrive(database, now=NOW)
    async with running(database, {HELIUS: told}, clock) as (inbox, _):
        while (await event_of(database, event_id)).verdict is not FAILED:
            clock.now += 100
            await asyncio.sleep(0.005)
            assert inbox.problem is None


# ------------------------------------------------------------------------ the store, faults


def failing_writes(database: Database, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    write, left = database.write, iter(range(times))

    async def fail_first(batch: Sequence[Statement]) -> list[Rows]:
        if next(left, None) is not None:
            raise StoreUnavailable("disk full")
        return await write(batch)

    monkeypatch.setattr(database, "write", fail_first)


async def test_an_end_that_cannot_be_stored_is_come_to_again(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(HANDLED)
    event_id = await arrive(database, now=NOW)
    failing_writes(database, monkeypatch, 3)
    async with running(database, {HELIUS: told}, clock) as (inbox, _):
        [event] = await ended(database, event_id)
        await eventually(lambda: inbox.problem is None)

    assert (event.verdict, event.attempts) == (DONE, 1)
    assert told.seen == [event_id] * 4


async def test_a_store_that_cannot_be_read_costs_time_only(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_id = await arrive(database, now=NOW)
    read, is_down = database.read, True

    async def fail_while_down(batch: Sequence[Statement]) -> list[Rows]:
        if is_down and "webhook_events_waiting" in batch[0].sql:
            raise StoreUnavailable("locked")
        return await read(batch)

    monkeypatch.setattr(database, "read", fail_while_down)
    async with running(database, {HELIUS: Told(HANDLED)}, clock) as (inbox, _):
        await eventually(lambda: inbox.problem == "locked")
        is_down = False
        await ended(database, event_id)
        await eventually(lambda: inbox.problem is None)


async def test_a_process_that_dies_meanwhile_leaves_the_event_to_the_next_one(
    database: Database, clock: Clock
) -> None:
    begun = asyncio.Event()

    async def forever(_: WebhookEvent) -> Outcome:
        begun.set()
        await asyncio.sleep(3_600)
        raise AssertionError

    event_id = await arrive(database, now=NOW)
    async with running(database, {HELIUS: forever}, clock), asyncio.timeout(PATIENCE_S):
        await begun.wait()
    assert (await event_of(database, event_id)).verdict is WAITING

    async with running(database, {HELIUS: Told(HANDLED)}, clock):
        [event] = await ended(database, event_id)
    assert event.verdict is DONE


async def test_a_fault_of_ours_sets_the_event_aside_and_ends_nothing_else(
    database: Database, clock: Clock
) -> None:
    poison = await arrive(database, [1], now=NOW)
    told = Told(KeyError("a bug"), HANDLED)
    async with running(database, {HELIUS: told}, clock) as (inbox, task):
        [event] = await ended(database, poison)
        assert (event.verdict, event.attempts) == (FAILED, 1)
        assert event.detail == "a fault of ours: KeyError"
        await eventually(lambda: inbox.problem is not None)
        assert f"whe_{poison}: a fault of ours: KeyError" in (inbox.problem or "")

        await ended(database, await arrive(database, [2], now=NOW))
        assert not task.done()

        await database.write([webhook_events.reopen(poison, NOW)])
        assert (await ended(database, poison))[0].verdict is DONE
        await eventually(lambda: inbox.problem is None)


async def test_a_damaged_database_ends_the_process(database: Database, clock: Clock) -> None:
    event_id = await arrive(database, now=NOW)
    with pytest.raises(ExceptionGroup) as raised:
        async with running(database, {HELIUS: Told(StoreBroken("malformed"))}, clock) as (_, task):
            await asyncio.wait({task}, timeout=PATIENCE_S)

    assert raised.group_contains(StoreBroken)
    assert (await event_of(database, event_id)).verdict is WAITING


async def test_large_events_are_under_way_one_by_one_and_small_ones_beside_them(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "BYTES_AT_ONCE_MAX", 1_000)
    gate, begun = asyncio.Event(), list[int]()

    async def slow(event: WebhookEvent) -> Outcome:
        begun.append(event.id)
        await gate.wait()
        return HANDLED

    sizes = (5_000, 600, 300, 200)  # the first is larger than all may be together
    ids = [await arrive(database, b"x" * size, now=NOW) for size in sizes]
    async with running(database, {HELIUS: slow}, clock):
        await eventually(lambda: begun == ids[:1])
        small = await arrive(database, [1], source=QUICKNODE, now=NOW)
        async with running(database, {QUICKNODE: Told(HANDLED)}, clock):
            await ended(database, small)
        assert begun == ids[:1]

        gate.set()
        await ended(database, *ids)

    assert begun == ids


async def test_bodies_that_fit_together_are_under_way_together(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "BYTES_AT_ONCE_MAX", 1_000)
    monkeypatch.setattr(inbox_module, "PAGE_BYTES_MAX", 1)
    most = asyncio.Semaphore(2)

    async def slow(_: WebhookEvent) -> Outcome:
        assert not most.locked(), "a third one has begun"
        async with most:
            await asyncio.sleep(0.001)
        return HANDLED

    ids = [await arrive(database, b"%d" % n * 400, now=NOW) for n in range(9)]
    async with running(database, {HELIUS: slow}, clock):
        assert {event.verdict for event in await ended(database, *ids)} == {DONE}


async def test_a_reason_is_kept_only_as_long_as_it_can_be_read(
    database: Database, clock: Clock
) -> None:
    event_id = await arrive(database, now=NOW)
    told = Told(Later("x" * 1_000_000))
    async with running(database, {HELIUS: told}, clock), asyncio.timeout(PATIENCE_S):
        while not (event := await event_of(database, event_id)).attempts:
            await asyncio.sleep(0.005)

    assert len(event.detail or "") == inbox_module.DETAIL_CHARS_MAX
