"""Slots in which something may have been missed: noted, shown, and closed once they were swept."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from indexer.core.ranges import Slots, merged
from store.database import Database, Statement
from store.queries import QUERIES


#: Open gaps that are counted; there are a handful, unless something is very wrong.
COUNTED_MAX: Final = 10_000


class GapReason(StrEnum):
    """Why something may have been missed."""

    START = "start"
    RECONNECT = "reconnect"
    OVERFLOW = "overflow"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A range of slots that notifications did not cover.

    Attributes:
        key: the watched key.
        source: the endpoint that was silent; empty when it was none in particular.
        opened_at: unix seconds, when it was noted.
        closed_at: unix seconds; None while it is open.
        created_before: unix seconds; only payments from before may have been paid in what was
            pruned; None when any may, and for other reasons.
    """

    id: int
    key: str
    slots: Slots
    reason: GapReason
    source: str
    opened_at: int
    closed_at: int | None
    created_before: int | None = None


def note(
    key: str,
    slots: Slots,
    reason: GapReason,
    now: int,
    *,
    source: str = "",
    created_before: int | None = None,
) -> Statement:
    """Opens a gap; the same one again changes nothing."""
    values = (key, slots.first, slots.last, reason, source, now, created_before)
    return Statement(QUERIES["gap_open"], values)


def close_up_to(key: str, slot: int, now: int) -> Statement:
    """Closes the gaps of a key that end at that slot or before: everything there is stored.

    What was pruned stays open: a sweep passes over it, and stores nothing of it.
    """
    return Statement(QUERIES["gaps_close_up_to"], (key, slot, now))


def close_pruned(key: str, now: int) -> Statement:
    """Closes what was pruned and is covered after all, or matters to no payment any more."""
    return Statement(QUERIES["gaps_close_pruned"], (key, now))


def close_covered(key: str, now: int) -> Statement:
    """Closes every gap of a key that lies within what is covered, whatever its reason."""
    return Statement(QUERIES["gaps_close_covered"], (key, now))


async def pruned(database: Database, key: str, limit: int) -> list[Slots]:
    """The open gaps of a key whose slots nobody kept, ascending."""
    [found] = await database.read([Statement(QUERIES["gaps_pruned"], (key, limit))])
    return [Slots(first, last) for first, last in found]


async def listing(database: Database, limit: int, *, only_open: bool = False) -> list[Gap]:
    """Gaps: all of them, the newest first, or only the open ones, by key and slot."""
    name = "gaps_listing_open" if only_open else "gaps_listing"
    [found] = await database.read([Statement(QUERIES[name], (limit,))])
    return [
        Gap(
            id=id_,
            key=key,
            slots=Slots(first, last),
            reason=GapReason(reason),
            source=source,
            opened_at=opened_at,
            closed_at=closed_at,
            created_before=created_before,
        )
        for id_, key, first, last, reason, source, opened_at, closed_at, created_before in found
    ]


async def open_by_reason(database: Database) -> dict[GapReason, tuple[int, int]]:
    """How many gaps are open for each reason, and how many slots they have in all, each once."""
    found = await listing(database, COUNTED_MAX, only_open=True)
    return {reason: counted([gap for gap in found if gap.reason is reason]) for reason in GapReason}


def counted(gaps: Sequence[Gap]) -> tuple[int, int]:
    """How many gaps, and how many slots of a key they have: gaps may overlap."""
    slots: dict[str, list[Slots]] = {}
    for gap in gaps:
        slots.setdefault(gap.key, []).append(gap.slots)
    return len(gaps), sum(len(each) for ranges in slots.values() for each in merged(ranges))
