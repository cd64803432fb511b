"""Receivers of events, and what is sent to them, as they are shown."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import UNSET

from api.webhook_schema import AttemptBody, DeliveryBody, EndpointBody, SecretEndpointBody
from indexer.core import standard_webhooks
from indexer.core.delivery import TEST_TYPE
from indexer.core.events import format_time
from indexer.core.standard_webhooks import SigningKey
from indexer.errors import InvariantError
from store import deliveries
from store.database import Database
from store.deliveries import Attempt, Delivery, DeliveryState
from store.webhook_endpoints import EndpointState, WebhookEndpoint


DELIVERY_PREFIX: Final = "dlv_"


async def shown(
    database: Database, endpoints: Sequence[WebhookEndpoint], now: int
) -> list[EndpointBody]:
    """Receivers with what came of the last attempt at each; never a secret."""
    last = await deliveries.last_attempts(database, [endpoint.id for endpoint in endpoints])
    return [EndpointBody(**_fields(endpoint, last.get(endpoint.id), now)) for endpoint in endpoints]


async def shown_with_secret(
    database: Database, endpoint: WebhookEndpoint, keys: Sequence[SigningKey], now: int
) -> SecretEndpointBody | None:
    """A receiver with its secret; None: the key is not at hand that it is derived from."""
    by_id = {key.id: key for key in keys}
    signer = endpoint.signer
    if signer.key_id not in by_id:
        return None
    last = await deliveries.last_attempts(database, [endpoint.id])
    secret = standard_webhooks.secret_of(by_id[signer.key_id], endpoint.id, signer.generation)
    return SecretEndpointBody(**_fields(endpoint, last.get(endpoint.id), now), secret=secret)


def _fields(endpoint: WebhookEndpoint, last: Attempt | None, now: int) -> dict[str, Any]:
    if endpoint.state is EndpointState.DELETED:
        raise InvariantError(f"{endpoint.id} was deleted, and is shown all the same")
    old = endpoint.signers(now)[1:]
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "description": endpoint.description,
        "state": endpoint.state.value,
        "state_reason": endpoint.state_reason,
        "waiting": endpoint.waiting,
        "failed": endpoint.failed,
        "last_attempt": None if last is None else _attempt(last),
        "old_secret_until": _time(old[0].until) if old else None,
        "created_at": format_time(endpoint.created_at),
        "updated_at": format_time(endpoint.updated_at),
    }


def delivery_body(delivery: Delivery, *, whole: bool = False) -> DeliveryBody:
    """A delivery as JSON will say it; `whole`: with each attempt, which must be at hand."""
    is_waiting = delivery.state is DeliveryState.WAITING
    return DeliveryBody(
        id=f"{DELIVERY_PREFIX}{delivery.id}",
        endpoint_id=delivery.endpoint_id,
        event_id=_event_id(delivery),
        type=delivery.type or TEST_TYPE,
        payment_id=delivery.payment_id,
        state=delivery.state.value,
        attempts=delivery.attempts,
        next_try_at=format_time(delivery.next_try_at) if is_waiting else None,
        created_at=format_time(delivery.created_at),
        ended_at=_time(delivery.ended_at),
        history=[_attempt(attempt) for attempt in delivery.history] if whole else UNSET,
    )


def _event_id(delivery: Delivery) -> str:
    if delivery.payment_id is None:
        return standard_webhooks.test_id(delivery.id)
    if delivery.version is None or delivery.ordinal is None:
        raise InvariantError("an event has a version and an ordinal")
    return standard_webhooks.event_id(delivery.payment_id, delivery.version, delivery.ordinal)


def _attempt(attempt: Attempt) -> AttemptBody:
    return AttemptBody(
        at=format_time(attempt.at),
        duration_ms=attempt.duration_ms,
        status=attempt.status,
        problem=attempt.problem,
        response=attempt.response,
    )


def _time(unix_s: int | None) -> str | None:
    return None if unix_s is None else format_time(unix_s)
