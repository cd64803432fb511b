"""A connection whose requests are bounded before anything of ours sees them.

What a request begins with (its first line and its headers) is gathered by the parser until it is
whole: without a bound, whoever can connect fills the memory with headers that never end, and
without a time limit he keeps connections for nothing. Bodies are bounded where they are read.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.limits import HEAD_BYTES_MAX, HEAD_TIMEOUT_S


class Connection(HttpToolsProtocol):
    """HTTP on one connection: heads of a bounded size, within a bounded time."""

    _head: list[tuple[bytes, bytes]] | None = None
    _head_bytes = 0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own too
        """The first request is to begin soon."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, unless what the request begins with has no end.

        Counted is what came after the piece in which the head began: that piece is bounded by
        the event loop, and may hold requests before this one.
        """
        head = self._head
        super().data_received(data)
        if head is None or self._head is not head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response("The request's headers are too long.")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head, self._head_bytes = self.headers, 0
        self._wait()

    def on_headers_complete(self) -> None:
        """The request's head is whole."""
        self._head = None
        self._wait_no_more()
        super().on_headers_complete()

    def _wait(self) -> None:
        self._wait_no_more()
        self._waiting = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_slow(self) -> None:
        self.transport.close()
