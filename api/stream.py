"""Server-sent events: `GET /api/sse/payments/{id}` and `GET /api/sse/events`.

    payment's stream   retry, the whole payment as `event: payment`, then one message per event
    merchant's stream  retry and the present position, then one message per event of any payment

Each way that a stream ends:

- the client goes away, or takes nothing for `STREAM_SEND_TIMEOUT_S`: nothing more is sent;
- the payment is final and all of its events are sent: closed. A client that comes back with the
  last of them gets 204, which tells EventSource to stay away;
- every place is taken, or the client's address has too many of them or asks too often: 200, a
  long `retry:`, closed. Never a 4xx or 5xx, which would end a browser's EventSource for good;
- the server goes down, the database is away: a short `retry:`, closed. The client comes back with
  its Last-Event-ID and has lost nothing;
- the merchant's key was revoked or has expired, which is looked at every `STREAM_ACCESS_CHECK_S`
  and between pages of the past: the same, and the client is refused when it comes back.

After a reconnect the payment comes first, as it stands now, then what was missed, so that an
older state follows a newer one: `version` tells. That first message repeats the client's own
position as its `id:`, because the events between are still to come: a connection that breaks
there must resume from the same place.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import needs
from api.callers import caller_address
from api.context import Context
from api.errors import Problem
from api.hub import FINAL_STATUSES, LAPSED_STATUSES, Follower, Hub, frame
from api.limits import (
    STREAM_ACCESS_CHECK_S,
    STREAM_HEARTBEAT_S,
    STREAM_OVERLOAD_RETRY_MS,
    STREAM_RETRY_MS,
    STREAM_SEND_TIMEOUT_S,
    STREAM_SHUTDOWN_RETRY_MS,
)
from api.payments import no_such_payment, payment_id_of
from api.presentation import payment_body
from indexer.core.payment import AnyPayment
from indexer.core.types import Status
from indexer.errors import StoreError
from store import events, everything
from store.everything import AnyRecord
from store.keys import ApiKey


_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # A proxy that buffers would hold back every event until its buffer is full.
    (b"x-accel-buffering", b"no"),
]
_HEARTBEAT: Final = b": heartbeat\n\n"
_EVENT_ID: Final = re.compile(r"\d{1,18}", re.ASCII)


class Stream:
    """One client's stream, as an ASGI application that calls `send` itself.

    There is one task for a client and no queue: the task waits for the client to leave, for the
    next heartbeat, or to be rung by the hub, which writes to the client meanwhile.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        first: bytes,
        payment_id: str | None,
        last_seq: int,
        is_over: Callable[[Follower], Awaitable[bool]],
        status: Status = Status.PENDING,
        address: str = "",
    ) -> None:
        """Prepares a stream.

        Args:
            hub: hands over what is new.
            first: what to send at once.
            payment_id: whose events to send; None: everyone's.
            last_seq: the client has everything up to this event.
            is_over: asked whenever everything is sent and with each heartbeat; of everyone's
                events also every `STREAM_ACCESS_CHECK_S` and between pages.
            status: where the payment stands, in `first`.
            address: whose streams it is one of.
        """
        self._hub = hub
        self._first = first
        self._payment_id = payment_id
        self._last_seq = last_seq
        self._is_over = is_over
        self._status = status
        self._address = address

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the client until one of the ends that the module describes."""
        if self._hub.full_for(self._address):
            await _send_away(send, STREAM_OVERLOAD_RETRY_MS)
            return
        follower = Follower(send, self._payment_id, self._last_seq, self._status, self._address)
        # A client that takes nothing is left: there is no way to tell it anything.
        with self._hub.following(follower), suppress(TimeoutError):
            await _start(send)
            await _write(send, self._first)
            self._first = b""
            try:
                retry_ms = await self._follow(follower, receive)
            except StoreError:
                retry_ms = STREAM_RETRY_MS
            if retry_ms is not None:
                follower.live = False
                await _end(send, retry_ms)

    async def _follow(self, follower: Follower, receive: Receive) -> int | None:
        """Sends until the end. The `retry` to end with; None when the client is gone."""
        clock = asyncio.get_running_loop().time
        heartbeat_at = clock() + STREAM_HEARTBEAT_S
        while not self._hub.closing:
            if follower.behind:
                await self._catch_up(follower)
            elif clock() >= heartbeat_at:
                await _write(follower.send, _HEARTBEAT)
                heartbeat_at = clock() + STREAM_HEARTBEAT_S
            if await self._is_over(follower):
                return STREAM_RETRY_MS
            # Both are looked at right before the wait: a ring while nobody waits is not heard.
            if follower.behind or self._hub.closing:
                continue
            wait_s = heartbeat_at - clock()
            if self._payment_id is None:
                wait_s = min(wait_s, STREAM_ACCESS_CHECK_S)
            if await _left(follower, receive, wait_s):
                return None
        return _by_chance(STREAM_SHUTDOWN_RETRY_MS)

    async def _catch_up(self, follower: Follower) -> None:
        """Sends what the database has after the last event sent, then leaves it to the hub.

        The mark is cleared before the read: what the hub passes over during the read is read
        the next time round. Between the last look at the mark and `live` nothing is awaited.
        """
        while not self._hub.closing:
            follower.behind = False
            page, is_last = await self._hub.read(follower)
            for event, message in page:
                await _write(follower.send, message)
                follower.note(event)
            if is_last and not follower.behind:
                follower.live = True
                return
            if self._payment_id is None and await self._is_over(follower):
                follower.behind = True  # not all is sent: the caller looks why
                return


class SentAway:
    """The stream of one who asks too often, as an ASGI application: he is to come back later."""

    def __init__(self, retry_after_s: int) -> None:
        self._retry_ms = max(STREAM_OVERLOAD_RETRY_MS, retry_after_s * 1000)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Says so, and closes."""
        await _send_away(send, self._retry_ms)


