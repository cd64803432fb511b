"""A connection whose requests are bounded before anything of ours sees them.

The parser gathers what a request begins with (its first line and its headers) until it is whole:
without a bound, whoever can connect fills the memory with headers that never end, and without a
time limit he keeps connections for nothing. Bodies are bounded where they are read.

The parser knows the grammar, and refuses whatever two programs could read in two ways: both
lengths of a body or one of them twice, a chunk that is not as long as it says, a line that ends
without its CR. Refused here is what it lets through:

    another version than HTTP/1.0 and 1.1, a transfer coding that is not `chunked`     505, 501
    an upgrade with a body, which the parser would take for the next request            501
    a target with a host of its own that is not that of `Host`                          400
    a target, headers, or a number of them beyond the bounds of `limits`                414, 431
    trailers are counted and left out: nobody checked them, as the way here checks headers

Sources: RFC 9112 sections 2.3, 3.2, 6.1, 7.1.2, 9.6; RFC 9110 sections 6.5.1, 7.8.
"""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.errors import Problem
from api.headers import RawHeaders, completed
from api.limits import (
    DRAIN_S,
    HEAD_BYTES_MAX,
    HEAD_TIMEOUT_S,
    HEADERS_BYTES_MAX,
    HEADERS_MAX,
    LINGER_BYTES_MAX,
    LINGER_S,
    PIPELINED_MAX,
    UNTAKEN_S,
    URL_BYTES_MAX,
)
from api.requests import Requests
from indexer.log import get_logger


log = get_logger(__name__)

#: A colon and a space, CR and LF: what each header takes on the wire beside its name and value.
_BETWEEN_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all connections of a server have in common.

    Attributes:
        connections_max: at once.
        safe_headers: what every answer says to browsers.
        requests: counts the ones that are refused here.
    """

    connections_max: int
    safe_headers: RawHeaders
    requests: Requests


class _Fault(Exception):
    """Raised inside the parser's callbacks, which it ends; the connection knows why."""


