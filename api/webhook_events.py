"""The audit trail: what came to the doors, and what became of it."""

import base64
import re
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import filters
from api.context import Context
from api.errors import Problem
from api.filters import Parser
from api.limits import PAGE_SIZE_DEFAULT
from api.payments import json_response
from api.webhook_schema import WebhookEventBody, WebhookEventPageBody
from indexer.core.events import format_time
from indexer.core.ids import PAYMENT_ID
from indexer.core.types import WebhookSource, WebhookVerdict
from indexer.errors import InvalidInput
from indexer.log import get_logger
from store import webhook_events
from store.keys import ApiKey
from store.webhook_events import Entry, WebhookEvent


log = get_logger(__name__)

_PREFIX: Final = "whe_"
#: At most 18 digits: every number with as many fits into a column.
_ID: Final = re.compile(rf"{_PREFIX}([1-9][0-9]{{0,17}})", re.ASCII)


async def listing(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """A page of events without their bodies, newest first."""
    asked = filters.parsed(request.query_params, PARSERS)
    limit = asked.pop("limit", PAGE_SIZE_DEFAULT)
    # One more than asked tells whether there is another page.
    entries = await webhook_events.page(context.database, **asked, limit=limit + 1)
    shown = entries[:limit]
    next_cursor = f"{_PREFIX}{shown[-1].id}" if len(entries) > limit else None
    data = [event_body(entry) for entry in shown]
    return json_response(WebhookEventPageBody(data=data, next_cursor=next_cursor))


async def show(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """One event with its body."""
    return json_response(event_body(await _find(context, _id_of(request))))


async def retry(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Has an event processed again."""
    event_id = _id_of(request)
    [found] = await context.database.write([webhook_events.reopen(event_id, context.now)])
    event = await _find(context, event_id)
    if found:
        context.wakeups.wake()
        log.info("webhook.reopened", event_id=event_id, api_key_id=key.id if key else None)
    elif event.verdict is WebhookVerdict.UNAUTHENTICATED:
        raise Problem(409, "not_retryable", "this was never authentic: there is nothing to process")
    return json_response(event_body(event))


async def _find(context: Context, event_id: int) -> WebhookEvent:
    event = await webhook_events.get(context.database, event_id)
    if event is None:
        raise _no_such_event()
    return event


def _id_of(request: Request) -> int:
    match = _ID.fullmatch(request.path_params["id"])
    if match is None:
        raise _no_such_event()
    return int(match[1])


def _no_such_event() -> Problem:
    return Problem(404, "no_such_event", "there is no webhook with this id")


def event_body(entry: Entry) -> WebhookEventBody:
    """An event as JSON will say it; with its body where that is at hand."""
    body = WebhookEventBody(
        id=f"{_PREFIX}{entry.id}",
        source=entry.source.value,
        kind=entry.kind,
        verdict=entry.verdict.value,
        detail=entry.detail,
        received_at=format_time(entry.received_at),
        updated_at=format_time(entry.updated_at),
        attempts=entry.attempts,
        repeats=entry.repeats,
        address=entry.address,
        headers=dict(entry.headers),
        payments=list(entry.payment_ids),
        body_bytes=entry.body_bytes,
    )
    if isinstance(entry, WebhookEvent):
        return _with_body(body, entry.body)
    return body


def _with_body(shown: WebhookEventBody, raw: bytes) -> WebhookEventBody:
    try:
        text, encoding = raw.decode("utf-8"), "text"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(raw).decode("ascii"), "base64"
    return msgspec.structs.replace(shown, body=text, body_encoding=encoding)


# --------------------------------------------------------------------------------------- filters


def _source(text: str) -> tuple[str, WebhookSource]:
    try:
        return "source", WebhookSource(text)
    except ValueError:
        raise InvalidInput("source", f"must be one of {', '.join(WebhookSource)}") from None


def _verdict(text: str) -> tuple[str, WebhookVerdict]:
    try:
        return "verdict", WebhookVerdict(text)
    except ValueError:
        raise InvalidInput("verdict", f"must be one of {', '.join(WebhookVerdict)}") from None


def _since(text: str) -> tuple[str, int]:
    return "since", filters.time_of("since", text)


def _until(text: str) -> tuple[str, int]:
    return "until", filters.time_of("until", text)


def _payment(text: str) -> tuple[str, str]:
    if not PAYMENT_ID.fullmatch(text):
        raise InvalidInput("payment", "must be the id of a payment: pay_ and 26 characters")
    return "payment_id", text


def _cursor(text: str) -> tuple[str, int]:
    match = _ID.fullmatch(text)
    if match is None:
        raise InvalidInput("cursor", "must be the `next_cursor` of the page before")
    return "before", int(match[1])


#: Parameter by parameter: the argument of `webhook_events.page` that it sets, and its value.
PARSERS: Final[Mapping[str, Parser]] = {
    "source": _source,
    "verdict": _verdict,
    "since": _since,
    "until": _until,
    "payment": _payment,
    "cursor": _cursor,
    "limit": filters.limit,
}
