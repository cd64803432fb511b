"""What an audit reads: payments with their events and the frontiers, all from one moment."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from indexer.core.chronicle import Entry
from indexer.core.ranges import Slots, missing
from store import cards, payments
from store.cards import CardRecord
from store.cursors import Frontier
from store.database import Database, Rows, Statement
from store.payments import Record
from store.queries import QUERIES
from store.rows import json_text


#: Holes in the event log that are named; there should be none.
HOLES_MAX: Final = 100

#: Creation time and id that come before those of any payment.
OLDEST: Final = (-1, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Some payments as they stood at one moment.

    Attributes:
        records: in the order of the ids that were asked for.
        entries: payment id -> its events, ascending by number.
        frontiers: watched key -> how far it was complete then.
        gaps: watched key -> what is missing below that.
    """

    records: Sequence[Record]
    entries: Mapping[str, Sequence[Entry]]
    frontiers: Mapping[str, Frontier]
    gaps: Mapping[str, Sequence[Slots]]


async def count(database: Database, since: int, until: int) -> int:
    """How many payments on the chain were created in that time, both ends included."""
    [[(number,)]] = await database.read([Statement(QUERIES["audit_count"], (since, until))])
    return int(number)


async def page(
    database: Database, since: int, until: int, *, after: tuple[int, str], limit: int
) -> list[tuple[int, str]]:
    """Creation time and id of the next payments of that time, the oldest first."""
    statement = Statement(QUERIES["audit_page"], (since, until, *after, limit))
    [found] = await database.read([statement])
    return [(created_at, id_) for created_at, id_ in found]


async def snapshot(database: Database, ids: Collection[str]) -> Snapshot:
    """These payments, with all that is known of them."""
    names = json_text(list(ids))
    *answers, events, cursors, gaps = await database.read(
        [
            *payments.record_statements(ids),
            Statement(QUERIES["audit_events"], (names,)),
            Statement(QUERIES["audit_frontiers"], (names,)),
            Statement(QUERIES["audit_gaps"], (names,)),
        ]
    )
    lacking: dict[str, list[Slots]] = defaultdict(list)
    for key, first, last in gaps:
        lacking[key].append(Slots(first, last))
    return Snapshot(
        records=payments.assemble(list(ids), answers),
        entries=_entries(events),
        frontiers={
            key: Frontier(key=key, slot=slot, block_time=block_time, updated_at=updated_at)
            for key, slot, block_time, updated_at in cursors
        },
        gaps=lacking,
    )


async def card_snapshot(
    database: Database, ids: Collection[str]
) -> tuple[list[CardRecord], Mapping[str, Sequence[Entry]]]:
    """These payments by card, and their events by payment, from one moment."""
    names = (json_text(list(ids)),)
    *answers, events = await database.read(
        [
            Statement(QUERIES["payments_by_ids"], names),
            Statement(QUERIES["metadata_by_ids"], names),
            *cards.own_statements(ids),
            Statement(QUERIES["audit_events"], names),
        ]
    )
    return cards.assemble(list(ids), answers), _entries(events)


async def missing_events(database: Database) -> list[Slots]:
    """Numbers that were given and that no event has, as ranges; the first `HOLES_MAX` of them.

    Those that a restore has left out are none of them.
    """
    holes, left_out = await database.read(
        [
            Statement(QUERIES["audit_log_holes"], (HOLES_MAX,)),
            Statement(QUERIES["audit_log_skipped"]),
        ]
    )
    skipped = [Slots(before + 1, last) for before, last in left_out]
    return [lost for first, last in holes for lost in missing(Slots(first, last), skipped)]


def _entries(events: Rows) -> dict[str, list[Entry]]:
    """Rows of `audit_events`, by payment."""
    entries: dict[str, list[Entry]] = defaultdict(list)
    for payment_id, seq, type_, version, ordinal, data in events:
        entries[payment_id].append(
            Entry(seq=seq, type=type_, version=version, ordinal=ordinal, data=_decoded(data))
        )
    return entries


def _decoded(data: str) -> Any:
    """None for what is no JSON: the reader of the log says so."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
