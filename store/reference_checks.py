"""When the reference of each payment is to be asked about by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from indexer.core.shares import SHARDS
from indexer.core.types import Status
from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


#: Checks that are due, up to which others are hastened: more than are made between two sweeps.
DUE_MAX: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A payment whose own reference is to be swept now, and what decides when the next time is.

    Attributes:
        watch_key: the key that should find it as well.
        created_at, expires_at: unix seconds.
        grace_s: seconds after `expires_at` in which late money still settles.
    """

    payment_id: str
    reference: str
    watch_key: str
    status: Status
    created_at: int
    expires_at: int
    grace_s: int


async def due(
    database: Database, now: int, limit: int, shards: Sequence[int] = range(SHARDS)
) -> list[Due]:
    """The payments of some shards whose check is due, the longest due first."""
    values = (now, limit, json_text(list(shards)))
    [found] = await database.read([Statement(QUERIES["reference_checks_due"], values)])
    return [
        Due(
            payment_id=payment_id,
            reference=reference,
            watch_key=watch_key,
            status=Status(status),
            created_at=created_at,
            expires_at=expires_at,
            grace_s=grace_s,
        )
        for payment_id, reference, watch_key, status, created_at, expires_at, grace_s in found
    ]


def again_at(payment_id: str, due_at: int) -> Statement:
    """The check was made; the next one is due then (unix seconds)."""
    return Statement(QUERIES["reference_check_move"], (payment_id, due_at))


def ask(payment_id: str, now: int) -> Statement:
    """Somebody wants to know now: the check comes next, unless it is due sooner anyway."""
    return Statement(QUERIES["reference_check_ask"], (payment_id, now))


def hasten(watch_key: str, block_time: int, now: int, *, limit: int = DUE_MAX) -> Statement:
    """The watch key is complete up to that block time: whose deadline has passed is due now.

    Leaves out those whose own reference is complete beyond the deadline. The others keep their
    turn while so many checks are due anyway, and are hastened later.
    """
    values = (watch_key, block_time, now, limit)
    return Statement(QUERIES["reference_checks_hasten"], values)


def end(payment_id: str) -> Statement:
    """Money for this payment does not count by itself any more: no more checks."""
    return Statement(QUERIES["reference_check_end"], (payment_id,))
