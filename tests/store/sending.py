"""Receivers and events in a store: what the tests of deliveries act with."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from indexer.core.events import Event
from indexer.core.payment import Payment
from indexer.core.standard_webhooks import SigningKey, signing_key
from indexer.core.types import EventType
from store import deliveries, events, payments, webhook_endpoints
from store.database import Database, Statement
from store.deliveries import Delivery, Due
from store.webhook_endpoints import WebhookEndpoint
from tests.builders import NOW, make_event, make_payment


KEY: SigningKey = signing_key("the signing key of a test, long enough")
RECEIVERS_MAX = 100
URL = "https://shop.example/hooks/canary-path"


def endpoint_id(number: int) -> str:
    return f"we_{number:026d}"


async def register(
    database: Database,
    number: int = 1,
    *,
    url: str = URL,
    event_types: Sequence[str] = (),
    at_most: int = RECEIVERS_MAX,
    key: SigningKey = KEY,
) -> str:
    """A receiver of all events, or of some types; returns its id."""
    id_ = endpoint_id(number)
    statement = webhook_endpoints.create(
        id=id_,
        url=url,
        event_types=event_types,
        description=None,
        key_id=key.id,
        now=NOW,
        at_most=at_most,
    )
    await database.write([statement])
    return id_


async def receiver(database: Database, id_: str) -> WebhookEndpoint:
    found = await webhook_endpoints.get(database, id_)
    assert found is not None
    return found


def history(payment: Payment, count: int, *, at: int = NOW) -> list[Event]:
    """The first events of a payment: created, then seen and dropped in turn."""
    types = [EventType.DETECTED, EventType.REVERTED] * (count // 2)
    return [
        make_event(replace(payment, version=version), type_, created_at=at)
        for version, type_ in enumerate([EventType.CREATED, *types][:count], start=1)
    ]


def told(payment: Payment, count: int = 1, *, at: int = NOW) -> list[Statement]:
    """The payment and its first events, as statements of one batch."""
    first, *rest = history(payment, count, at=at)
    return [*payments.insert(payment, first), *map(events.append, rest)]


async def tell(database: Database, *numbers: int, count: int = 1, at: int = NOW) -> None:
    """Payments of those numbers, each with its first events, in one write."""
    batch = [told(make_payment(number, created_at=at), count, at=at) for number in numbers]
    await database.write([statement for each in batch for statement in each])


async def listed(database: Database, *endpoint_ids: str, limit: int = 10_000) -> list[Delivery]:
    """The deliveries of some receivers, or of all, the oldest first."""
    found = await deliveries.page(database, limit=limit)
    wanted = [each for each in found if not endpoint_ids or each.endpoint_id in endpoint_ids]
    return wanted[::-1]


async def due(database: Database, id_: str, now: int = NOW, limit: int = 10_000) -> list[Due]:
    return await deliveries.due(database, id_, now, limit)


def places(found: Iterable[Delivery | Due]) -> list[tuple[int, int]]:
    """Number of the payment and version of the event, of each."""
    return [(int(each.payment_id[4:]), each.version or 0) for each in found if each.payment_id]
