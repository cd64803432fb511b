import asyncio
from dataclasses import replace

import pytest

from indexer.core import events, settle
from indexer.core.types import Status
from indexer.errors import Conflict, InvariantError
from store import events as event_log, payments
from store.database import Database, Statement
from store.payments import Record
from tests.builders import (
    NOW,
    make_event,
    make_leg,
    make_payment,
    make_sighting,
    make_verdict,
)
from tests.instructions import key, signature
from tests.store.keeping import create, ids, settled, stored


# ------------------------------------------------------------------------------- creation


async def test_a_payment_is_stored_with_its_first_event(database: Database) -> None:
    payment = make_payment(order_id="1042", metadata={"table": "7", "": "ü"}, label="Café")
    await create(database, payment)

    [event] = await event_log.after(database, 0, limit=10)
    assert await payments.get(database, payment.terms.id) == Record(payment)
    assert (event.seq, event.payment_id, event.type) == (1, payment.terms.id, "payment.created")


async def test_no_payment_without_its_event(database: Database) -> None:
    payment = make_payment()
    batch = payments.insert(payment, make_event(make_payment(2)))  # of a payment that is not there

    with pytest.raises(Conflict, match="FOREIGN KEY"):
        await database.write(batch)

    assert await payments.get(database, payment.terms.id) is None


async def test_a_reference_belongs_to_one_payment_for_ever(database: Database) -> None:
    first, second = make_payment(1), make_payment(2)
    await create(database, first)
    same = replace(second, terms=replace(second.terms, reference=first.terms.reference))

    with pytest.raises(Conflict, match=r"payments\.reference"):
        await create(database, same)


@pytest.mark.parametrize(
    "change",
    [
        "amount = '2'", "reference = 'x'", "recipient = 'x'", "expires_at = expires_at + 1",
        "grace_s = 0", "watch_key = 'x'", "symbol = 'x'", "decimals = 0", "created_at = 0",
        "id = id", "provider = 'paymob'", "mint = 'x', token_program = 'x', token_account = 'x'",
    ],
)  # fmt: skip
async def test_terms_never_change(database: Database, change: str) -> None:
    await create(database, make_payment())

    with pytest.raises(Conflict, match="terms of a payment never change"):
        await database.write([Statement(f"UPDATE payments SET {change}")])  # noqa: S608 - a case of the table above


async def test_a_payment_is_never_deleted(database: Database) -> None:
    await create(database, make_payment())

    with pytest.raises(Conflict, match="never deleted"):
        await database.write([Statement("DELETE FROM payments")])


# --------------------------------------------------------------------------------- changes


async def test_a_change_is_stored_with_its_verdict_and_its_events(database: Database) -> None:
    before = make_payment()
    await create(database, before)
    verdict = make_verdict(before)
    state = settle.fold(
        before.terms, [verdict], frontier_time=None, sighted=False, canceled_at=None
    )
    after = settle.advance(before, state)
    published = events.of_change(before, after, NOW, signature=verdict.signature)
    await database.write(
        payments.save(before, after, verdicts=[verdict], events=published, now=NOW)
    )

    assert await stored(database, before) == Record(after, (verdict,))
    log = await event_log.after(database, 0, limit=10)
    assert [event.type for event in log] == ["payment.created", "payment.settled"]


async def test_a_stale_writer_is_refused_with_everything_it_brings(database: Database) -> None:
    before = make_payment()
    await create(database, before)
    first, second = (make_verdict(before, name=name) for name in ("first", "second"))
    await database.write(payments.save(before, settled(before), verdicts=[first], now=NOW))

    with pytest.raises(Conflict, match=r"NOT NULL constraint failed: payments\.version"):
        await database.write(payments.save(before, settled(before), verdicts=[second], now=NOW))

    assert (await stored(database, before)).verdicts == (first,)


async def test_facts_without_a_change_are_refused_from_a_stale_writer_too(
    database: Database,
) -> None:
    """They were judged to change nothing beside a state that is no more."""
    before = make_payment()
    await create(database, before)
    await database.write(payments.save(before, settled(before), now=NOW))

    with pytest.raises(Conflict, match=r"payments\.version"):
        await database.write(
            payments.save(before, before, verdicts=[make_verdict(before, credit=0)], now=NOW)
        )


