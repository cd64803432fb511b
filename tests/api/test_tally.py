import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api import tally as module
from api.errors import Problem
from api.limits import WEBHOOK_BYTES_AT_ONCE_MAX
from api.tally import DoorOutcome, Tally
from indexer.core.types import WebhookSource, WebhookVerdict
from store import migrate, webhook_events
from store.database import Database, open_database
from store.webhook_events import Entry
from tests.api.running import NOW, Clock


HELIUS, QUICKNODE, PAYMOB = WebhookSource


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path / 'axiom.db'}")
    await migrate.migrate(database)
    yield database
    await database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tally(database: Database, clock: Clock) -> Tally:
    return Tally(database, clock)


async def samples(database: Database) -> list[Entry]:
    return await webhook_events.page(database, limit=100)


async def test_everything_is_counted_from_zero(tally: Tally) -> None:
    assert len(tally.counts) == len(WebhookSource) * len(DoorOutcome)
    assert set(tally.counts.values()) == {0}

    tally.count(HELIUS, DoorOutcome.ACCEPTED)
    tally.count(HELIUS, DoorOutcome.ACCEPTED)
    tally.turn_away(PAYMOB, "192.0.2.1", "wrong hmac")

    assert {key: n for key, n in tally.counts.items() if n} == {
        (HELIUS, DoorOutcome.ACCEPTED): 2,
        (PAYMOB, DoorOutcome.UNAUTHENTICATED): 1,
    }


async def test_what_was_turned_away_is_one_row_for_each_source_and_hour(
    tally: Tally, database: Database, clock: Clock
) -> None:
    for number in range(1_000):
        tally.turn_away(HELIUS, f"192.0.2.{number % 256}", f"reason {number}")
    tally.turn_away(PAYMOB, "192.0.2.1", "wrong hmac")
    await tally.write()
    tally.turn_away(HELIUS, "198.51.100.1", "later")
    await tally.write()
    await tally.write()
    clock.now += 3_600
    tally.turn_away(HELIUS, "198.51.100.2", "an hour later")
    await tally.write()

    rows = [(e.source, e.repeats, e.address, e.detail) for e in await samples(database)]
    assert rows == [
        (HELIUS, 1, "198.51.100.2", "an hour later"),
        (PAYMOB, 1, "192.0.2.1", "wrong hmac"),
        (HELIUS, 1_001, "192.0.2.0", "later"),
    ]
    assert {e.verdict for e in await samples(database)} == {WebhookVerdict.UNAUTHENTICATED}


async def test_what_could_not_be_written_is_written_later(
    tally: Tally, database: Database, tmp_path: Path
) -> None:
    broken = await open_database(f"sqlite:///{tmp_path / 'other.db'}")
    await broken.close()
    tally.turn_away(HELIUS, "192.0.2.1", "first")
    tally._database = broken
    await tally.write()
    tally.turn_away(HELIUS, "192.0.2.2", "second")
    await tally.write()
    tally._database = database
    await tally.write()

    [row] = await samples(database)
    assert (row.repeats, row.detail) == (2, "second")


async def test_the_first_is_written_soon_and_the_next_ones_now_and_then(
    tally: Tally, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WEBHOOK_SAMPLE_EVERY_S", 0.05)
    running = asyncio.create_task(tally.run())
    tally.turn_away(HELIUS, "192.0.2.1", "first")
    async with asyncio.timeout(30):
        while not await samples(database):
            await asyncio.sleep(0.01)
        tally.turn_away(HELIUS, "192.0.2.1", "second")
        while (await samples(database))[0].repeats < 2:
            await asyncio.sleep(0.01)
    running.cancel()

    [row] = await samples(database)
    assert (row.repeats, row.received_at) == (2, NOW)


async def test_bytes_for_strangers_are_bounded_and_given_back(tally: Tally) -> None:
    half = WEBHOOK_BYTES_AT_ONCE_MAX // 2
    with tally.holding(QUICKNODE) as first:
        first(half)
        first(half)
        with pytest.raises(Problem) as caught, tally.holding(QUICKNODE) as second:
            second(1)
        assert (caught.value.status, caught.value.code) == (503, "busy")
        with tally.holding(PAYMOB) as other:
            other(WEBHOOK_BYTES_AT_ONCE_MAX)  # nobody is shut out by who came to another door

    with tally.holding(QUICKNODE) as third:
        third(WEBHOOK_BYTES_AT_ONCE_MAX)
