"""A road to an HTTP server on which requests and answers get lost, on demand.

through      as if it were not there
no_answer    the request arrives, the answer does not: the connection breaks
no_request   the connection breaks before anything arrives
late         the connection breaks, and the request arrives when `release` lets it
silent       the request arrives, and nothing comes back for as long as the client waits
"""

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import Final, Self
from urllib.parse import urlsplit


_PATIENCE_S: Final = 30.0


class Way(StrEnum):
    THROUGH = "through"
    NO_ANSWER = "no_answer"
    NO_REQUEST = "no_request"
    LATE = "late"
    SILENT = "silent"


class Meddler:
    """Stands before one server for the length of an `async with` block.

    Attributes:
        way: what becomes of the next requests.
        times: after so many it is `through` again; 0: never.
        requests: how many came.
    """

    def __init__(self, url: str) -> None:
        self.way = Way.THROUGH
        self.times = 0
        self.requests = 0
        self._port = urlsplit(url).port
        self._held: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def meddle(self, way: Way, times: int = 1) -> None:
        """The next so many requests go that way."""
        self.way, self.times = way, times

    async def release(self) -> list[bytes]:
        """Lets the late requests arrive; returns what was answered."""
        held, self._held = self._held, []
        return [await self._ask(request) for request in held]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._pass_on(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _message(reader)
        self.requests += 1
        way = self.way
        if self.times:
            self.times -= 1
            if not self.times:
                self.way = Way.THROUGH
        match way:
            case Way.NO_REQUEST:
                return False
            case Way.LATE:
                self._held.append(request)
                return False
            case Way.NO_ANSWER:
                await self._ask(request)
                return False
            case Way.SILENT:
                await self._ask(request)
                await asyncio.sleep(_PATIENCE_S)
                return False
            case Way.THROUGH:
                writer.write(await self._ask(request))
                await writer.drain()
                return True

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request)
            return await _message(reader)
        finally:
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One request or answer whole, which says its own length."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if line)
    if fields.get(b"transfer-encoding", b"").strip() == b"chunked":
        return head + await _chunks(reader)
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        found += line + await reader.readexactly(int(line, 16) + 2)
        if int(line, 16) == 0:
            return found