async def test_of_writers_at_once_one_moves_the_payment(database: Database) -> None:
    before = make_payment()
    await create(database, before)
    after = settled(before)
    batches = [
        payments.save(before, after, verdicts=[make_verdict(before, name=f"{n}")], now=NOW)
        for n in range(20)
    ]

    outcomes = await asyncio.gather(*map(database.write, batches), return_exceptions=True)

    assert [type(each) for each in outcomes].count(Conflict) == 19
    record = await stored(database, before)
    assert (record.payment.version, len(record.verdicts)) == (2, 1)


async def test_a_payment_moves_one_version_at_a_time_and_keeps_its_terms() -> None:
    before = make_payment()
    after = settled(before)

    for wrong in (
        replace(after, version=3),
        replace(after, version=1),
        replace(after, terms=replace(after.terms, amount=1)),
    ):
        with pytest.raises(InvariantError):
            payments.save(before, wrong, now=NOW)


async def test_nothing_new_is_nothing_to_write() -> None:
    payment = make_payment()

    assert payments.save(payment, payment, now=NOW) == []


# --------------------------------------------------------------------- verdicts and sightings


async def test_the_same_verdict_twice_changes_nothing(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)
    legs = [make_leg(payment, outer=1), make_leg(payment, outer=0, inner=2, sub=3)]
    batch = payments.save(payment, payment, verdicts=[make_verdict(payment, legs=legs)], now=NOW)

    await database.write(batch)
    once = await stored(database, payment)
    await database.write(batch)

    assert await stored(database, payment) == once
    assert once.verdicts[0].legs == (legs[1], legs[0])  # in the order of execution


async def test_a_leg_is_credited_to_one_payment_for_ever(database: Database) -> None:
    first, second = make_payment(1), make_payment(2)
    await create(database, first, second)
    await database.write(payments.save(first, first, verdicts=[make_verdict(first)], now=NOW))

    with pytest.raises(Conflict, match=r"NOT NULL constraint failed: transfers\.payment_id"):
        await database.write(
            payments.save(second, settled(second), verdicts=[make_verdict(second)], now=NOW)
        )

    assert await stored(database, second) == Record(second)


async def test_one_transaction_may_pay_two_payments_by_two_legs(database: Database) -> None:
    for number in (1, 2):
        payment = make_payment(number)
        await create(database, payment)
        verdict = make_verdict(payment, legs=[make_leg(payment, outer=number)])
        await database.write(payments.save(payment, payment, verdicts=[verdict], now=NOW))

    records = await payments.by_ids(database, [make_payment(n).terms.id for n in (2, 1)])
    assert [record.verdicts[0].legs[0].outer for record in records] == [2, 1]


async def test_verdicts_come_in_the_order_of_the_chain(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)
    places = [(7, 1), (5, 9), (7, None), (7, 0), (5, 2)]
    verdicts = [
        make_verdict(payment, name=f"{place}", slot=place[0], index=place[1], credit=0)
        for place in places
    ]
    await database.write(payments.save(payment, payment, verdicts=verdicts, now=NOW))

    found = (await stored(database, payment)).verdicts
    assert [(v.slot, v.index) for v in found] == [(5, 2), (5, 9), (7, None), (7, 0), (7, 1)]


async def test_a_sighting_goes_when_its_verdict_comes(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)
    sightings = [
        make_sighting(payment, name=name, slot=slot) for name, slot in [("b", 9), ("a", 3)]
    ]
    await database.write(payments.save(payment, payment, sightings=sightings, now=NOW))
    assert (await stored(database, payment)).sightings == (sightings[1], sightings[0])

    verdict = make_verdict(payment, name="a")
    await database.write(payments.save(payment, payment, verdicts=[verdict], now=NOW))

    assert await stored(database, payment) == Record(payment, (verdict,), (sightings[0],))


async def test_what_has_a_verdict_is_not_sighted_again(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)
    await database.write(
        payments.save(payment, payment, verdicts=[make_verdict(payment, credit=0)], now=NOW)
    )

    await database.write(
        payments.save(payment, payment, sightings=[make_sighting(payment)], now=NOW)
    )

    assert await payments.sighted(database, limit=10) == []


