"""Payments on the chain and by card, side by side: shown together, and never mistaken."""

from typing import Any

import pytest

from indexer.core import events, settle
from indexer.core.types import Status
from indexer.errors import Conflict, InvariantError
from store import audit, cards, everything, payments, reference_checks, watching
from store.database import Database
from store.payments import Record
from tests.builders import NOW, WATCH_KEY, make_event, make_payment, make_verdict
from tests.cards import make_card_payment, make_charge, stored_card


async def fill(database: Database, count: int = 2, **card: Any) -> list[everything.AnyRecord]:
    """So many of each kind, by turns, as they should be listed."""
    made: list[everything.AnyRecord] = []
    for number in range(1, count + 1):
        on_chain = make_payment(2 * number, created_at=NOW + 2 * number)
        await database.write(payments.insert(on_chain, make_event(on_chain)))
        by_card = make_card_payment(2 * number + 1, created_at=NOW + 2 * number + 1, **card)
        made += [Record(on_chain), await stored_card(database, by_card, order_id=number)]
    return made[::-1]


async def test_each_is_found_by_its_id_with_all_that_is_known_of_it(database: Database) -> None:
    by_card, on_chain = await fill(database, 1)
    verdict = make_verdict(on_chain.payment, credit=0)  # type: ignore[arg-type]  # it is on the chain
    await database.write(
        payments.save(on_chain.payment, on_chain.payment, verdicts=[verdict], now=NOW)  # type: ignore[arg-type]  # it is on the chain
    )
    charge = make_charge(7, order_id=1)
    await database.write(cards.save(by_card, by_card.payment, charges=[charge]))  # type: ignore[arg-type]  # it is by card

    found = await everything.by_ids(
        database, [by_card.payment.terms.id, "pay_no", on_chain.payment.terms.id]
    )

    assert [each.payment for each in found] == [by_card.payment, on_chain.payment]
    assert found == [
        await cards.get(database, by_card.payment.terms.id),
        await payments.get(database, on_chain.payment.terms.id),
    ]
    assert await everything.get(database, "pay_no") is None


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_hold_both_kinds_each_once_the_newest_first(
    database: Database, limit: int
) -> None:
    made = await fill(database, 3)
    seen: list[everything.AnyRecord] = []
    before = None

    while page := await everything.page(database, before=before, limit=limit):
        assert len(page) <= limit
        seen += page
        before = (page[-1].payment.terms.created_at, page[-1].payment.terms.id)

    assert seen == made


async def test_filters_let_through_either_kind(database: Database) -> None:
    record = await stored_card(database, make_card_payment(order_id="1042"))

    for filters in ({"order_id": "1042"}, {"status": Status.PENDING}, {"created_after": NOW - 1}):
        assert await everything.page(database, limit=9, **filters) == [record]
    for other in ({"order_id": "x"}, {"status": Status.FAILED}, {"reference": "x"}):
        assert await everything.page(database, limit=9, **other) == []


async def test_either_kind_goes_to_its_next_version_once(database: Database) -> None:
    for record in await fill(database, 1):
        canceled = settle.cancel(record.payment, NOW + 5)
        change = events.of_change(record.payment, canceled, NOW + 5)
        batch = everything.save(record, canceled, events=change, now=NOW + 5)

        await database.write(batch)
        with pytest.raises(Conflict):
            await database.write(batch)

        after = everything.changed(record, canceled)
        assert await everything.get(database, canceled.terms.id) == after


async def test_no_payment_becomes_one_of_the_other_kind(database: Database) -> None:
    by_card, on_chain = await fill(database, 1)

    for record, other in ((by_card, on_chain), (on_chain, by_card)):
        with pytest.raises(InvariantError):
            everything.save(record, other.payment, events=[], now=NOW)
        with pytest.raises(InvariantError):
            everything.changed(record, other.payment)


STATES = [status for status in Status if status is not Status.CANCELED]


@pytest.mark.parametrize("status", STATES)
async def test_whoever_watches_the_chain_never_meets_a_payment_by_card(
    database: Database, status: Status
) -> None:
    """It has no reference, no recipient and no watch key: nothing that compares with NULL."""
    for number in range(3):
        payment = make_card_payment(number, status=status, state={"review": ("paid_again",)})
        await stored_card(database, payment, order_id=number + 1)
    later = NOW + 10**6
    ids = [make_card_payment(number).terms.id for number in range(3)]

    assert await payments.by_ids(database, ids) == []
    assert await payments.by_references(database, ["", "NULL"], ["x"]) == []
    for key in (WATCH_KEY, "", "NULL"):
        assert await payments.expirable(database, key=key, block_time=later, limit=9) == []
    assert await payments.in_review(database, limit=9) == []
    assert await reference_checks.due(database, later, 9) == []
    await database.write([reference_checks.hasten(key, later, later) for key in ("", WATCH_KEY)])
    assert await watching.watch_keys(database, now=NOW) == []
    assert await watching.foreign(database, now=NOW, limit=9) == []
    alive = watching.references_alive(database, created_to=later, grace_from=0, page_size=9)
    assert [page async for page in alive] == []
    assert await watching.oldest_payable(database, "", now=NOW) is None
    assert await watching.known_references(database, ["", "NULL", *ids]) == set()
    assert await watching.worth_a_look(database, ["", "NULL", *ids], now=NOW) == set()
    assert await watching.destinations(database, now=NOW, after="", limit=9) == []
    assert await audit.page(database, 0, later, after=audit.OLDEST, limit=9) == []
    assert await payments.in_review_count(database) == 3, "a person must look at them all the same"
