"""A receiver that is away, wants a pause or is gone is left alone; who is back gets everything."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from indexer import courier as courier_module
from indexer.core.delivery import GIVE_UP_AFTER_S
from indexer.courier import AT_ONCE, AWAY_AFTER, BATCH_SIZE, Courier
from indexer.errors import SourceUnavailable
from indexer.sources.outside import Reply
from store.database import Database, Rows, Statement, open_database
from store.deliveries import DeliveryState
from store.migrate import migrate
from store.webhook_endpoints import EndpointState
from tests.builders import NOW
from tests.indexer.posting import (
    OK,
    PATIENCE_S,
    Clock,
    Script,
    Sent,
    courier_of,
    ended,
    running,
    stored,
    tried,
    until,
)
from tests.store.sending import listed, receiver, register, tell


WAITING, DELIVERED, FAILED, DROPPED = DeliveryState
DEAD = SourceUnavailable("no connection: Connection refused")


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    yield database
    await database.close()


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "PROBE_PAUSE_S_MIN", 0.01)
    monkeypatch.setattr(courier_module, "PROBE_PAUSE_S_MAX", 0.02)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_who_is_away_is_tried_with_one_at_a_time_and_gets_all_when_back(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    count = BATCH_SIZE + 10
    await tell(database, *range(1, count + 1))
    script = Script(DEAD)
    courier = await courier_of(database, id_, script, clock)
    async with running(courier):
        await until(lambda: len(script.sent) >= AWAY_AFTER + AT_ONCE)
        await until(lambda: not script.at_once)
        script.at_once_max = 0
        before = len(script.sent)
        await until(lambda: len(script.sent) >= before + 5)
        assert script.at_once_max == 1
        assert before < count, "what was read already is not sent either"

        script.answers = [OK]
        found = await ended(database, count)

    assert {each.state for each in found} == {DELIVERED}
    assert clock.now == NOW, "those that had failed did not wait for their time"
    assert courier.outcomes["delivered"] == count


async def test_the_next_probe_waits_for_the_one_under_way(database: Database, clock: Clock) -> None:
    id_ = await register(database)
    await tell(database, *range(1, BATCH_SIZE))
    script = Script(DEAD)
    courier = await courier_of(database, id_, script, clock)
    async with running(courier):
        await until(lambda: courier._is_away and not courier._under_way)
        script.gate.clear()
        await until(lambda: script.at_once)
        await asyncio.sleep(0.1)  # several pauses between probes
        assert script.at_once == 1


class Loop:
    """The loop's own clock, moved by a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(courier_module, "PROBE_PAUSE_S_MIN", 5.0)
        monkeypatch.setattr(courier_module, "PROBE_PAUSE_S_MAX", 300.0)
        monkeypatch.setattr(Courier, "_time", lambda _: self.now)


