"""The doors for webhooks: one hardened way in, whoever comes.

    closed?      503 without a secret for this door
    bounded      the type, and the size while it arrives and when it is unpacked
    authentic?   401 with always the same words; counted, and nothing of it is stored
    readable?    4xx, nothing is stored
    about us?    403, stored once as refused (Paymob)
    stored       committed, then 200; the same event again is counted, and 200
                 503 when that failed: the sender tries again

Nothing is believed and nothing is done here: the indexer takes events out of the table.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.body import content_coding, read_body
from api.callers import full_address
from api.context import Context, context_of
from api.doors import (
    TurnedAway,
    check_helius,
    check_quicknode,
    quicknode_claim,
    unpacked,
)
from api.errors import Problem
from api.limits import (
    CALLBACK_BYTES_MAX,
    DOOR_RETRY_AFTER_S,
    WEBHOOK_BYTES_INLINE_MAX,
    WEBHOOK_BYTES_MAX,
    WEBHOOK_HEADER_CHARS_MAX,
)
from api.tally import DoorOutcome, Hold
from api.webhook_schema import ReceivedBody
from indexer.core import paymob
from indexer.core.card_secrets import masked, without_secrets
from indexer.core.paymob import Callback, CallbackKind
from indexer.core.types import WebhookSource, WebhookVerdict
from indexer.errors import InvalidInput, StoreError
from indexer.log import get_logger
from store import webhook_events
from store.keys import ApiKey
from store.webhook_events import Arrived, Outcome


log = get_logger(__name__)

#: What comes out of a door: the event, and its end when it needs no processing.
_Brought = tuple[Arrived, Outcome | None]

#: Headers that help to understand a webhook and say nothing secret.
_HEADERS: Final = (
    "content-type",
    "content-length",
    "content-encoding",
    "user-agent",
    "x-forwarded-for",
    "x-qn-timestamp",
    "stream-id",
    "stream-name",
    "stream-network",
    "batch-start-range",
    "batch-end-range",
)

#: How a request ended that was answered with a problem, by the code of the problem.
_OUTCOMES: Final = {
    "body_too_large": DoorOutcome.TOO_LARGE,
    "busy": DoorOutcome.UNAVAILABLE,
    "door_closed": DoorOutcome.UNCONFIGURED,
    "webhook_refused": DoorOutcome.REFUSED,
}

_RECEIVED: Final = msgspec.json.encode(ReceivedBody(status="received"))


async def helius(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """Transactions that Helius saw."""
    return await _through(context, request, WebhookSource.HELIUS, _from_helius)


async def quicknode(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """What a stream of QuickNode found."""
    return await _through(context, request, WebhookSource.QUICKNODE, _from_quicknode)


async def paymob_callback(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """What Paymob says became of a charge."""
    return await _through(context, request, WebhookSource.PAYMOB, _from_paymob)


async def paymob_return(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """The same in the URL with which a customer's browser comes back; worth no more."""
    return await _through(context, request, WebhookSource.PAYMOB, _from_browser)


# --------------------------------------------------------------------------------- every door


async def _through(
    context: Context,
    request: Request,
    source: WebhookSource,
    enter: Callable[[Context, Request, Hold], Awaitable[_Brought]],
) -> Response:
    address = full_address(request, context.trusted_proxies)
    try:
        with context.tally.holding(source) as hold:
            arrived, end = await enter(context, request, hold)
            outcome = await _store(context, arrived, end)
    except TurnedAway as turned:
        context.tally.turn_away(source, address, turned.reason)
        raise Problem(
            401,
            "unauthenticated",
            "this is not who may send webhooks here",
            headers={"WWW-Authenticate": "Webhook"},
        ) from None
    except Problem as problem:
        context.tally.count(source, _OUTCOMES.get(problem.code, DoorOutcome.MALFORMED))
        raise
    except InvalidInput:
        context.tally.count(source, DoorOutcome.MALFORMED)
        raise
    except StoreError:
        context.tally.count(source, DoorOutcome.UNAVAILABLE)
        raise
    context.tally.count(source, outcome)
    if outcome is DoorOutcome.REFUSED:
        raise Problem(403, "webhook_refused", "authentic, but not about this deployment")
    return Response(_RECEIVED, media_type="application/json")


async def _store(context: Context, arrived: Arrived, end: Outcome | None) -> DoorOutcome:
    """Stores the event; when this returns it is durable.

    Raises:
        TurnedAway: its nonce was used for another event.
    """
    statement = webhook_events.receive(arrived, context.now, end)
    [[(event_id, repeats, dedupe_key)]] = await context.database.write([statement])
    if dedupe_key != arrived.dedupe_key:
        raise TurnedAway("a nonce that was used for another event")
    if end is not None:
        if not repeats:
            log.warning(
                "webhook.refused", source=arrived.source, event_id=event_id, detail=end.detail
            )
        return DoorOutcome.REFUSED
    if repeats:
        return DoorOutcome.DUPLICATE
    context.wakeups.wake()
    log.info("webhook.received", source=arrived.source, event_id=event_id, kind=arrived.kind)
    return DoorOutcome.ACCEPTED


def _check_open(secrets: tuple[str, ...]) -> None:
    if not secrets:
        raise Problem(
            503,
            "door_closed",
            "no secret is configured for these webhooks",
            headers={"Retry-After": str(DOOR_RETRY_AFTER_S)},
        )


def _arrived(
    request: Request,
    source: WebhookSource,
    *,
    kind: str,
    dedupe_key: str,
    body: bytes,
    nonce: str | None = None,
) -> Arrived:
    given = request.headers
    return Arrived(
        source=source,
        kind=kind,
        dedupe_key=dedupe_key,
        nonce=nonce,
        body=body,
        headers={n: given[n][:WEBHOOK_HEADER_CHARS_MAX] for n in _HEADERS if n in given},
        address=full_address(request, context_of(request).trusted_proxies),
    )


