"""Webhooks that came in: stored before they are answered, and processed out of here.

    receive ──► waiting ──► done | ignored | refused | failed        finish, again
                   ▲                        │
                   └────────────────────────┘                        reopen

The same event is one row, however often it is sent. What was turned away without being
authentic is one row for each source and hour.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from indexer.core.shares import SHARDS
from indexer.core.types import WebhookSource, WebhookVerdict
from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


#: Events that are forgotten at once: a write holds up all others.
PRUNED_MAX: Final = 1_000

#: Begins the key of a sample. No event has such a key: theirs are hexadecimal.
_SAMPLE_KEY: Final = "turned away: "
#: Bounds of what is asked for, where there are none.
_ALWAYS: Final = 2**63 - 1
_NEVER: Final = -1

_headers = msgspec.json.Decoder(dict[str, str])
_strings = msgspec.json.Decoder(list[str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An authentic webhook, as it may be stored.

    Attributes:
        kind: what the body says it is: `transactions`, `TRANSACTION` …
        dedupe_key: SHA-256, hex, of what makes it the same event when it comes again.
        nonce: of the signature; None when it carries none. Good for one event.
        body: as it came, but for secrets and card numbers.
        headers: lower-case names; only those that say nothing secret.
        address: of the peer.
    """

    source: WebhookSource
    kind: str
    dedupe_key: str
    nonce: str | None
    body: bytes
    headers: Mapping[str, str]
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an event.

    Attributes:
        verdict: done, ignored, refused or failed.
        detail: a sentence for a person.
        payment_ids: the payments that it was about.
    """

    verdict: WebhookVerdict
    detail: str | None = None
    payment_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the audit trail: all of an event but its body, which may be large.

    Attributes:
        detail: a sentence for a person; None when there is nothing to say.
        repeats: how often it came again; of a sample: how many were turned away.
        attempts: how often it was processed, since it was last asked for.
        next_try_at: unix seconds; None unless it waits.
        received_at: unix seconds, when it came first.
        updated_at: unix seconds, when it came last or was processed last.
    """

    id: int
    source: WebhookSource
    kind: str
    dedupe_key: str
    nonce: str | None
    verdict: WebhookVerdict
    detail: str | None
    headers: Mapping[str, str]
    address: str
    repeats: int
    attempts: int
    next_try_at: int | None
    received_at: int
    updated_at: int
    body_bytes: int
    payment_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent(Entry):
    """An event with its body."""

    body: bytes


# --------------------------------------------------------------------------------- statements


def receive(arrived: Arrived, now: int, outcome: Outcome | None = None) -> Statement:
    """Stores an event, to be processed; the same one again is only counted.

    Returns the row that it is now: id, repeats, dedupe_key. A `dedupe_key` that is not the
    event's own says that its nonce belongs to another one, and that nothing was stored.

    Args:
        arrived: the event.
        now: unix seconds.
        outcome: its verdict and detail, when it needs no processing.
    """
    verdict = outcome.verdict if outcome else WebhookVerdict.WAITING
    values = (
        arrived.source,
        arrived.kind,
        arrived.dedupe_key,
        arrived.nonce,
        verdict,
        outcome.detail if outcome else None,
        arrived.body,
        json_text(arrived.headers),
        arrived.address,
        now if verdict is WebhookVerdict.WAITING else None,
        now,
    )
    return Statement(QUERIES["webhook_event_receive"], values)


def sample(
    source: WebhookSource, hour: int, *, count: int, address: str, detail: str, now: int
) -> Statement:
    """Counts what was turned away: one row for each source and hour, whatever comes.

    Args:
        source: which door.
        hour: any number that is the same for what shall be counted together.
        count: how many more there were.
        address: one that they came from; the first one stays.
        detail: why they were turned away; the last one stays.
        now: unix seconds.
    """
    values = (source, f"{_SAMPLE_KEY}{hour}", detail, address, count, now)
    return Statement(QUERIES["webhook_event_sample"], values)


def finish(event_id: int, outcome: Outcome, now: int) -> list[Statement]:
    """Ends an event that waits; changes nothing about one that does not any more."""
    values = (event_id, outcome.verdict, outcome.detail, now)
    about = [
        Statement(QUERIES["webhook_event_payment_insert"], (payment_id, event_id))
        for payment_id in outcome.payment_ids
    ]
    return [Statement(QUERIES["webhook_event_finish"], values), *about]


def again(
    event_id: int, *, attempts: int, next_try_at: int, detail: str | None, now: int
) -> Statement:
    """Puts an event off that waits: it could not be processed, for the reason in `detail`."""
    values = (event_id, attempts, next_try_at, detail, now)
    return Statement(QUERIES["webhook_event_again"], values)


def reopen(event_id: int, now: int) -> Statement:
    """Has an event processed again, from the first attempt on. Returns its id, if it is one.

    What waits already and what was never authentic are none.
    """
    return Statement(QUERIES["webhook_event_reopen"], (event_id, now))


