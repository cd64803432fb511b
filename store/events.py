"""The event log: appended to with every change, read after a number."""

from dataclasses import dataclass

from indexer.core.events import Event
from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One line of the log.

    Attributes:
        seq: ascending over all payments, with a leap at a restore; the resume point of every
            reader.
        created_at: unix seconds.
        data: JSON text.
    """

    seq: int
    payment_id: str
    type: str
    version: int
    created_at: int
    data: str


def append(event: Event) -> Statement:
    """Adds an event; refused when that version of the payment has published it already."""
    values = (
        event.payment_id,
        event.type,
        event.version,
        event.ordinal,
        event.created_at,
        json_text(event.data),
    )
    return Statement(QUERIES["event_append"], values)


async def after(
    database: Database, seq: int, *, payment_id: str | None = None, limit: int
) -> list[StoredEvent]:
    """Events after a number, oldest first, of one payment or of all."""
    if payment_id is None:
        statement = Statement(QUERIES["events_after"], (seq, limit))
    else:
        statement = Statement(QUERIES["events_of_payment_after"], (payment_id, seq, limit))
    [found] = await database.read([statement])
    return [
        StoredEvent(
            seq=seq, payment_id=id_, type=type_, version=version, created_at=created_at, data=data
        )
        for seq, id_, type_, version, created_at, data in found
    ]


def last_seq_statement(payment_id: str | None = None) -> Statement:
    """Reads the number of the last event, of one payment or of all; 0 when there is none."""
    if payment_id is None:
        return Statement(QUERIES["last_seq"])
    return Statement(QUERIES["last_seq_of_payment"], (payment_id,))


async def last_seq(database: Database, *, payment_id: str | None = None) -> int:
    """The number of the last event, of one payment or of all; 0 when there is none."""
    [[(seq,)]] = await database.read([last_seq_statement(payment_id)])
    return int(seq)


async def count(database: Database) -> int:
    """How many events there are."""
    [[(number,)]] = await database.read([Statement(QUERIES["event_count"])])
    return int(number)
