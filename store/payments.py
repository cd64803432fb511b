"""Payments on the chain, with everything that was ever found out about them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from indexer.core.events import Event
from indexer.core.payment import AnyPayment, Payment
from indexer.core.types import DecisionKind, Status
from indexer.core.verdict import Decision, Sighting, Verdict
from indexer.errors import InvariantError
from store import decisions as decision_log, events as event_log, rows
from store.database import Database, Parameter, Rows, Statement
from store.queries import QUERIES


T = TypeVar("T")

#: Creation time and id that come before (newer than) those of any payment.
NEWEST: Final = (2**63 - 1, "")


@dataclass(frozen=True, slots=True)
class Record:
    """A payment as it is stored, with its verdicts and sightings in the chain's order.

    Attributes:
        decisions: what persons said of its transactions, sorted by signature.
    """

    payment: Payment
    verdicts: tuple[Verdict, ...] = ()
    sightings: tuple[Sighting, ...] = ()
    decisions: tuple[Decision, ...] = ()

    @property
    def accepted(self) -> frozenset[str]:
        """Signatures that count whatever speaks against them."""
        kinds = (DecisionKind.ACCEPTED, DecisionKind.MATCHED)
        return decision_log.signatures(self.decisions, *kinds)

    @property
    def refused(self) -> frozenset[str]:
        """Signatures that count for nothing."""
        return decision_log.signatures(self.decisions, DecisionKind.REFUSED)

    @property
    def decided(self) -> int:
        """Base units that were received and about which a person decided."""
        signatures = self.accepted | self.refused
        return sum(v.credit for v in self.verdicts if v.signature in signatures)


# --------------------------------------------------------------------------------- statements


def insert(payment: AnyPayment, event: Event) -> list[Statement]:
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
    decisions: Sequence[Decision] = (),
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
        decisions: new ones; one about a transaction that was decided on refuses the batch.
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
    elif verdicts or sightings or unsighted or decisions:
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
    batch += [decision_log.insert(decision) for decision in decisions]
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


async def by_references(
    database: Database, keys: Collection[str], signatures: Collection[str] = ()
) -> list[Record]:
    """Every payment whose reference is among the keys, whatever its status.

    And every payment that holds a leg of one of the transactions with these signatures: a
    person may have given it to a payment that the transaction does not name.
    """
    parameters = (rows.json_text(sorted(keys)), rows.json_text(sorted(signatures)))
    return await _by_query(database, "ids_by_references", parameters)


async def expirable(database: Database, *, key: str, block_time: int, limit: int) -> list[Record]:
    """Open payments of one watched key whose deadline lies before `block_time`.

    Those that were paid in full and in time are left out: they wait for a person.
    """
    return await _by_query(database, "ids_of_expirable", (key, block_time, limit))


async def sighted(database: Database, *, limit: int) -> list[Sighting]:
    """Sightings of all payments, the oldest slot first."""
    [found] = await database.read([Statement(QUERIES["sightings_oldest"], (limit,))])
    return [rows.sighting(row) for row in found]


async def counts(database: Database) -> dict[Status, int]:
    """How many payments have each status."""
    [found] = await database.read([Statement(QUERIES["payment_counts"])])
    return dict.fromkeys(Status, 0) | {Status(status): count for status, count in found}


async def by_signature(database: Database, signature: str) -> list[Record]:
    """Every payment that has a verdict of the transaction."""
    return await _by_query(database, "ids_by_signature", (signature,))


async def in_review(database: Database, *, limit: int) -> list[Record]:
    """Payments on the chain that a person must look at, the oldest first."""
    return await _by_query(database, "ids_in_review", (limit,))


async def in_review_count(database: Database) -> int:
    """How many payments a person must look at."""
    [[(number,)]] = await database.read([Statement(QUERIES["payments_in_review_count"])])
    return int(number)


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
            "decisions_by_ids",
        )
    ]


def assemble(ids: Sequence[str], answers: Sequence[Rows]) -> list[Record]:
    """Records from the answers to `record_statements`, in the order of the ids.

    Of payments on the chain: others are left out (see `everything`).
    """
    payments, metadata, verdicts, transfers, sightings, decisions = answers
    legs = rows.legs(transfers)
    notes: dict[str, dict[str, str]] = defaultdict(dict)
    for payment_id, key, value in metadata:
        notes[payment_id][key] = value
    judged = _grouped(
        [rows.verdict(row, legs.get((row[0], row[1]), ())) for row in verdicts],
        lambda verdict: verdict.payment_id,
    )
    seen = _grouped([rows.sighting(row) for row in sightings], lambda s: s.payment_id)
    decided = decision_log.by_payment(decisions)
    found = [rows.payment(row, notes.get(row[0], {})) for row in payments]
    records = {
        (id_ := payment.terms.id): Record(
            payment,
            tuple(sorted(judged.get(id_, ()), key=lambda verdict: verdict.order)),
            tuple(sorted(seen.get(id_, ()), key=lambda s: (s.slot, s.signature))),
            decided.get(id_, ()),
        )
        for payment in found
        if isinstance(payment, Payment)
    }
    return [records[id_] for id_ in dict.fromkeys(ids) if id_ in records]


async def column(database: Database, name: str, parameters: tuple[Parameter, ...]) -> list[Any]:
    """The first column of what a named statement of `queries.sql` finds."""
    [found] = await database.read([Statement(QUERIES[name], parameters)])
    return [row[0] for row in found]


def _grouped(values: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    return groups


async def _by_query(
    database: Database, name: str, parameters: tuple[Parameter, ...]
) -> list[Record]:
    return await by_ids(database, await column(database, name, parameters))
