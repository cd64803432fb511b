"""Suggestions are stored once, bounded, and closed once."""

from dataclasses import replace

import pytest

from indexer.core.payment import Payment
from indexer.core.suggest import Suggestion, Why
from indexer.core.types import Status
from indexer.errors import Conflict
from store import payments, suggestions
from store.database import Database, Statement
from store.suggestions import OPEN_PER_PAYMENT_MAX, Fate
from tests.builders import CUSTOMER, MERCHANT, NOW, make_event, make_payment, make_verdict
from tests.instructions import signature


PAYMENT = make_payment()


def suggestion(
    name: str = "paid", *, payment: Payment = PAYMENT, found_at: int = NOW
) -> Suggestion:
    return Suggestion(
        signature=signature(name),
        outer=2,
        inner=None,
        sub=1,
        payment_id=payment.terms.id,
        why=Why.AMOUNT_AND_MEMO,
        source=CUSTOMER,
        destination=MERCHANT,
        amount=2**64 - 1,
        memo="für #1\n\x1b[2J",
        slot=5,
        block_time=None,
        found_at=found_at,
    )


async def create(database: Database, *created: Payment) -> None:
    for payment in created:
        await database.write(payments.insert(payment, make_event(payment)))


async def put(database: Database, *found: Suggestion) -> None:
    await database.write([suggestions.insert(each) for each in found])


async def test_a_suggestion_is_stored_once_as_it_is(database: Database) -> None:
    await create(database, PAYMENT)

    await put(database, suggestion(), replace(suggestion(), why=Why.MEMO, found_at=NOW + 1))

    assert await suggestions.listing(database, 10) == [suggestion()]
    assert await suggestions.of_payment(database, PAYMENT.terms.id) == [suggestion()]
    assert await suggestions.of_signature(database, signature("paid")) == [suggestion()]
    assert await suggestions.of_signature(database, signature("else")) == []


async def test_each_leg_and_each_payment_is_a_suggestion_of_its_own(database: Database) -> None:
    other = make_payment(2)
    await create(database, PAYMENT, other)
    found = [
        suggestion(),
        replace(suggestion(), outer=3),
        replace(suggestion(), inner=0),
        replace(suggestion(), sub=None),
        suggestion(payment=other),
    ]

    await put(database, *found)

    assert len(await suggestions.of_signature(database, signature("paid"))) == len(found)
    assert await suggestions.of_payment(database, other.terms.id) == [found[-1]]


@pytest.mark.parametrize("fate", Fate)
async def test_a_suggestion_is_closed_once(database: Database, fate: Fate) -> None:
    await create(database, PAYMENT)
    await put(database, suggestion())
    await database.write([suggestions.close(suggestion(), fate, NOW + 1)])

    with pytest.raises(Conflict):
        await database.write([suggestions.close(suggestion(), Fate.DISMISSED, NOW + 2)])
    await put(database, suggestion())  # found again by another sweep

    [rows] = await database.read([Statement("SELECT state, decided_at FROM suggestions")])
    assert rows == [(fate, NOW + 1)]
    assert await suggestions.listing(database, 10) == []
    assert await suggestions.of_signature(database, signature("paid")) == []
    assert await suggestions.of_payment(database, PAYMENT.terms.id) == []


async def test_a_transaction_that_pays_somebody_is_suggested_to_nobody(database: Database) -> None:
    other = make_payment(2)
    await create(database, PAYMENT, other)
    verdict = make_verdict(other)
    await database.write(payments.save(other, other, verdicts=[verdict], now=NOW))

    await put(database, suggestion())

    assert await suggestions.listing(database, 10) == []


async def test_a_payment_has_only_so_many_suggestions(database: Database) -> None:
    other = make_payment(2)
    await create(database, PAYMENT, other)

    await put(database, *(suggestion(f"{n}") for n in range(OPEN_PER_PAYMENT_MAX + 5)))
    await put(database, suggestion("more", payment=other))

    assert len(await suggestions.of_payment(database, PAYMENT.terms.id)) == OPEN_PER_PAYMENT_MAX
    assert len(await suggestions.of_payment(database, other.terms.id)) == 1


async def test_the_oldest_are_listed_first_and_only_so_many(database: Database) -> None:
    await create(database, PAYMENT)
    await put(database, *(suggestion(f"{n}", found_at=NOW - n) for n in range(5)))

    found = await suggestions.listing(database, 3)

    assert [each.found_at for each in found] == [NOW - 4, NOW - 3, NOW - 2]


@pytest.mark.parametrize("status", Status)
async def test_only_payments_that_can_still_be_paid_are_listed(
    database: Database, status: Status
) -> None:
    payment = make_payment(status=status)
    await create(database, payment)
    await put(database, suggestion())

    is_listed = bool(await suggestions.listing(database, 10))

    assert is_listed == (status in {Status.PENDING, Status.PROCESSING, Status.EXPIRED})
    assert len(await suggestions.of_payment(database, payment.terms.id)) == 1
