"""Answers to requests that had an effect, and leases of those that are at work.

    claim ──► lease ──► effect, answer, and the end of the lease, in one batch
                │ ▲
                ▼ │ renewed while the work takes long
      ends: the next one claims it, and from then on the batch of the first is refused whole

A lease names its holder by a token that no other attempt has. The answer is stored under the
condition that the lease still names it, so a holder that was slow, paused or cut off stores
nothing once somebody else has taken the work over, whatever its own clock says. The clocks decide
only how long the next one waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


#: Seconds after which a lease that nobody renewed ends.
LEASE_S: Final = 10
#: Seconds by which the clocks of two processes may differ. A lease that ends later than any
#: could was given by a clock that is wrong, and whoever finds it may take it.
CLOCKS_APART_S_MAX: Final = 30

#: Seconds that an ended lease is kept: a holder that nobody has replaced may still finish.
ENDED_KEPT_S: Final = 3_600

#: Answers that are forgotten at once, and leases. With a prune every ten minutes it keeps up with
#: some 160 requests a second, and takes well under a second.
PRUNED_MAX: Final = 100_000

_headers = msgspec.json.Decoder(dict[str, str])


class Once(NamedTuple):
    """What must happen once: a caller's key, for one route."""

    api_key_id: str
    route: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One attempt to do what must happen once.

    Attributes:
        fingerprint: SHA-256 of the request's raw body, hex.
        holder: the attempt's own token, which no other has.
    """

    once: Once
    fingerprint: str
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An answer, and what the request was that it answers.

    Attributes:
        fingerprint: SHA-256 of the request's raw body, hex.
        created_at: unix seconds.
    """

    fingerprint: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How it stands with what must happen once.

    Attributes:
        stored: the answer; None while there is none.
        holder: whose lease has not ended; None when nobody is at work.
        fingerprint: of the request that is at work.
    """

    stored: Stored | None
    holder: str | None
    fingerprint: str | None


async def look(database: Database, once: Once, now: int) -> Standing:
    """How it stands, at that time in unix seconds."""
    return _standing(*await database.read([_at_work(once, now), _find(once)]))


async def claim(database: Database, lease: Lease, now: int) -> Standing:
    """Takes the lease, unless another has it or the answer is there; says how it stands then.

    Raises:
        StoreUnavailable: it is ours or it is not; `release` sees to that it is not.
    """
    values = (*lease.once, lease.fingerprint, lease.holder, now, LEASE_S, CLOCKS_APART_S_MAX)
    claim = Statement(QUERIES["idempotency_claim"], values)
    _, at_work, found = await database.write([claim, _at_work(lease.once, now), _find(lease.once)])
    return _standing(at_work, found)


async def renew(database: Database, lease: Lease, now: int) -> bool:
    """Has the lease last for `LEASE_S` from now on; False when it is not ours any more."""
    values = (*lease.once, lease.holder, now + LEASE_S)
    [renewed] = await database.write([Statement(QUERIES["idempotency_renew"], values)])
    return bool(renewed)


async def release(database: Database, lease: Lease) -> tuple[bool, Stored | None]:
    """Gives the lease back. From then on nothing can be stored under it.

    Returns whether it still was ours, and the answer that is stored: so whoever does not know
    what became of its batch knows it now.
    """
    released, found = await database.write([_release(lease), _find(lease.once)])
    return bool(released), _stored(found)


def store(lease: Lease, stored: Stored) -> list[Statement]:
    """Stores an answer and ends the lease; refuses the batch when it is not the lease's holder."""
    values = (
        *lease.once,
        lease.holder,
        stored.fingerprint,
        stored.status,
        json_text(stored.headers),
        stored.body,
        stored.created_at,
    )
    return [Statement(QUERIES["idempotency_insert"], values), _release(lease)]


def prune(before: int, now: int) -> list[Statement]:
    """Forgets answers from before a time, and leases that ended long ago, a bounded number."""
    return [
        Statement(QUERIES["idempotency_prune"], (before, PRUNED_MAX)),
        Statement(QUERIES["idempotency_leases_prune"], (now - ENDED_KEPT_S, PRUNED_MAX)),
    ]


def _find(once: Once) -> Statement:
    return Statement(QUERIES["idempotency_find"], once)


def _at_work(once: Once, now: int) -> Statement:
    values = (*once, now, LEASE_S + CLOCKS_APART_S_MAX)
    return Statement(QUERIES["idempotency_at_work"], values)


def _release(lease: Lease) -> Statement:
    return Statement(QUERIES["idempotency_release"], (*lease.once, lease.holder))


def _standing(at_work: list[tuple[Any, ...]], found: list[tuple[Any, ...]]) -> Standing:
    holder, fingerprint = at_work[0] if at_work else (None, None)
    return Standing(stored=_stored(found), holder=holder, fingerprint=fingerprint)


def _stored(found: list[tuple[Any, ...]]) -> Stored | None:
    if not found:
        return None
    fingerprint, status, headers, body, created_at = found[0]
    return Stored(
        fingerprint=fingerprint,
        status=status,
        headers=_headers.decode(headers),
        body=body,
        created_at=created_at,
    )
