"""Gaps: noted once, closed by what was examined, kept for ever."""

from typing import Any

import pytest

from indexer.core.payment import Payment
from indexer.core.ranges import Slots
from indexer.core.types import Status
from store import coverage, gaps, payments
from store.database import Database
from store.gaps import GapReason
from tests.builders import GRACE_S, NOW, make_event, make_payment
from tests.instructions import key


KEY = key("watch key")
GRACE_ENDS = NOW + 900 + GRACE_S


async def note(
    database: Database,
    first: int,
    last: int,
    reason: GapReason = GapReason.START,
    *,
    now: int = NOW,
    **rest: Any,
) -> None:
    await database.write([gaps.note(KEY, Slots(first, last), reason, now, **rest)])


async def create(database: Database, payment: Payment) -> None:
    await database.write(payments.insert(payment, make_event(payment)))


async def opened(database: Database) -> list[tuple[int, int]]:
    """The slots of the gaps that are open."""
    found = await gaps.listing(database, 100, only_open=True)
    return [(gap.slots.first, gap.slots.last) for gap in found]


async def test_a_gap_is_noted_once(database: Database) -> None:
    for now in (NOW, NOW + 5):
        await note(database, 5, 9, GapReason.RECONNECT, source="node", now=now)

    [gap] = await gaps.listing(database, 10)

    assert (gap.key, gap.slots, gap.reason, gap.source) == (
        KEY,
        Slots(5, 9),
        GapReason.RECONNECT,
        "node",
    )
    assert (gap.opened_at, gap.closed_at, gap.created_before) == (NOW, None, None)


async def test_the_same_slots_for_another_reason_or_source_are_another_gap(
    database: Database,
) -> None:
    await note(database, 5, 9)
    await note(database, 5, 9, GapReason.OVERFLOW)
    await note(database, 5, 9, GapReason.RECONNECT, source="one")
    await note(database, 5, 9, GapReason.RECONNECT, source="other")

    assert len(await gaps.listing(database, 10)) == 4


async def test_what_ends_where_everything_is_stored_is_closed(database: Database) -> None:
    for first, last in ((1, 4), (3, 5), (4, 6)):
        await note(database, first, last)
    await database.write([gaps.close_up_to(KEY, 5, NOW + 1)])

    assert await opened(database) == [(4, 6)]
    closed = [gap.closed_at for gap in await gaps.listing(database, 10)]
    assert closed == [None, NOW + 1, NOW + 1], "the newest first"

    await database.write([gaps.close_up_to(KEY, 6, NOW + 2)])
    assert await opened(database) == []
    closed = [gap.closed_at for gap in await gaps.listing(database, 10)]
    assert closed == [NOW + 2, NOW + 1, NOW + 1], "when it was closed is not forgotten"


async def test_another_keys_gaps_stay_open(database: Database) -> None:
    await note(database, 1, 4)
    await database.write([gaps.close_up_to("another", 9, NOW)])

    assert await opened(database) == [(1, 4)]


async def test_a_list_has_a_bound(database: Database) -> None:
    for first in range(5):
        await note(database, first, 9, now=NOW + first)

    assert [gap.slots.first for gap in await gaps.listing(database, 2)] == [4, 3]
    assert len(await gaps.listing(database, 3, only_open=True)) == 3


# -------------------------------------------------------------------------- what nobody kept


@pytest.mark.parametrize(
    ("payment", "now", "is_closed"),
    [
        (make_payment(), NOW, False),
        (make_payment(), GRACE_ENDS + 10**6, False),
        (make_payment(status=Status.PROCESSING), NOW, False),
        (make_payment(status=Status.EXPIRED), GRACE_ENDS, False),
        (make_payment(status=Status.EXPIRED), GRACE_ENDS + 1, True),
        (make_payment(status=Status.SETTLED), NOW, True),
        (make_payment(status=Status.CANCELED), NOW, True),
        (make_payment(created_at=NOW + 50), NOW, True),
        (make_payment(watch_key=key("another")), NOW, True),
        (make_payment(watch_key=None), NOW, True),
    ],
)
async def test_what_was_pruned_is_closed_when_it_matters_to_no_payment(
    database: Database, payment: Payment, now: int, is_closed: bool
) -> None:
    await create(database, payment)
    await note(database, 5, 9, GapReason.PRUNED, created_before=NOW + 50)

    await database.write([gaps.close_up_to(KEY, 100, now)])
    assert await opened(database) == [(5, 9)], "no sweep closes what it passed over"
    assert await gaps.pruned(database, KEY, 10) == [Slots(5, 9)]

    await database.write([gaps.close_pruned(KEY, now)])
    assert await opened(database) == ([] if is_closed else [(5, 9)])
    assert await gaps.pruned(database, KEY, 10) == ([] if is_closed else [Slots(5, 9)])


@pytest.mark.parametrize(
    ("status", "now", "is_closed"),
    [
        (Status.PENDING, NOW, False),
        (Status.EXPIRED, GRACE_ENDS, False),
        (Status.EXPIRED, GRACE_ENDS + 1, True),
        (Status.SETTLED, NOW, True),
    ],
)
async def test_what_was_pruned_of_a_reference_is_closed_with_its_payment(
    database: Database, status: Status, now: int, is_closed: bool
) -> None:
    payment = make_payment(watch_key=None, status=status)
    reference = payment.terms.reference
    await create(database, payment)
    pruned = gaps.note(reference, Slots(5, 9), GapReason.PRUNED, NOW + 1)
    await database.write([pruned, gaps.close_pruned(reference, now)])

    assert await opened(database) == ([] if is_closed else [(5, 9)])


@pytest.mark.parametrize(
    ("covered", "is_closed"),
    [((5, 9), True), ((0, 50), True), ((6, 9), False), ((5, 8), False), ((20, 30), False)],
)
async def test_what_was_pruned_is_closed_once_it_was_examined_after_all(
    database: Database, covered: tuple[int, int], is_closed: bool
) -> None:
    await create(database, make_payment())
    await note(database, 5, 9, GapReason.PRUNED, created_before=NOW + 50)

    await database.write(coverage.add("another", Slots(0, 100), NOW))
    await database.write([*coverage.add(KEY, Slots(*covered), NOW), gaps.close_pruned(KEY, NOW)])

    assert await opened(database) == ([] if is_closed else [(5, 9)])


async def test_a_gap_of_another_reason_is_not_closed_as_pruned(database: Database) -> None:
    await note(database, 5, 9, GapReason.OVERFLOW)
    await database.write([gaps.close_pruned(KEY, NOW)])

    assert await opened(database) == [(5, 9)]
