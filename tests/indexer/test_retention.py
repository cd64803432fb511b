"""What is old is forgotten, a little at a time; what waits and what is money is not."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from indexer import retention as module
from indexer.core.types import WebhookVerdict
from indexer.errors import StoreUnavailable
from indexer.retention import DAY_S, Retention
from store import deliveries, payments, webhook_endpoints, webhook_events
from store.database import Database, Rows, Statement, open_database
from store.deliveries import Attempt
from store.migrate import migrate
from store.webhook_events import Outcome
from tests.builders import NOW, make_event, make_payment
from tests.indexer.receiving import arrive


DAYS = 90
OLD = NOW - DAYS * DAY_S - 1
YOUNG = NOW - DAYS * DAY_S
PATIENCE_S = 90.0

PAYMENT = make_payment(created_at=OLD)
ENDPOINT = "we_" + "0" * 26

ENDED = [verdict for verdict in WebhookVerdict if verdict is not WebhookVerdict.WAITING]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """With a receiver, and an old payment whose event was to be delivered to it."""
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    receiver = webhook_endpoints.create(
        id=ENDPOINT,
        url="https://receiver.example/",
        event_types=(),
        description=None,
        key_id="k",
        now=OLD,
        at_most=1,
    )
    await database.write([receiver, *payments.insert(PAYMENT, make_event(PAYMENT, created_at=OLD))])
    yield database
    await database.close()


def retention(database: Database) -> Retention:
    return Retention(database, days=DAYS, clock=lambda: float(NOW))


async def webhook(database: Database, at: int, verdict: WebhookVerdict) -> int:
    event_id = await arrive(database, now=at, name=f"{at} {verdict}")
    if verdict is not WebhookVerdict.WAITING:
        ids = (PAYMENT.terms.id,)
        done = Outcome(verdict=verdict, detail="", payment_ids=ids)
        await database.write(webhook_events.finish(event_id, done, NOW))
    return event_id


async def delivery(database: Database, at: int) -> int:
    """A test that was delivered then, at the second try."""
    [[(delivery_id,)]] = await database.write([deliveries.test(ENDPOINT, at)])
    tries = [
        deliveries.tried(
            delivery_id,
            Attempt(number=n, at=at, duration_ms=1, status=200, problem=None, response=""),
        )
        for n in (1, 2)
    ]
    await database.write([*tries, deliveries.delivered(delivery_id, at)])
    return int(delivery_id)


async def counted(database: Database, table: str) -> int:
    [[(count,)]] = await database.read([Statement(f"SELECT count(*) FROM {table}")])  # noqa: S608 - of this test
    return int(count)


async def kept(database: Database) -> list[int]:
    return [entry.id for entry in await webhook_events.page(database, limit=100)][::-1]


async def test_webhooks_are_forgotten_with_what_they_were_about(database: Database) -> None:
    old = [await webhook(database, OLD, verdict) for verdict in ENDED]
    young = [await webhook(database, YOUNG, verdict) for verdict in ENDED]
    assert await counted(database, "webhook_event_payments") == len(old) + len(young)

    assert await retention(database).prune() == (len(old), 0)

    assert await kept(database) == young
    assert await counted(database, "webhook_event_payments") == len(young)


async def test_a_webhook_that_waits_stays_however_old_it_is(database: Database) -> None:
    waits = await webhook(database, OLD, WebhookVerdict.WAITING)

    assert await retention(database).prune() == (0, 0)
    assert await kept(database) == [waits]


async def test_deliveries_are_forgotten_with_their_attempts(database: Database) -> None:
    old, young = await delivery(database, OLD), await delivery(database, YOUNG)

    assert await retention(database).prune() == (0, 1)

    assert await deliveries.get(database, old) is None
    found = await deliveries.get(database, young)
    assert found is not None
    assert len(found.history) == 2
    assert await counted(database, "webhook_attempts") == 2


async def test_a_delivery_that_waits_stays_however_old_it_is(database: Database) -> None:
    [waits] = await deliveries.page(database, limit=10)
    assert waits.created_at == OLD

    assert await retention(database).prune() == (0, 0)
    assert await deliveries.get(database, waits.id) is not None


async def test_payments_and_events_stay_for_ever(database: Database) -> None:
    [of_event] = await deliveries.page(database, limit=10)
    await database.write([deliveries.delivered(of_event.id, OLD)])

    assert await retention(database).prune() == (0, 1)

    assert await counted(database, "payments") == await counted(database, "events") == 1


async def test_many_are_deleted_batch_by_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_events, "PRUNED_MAX", 3)
    monkeypatch.setattr(module, "BATCH_SIZE", 3)
    monkeypatch.setattr(module, "BATCH_PAUSE_S", 0.0)
    batches: list[Sequence[Statement]] = []
    written = database.write

    async def write(batch: Sequence[Statement]) -> list[Rows]:
        batches.append(batch)
        return await written(batch)

    for n in range(7):
        await webhook(database, OLD - n, WebhookVerdict.DONE)
        await delivery(database, OLD - n)
    young = await webhook(database, YOUNG, WebhookVerdict.DONE)
    monkeypatch.setattr(database, "write", write)

    assert await retention(database).prune() == (7, 7)

    assert await kept(database) == [young]
    assert [len(batch) for batch in batches] == [1] * 6


async def test_a_round_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_events, "PRUNED_MAX", 1)
    monkeypatch.setattr(module, "BATCH_SIZE", 1)
    monkeypatch.setattr(module, "BATCHES_MAX", 2)
    for n in range(3):
        await webhook(database, OLD - n, WebhookVerdict.DONE)

    assert await retention(database).prune() == (2, 0)
    assert await retention(database).prune() == (1, 0)


async def test_it_goes_on_after_a_failure_and_says_so_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.01)
    monkeypatch.setattr(module, "FAILED_PAUSE_S", 0.01)
    fails, failed = True, asyncio.Event()
    written = database.write

    async def write(batch: Sequence[Statement]) -> list[Rows]:
        if fails:
            failed.set()
            raise StoreUnavailable("the disk is full")
        return await written(batch)

    await webhook(database, OLD, WebhookVerdict.DONE)
    monkeypatch.setattr(database, "write", write)
    it = retention(database)
    task = asyncio.create_task(it.run())

    async with asyncio.timeout(PATIENCE_S):
        await failed.wait()
        told = it.problem
        fails = False
        while await kept(database):
            await asyncio.sleep(0.01)
        while it.problem is not None:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert told == "what is old cannot be deleted: the disk is full"
