"""What surrounds every request: our name, safe headers, one log line, an answer when we fail.

Pure ASGI on purpose: middleware that builds a response object would buffer the streams.
"""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import going_down, internal
from api.headers import RawHeaders, completed
from api.hosts import Hosts
from api.requests import Requests
from indexer.core.types import WebhookSource
from indexer.log import get_logger


log = get_logger(__name__)

#: Probes ask every few seconds and have nothing to tell.
_QUIET_ROUTES: Final = frozenset({"/livez", "/readyz", "/metrics"})
#: At these anybody may knock as often as he likes. Who was turned away is counted, and a line now
#: and then tells of all (see `tally`): a line for each would let strangers fill the log.
_DOORS: Final = frozenset(f"/api/webhooks/{source}" for source in WebhookSource)
#: A stream lasts as long as its client likes: its time says nothing.
_ENDLESS_ROUTES: Final = frozenset({"/api/sse/payments/{id}", "/api/sse/events"})


class Shell:
    """The outermost layer: looks at the host, adds the headers of every answer, and logs it.

    The line names the route's template, never the path: whoever knows a payment's id may see
    the payment. Queries, bodies and headers are not logged at all.
    """

    def __init__(
        self, app: ASGIApp, requests: Requests, hosts: Hosts, safe_headers: RawHeaders
    ) -> None:
        self._app = app
        self._requests = requests
        self._hosts = hosts
        self._safe_headers = safe_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = asyncio.get_running_loop().time()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), *_of_the_caller(scope)]
                message["headers"] = completed(headers, self._safe_headers)
            await send(message)

        refusal = self._hosts.refusal(scope)
        app = self._app if refusal is None else refusal.response()
        try:
            await app(scope, receive, send_with_headers)
        finally:
            duration_s = asyncio.get_running_loop().time() - began_at
            route = getattr(scope.get("route"), "path", None)
            _log_request(scope, route, status, duration_s)
            if route not in _ENDLESS_ROUTES:
                self._requests.served(scope["method"], route, status, duration_s)


def _of_the_caller(scope: Scope) -> RawHeaders:
    """What this caller is told with whatever answer he gets, such as what is left of his rate."""
    own = scope.get("state", {}).get("headers", {})
    return [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in own.items()]


def _log_request(scope: Scope, route: str | None, status: int, duration_s: float) -> None:
    # Of those who are over their rate the figures tell, by policy.
    is_turned_away = status == 429 or (route in _DOORS and 400 <= status < 500)
    write = log.debug if route in _QUIET_ROUTES or is_turned_away else log.info
    write(
        "http.request_served",
        method=scope["method"],
        route=route,
        status=status,
        duration_ms=round(duration_s * 1000, 1),
        api_key_id=scope.get("state", {}).get("api_key_id"),
    )


class FailSafe:
    """The innermost layer: what nobody else has answered for is our fault, and becomes a 500.

    Starlette has a layer for this as well, but it raises the error again after it has answered,
    for the server to log it a second time.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note_start)
        except asyncio.CancelledError:
            # Only the server does this, when it goes down and cannot wait any longer. It would
            # answer in its own words, and log a failure of ours.
            if started:
                raise
            await going_down().response()(scope, receive, send)
        except Exception:
            route = getattr(scope.get("route"), "path", None)
            log.exception("http.failed", method=scope["method"], route=route)
            if not started:
                await internal().response()(scope, receive, send)