def prune(before: int) -> Statement:
    """Forgets events that came before that time, at most `PRUNED_MAX`; returns their ids.

    Never one that waits.
    """
    return Statement(QUERIES["webhook_events_prune"], (before, PRUNED_MAX))


# ------------------------------------------------------------------------------------ reading


async def waiting(
    database: Database,
    source: WebhookSource,
    now: int,
    limit: int,
    *,
    bytes_max: int | None = None,
    excluding: Collection[int] = (),
    shards: Sequence[int] = range(SHARDS),
) -> list[WebhookEvent]:
    """Events of one source that are due, the longest due first.

    Of those that were never tried that is the order in which they came.

    Args:
        database: where they are.
        source: who sent them.
        now: unix seconds.
        limit: how many at most.
        bytes_max: how many bytes their bodies have together at most; the first one may have more.
        excluding: ids of some that are in somebody's hands.
        shards: ids that give these remainders when they are divided by `SHARDS`.
    """
    values = (now, json_text(sorted(excluding)), limit, source, json_text(list(shards)))
    [found] = await database.read([Statement(QUERIES["webhook_event_ids_waiting"], values)])
    ids, size = list[int](), 0
    for id_, body_bytes in found:
        size += body_bytes
        if ids and bytes_max is not None and size > bytes_max:
            break
        ids.append(id_)
    events = {event.id: event for event in await _events(database, ids)}
    return [events[id_] for id_ in ids if id_ in events]


async def get(database: Database, event_id: int) -> WebhookEvent | None:
    """One event; None when there is none of that id."""
    found = await _events(database, [event_id])
    return found[0] if found else None


async def page(
    database: Database,
    *,
    source: WebhookSource | None = None,
    verdict: WebhookVerdict | None = None,
    since: int | None = None,
    until: int | None = None,
    payment_id: str | None = None,
    before: int | None = None,
    limit: int,
) -> list[Entry]:
    """Events that fit all filters given, without their bodies, newest first.

    Args:
        database: where they are.
        source: who sent them.
        verdict: what became of them.
        since: unix seconds; those that came then or later.
        until: unix seconds; those that came before.
        payment_id: those that were about this payment.
        before: id of the last one of the page before.
        limit: how many at most.
    """
    if payment_id is not None:
        name = "webhook_event_ids_by_payment"
    elif since is not None or until is not None:
        name = "webhook_event_ids_by_time"
    elif verdict is not None:
        name = "webhook_event_ids_by_verdict"
    elif source is not None:
        name = "webhook_event_ids_by_source"
    else:
        name = "webhook_event_ids"
    values = (
        source,
        verdict,
        _NEVER if since is None else since,
        _ALWAYS if until is None else until,
        payment_id,
        _ALWAYS if before is None else before,
        limit,
    )
    [ids] = await database.read([Statement(QUERIES[name], values)])
    statement = Statement(QUERIES["webhook_entries_by_ids"], (json_text([id_ for (id_,) in ids]),))
    [found] = await database.read([statement])
    return [Entry(**_columns(row)) for row in found]


async def counts(database: Database) -> dict[WebhookVerdict, int]:
    """How many events have each verdict; a sample counts as one."""
    [found] = await database.read([Statement(QUERIES["webhook_event_counts"])])
    return dict.fromkeys(WebhookVerdict, 0) | {WebhookVerdict(name): count for name, count in found}


async def oldest_waiting_at(database: Database) -> int | None:
    """When the first of those that wait came, in unix seconds; None: none waits."""
    [found] = await database.read([Statement(QUERIES["webhook_event_oldest_waiting"])])
    return int(found[0][0]) if found else None


async def _events(database: Database, ids: Sequence[int]) -> list[WebhookEvent]:
    if not ids:
        return []
    statement = Statement(QUERIES["webhook_events_by_ids"], (json_text(ids),))
    [found] = await database.read([statement])
    return [WebhookEvent(**_columns(row), body=bytes(row[-1])) for row in found]


def _columns(row: Sequence[Any]) -> dict[str, Any]:
    """What both statements that show an event begin with."""
    (
        id_, source, kind, dedupe_key, nonce, verdict, detail, headers, address, repeats, attempts,
        next_try_at, received_at, updated_at, body_bytes, payment_ids,
    ) = row[:16]  # fmt: skip
    return {
        "id": id_,
        "source": WebhookSource(source),
        "kind": kind,
        "dedupe_key": dedupe_key,
        "nonce": nonce,
        "verdict": WebhookVerdict(verdict),
        "detail": detail,
        "headers": _headers.decode(headers),
        "address": address,
        "repeats": repeats,
        "attempts": attempts,
        "next_try_at": next_try_at,
        "received_at": received_at,
        "updated_at": updated_at,
        "body_bytes": body_bytes,
        "payment_ids": tuple(sorted(_strings.decode(payment_ids))),
    }
