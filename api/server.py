"""Runs the application on uvicorn, inside an event loop that is not uvicorn's own.

uvicorn waits for its connections before it stops, and a stream never ends by itself. So the
streams are told first; whoever is left after `SHUTDOWN_TIMEOUT_S` is cut off.
"""

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, cast

import uvicorn
from starlette.applications import Starlette

from api.connection import Connection, Terms
from api.limits import (
    BACKLOG,
    CONNECTIONS_MAX,
    FILES_RESERVED,
    KEEP_ALIVE_S,
    OPEN_FILES,
    SHUTDOWN_TIMEOUT_S,
)
from api.sockets import inherited, listen
from indexer.errors import InvariantError
from indexer.log import get_logger


if TYPE_CHECKING:
    from api.context import Context


log = get_logger(__name__)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which are the entry point's, and with a word."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # What was accepted in this very moment has no connection yet, and would never get one
        # once asyncio's server is closed: nothing more is accepted, then it gets it.
        loop = asyncio.get_running_loop()
        for listening in sockets or ():
            loop.remove_reader(listening)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await super().shutdown(sockets)


async def serve(
    app: Starlette,
    host: str,
    port: int,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serves until `stop` is set, then ends streams and open requests, and returns.

    A socket that was handed over to this process is served in place of host and port.

    Args:
        app: made by `create_app`.
        host: name or address to listen on.
        port: TCP port.
        stop: ends it.
        on_ready: called once requests are accepted.

    Raises:
        ConfigError: nothing can listen there, such as when the port is taken.
    """
    listening = inherited(os.environ, os.getpid()) or listen(host, port)
    await serve_on(app, listening, stop=stop, on_ready=on_ready)


async def serve_on(
    app: Starlette,
    listening: socket.socket,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serves on a socket until `stop` is set; closes the socket."""
    context = cast("Context", app.state.context)
    host, port = listening.getsockname()[:2]
    terms = Terms(
        connections_max=min(CONNECTIONS_MAX, max(1, _raised_file_limit() - FILES_RESERVED)),
        safe_headers=context.safe_headers,
        requests=context.requests,
    )

    def on_listening() -> None:
        log.info("http.listening", host=host, port=port, connections_max=terms.connections_max)
        if on_ready is not None:
            on_ready()

    server = _Server(_config(app, terms), on_listening)
    with contextlib.closing(listening):
        async with asyncio.TaskGroup() as group:
            hub = group.create_task(context.hub.run(), name="stream.hub")
            tally = group.create_task(context.tally.run(), name="webhooks.tally")
            serving = group.create_task(server.serve(sockets=[listening]), name="http.server")
            stopping = group.create_task(stop.wait(), name="http.stop")
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            context.hub.close()
            server.should_exit = True
            await serving
            hub.cancel()
            tally.cancel()
            stopping.cancel()
        await context.tally.write()
    if not stop.is_set():
        raise InvariantError("the HTTP server ended by itself")
    log.info("http.stopped", host=host, port=port)


def _config(app: Starlette, terms: Terms) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast("type[Connection]", partial(Connection, terms=terms)),
        access_log=False,
        log_config=None,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )


def _raised_file_limit() -> int:
    """Lets the process have as many files, and so connections, as it may ask for; says how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, OPEN_FILES)
    if wanted > soft:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_FILES if limit == resource.RLIM_INFINITY else limit