class Connection(HttpToolsProtocol):
    """HTTP on one connection: heads of a bounded size, within a bounded time."""

    def __init__(self, *args: Any, terms: Terms, **kwargs: Any) -> None:
        """Prepares a connection; all but `terms` is uvicorn's."""
        super().__init__(*args, **kwargs)
        self._terms = terms
        self._problem: Problem | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None
        self._head_is_whole = False
        self._headers_seen = 0
        self._headers_bytes = 0
        #: Whether the parser has told anything of the piece that it was given, and how many
        #: bytes it was given since it last did.
        self._told = False
        self._gathered_bytes = 0
        #: Nothing that still comes is read; so much of it came.
        self._is_deaf = False
        self._dropped_bytes = 0
        self._is_ending = False

    # -------------------------------------------------------------- what the event loop tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own too
        """The first request is to begin soon."""
        super().connection_made(transport)
        if len(self.connections) > self._terms.connections_max:
            log.debug("http.connection_refused", connections=len(self.connections))
            transport.abort()
            return
        self._wait(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._wait_no_more()
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, within the bounds. uvicorn's own would log a line for whatever is wrong."""
        if self._is_deaf:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > LINGER_BYTES_MAX:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        self._told = False
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._problem or _malformed("the request is not HTTP/1.1"))
            return
        self._gathered_bytes = 0 if self._told else self._gathered_bytes + len(data)
        if self._gathered_bytes > HEAD_BYTES_MAX:
            self._refuse(_too_long())
        elif self._is_idle and self._waiting is None:
            # Of a request that is answered already, or of nothing: that is no reason to stay.
            self._wait(HEAD_TIMEOUT_S)

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # To a protocol that we do not speak: the connection goes on with this one.
                data = data[upgrade.args[0] :]
            else:
                return

    def pause_writing(self) -> None:
        """The client does not take what it is sent."""
        super().pause_writing()
        if self._untaken is None:
            self._untaken = self.loop.call_later(UNTAKEN_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        self._taken()
        super().resume_writing()

    def shutdown(self) -> None:
        """Ends with the answer to what was asked; uvicorn's own cuts off what is on its way."""
        self._is_ending = True
        if self._is_idle and not self._is_deaf and not self.transport.is_closing():
            self.loop.call_later(DRAIN_S, super().shutdown)
        else:
            super().shutdown()

    # ------------------------------------------------------------------- what the parser tells

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._told = True
        self._head_is_whole = False
        self._headers_seen = self._headers_bytes = 0
        self._wait(HEAD_TIMEOUT_S)

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        super().on_url(url)
        self._told = True
        if len(self.url) > URL_BYTES_MAX:
            self._fault(
                Problem(414, "url_too_long", f"the target has at most {URL_BYTES_MAX} bytes")
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._told = True
        self._headers_seen += 1
        self._headers_bytes += len(name) + len(value) + _BETWEEN_BYTES
        if self._headers_seen > HEADERS_MAX or self._headers_bytes > HEADERS_BYTES_MAX:
            self._fault(_too_long())
        if not self._head_is_whole:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request's head is whole."""
        self._told = self._head_is_whole = True
        self._wait_no_more()
        if (problem := self._problem_of_the_head()) is not None:
            self._fault(problem)
        super().on_headers_complete()
        if self._is_ending:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._told = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._told = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is written. A body that nobody waited for has its time, and no more."""
        super().on_response_complete()
        if self._is_idle and self.cycle.more_body and not self.transport.is_closing():
            self._wait(HEAD_TIMEOUT_S)

    def _problem_of_the_head(self) -> Problem | None:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            return Problem(505, "unknown_version", "only HTTP/1.0 and HTTP/1.1 are spoken here")
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (version == "1.0" or [each.strip() for each in codings] != [b"chunked"]):
            return Problem(501, "unknown_transfer_coding", "the transfer coding must be `chunked`")
        if self.parser.should_upgrade() and self._has_a_body():
            return Problem(501, "unsupported_upgrade", "send what has a body without `Upgrade`")
        if not self.url.startswith(b"/") and not self._host_is_that_of_the_target():
            return _malformed("the target must begin with a slash, or name the host of `Host`")
        if len(self.pipeline) >= PIPELINED_MAX:
            return Problem(429, "too_many_at_once", "too many requests wait on this connection")
        return None

    def _has_a_body(self) -> bool:
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    def _host_is_that_of_the_target(self) -> bool:
        scheme, _, rest = self.url.partition(b"://")
        authority = rest.partition(b"/")[0].lower()
        hosts = [value.strip().lower() for name, value in self.headers if name == b"host"]
        return scheme.lower() in (b"http", b"https") and hosts == [authority]

    # ------------------------------------------------------------------------------- refusing

    @property
    def _is_idle(self) -> bool:
        """Nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _fault(self, problem: Problem) -> None:
        self._problem = problem
        raise _Fault

    def _refuse(self, problem: Problem) -> None:
        """Reads no more. What was asked before is answered, and nothing is put between."""
        self._is_deaf = True
        self._wait_no_more()
        self._terms.requests.served("none", None, problem.status, 0.0)
        log.debug("http.refused", status=problem.status, code=problem.code)
        cycle = self.cycle
        if self._is_idle:
            self._say(problem)
        elif cycle.more_body and not cycle.response_started and not self.pipeline:
            # It is this request's own body: whoever waits for it learns that the client is gone.
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            self._say(problem)
        else:
            cycle.keep_alive = False

    def _say(self, problem: Problem) -> None:
        """Answers, and waits a moment for the client to take it."""
        response = problem.response()
        own = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        head = [b"%b: %b\r\n" % pair for pair in completed(own, self._terms.safe_headers)]
        line = STATUS_LINE[HTTPStatus(problem.status)]
        self.transport.write(b"".join([line, *head, b"\r\n", bytes(response.body)]))
        self.transport.write_eof()
        self._wait(LINGER_S)

    # -------------------------------------------------------------------------------- waiting

    def _wait(self, timeout_s: float) -> None:
        self._wait_no_more()
        self._waiting = self.loop.call_later(timeout_s, self._too_slow)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _too_slow(self) -> None:
        self.transport.abort()


def _malformed(detail: str) -> Problem:
    return Problem(400, "malformed_request", detail)


def _too_long() -> Problem:
    return Problem(
        431,
        "headers_too_long",
        f"a request has at most {HEADERS_MAX} headers of {HEADERS_BYTES_MAX} bytes together",
    )