async def test_a_sighting_is_taken_back_by_its_signature(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)
    kept, dropped = make_sighting(payment, name="kept"), make_sighting(payment, name="dropped")
    await database.write(payments.save(payment, payment, sightings=[kept, dropped], now=NOW))

    await database.write(
        payments.save(payment, payment, unsighted=[signature("dropped"), "unknown"], now=NOW)
    )

    assert (await stored(database, payment)).sightings == (kept,)


async def test_all_sightings_come_oldest_slot_first(database: Database) -> None:
    for number, slot in ((1, 30), (2, 10), (3, 20)):
        payment = make_payment(number)
        await create(database, payment)
        await database.write(
            payments.save(payment, payment, sightings=[make_sighting(payment, slot=slot)], now=NOW)
        )

    assert [each.slot for each in await payments.sighted(database, limit=2)] == [10, 20]


# ----------------------------------------------------------------------------------- finding


async def test_payments_are_found_by_reference_whatever_their_status(database: Database) -> None:
    for number, status in enumerate(Status, start=1):
        await create(database, make_payment(number, status=status))
    keys = {key(f"reference {number}") for number in range(1, 5)} | {key("other"), ""}

    found = await payments.by_references(database, keys)

    assert {record.payment.terms.id for record in found} == {
        make_payment(number).terms.id for number in range(1, 5)
    }


async def test_thousands_of_keys_are_looked_up_at_once(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)
    keys = [key(str(number)) for number in range(5_000)] + [payment.terms.reference]

    assert await payments.by_references(database, keys) == [Record(payment)]
    assert await payments.by_references(database, []) == []


async def test_ids_answer_in_their_order_and_unknown_ones_not_at_all(database: Database) -> None:
    one, two = make_payment(1), make_payment(2)
    await create(database, one, two)

    found = await payments.by_ids(database, [two.terms.id, "unknown", one.terms.id, two.terms.id])

    assert found == [Record(two), Record(one)]
    assert await payments.get(database, "unknown") is None


async def test_a_page_is_newest_first_and_the_next_goes_on(database: Database) -> None:
    for number, created_at in ((1, 50), (2, 60), (3, 60), (4, 40), (5, 60)):
        await create(database, make_payment(number, created_at=created_at))

    assert await ids(database, limit=3) == [5, 3, 2]
    assert await ids(database, before=(60, make_payment(2).terms.id)) == [1, 4]
    assert await ids(database, before=(40, make_payment(4).terms.id)) == []


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({}, [6, 5, 4, 3, 2, 1]),
        ({"status": Status.SETTLED}, [4, 2]),
        ({"status": Status.REFUNDED}, []),
        ({"order_id": "A"}, [6, 5, 4]),
        ({"order_id": "A", "status": Status.SETTLED}, [4]),
        ({"reference": key("reference 4")}, [4]),
        ({"reference": key("reference 4"), "status": Status.PENDING}, []),
        ({"reference": key("reference 4"), "order_id": "B"}, []),
        ({"reference": key("reference 9")}, []),
        ({"created_after": NOW + 4}, [6, 5]),
        ({"created_after": NOW + 3, "status": Status.SETTLED}, [4]),
        ({"created_after": NOW + 5, "order_id": "A"}, [6]),
        ({"created_after": NOW + 4, "reference": key("reference 4")}, []),
        ({"status": Status.SETTLED, "before": (NOW + 4, make_payment(4).terms.id)}, [2]),
        ({"order_id": "A", "before": (NOW + 6, make_payment(6).terms.id)}, [5, 4]),
        ({"order_id": "A", "limit": 2}, [6, 5]),
    ],
)
async def test_a_page_holds_what_fits_all_filters(
    database: Database, filters: dict[str, object], numbers: list[int]
) -> None:
    for number in range(1, 7):
        payment = make_payment(
            number,
            status=Status.PENDING if number % 2 else Status.SETTLED,
            order_id="A" if number > 3 else "B",
            created_at=NOW + number,
        )
        if number == 6:
            payment = replace(payment, state=make_payment().state)
        await create(database, payment)

    assert await ids(database, **filters) == numbers


async def test_payments_are_counted_by_status(database: Database) -> None:
    for number, status in enumerate([Status.PENDING, Status.EXPIRED, Status.PENDING], start=1):
        await create(database, make_payment(number, status=status))

    counts = await payments.counts(database)

    assert counts == dict.fromkeys(Status, 0) | {Status.PENDING: 2, Status.EXPIRED: 1}
