"""A server that answers a POST with any bytes, at any pace."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self


#: Writes the answer to one request that was read; returns whether the connection stays open.
Script = Callable[[asyncio.StreamWriter], Awaitable[bool]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def said(*parts: bytes, then_close: bool = False) -> Script:
    """An answer in so many pieces."""

    async def script(writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return not then_close

    return script


def silent(*parts: bytes) -> Script:
    """Says this much, and then nothing more."""

    async def script(writer: asyncio.StreamWriter) -> bool:
        writer.write(b"".join(parts))
        await writer.drain()
        await asyncio.Event().wait()
        return False

    return script


def endless(head: bytes, piece: bytes, pause_s: float = 0.0) -> Script:
    """Goes on for ever."""

    async def script(writer: asyncio.StreamWriter) -> bool:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return script


class Answering:
    """One port of loopback. Each request takes the next script; the last one stays.

    Attributes:
        requests: head and body of each request, as they came.
        connections: how many there were.
        open: how many there are.
    """

    def __init__(
        self, *scripts: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.open = 0
        self._scripts = list(scripts)
        self._tls = tls
        self._host = host
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?shop=SECRET"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._one(reader, writer):
                    pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        self.requests.append((head, await reader.readexactly(length)))
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        return await script(writer)
