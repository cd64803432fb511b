"""What answers a client of a libSQL server as a test wants it, over real HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from store.libsql import Server
from tests.ports import free_port


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[Server]:
    app = web.Application()
    app.router.add_post("/v3/pipeline", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port())
    await site.start()
    try:
        async with Server(f"http://127.0.0.1:{port}", "tok-12345678") as server:
            yield server
    finally:
        await runner.cleanup()