async def _send_away(send: Send, retry_ms: int) -> None:
    with suppress(TimeoutError):
        await _start(send)
        await _end(send, _by_chance(retry_ms))


async def _left(follower: Follower, receive: Receive, wait_s: float) -> bool:
    """Waits until the client leaves (True), the hub rings, or it is time (False)."""
    try:
        async with asyncio.timeout(wait_s) as follower.alarm:
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    finally:
        follower.alarm = None
    return True


async def _start(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})


async def _write(send: Send, frame: bytes) -> None:
    async with asyncio.timeout(STREAM_SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": frame, "more_body": True})


async def _end(send: Send, retry_ms: int) -> None:
    body = b"retry: %d\n\n" % retry_ms
    async with asyncio.timeout(STREAM_SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _by_chance(retry_ms: int) -> int:
    """Up to twice as long, so that not all come back at once."""
    return retry_ms + secrets.randbelow(retry_ms)


async def of_payment(context: Context, request: Request, _key: ApiKey | None) -> ASGIApp:
    """The stream of one payment: for everyone who knows its id."""
    payment_id = payment_id_of(request)
    record, last_seq, newest = await _snapshot(context, payment_id)
    asked = _last_event_id(request, newest)
    payment = record.payment
    if asked is not None and asked >= last_seq and _is_final(payment, context.now):
        return Response(status_code=204)
    position = last_seq if asked is None else min(asked, last_seq)
    data = msgspec.json.encode(payment_body(record, private=False))
    first = b"retry: %d\n%b" % (STREAM_RETRY_MS, frame(position, "payment", data))
    good_until = payment.terms.expires_at + payment.terms.grace_s

    async def is_over(follower: Follower) -> bool:
        return follower.final or (follower.lapsed and context.now > good_until)

    return Stream(
        context.hub,
        first=first,
        payment_id=payment_id,
        last_seq=position,
        is_over=is_over,
        status=payment.state.status,
        address=caller_address(request, context.trusted_proxies),
    )


async def of_merchant(context: Context, request: Request, _key: ApiKey | None) -> ASGIApp:
    """The stream of all payments, from now on or from where the client was."""
    newest = await events.last_seq(context.database)
    asked = _last_event_id(request, newest)
    position = newest if asked is None else asked
    # A message without data only moves the client's position: whatever happens before its
    # first event is then not lost to a connection that breaks early.
    first = b"retry: %d\nid: %d\n\n" % (STREAM_RETRY_MS, position)

    async def is_over(_follower: Follower) -> bool:
        try:
            return await context.gate.admit(request, needs("payments:read")) is None
        except Problem:
            return True

    return Stream(
        context.hub,
        first=first,
        payment_id=None,
        last_seq=position,
        is_over=is_over,
        address=caller_address(request, context.trusted_proxies),
    )


async def _snapshot(context: Context, payment_id: str) -> tuple[AnyRecord, int, int]:
    """The payment, its last event and the last of all, from the same moment.

    Raises:
        Problem: 404, there is no such payment.
    """
    ids = [payment_id]
    of_payment, of_all = events.last_seq_statement(payment_id), events.last_seq_statement()
    *rows, [(last_seq,)], [(newest,)] = await context.database.read(
        [*everything.record_statements(ids), of_payment, of_all]
    )
    records = everything.assemble(ids, rows)
    if not records:
        raise no_such_payment()
    return records[0], last_seq, newest


def _is_final(payment: AnyPayment, now: int) -> bool:
    """Nothing will happen to it that a customer who waits would want to know."""
    if payment.state.status in LAPSED_STATUSES:
        return now > payment.terms.expires_at + payment.terms.grace_s
    return payment.state.status in FINAL_STATUSES


def _last_event_id(request: Request, newest: int) -> int | None:
    """The client's position; None when it has none, or one that was never given out.

    Browsers send the header by themselves when they reconnect, but no page can set it for the
    first connection: hence the parameter.
    """
    text = request.headers.get("last-event-id") or request.query_params.get("last_event_id", "")
    if not _EVENT_ID.fullmatch(text):
        return None
    return seq if (seq := int(text)) <= newest else None
