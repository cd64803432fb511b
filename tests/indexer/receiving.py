"""Webhooks in a store: what the tests of the inbox and of its handlers act with."""

import asyncio
import hashlib
from typing import Any

import msgspec

from indexer.core.types import WebhookSource, WebhookVerdict
from store import webhook_events
from store.database import Database
from store.webhook_events import Arrived, WebhookEvent


PATIENCE_S = 90.0


async def arrive(
    database: Database,
    body: Any = (),
    *,
    source: WebhookSource = WebhookSource.HELIUS,
    now: int,
    name: str | None = None,
) -> int:
    """Stores an authentic webhook as its door does; returns its id."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    arrived = Arrived(
        source=source,
        kind="transactions",
        dedupe_key=hashlib.sha256(raw if name is None else name.encode()).hexdigest(),
        nonce=None,
        body=raw,
        headers={},
        address="192.0.2.7",
    )
    [[(event_id, _, _)]] = await database.write([webhook_events.receive(arrived, now)])
    return int(event_id)


async def event_of(database: Database, event_id: int) -> WebhookEvent:
    event = await webhook_events.get(database, event_id)
    assert event is not None
    return event


async def ended(database: Database, *ids: int) -> list[WebhookEvent]:
    """The events, once none of them waits any more."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            events = [await event_of(database, event_id) for event_id in ids]
            if all(event.verdict is not WebhookVerdict.WAITING for event in events):
                return events
            await asyncio.sleep(0.01)
