"""Who is due: from its creation until money for it counts no more."""

from dataclasses import replace

import pytest

from indexer.core.payment import Payment
from indexer.core.types import Paid, Status
from store import cursors, payments, reference_checks
from store.cursors import Frontier
from store.database import Database, Statement
from tests.builders import NOW, WATCH_KEY, make_event, make_payment
from tests.instructions import key


DEADLINE = NOW + 900


async def create(database: Database, *created: Payment) -> None:
    for payment in created:
        await database.write(payments.insert(payment, make_event(payment)))


async def due_at(database: Database) -> dict[int, int]:
    """Number of the payment -> when it is due."""
    [rows] = await database.read([Statement("SELECT payment_id, due_at FROM reference_checks")])
    return {int(id_[4:]): at for id_, at in rows}


async def due(database: Database, now: int, limit: int = 10) -> list[int]:
    found = await reference_checks.due(database, now, limit)
    return [int(each.payment_id[4:]) for each in found]


async def become(database: Database, payment: Payment, status: Status) -> None:
    state = make_payment(status=status).state
    after = replace(payment, state=state, version=payment.version + 1)
    await database.write(payments.save(payment, after, now=NOW))


async def test_a_payment_is_due_soon_after_its_creation(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)

    assert await due(database, NOW + 9) == []
    [found] = await reference_checks.due(database, NOW + 10, 10)
    terms = payment.terms
    assert (found.payment_id, found.reference, found.watch_key) == (
        terms.id,
        terms.reference,
        WATCH_KEY,
    )
    assert (found.status, found.created_at, found.expires_at, found.grace_s) == (
        Status.PENDING,
        terms.created_at,
        terms.expires_at,
        terms.grace_s,
    )


async def test_one_without_watch_key_is_swept_anyway(database: Database) -> None:
    await create(database, make_payment(watch_key=None))

    assert await due_at(database) == {}


@pytest.mark.parametrize(
    ("status", "is_checked"),
    [
        (Status.PROCESSING, True),
        (Status.EXPIRED, True),
        (Status.SETTLED, False),
        (Status.CANCELED, False),
    ],
)
async def test_it_is_checked_while_money_for_it_may_count(
    database: Database, status: Status, is_checked: bool
) -> None:
    payment = make_payment()
    await create(database, payment)
    await become(database, payment, status)

    assert (await due_at(database) != {}) is is_checked


async def test_the_longest_due_come_first_and_the_list_has_a_bound(database: Database) -> None:
    for number, created_at in ((1, 30), (2, 10), (3, 20), (4, 99)):
        await create(database, make_payment(number, created_at=created_at))

    assert await due(database, 40) == [2, 3, 1]
    assert await due(database, 40, limit=2) == [2, 3]


async def test_a_check_that_was_made_is_due_again_later_and_one_day_no_more(
    database: Database,
) -> None:
    payment = make_payment()
    await create(database, payment)

    await database.write([reference_checks.again_at(payment.terms.id, NOW + 500)])
    assert await due_at(database) == {1: NOW + 500}
    await database.write([reference_checks.end(payment.terms.id)])
    assert await due_at(database) == {}
    await database.write([reference_checks.again_at(payment.terms.id, NOW + 600)])
    assert await due_at(database) == {}, "what has ended stays so"


async def test_who_asks_makes_it_sooner_and_never_later(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)
    await database.write([reference_checks.again_at(payment.terms.id, NOW + 500)])

    for asked_at, then in ((NOW + 600, NOW + 500), (NOW + 100, NOW + 100), (NOW + 200, NOW + 100)):
        await database.write([reference_checks.ask(payment.terms.id, asked_at)])
        assert await due_at(database) == {1: then}

    await database.write([reference_checks.end(payment.terms.id)])
    await database.write([reference_checks.ask(payment.terms.id, NOW)])
    assert await due_at(database) == {}


# ------------------------------------------------------------------- before it may expire


@pytest.mark.parametrize(
    ("payment", "block_time", "is_due"),
    [
        (make_payment(), DEADLINE + 1, True),
        (make_payment(), DEADLINE, False),
        (make_payment(status=Status.PROCESSING), DEADLINE + 1, True),
        (make_payment(status=Status.EXPIRED), DEADLINE + 1, False),
        (make_payment(watch_key=key("another")), DEADLINE + 1, False),
        # All of it came in time: it waits for a person and never expires.
        (
            make_payment(
                status=Status.PROCESSING, state={"paid": Paid.EXACT, "received": 1_000_000}
            ),
            DEADLINE + 1,
            False,
        ),
    ],
)
async def test_it_is_due_at_once_when_the_watch_key_has_passed_its_deadline(
    database: Database, payment: Payment, block_time: int, is_due: bool
) -> None:
    await create(database, payment)
    later = NOW + 5_000
    await database.write([reference_checks.again_at(payment.terms.id, later)])

    await database.write([reference_checks.hasten(WATCH_KEY, block_time, NOW + 1_000)])

    assert await due_at(database) == {1: NOW + 1_000 if is_due else later}


@pytest.mark.parametrize(("complete_to", "is_due"), [(DEADLINE, True), (DEADLINE + 1, False)])
async def test_one_that_is_complete_beyond_its_deadline_keeps_its_turn(
    database: Database, complete_to: int, is_due: bool
) -> None:
    payment = make_payment()
    await create(database, payment)
    frontier = Frontier(key=payment.terms.reference, slot=1, block_time=complete_to, updated_at=NOW)
    later = NOW + 5_000
    move = reference_checks.again_at(payment.terms.id, later)
    await database.write([move, cursors.advance(frontier)])

    await database.write([reference_checks.hasten(WATCH_KEY, DEADLINE + 9, NOW + 1_000)])

    assert await due_at(database) == {1: NOW + 1_000 if is_due else later}


async def test_what_is_due_already_keeps_its_place(database: Database) -> None:
    await create(database, make_payment())

    await database.write([reference_checks.hasten(WATCH_KEY, DEADLINE + 1, NOW + 1_000)])

    assert await due_at(database) == {1: NOW + 10}


async def test_so_many_are_due_that_no_more_are_hastened_and_all_get_their_turn(
    database: Database,
) -> None:
    """The oldest deadlines first; what is due anyway, of whatever watch key, counts as well."""
    other = make_payment(9, watch_key=key("another"))
    await create(database, other, *(make_payment(n, expires_in_s=900 - n) for n in range(1, 6)))
    later, now = NOW + 5_000, NOW + 1_000
    moved = [other, *map(make_payment, range(1, 6))]
    await database.write([reference_checks.again_at(each.terms.id, later) for each in moved])

    async def hastened(limit: int) -> list[int]:
        batch = [reference_checks.hasten(WATCH_KEY, DEADLINE, now, limit=limit)]
        await database.write(batch)
        return sorted(number for number, at in (await due_at(database)).items() if at == now)

    assert await hastened(0) == []
    assert await hastened(2) == await hastened(2) == [4, 5]
    assert await hastened(3) == [3, 4, 5]
    await database.write([reference_checks.again_at(other.terms.id, now - 1)])
    assert await hastened(4) == await hastened(3) == [3, 4, 5]

    for number in (3, 4, 5):  # these were looked at
        terms = make_payment(number).terms
        known = Frontier(key=terms.reference, slot=1, block_time=DEADLINE, updated_at=NOW)
        looked = [cursors.advance(known), reference_checks.again_at(terms.id, later)]
        await database.write(looked)
    assert await hastened(2) == [2]
    assert await hastened(3) == [1, 2]
