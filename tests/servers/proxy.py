"""What stands between the daemon and a node in tests: a wire to cut, and a later node."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web


class Wire:
    """A TCP connection to somewhere, through a port of its own, that can be cut and held.

    Attributes:
        url: as the target's, with this port.
        passed: how often somebody connected.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._scheme, self._host, self._port = parts.scheme, parts.hostname, parts.port
        self._server: asyncio.Server
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.passed = 0
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def to(cls, target: str) -> AsyncIterator[Self]:
        """A wire for the length of the block."""
        wire = cls(target)
        wire._server = await asyncio.start_server(wire._connected, "127.0.0.1", 0)
        port = wire._server.sockets[0].getsockname()[1]
        wire.url = f"{wire._scheme}://127.0.0.1:{port}"
        try:
            yield wire
        finally:
            wire._server.close()
            wire.cut()
            for task in wire._tasks:
                task.cancel()
            await asyncio.gather(*wire._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Ends every connection without a word."""
        for writer in self._open:
            writer.transport.abort()

    def hold(self) -> None:
        """Lets nothing through from now on, and keeps the connections open."""
        self._flows.clear()

    def release(self) -> None:
        """Lets things through again."""
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.passed += 1
        assert self._host is not None
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._open |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        self._open.discard(sink)
        sink.close()


class LateNode:
    """A node before another one, where nothing is final until the test says so.

    The local runtime answers questions about finalized transactions and signatures early. A
    strict node says `null` of a transaction that is not final, as Agave does; one that is not
    strict gives it, as the local runtime does. Both list signatures early.

    Attributes:
        url: where it listens.
        final_up_to: the highest slot that is called finalized; None for what the other one says.
    """

    def __init__(self, target: str, http: aiohttp.ClientSession, *, is_strict: bool) -> None:
        self._target = target
        self._http = http
        self._is_strict = is_strict
        self.final_up_to: int | None = None
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def before(cls, target: str, *, is_strict: bool) -> AsyncIterator[Self]:
        """Such a node for the length of the block."""
        async with aiohttp.ClientSession() as http:
            node = cls(target, http, is_strict=is_strict)
            async with _serving(node._serve) as node.url:
                yield node

    async def hold(self) -> None:
        """Nothing more becomes final from now on."""
        self.final_up_to = await self._finalized()

    def release(self) -> None:
        """What the other one calls final is final."""
        self.final_up_to = None

    async def _serve(self, request: web.Request) -> web.Response:
        body = await request.json()
        answer = await self._ask(body)
        options = [param for param in body["params"] if isinstance(param, dict)]
        is_about_final = any(option.get("commitment") == "finalized" for option in options)
        if is_about_final and answer.get("result") is not None:
            match body["method"]:
                case "getSlot":
                    answer["result"] = self._final(answer["result"])
                case "getTransaction" if self._is_strict:
                    if answer["result"]["slot"] > self._final(await self._finalized()):
                        answer["result"] = None
        return web.json_response(answer)

    async def _finalized(self) -> int:
        options = [{"commitment": "finalized"}]
        body = {"jsonrpc": "2.0", "id": 0, "method": "getSlot", "params": options}
        return int((await self._ask(body))["result"])

    def _final(self, slot: int) -> int:
        return slot if self.final_up_to is None else min(slot, self.final_up_to)

    async def _ask(self, body: Any) -> Any:
        async with self._http.post(self._target, json=body) as answer:
            return await answer.json()


@asynccontextmanager
async def undated_node(target: str) -> AsyncIterator[str]:
    """The URL of a node that lists signatures without their times; it gives them when asked.

    In the lists of the local runtime a time may be a second less than the time of its block,
    which on a cluster are the same: what is compared to the second must come from one of them.
    """
    async with aiohttp.ClientSession() as http:

        async def serve(request: web.Request) -> web.Response:
            body = await request.json()
            async with http.post(target, json=body) as response:
                answer = await response.json()
            if body["method"] == "getSignaturesForAddress":
                for row in answer.get("result", ()):
                    row["blockTime"] = None
            return web.json_response(answer)

        async with _serving(serve) as url:
            yield url


@asynccontextmanager
async def blind_node(target: str, *, refuses: bool) -> AsyncIterator[str]:
    """The URL of a node that lists no signatures of any key: it says none, or refuses to.

    Whoever learns of a transaction there was told of it by somebody else.
    """
    async with aiohttp.ClientSession() as http:

        async def serve(request: web.Request) -> web.Response:
            body = await request.json()
            if body["method"] == "getSignaturesForAddress":
                error = {"code": -32010, "message": "excluded from account secondary indexes"}
                said: dict[str, Any] = {"error": error} if refuses else {"result": []}
                return web.json_response({"jsonrpc": "2.0", "id": body["id"], **said})
            async with http.post(target, json=body) as response:
                return web.Response(body=await response.read(), content_type="application/json")

        async with _serving(serve) as url:
            yield url


@asynccontextmanager
async def silent_socket() -> AsyncIterator[str]:
    """The URL of a WebSocket that accepts everybody and never says a word."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    async with _serving(serve) as url:
        yield url.replace("http", "ws", 1)


@asynccontextmanager
async def _serving(serve: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
