"""Answers to requests that had an effect, so that a repeated request has none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


#: Answers that are forgotten at once. With a prune every ten minutes it keeps up with some 160
#: requests a second, and takes well under a second.
PRUNED_MAX: Final = 100_000

_headers = msgspec.json.Decoder(dict[str, str])


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


async def find(database: Database, api_key_id: str, route: str, key: str) -> Stored | None:
    """The stored answer to a request of that key; None when there was none."""
    statement = Statement(QUERIES["idempotency_find"], (api_key_id, route, key))
    [found] = await database.read([statement])
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


def insert(api_key_id: str, route: str, key: str, stored: Stored) -> Statement:
    """Stores an answer; refuses the batch when there is one of that key already."""
    values = (
        api_key_id,
        route,
        key,
        stored.fingerprint,
        stored.status,
        json_text(stored.headers),
        stored.body,
        stored.created_at,
    )
    return Statement(QUERIES["idempotency_insert"], values)


def prune(before: int) -> Statement:
    """Forgets answers that were stored before that time, at most `PRUNED_MAX` of them."""
    return Statement(QUERIES["idempotency_prune"], (before, PRUNED_MAX))