async def test_the_pause_between_probes_grows_up_to_a_bound(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = await courier_of(database, await register(database), Script(), clock)
    loop, pauses = Loop(monkeypatch), []
    for _ in range(AWAY_AFTER + 40):
        courier._failed(0.0)
        pauses.append(max(0.0, courier._quiet_until - loop.now))
        loop.now += pauses[-1]

    assert pauses[: AWAY_AFTER + 8] == [0] * (AWAY_AFTER - 1) + [
        5, 10, 20, 40, 80, 160, 300, 300, 300,
    ]  # fmt: skip
    assert set(pauses[AWAY_AFTER + 8 :]) == {300}


async def test_those_that_were_under_way_when_it_went_away_make_no_pause_longer(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = await courier_of(database, await register(database), Script(), clock)
    loop = Loop(monkeypatch)
    for _ in range(AWAY_AFTER + AT_ONCE):
        courier._failed(0.0)

    assert courier._quiet_until == loop.now + 5


@pytest.mark.parametrize(("asked_s", "quiet_s"), [(60.0, 60), (299.0, 299), (86_400.0, 300)])
async def test_who_asks_for_a_pause_is_sent_nothing_at_all_for_a_while(
    database: Database,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    asked_s: float,
    quiet_s: int,
) -> None:
    """As long as it asks for, but not for hours: it may have meant this one webhook."""
    id_ = await register(database)
    await tell(database, 1)
    loop = Loop(monkeypatch)
    script = Script(Reply(status=429, retry_after_s=asked_s), OK)
    courier = await courier_of(database, id_, script, clock)
    async with running(courier):
        [first] = await listed(database)
        await tried(database, first.id)
        await until(lambda: not courier._under_way)
        assert not courier.is_ready
        await tell(database, 2)
        loop.now += quiet_s - 1
        assert not courier.is_ready
        await asyncio.sleep(0.05)
        assert script.places == [(1, 1)]
        loop.now += 1
        await until(lambda: courier.is_ready)
        await ended(database, 1)

    assert script.places == [(1, 1), (2, 1)]
    found = await stored(database, first.id)
    assert found.next_try_at == NOW + asked_s, "this one waits for as long as was asked for"


async def test_a_success_in_between_is_no_sign_of_being_away(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, *range(1, 3 * AWAY_AFTER + 1))
    bad = [Reply(status=500)] * (AWAY_AFTER - 1)
    script = Script(*bad, OK, *bad, OK, *bad, OK)
    courier = await courier_of(database, id_, script, clock)
    async with running(courier):
        await until(lambda: len(script.sent) == 3 * AWAY_AFTER and not script.at_once)
        assert not courier._is_away


async def test_what_a_receiver_has_not_taken_for_days_is_given_up_untried(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    old = range(1, BATCH_SIZE + 10)
    await tell(database, *old, at=NOW - GIVE_UP_AFTER_S - 1)
    await tell(database, 1_000, at=NOW - GIVE_UP_AFTER_S + 100)
    async with running(await courier_of(database, id_, Script(DEAD), clock)):
        found = await ended(database, len(old))

    assert [each.state for each in found] == [FAILED] * len(old) + [WAITING]


# ----------------------------------------------------------------------------------- gone


async def test_gone_disables_the_receiver_and_drops_what_waits(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, *range(1, BATCH_SIZE + 1))
    script = Script(Reply(status=410))
    async with running(await courier_of(database, id_, script, clock)):
        found = await ended(database, BATCH_SIZE)
        courier_is_quiet = len(script.sent)
        await asyncio.sleep(0.05)
        assert len(script.sent) == courier_is_quiet

    assert {each.state for each in found} == {DROPPED}
    assert len(script.sent) <= 2 * AT_ONCE, "what was read already is not sent either"
    endpoint = await receiver(database, id_)
    assert (endpoint.state, endpoint.state_reason) == (
        EndpointState.DISABLED,
        "it answered 410 Gone",
    )


async def test_gone_stops_what_was_read_already_while_others_are_under_way(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, *range(1, BATCH_SIZE + 1))

    class OneGone(Script):
        async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
            if len(self.sent) == 1:
                self.sent.append(Sent(url, headers, body))
                return Reply(status=410)
            return await super().post(url, headers, body)

    script = OneGone()
    script.gate.clear()
    async with running(await courier_of(database, id_, script, clock)):
        await ended(database, BATCH_SIZE)
        await asyncio.sleep(0.05)

    assert len(script.sent) == AT_ONCE


async def test_nothing_is_sent_while_it_is_being_written_that_the_receiver_is_gone(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    write, gate, writing = database.write, asyncio.Event(), asyncio.Event()

    async def slow(batch: Sequence[Statement]) -> list[Rows]:
        if len(batch) == 3 and "webhook_endpoints" in batch[1].sql:
            writing.set()
            await gate.wait()
        return await write(batch)

    monkeypatch.setattr(database, "write", slow)
    script = Script(Reply(status=410), OK)
    async with running(await courier_of(database, id_, script, clock)):
        async with asyncio.timeout(PATIENCE_S):
            await writing.wait()
        await tell(database, 2)
        await asyncio.sleep(0.05)
        assert script.places == [(1, 1)]
        gate.set()
        await ended(database, 2)

    assert script.places == [(1, 1)]