# --------------------------------------------------------------------------- Helius, QuickNode


async def _from_helius(context: Context, request: Request, hold: Hold) -> _Brought:
    secrets = context.doors.helius
    _check_open(secrets)
    check_helius(request.headers, secrets)  # before the body: a stranger's is not even read
    content_coding(request)
    body = await read_body(request, WEBHOOK_BYTES_MAX, on_chunk=hold)
    kind, key = await _kind_of(body), hashlib.sha256(body).hexdigest()
    return _arrived(request, WebhookSource.HELIUS, kind=kind, dedupe_key=key, body=body), None


async def _from_quicknode(context: Context, request: Request, hold: Hold) -> _Brought:
    secrets = context.doors.quicknode
    _check_open(secrets)
    claim = quicknode_claim(request.headers, context.now)
    coding = content_coding(request, "gzip")
    body = await read_body(request, WEBHOOK_BYTES_MAX, on_chunk=hold)
    if coding == "gzip":
        body = unpacked(body)
        hold(len(body))
    check_quicknode(claim, body, secrets)
    arrived = _arrived(
        request,
        WebhookSource.QUICKNODE,
        kind=await _kind_of(body),
        dedupe_key=hashlib.sha256(body).hexdigest(),
        nonce=claim.nonce,
        body=body,
    )
    return arrived, None


async def _kind_of(body: bytes) -> str:
    """What the body is, if it is anything that may name transactions.

    Raises:
        InvalidInput: it is not.
    """
    if len(body) > WEBHOOK_BYTES_INLINE_MAX:
        await asyncio.to_thread(_check_doorbell, body)
    else:
        _check_doorbell(body)
    return "transactions"


_DOORBELL: Final = msgspec.json.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw])


def _check_doorbell(body: bytes) -> None:
    try:
        _DOORBELL.decode(body)
        body.decode("utf-8")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise InvalidInput("", "must be JSON: an array or an object") from None


# ---------------------------------------------------------------------------------------- Paymob


async def _from_paymob(context: Context, request: Request, hold: Hold) -> _Brought:
    _check_open(context.doors.paymob)
    signature = paymob.hmac_of(_query(request))
    if not signature:
        raise TurnedAway("no hmac in the query")
    content_coding(request)
    raw = await read_body(request, CALLBACK_BYTES_MAX, on_chunk=hold)
    callback = paymob.parse_callback(raw)
    key, end = _believed(context, callback, signature)
    body, kind = without_secrets(raw), callback.kind
    if not _says(body, callback):
        body, kind = _redirect_body(callback), CallbackKind.REDIRECT
    return _arrived(request, WebhookSource.PAYMOB, kind=kind, dedupe_key=key, body=body), end


async def _from_browser(context: Context, request: Request, _hold: Hold) -> _Brought:
    _check_open(context.doors.paymob)
    query = _query(request)
    callback, signature = paymob.parse_redirect(query), paymob.hmac_of(query)
    key, end = _believed(context, callback, signature)
    body, kind = _redirect_body(callback), callback.kind
    return _arrived(request, WebhookSource.PAYMOB, kind=kind, dedupe_key=key, body=body), end


def _query(request: Request) -> str:
    raw: bytes = request.scope["query_string"]
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidInput("", "the query must be percent-encoded") from None


def _believed(context: Context, callback: Callback, signature: str) -> tuple[str, Outcome | None]:
    """What makes a signed callback the same event again; and its end, when it is not for us.

    Raises:
        TurnedAway: Paymob did not sign it.
    """
    doors = context.doors
    if doors.pins is None or not paymob.is_signed(callback, signature, doors.paymob):
        raise TurnedAway("wrong hmac" if signature else "no hmac in the query")
    try:
        paymob.check_pins(callback, doors.pins)
    except InvalidInput as error:
        return _message_key(callback), Outcome(verdict=WebhookVerdict.REFUSED, detail=str(error))
    if callback.kind is CallbackKind.TOKEN:
        return _message_key(callback), None
    return paymob.dedupe_key(callback), None


def _message_key(callback: Callback) -> str:
    """The key of a callback that nothing is done about: one for each signature.

    What is signed has no separators, so one genuine callback makes many that are signed as well.
    They shall not be many rows.
    """
    parts = ("unsplit", *callback.signed.values())
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _says(body: bytes, callback: Callback) -> bool:
    """Whether what will be stored says what was signed, but for what is told of the card.

    A customer can put into an unsigned field that `EGP` is a secret, which is then hidden wherever
    it stands. His callback would be stored as one that says nothing, and the true one would count
    as the same event.
    """
    if callback.kind is CallbackKind.TOKEN:
        return True  # nothing is done about it
    try:
        stored = paymob.parse_callback(body)
    except InvalidInput:
        return False
    return _without_card(stored) == _without_card(callback)


def _without_card(callback: Callback) -> dict[str, str]:
    return {name: said for name, said in callback.signed.items() if not _is_of_card(name)}


def _is_of_card(name: str) -> bool:
    return name.startswith("source_data.")


def _redirect_body(callback: Callback) -> bytes:
    """What counts of the query, as `paymob.parse_redirect` reads it again; not the `hmac`."""
    values = {
        name.removesuffix(".id").replace(".", "_"): masked(value) if _is_of_card(name) else value
        for name, value in callback.signed.items()
    }
    hints = {
        "merchant_order_id": masked(callback.reference or ""),
        "refunded_amount_cents": callback.refunded,
    }
    given = values | {name: value for name, value in hints.items() if value}
    return urlencode(given).encode("ascii")
