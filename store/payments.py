"""Payments with everything that was ever found out about them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from indexer.core.events import Event
from indexer.core.payment import Payment
from indexer.core.types import Status
from indexer.core.verdict import Sighting, Verdict
from indexer.errors import InvariantError
from store import events as event_log, rows
from store.database import Database, Parameter, Rows, Statement
from store.queries import QUERIES


T = TypeVar("T")

#: Creation time and id that come before (newer than) those of any payment.
NEWEST: Final = (2**63 - 1, "")


@dataclass(frozen=True, slots=True)
class Record:
    """A payment as it is stored, with its verdicts and sightings in the chain's order."""

    payment: Payment
    verdicts: tuple[Verdict, ...] = ()
    sightings: tuple[Sighting, ...] = ()


# --------------------------------------------------------------------------------- statements


def insert(payment: Payment, event: Event) -> list[Statement]:
    """Creates a payment, its metadata and its first event."""
    metadata = [
        Statement(QUERIES["metadata_insert"], (payment.terms.id, key, value))
        for key, value in payment.metadata.items()
    ]
    return [
        Statement(QUERIES["payment_insert"], rows.payment_values(payment)),
        *metadata,
        event_log.append(event),
    ]


def save(
    before: Payment,
    after: Payment,
    *,
    verdicts: Sequence[Verdict] = (),
    sightings: Sequence[Sighting] = (),
    unsighted: Sequence[str] = (),
    events: Sequence[Event] = (),
    now: int,
) -> list[Statement]:
    """Takes a payment from one version to the next, with all that goes along.

    Args:
        before: as it was read; the batch is refused when the store has another version.
        after: as it shall be; the same as `before` when only verdicts are added.
        verdicts: new ones; one that is stored already changes nothing.
        sightings: new ones.
        unsighted: signatures that are sightings of this payment no more.
        events: what the change publishes.
        now: unix seconds, when the sightings were made.
    """
    id_ = before.terms.id
    batch = []
    if after != before:
        if (after.terms, after.version) != (before.terms, before.version + 1):
            raise InvariantError(f"{id_} changes otherwise than to its next version")
        values = (id_, before.version, *rows.state_values(after.state))
        batch.append(Statement(QUERIES["payment_update"], values))
    elif verdicts or sightings or unsighted:
        batch.append(Statement(QUERIES["payment_unchanged"], (id_, before.version)))
    for verdict in verdicts:
        batch.append(Statement(QUERIES["verdict_insert"], rows.verdict_values(verdict)))
        batch += [
            Statement(QUERIES["transfer_insert"], rows.leg_values(verdict.signature, id_, leg))
            for leg in verdict.legs
        ]
    batch += [
        Statement(
            QUERIES["sighting_insert"],
            (id_, sighting.signature, sighting.slot, str(sighting.credit), now),
        )
        for sighting in sightings
    ]
    gone = sorted({*unsighted, *(verdict.signature for verdict in verdicts)})
    if gone:
        batch.append(Statement(QUERIES["sighting_delete"], (id_, rows.json_text(gone))))
    return batch + [event_log.append(event) for event in events]


# ------------------------------------------------------------------------------------ reading


async def get(database: Database, payment_id: str) -> Record | None:
    """One payment; None when there is none of that id."""
    found = await by_ids(database, [payment_id])
    return found[0] if found else None


async def by_ids(database: Database, ids: Collection[str]) -> list[Record]:
    """Payments by id, in the order of the ids; unknown ones are left out."""
    if not ids:
        return []
    return assemble(list(ids), await database.read(record_statements(ids)))


async def by_references(database: Database, keys: Collection[str]) -> list[Record]:
    """Every payment whose reference is among the keys, whatever its status."""
    return await _by_query(database, "ids_by_references", (rows.json_text(sorted(keys)),))


async def page(
    database: Database,
    *,
    status: Status | None = None,
    order_id: str | None = None,
    reference: str | None = None,
    created_after: int | None = None,
    before: tuple[int, str] | None = None,
    limit: int,
) -> list[Record]:
    """Payments, newest first, that fit all filters given.

    `created_after` is unix seconds, not included. `before` is the creation time and id of the
    last payment of the page before this one.
    """
    if reference is not None:
        name = "page_by_reference"
    elif order_id is not None:
        name = "page_by_order"
    elif status is not None:
        name = "page_by_status"
    else:
        name = "page"
    after = -1 if created_after is None else created_after
    parameters = (status, order_id, reference, after, *(before or NEWEST), limit)
    return await _by_query(database, name, parameters)


async def expirable(database: Database, *, key: str, block_time: int, limit: int) -> list[Record]:
    """Open payments of one watched key whose deadline lies before `block_time`.

    Those that were paid in full and in time are left out: they wait for a person.
    """
    return await _by_query(database, "ids_of_expirable", (key, block_time, limit))


async def foreign(database: Database, *, now: int, limit: int) -> list[str]:
    """References that are watched one by one, because their URL lacks the watch key."""
    return await _column(database, "foreign_references", (now, limit))


async def watch_keys(database: Database, *, now: int) -> list[str]:
    """Watch keys of all payments for which money may still count."""
    return await _column(database, "watch_keys", (now,))


async def sighted(database: Database, *, limit: int) -> list[Sighting]:
    """Sightings of all payments, the oldest slot first."""
    [found] = await database.read([Statement(QUERIES["sightings_oldest"], (limit,))])
    return [rows.sighting(row) for row in found]


async def counts(database: Database) -> dict[Status, int]:
    """How many payments have each status."""
    [found] = await database.read([Statement(QUERIES["payment_counts"])])
    return dict.fromkeys(Status, 0) | {Status(status): count for status, count in found}


def record_statements(ids: Iterable[str]) -> list[Statement]:
    """The reads whose rows `assemble` makes records of, to be sent as one batch."""
    parameters = (rows.json_text(list(ids)),)
    return [
        Statement(QUERIES[name], parameters)
        for name in (
            "payments_by_ids",
            "metadata_by_ids",
            "verdicts_by_ids",
            "transfers_by_ids",
            "sightings_by_ids",
        )
    ]


def assemble(ids: Sequence[str], answers: Sequence[Rows]) -> list[Record]:
    """Records from the answers to `record_statements`, in the order of the ids."""
    payments, metadata, verdicts, transfers, sightings = answers
    legs = rows.legs(transfers)
    notes: dict[str, dict[str, str]] = defaultdict(dict)
    for payment_id, key, value in metadata:
        notes[payment_id][key] = value
    judged = _grouped(
        [rows.verdict(row, legs.get((row[0], row[1]), ())) for row in verdicts],
        lambda verdict: verdict.payment_id,
    )
    seen = _grouped([rows.sighting(row) for row in sightings], lambda s: s.payment_id)
    records = {
        row[0]: Record(
            rows.payment(row, notes.get(row[0], {})),
            tuple(sorted(judged.get(row[0], ()), key=lambda verdict: verdict.order)),
            tuple(sorted(seen.get(row[0], ()), key=lambda s: (s.slot, s.signature))),
        )
        for row in payments
    }
    return [records[id_] for id_ in dict.fromkeys(ids) if id_ in records]


def _grouped(values: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    return groups


async def _by_query(
    database: Database, name: str, parameters: tuple[Parameter, ...]
) -> list[Record]:
    return await by_ids(database, await _column(database, name, parameters))


async def _column(database: Database, name: str, parameters: tuple[Parameter, ...]) -> list[Any]:
    [found] = await database.read([Statement(QUERIES[name], parameters)])
    return [row[0] for row in found]
