"""Runs the application on uvicorn, inside an event loop that is not uvicorn's own.

uvicorn waits for its connections before it stops, and a stream never ends by itself. So the
streams are told first; whoever is left after `SHUTDOWN_TIMEOUT_S` is cut off.
"""

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final, cast

import uvicorn
from starlette.applications import Starlette

from api.connection import Connection
from api.limits import (
    BACKLOG,
    KEEP_ALIVE_S,
    OPEN_FILES,
    SHUTDOWN_TIMEOUT_S,
    UNACKNOWLEDGED_MS_MAX,
)
from indexer.errors import ConfigError, InvariantError
from indexer.log import get_logger


if TYPE_CHECKING:
    from api.context import Context


log = get_logger(__name__)

_REASONS: Final = {
    errno.EADDRINUSE: "is taken: stop the other program, or set another port",
    errno.EACCES: "may not be used by this user: ports below 1024 belong to root",
    errno.EADDRNOTAVAIL: "is no address of this machine",
}


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


async def serve(
    app: Starlette,
    host: str,
    port: int,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serves until `stop` is set, then ends streams and open requests, and returns.

    Args:
        app: made by `create_app`.
        host: name or address to listen on.
        port: TCP port.
        stop: ends it.
        on_ready: called once requests are accepted.

    Raises:
        ConfigError: nothing can listen there, such as when the port is taken.
    """
    await serve_on(app, listen(host, port), stop=stop, on_ready=on_ready)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; port 0 takes a free one.

    Raises:
        ConfigError: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        problem = f"AXIOM_HOST, AXIOM_PORT: {host}, port {port}, {reason}"
        raise ConfigError((problem,)) from error
    # Accepted connections inherit both. An answer is written in two pieces, and the second one is
    # not to wait until the client has acknowledged the first: that takes 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client that has vanished, or never reads, is dropped by the kernel: the server could only
    # wait for it.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX)
    return listening


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

    def on_listening() -> None:
        log.info("http.listening", host=host, port=port)
        if on_ready is not None:
            on_ready()

    _raise_file_limit()
    server = _Server(_config(app), on_listening)
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


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
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


def _raise_file_limit() -> None:
    """Lets the process have as many files, and so connections, as it is allowed to ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, OPEN_FILES)
    if wanted > soft:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
