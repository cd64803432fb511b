"""What was sent to receivers, and is sent again when it is asked for."""

import re
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api import filters
from api.body import decode, read_json_body
from api.context import Context
from api.endpoints import disabled, find
from api.errors import Problem
from api.filters import Parser
from api.limits import PAGE_SIZE_DEFAULT
from api.payments import json_response
from api.webhook_presentation import DELIVERY_PREFIX, delivery_body
from api.webhook_schema import DeliveryPageBody, RedeliveredBody, RedeliveryBody
from indexer.core import receiver
from indexer.errors import InvalidInput
from indexer.log import get_logger
from store import deliveries
from store.deliveries import Delivery, DeliveryState
from store.keys import ApiKey
from store.webhook_endpoints import EndpointState


log = get_logger(__name__)

#: At most 18 digits: every number with as many fits into a column.
_ID: Final = re.compile(rf"{DELIVERY_PREFIX}([1-9][0-9]{{0,17}})", re.ASCII)


async def listing(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """A page of a receiver's deliveries, newest first."""
    endpoint = await find(context, request)
    asked = filters.parsed(request.query_params, PARSERS)
    limit = asked.pop("limit", PAGE_SIZE_DEFAULT)
    # One more than asked tells whether there is another page.
    found = await deliveries.page(
        context.database, endpoint_id=endpoint.id, **asked, limit=limit + 1
    )
    data = [delivery_body(delivery) for delivery in found[:limit]]
    next_cursor = data[-1].id if len(found) > limit else None
    return json_response(DeliveryPageBody(data=data, next_cursor=next_cursor))


async def show(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """One delivery with its attempts."""
    delivery = await _find(context, _id_of(request))
    return json_response(delivery_body(delivery, whole=True))


async def redeliver(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Sends one again."""
    delivery_id = _id_of(request)
    [found] = await context.database.write([deliveries.redeliver(delivery_id, context.now)])
    delivery = await _find(context, delivery_id)
    if not found:
        raise disabled()
    context.wakeups.wake()
    log.info("delivery.asked_for", delivery_id=delivery_id, api_key_id=key.id if key else None)
    return json_response(delivery_body(delivery, whole=True), 202)


async def redeliver_since(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Sends a receiver all that it has not taken since a time."""
    endpoint = await find(context, request)
    asked = decode(await read_json_body(request), RedeliveryBody)
    since, now = filters.time_of("since", asked.since), context.now
    receiver.check_since(since, retention_days=context.webhook_retention_days, now=now)
    if endpoint.state is not EndpointState.ENABLED:
        raise disabled()
    *_, [(count,)] = await context.database.write(
        deliveries.redeliver_since(endpoint.id, since, now)
    )
    context.wakeups.wake()
    log.info(
        "receiver.events_asked_for",
        endpoint_id=endpoint.id,
        count=count,
        api_key_id=key.id if key else None,
    )
    return json_response(RedeliveredBody(count=count), 202)


async def _find(context: Context, delivery_id: int) -> Delivery:
    delivery = await deliveries.get(context.database, delivery_id)
    if delivery is None:
        raise _no_such_delivery()
    return delivery


def _id_of(request: Request) -> int:
    match = _ID.fullmatch(request.path_params["id"])
    if match is None:
        raise _no_such_delivery()
    return int(match[1])


def _no_such_delivery() -> Problem:
    return Problem(404, "no_such_delivery", "there is no delivery with this id")


# --------------------------------------------------------------------------------------- filters


def _state(text: str) -> tuple[str, DeliveryState]:
    try:
        return "state", DeliveryState(text)
    except ValueError:
        raise InvalidInput("state", f"must be one of {', '.join(DeliveryState)}") from None


def _cursor(text: str) -> tuple[str, int]:
    match = _ID.fullmatch(text)
    if match is None:
        raise InvalidInput("cursor", "must be the `next_cursor` of the page before")
    return "before", int(match[1])


#: Parameter by parameter: the argument of `deliveries.page` that it sets, and its value.
PARSERS: Final[Mapping[str, Parser]] = {
    "state": _state,
    "cursor": _cursor,
    "limit": filters.limit,
}
