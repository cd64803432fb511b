"""The receivers that merchants registered: where to, what of, which secret; never the secret."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


_strings = msgspec.json.Decoder(tuple[str, ...])


class EndpointState(StrEnum):
    """Whether a receiver is sent anything."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Which secret signs: derived from that key in that generation.

    Attributes:
        key_id: of the signing key.
        until: unix seconds, when it ends; None: it is the current one.
    """

    key_id: str
    generation: int
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpoint:
    """A receiver.

    Attributes:
        id: `we_` and 26 characters.
        event_types: what it is told of; empty: everything.
        state_reason: why it is not enabled; None: it is.
        signer: its secret.
        old_signer: the one before the last rotation; None: there is none.
        created_at: unix seconds.
        waiting: deliveries that are on their way.
        failed: deliveries that were given up.
    """

    id: str
    url: str
    event_types: tuple[str, ...]
    description: str | None
    state: EndpointState
    state_reason: str | None
    signer: Signer
    old_signer: Signer | None
    created_at: int
    updated_at: int
    waiting: int = 0
    failed: int = 0

    def signers(self, now: int) -> tuple[Signer, ...]:
        """Which secrets sign at that time, the current one first."""
        old = self.old_signer
        if old is None or old.until is None or old.until <= now:
            return (self.signer,)
        return (self.signer, old)


def create(
    *,
    id: str,
    url: str,
    event_types: Sequence[str],
    description: str | None,
    key_id: str,
    now: int,
    at_most: int,
) -> Statement:
    """Registers a receiver and returns its id; refuses the batch when there are `at_most`."""
    values = (id, url, json_text(list(event_types)), description, key_id, now, at_most)
    return Statement(QUERIES["webhook_endpoint_create"], values)


def rotate(endpoint: WebhookEndpoint, *, key_id: str, overlap_s: int, now: int) -> Statement:
    """Gives it the next secret; returns its id, or nothing when there is none.

    Refuses the batch when it was rotated in between.

    Args:
        endpoint: as it was read.
        key_id: of the signing key that new secrets are derived from.
        overlap_s: seconds for which the secret of now signs too.
        now: unix seconds.
    """
    values = (endpoint.id, endpoint.signer.generation, key_id, now, now + overlap_s)
    return Statement(QUERIES["webhook_endpoint_rotate"], values)


def enable(endpoint_id: str, now: int) -> Statement:
    """Events are delivered to it from now on; returns its id, or nothing when there is none."""
    return Statement(QUERIES["webhook_endpoint_enable"], (endpoint_id, now))


def disable(endpoint_id: str, reason: str, now: int) -> list[Statement]:
    """Sends it nothing more, not what waits either.

    The first returns its id, or nothing when there is none that is enabled.
    """
    return _end(endpoint_id, EndpointState.DISABLED, reason, now)


def delete(endpoint_id: str, now: int) -> list[Statement]:
    """The same for ever; what was delivered stays on record."""
    return _end(endpoint_id, EndpointState.DELETED, "deleted", now)


def _end(endpoint_id: str, state: EndpointState, reason: str, now: int) -> list[Statement]:
    return [
        Statement(QUERIES["webhook_endpoint_end"], (endpoint_id, state, reason, now)),
        Statement(QUERIES["webhook_deliveries_drop"], (endpoint_id, now)),
    ]


async def get(database: Database, endpoint_id: str) -> WebhookEndpoint | None:
    """One receiver with the counts of its deliveries; None: there is none, or it was deleted."""
    [found] = await database.read([Statement(QUERIES["webhook_endpoint_get"], (endpoint_id,))])
    return _endpoint(found[0]) if found else None


async def listing(database: Database) -> list[WebhookEndpoint]:
    """Every receiver that was not deleted, the oldest first, with the counts of its deliveries."""
    [found] = await database.read([Statement(QUERIES["webhook_endpoints_listing"])])
    return [_endpoint(row) for row in found]


async def enabled(database: Database) -> list[WebhookEndpoint]:
    """Those that events are delivered to; without counts."""
    [found] = await database.read([Statement(QUERIES["webhook_endpoints_enabled"])])
    return [_endpoint((*row, 0, 0)) for row in found]


def _endpoint(row: Sequence[Any]) -> WebhookEndpoint:
    (
        id_, url, event_types, description, state, state_reason, key_id, generation, old_key_id,
        old_generation, old_until, created_at, updated_at, waiting, failed,
    ) = row  # fmt: skip
    old = None
    if old_until is not None:
        old = Signer(key_id=old_key_id, generation=old_generation, until=old_until)
    return WebhookEndpoint(
        id=id_,
        url=url,
        event_types=_strings.decode(event_types),
        description=description,
        state=EndpointState(state),
        state_reason=state_reason,
        signer=Signer(key_id=key_id, generation=generation),
        old_signer=old,
        created_at=created_at,
        updated_at=updated_at,
        waiting=waiting,
        failed=failed,
    )
