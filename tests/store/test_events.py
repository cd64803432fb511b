import asyncio
import json
from dataclasses import replace

import pytest

from indexer.core.types import EventType
from indexer.errors import Conflict
from store import events, payments
from store.database import Database, Statement
from tests.builders import NOW, make_event, make_payment


async def publish(database: Database, number: int, *types: EventType) -> None:
    """A payment with its first event, and one more for each type."""
    payment = make_payment(number)
    await database.write(payments.insert(payment, make_event(payment)))
    for version, type_ in enumerate(types, start=2):
        event = make_event(replace(payment, version=version), type_, created_at=NOW + version)
        await database.write([events.append(event)])


async def test_events_are_read_after_a_number(database: Database) -> None:
    await publish(database, 1, EventType.DETECTED)
    await publish(database, 2)

    async def seqs(seq: int, limit: int = 10) -> list[int]:
        return [event.seq for event in await events.after(database, seq, limit=limit)]

    assert await seqs(0) == [1, 2, 3]
    assert await seqs(1) == [2, 3]
    assert await seqs(0, limit=2) == [1, 2]
    assert await seqs(3) == []


async def test_events_of_one_payment(database: Database) -> None:
    await publish(database, 1, EventType.DETECTED)
    await publish(database, 2)
    await publish(database, 3)
    payment_id = make_payment(1).terms.id

    found = await events.after(database, 0, payment_id=payment_id, limit=10)

    assert [(event.seq, event.type) for event in found] == [
        (1, "payment.created"), (2, "payment.detected"),
    ]  # fmt: skip
    assert await events.after(database, 1, payment_id=payment_id, limit=10) == found[1:]
    assert await events.last_seq(database, payment_id=payment_id) == 2
    assert await events.last_seq(database) == 4


async def test_an_event_comes_back_as_it_was_published(database: Database) -> None:
    payment = make_payment(label="Café")
    event = make_event(payment, signature="5abc")
    await database.write(payments.insert(payment, event))

    [stored] = await events.after(database, 0, limit=1)

    assert json.loads(stored.data) == json.loads(json.dumps(event.data))
    assert (stored.payment_id, stored.type, stored.version, stored.created_at) == (
        payment.terms.id, "payment.created", 1, NOW,
    )  # fmt: skip


async def test_an_empty_log_ends_at_zero(database: Database) -> None:
    assert await events.last_seq(database) == 0
    assert await events.last_seq(database, payment_id="unknown") == 0


@pytest.mark.parametrize(
    "change", ["UPDATE events SET data = '{}'", "DELETE FROM events", "UPDATE events SET seq = 9"]
)
async def test_the_log_is_append_only(database: Database, change: str) -> None:
    await publish(database, 1)

    with pytest.raises(Conflict, match="append only"):
        await database.write([Statement(change)])


async def test_a_version_publishes_each_event_once(database: Database) -> None:
    await publish(database, 1, EventType.DETECTED)
    again = make_event(make_payment(1, version=2), EventType.REVERTED)

    with pytest.raises(Conflict, match=r"events\.payment_id, events\.version, events\.ordinal"):
        await database.write([events.append(again)])

    await database.write([events.append(replace(again, ordinal=1))])


@pytest.mark.parametrize(
    "type_",
    [
        EventType.CREATED, EventType.SETTLED, EventType.EXPIRED, EventType.CANCELED,
        EventType.FAILED, EventType.REFUNDED,
    ],
)  # fmt: skip
async def test_what_happens_once_in_a_life_is_published_once(
    database: Database, type_: EventType
) -> None:
    first = () if type_ is EventType.CREATED else (type_,)
    await publish(database, 1, *first)

    with pytest.raises(Conflict, match="UNIQUE constraint failed"):
        await database.write([events.append(make_event(make_payment(1, version=9), type_))])


async def test_numbers_follow_the_order_of_commits(database: Database) -> None:
    """A reader that has seen a number has seen all below it, however many write at once."""
    seen: list[int] = []

    async def follow() -> None:
        while len(seen) < 300:
            after = seen[-1] if seen else 0
            seen.extend(event.seq for event in await events.after(database, after, limit=1_000))

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for number in range(300):
            group.create_task(publish(database, number))

    assert seen == list(range(1, 301))
