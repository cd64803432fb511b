"""Whoever counts rows by a number goes on, after a restore, from one that no log had before."""

from indexer.core.payment import Payment
from store import events, numbering, payments
from store.database import Database, Statement
from tests.builders import NOW, make_event, make_payment


#: Every table that counts.
COUNTED = {"events", "gaps", "replays", "webhook_deliveries", "webhook_events"}
#: The largest number that JSON readers keep as it is.
EXACT_MAX = 2**53


async def numbers(database: Database) -> dict[str, int]:
    [rows] = await database.read([Statement("SELECT name, seq FROM sqlite_sequence")])
    assert len({name for name, _ in rows}) == len(rows), "a table is counted twice"
    return dict(rows)


async def put(database: Database, payment: Payment) -> None:
    await database.write(payments.insert(payment, make_event(payment)))


async def test_every_table_that_counts_goes_on_from_the_time_also_one_without_rows(
    database: Database,
) -> None:
    await put(database, make_payment(1))
    assert "gaps" not in await numbers(database), "it never had a row"

    await database.write(numbering.go_on(NOW))

    assert await numbers(database) == dict.fromkeys(COUNTED, NOW * 1_000)
    await put(database, make_payment(2))
    assert await events.last_seq(database) == NOW * 1_000 + 1
    assert numbering.first_after(NOW + 1_000 * 366 * 86_400) < EXACT_MAX


async def test_numbers_never_go_back(database: Database) -> None:
    """A clock that is behind, and a log that wrote more than a thousand a second."""
    await database.write(numbering.go_on(NOW))
    await put(database, make_payment(1))

    await database.write(numbering.go_on(NOW - 1))
    await database.write(numbering.go_on(NOW))

    found = await numbers(database)
    assert found.pop("events") == NOW * 1_000 + 1
    assert set(found.values()) == {NOW * 1_000}
    await put(database, make_payment(2))
    assert await events.count(database) == 2


async def test_events_are_counted_as_if_nothing_had_been_left_out(database: Database) -> None:
    assert await events.count(database) == 0
    for now, number in ((NOW, 1), (NOW + 5, 3), (NOW + 5, 5)):
        await put(database, make_payment(number))
        assert await events.count(database) == number
        await database.write(numbering.go_on(now))
        assert await events.count(database) == number, "nothing has come after it yet"
        await database.write(numbering.go_on(now + 1))
        await put(database, make_payment(number + 1))
        assert await events.count(database) == number + 1
