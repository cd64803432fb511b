"""An audit reads payments, events and frontiers of one moment, a few payments at a time."""

import pytest

from indexer.core.payment import Payment
from indexer.core.ranges import Slots
from store import audit, cursors, gaps, numbering, payments
from store.cursors import Frontier
from store.database import Database, Statement
from store.gaps import GapReason
from tests.builders import NOW, WATCH_KEY, make_event, make_payment, make_verdict


async def put(database: Database, *several: Payment) -> None:
    for each in several:
        await database.write(payments.insert(each, make_event(each)))


async def test_pages_go_from_the_oldest_to_the_newest_and_hold_each_once(
    database: Database,
) -> None:
    # Two of them in one second.
    made = [make_payment(n, created_at=NOW + n // 2) for n in (5, 3, 4, 1, 2)]
    await put(database, *made)

    seen, after = [], audit.OLDEST
    while page := await audit.page(database, 0, NOW + 2, after=after, limit=2):
        seen += [id_ for _, id_ in page]
        after = page[-1]

    assert seen == [make_payment(n).terms.id for n in (1, 2, 3, 4, 5)]
    assert await audit.count(database, 0, NOW + 2) == 5


async def test_both_ends_of_a_period_are_in_it(database: Database) -> None:
    await put(database, *(make_payment(n, created_at=NOW + n) for n in (1, 2, 3, 4)))

    page = await audit.page(database, NOW + 2, NOW + 3, after=audit.OLDEST, limit=10)

    assert [created_at for created_at, _ in page] == [NOW + 2, NOW + 3]
    assert await audit.count(database, NOW + 2, NOW + 3) == 2


async def test_cards_are_not_on_the_chain(database: Database) -> None:
    await put(database, make_payment())
    await database.write([Statement("DROP TRIGGER payments_terms_are_final")])
    await database.write([Statement("UPDATE payments SET provider = 'paymob'")])

    assert await audit.count(database, 0, NOW) == 0
    assert await audit.page(database, 0, NOW, after=audit.OLDEST, limit=10) == []


async def test_a_snapshot_holds_all_that_is_known_of_the_payments(database: Database) -> None:
    one, other, third = (make_payment(n) for n in (1, 2, 3))
    await put(database, one, other, third)
    verdict = make_verdict(one, credit=0)
    await database.write(payments.save(one, one, verdicts=[verdict], now=NOW))
    frontier = Frontier(key=WATCH_KEY, slot=7, block_time=NOW, updated_at=NOW)
    strange = Frontier(key="nobody's", slot=9, block_time=NOW, updated_at=NOW)
    await database.write([cursors.advance(frontier), cursors.advance(strange)])
    slots = Slots(3, 4)
    await database.write(
        [
            gaps.note(WATCH_KEY, slots, GapReason.RECONNECT, NOW),
            gaps.note("nobody's", slots, GapReason.RECONNECT, NOW),
        ]
    )

    found = await audit.snapshot(database, [other.terms.id, one.terms.id])

    assert [record.payment.terms.id for record in found.records] == [other.terms.id, one.terms.id]
    assert found.records[1].verdicts == (verdict,)
    assert found.entries.keys() == {one.terms.id, other.terms.id}
    [entry] = found.entries[one.terms.id]
    assert (entry.type, entry.version, entry.ordinal) == ("payment.created", 1, 0)
    assert entry.data["payment"]["id"] == one.terms.id
    assert found.frontiers == {WATCH_KEY: frontier}
    assert found.gaps == {WATCH_KEY: [slots]}


async def test_a_gap_that_was_closed_is_none(database: Database) -> None:
    await put(database, payment := make_payment())
    await database.write([gaps.note(WATCH_KEY, Slots(3, 4), GapReason.RECONNECT, NOW)])
    await database.write([gaps.close_up_to(WATCH_KEY, 4, NOW)])

    assert (await audit.snapshot(database, [payment.terms.id])).gaps == {}


async def test_an_event_that_is_no_json_is_nothing(database: Database) -> None:
    await put(database, payment := make_payment())
    await database.write([Statement("DROP TRIGGER events_are_final")])
    await database.write([Statement("UPDATE events SET data = '1e999'")])

    found = await audit.snapshot(database, [payment.terms.id])

    assert found.entries[payment.terms.id][0].data != {"payment": {}}


async def test_what_is_missing_from_the_log_is_known(database: Database) -> None:
    assert await audit.missing_events(database) == []
    await put(database, *(make_payment(n) for n in range(1, 9)))
    assert await audit.missing_events(database) == []
    await database.write([Statement("DROP TRIGGER events_stay")])
    await database.write([Statement("DELETE FROM events WHERE seq IN (1, 3, 4, 6, 8)")])

    found = await audit.missing_events(database)

    assert found == [Slots(1, 1), Slots(3, 4), Slots(6, 6), Slots(8, 8)]


async def test_numbers_that_restores_have_left_out_are_not_missing(database: Database) -> None:
    """Restored thrice: once at the beginning, and twice with nothing between."""
    for now, numbers in ((NOW, (1, 2)), (NOW + 50, ()), (NOW + 100, (3, 4)), (NOW + 200, ())):
        await database.write(numbering.go_on(now))
        assert await audit.missing_events(database) == []
        await put(database, *(make_payment(n) for n in numbers))
    assert await audit.missing_events(database) == []
    first, second = (numbering.first_after(NOW + after) + 1 for after in (0, 100))
    await database.write([Statement("DROP TRIGGER events_stay")])
    await database.write([Statement("DELETE FROM events WHERE seq IN (?, ?)", (first, second))])

    assert await audit.missing_events(database) == [Slots(first, first), Slots(second, second)]


async def test_left_out_numbers_do_not_hide_the_missing_ones_behind_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "HOLES_MAX", 1)
    for restored in range(4):
        await database.write(numbering.go_on(NOW + restored))
        await put(database, make_payment(2 * restored + 1), make_payment(2 * restored + 2))
    await database.write([Statement("DROP TRIGGER events_stay")])
    last = numbering.first_after(NOW + 3) + 2
    await database.write([Statement("DELETE FROM events WHERE seq = ?", (last,))])

    assert await audit.missing_events(database) == [Slots(last, last)]
