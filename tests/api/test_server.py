import asyncio
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api import connection, server
from api.connection import Terms
from api.limits import SHUTDOWN_TIMEOUT_S
from api.server import _config, _Server, serve
from api.sockets import listen
from indexer.daemon import SHUTDOWN_LIMIT_S
from tests.api.running import Api, running


async def test_the_applications_loop_keeps_its_signal_handlers(tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    async with running(tmp_path) as api:
        assert (await api.get("/livez"))[0] == 200
        assert [signal.getsignal(number) for number in numbers] == before


async def test_it_serves_until_it_is_stopped(api: Api) -> None:
    """A second server beside the first, by host and port, as the entry point starts it."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    stop, ready = asyncio.Event(), asyncio.Event()
    served = asyncio.create_task(serve(api.app, "127.0.0.1", port, stop=stop, on_ready=ready.set))
    async with asyncio.timeout(30):
        await ready.wait()
        async with api.session.get(f"http://127.0.0.1:{port}/livez") as response:
            assert response.status == 200
        stop.set()
        await served

    with socket.create_server(("127.0.0.1", port)):
        pass  # the port is free again


async def test_a_request_under_way_is_answered_when_the_server_goes_down(tmp_path: Path) -> None:
    """A stream is not waited for: it ends while the request is still under way."""
    async with running(tmp_path) as api, asyncio.timeout(30):
        payment = await api.create("first")
        stream = await api.session.get(f"/api/sse/payments/{payment['id']}")
        await stream.content.readline()
        api.chain.asked.clear()
        api.chain.gate = asyncio.Event()
        asked = asyncio.create_task(api.create("second"))
        while not api.chain.asked:
            await asyncio.sleep(0.005)

        api.stop.set()
        await stream.read()
        assert not asked.done()
        assert not api.served.done()

        api.chain.gate.set()
        assert (await asked)["status"] == "pending"
        await api.served


async def test_who_is_being_answered_has_longer_than_an_order_at_paymob_takes(api: Api) -> None:
    context = api.app.state.context
    terms = Terms(connections_max=9, safe_headers=(), requests=context.requests)

    config = _config(api.app, terms)

    assert config.timeout_graceful_shutdown == SHUTDOWN_TIMEOUT_S
    assert 3 < SHUTDOWN_TIMEOUT_S < SHUTDOWN_LIMIT_S


async def test_a_request_that_never_ends_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SHUTDOWN_TIMEOUT_S", 1)
    async with running(tmp_path) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(
            b"POST /api/pay HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\nIdempotency-Key: k\r\nAuthorization: "
            + api.writer["Authorization"].encode()
            + b"\r\n\r\n{"
        )
        await writer.drain()
        while not api.app.state.context.gate._known:
            await asyncio.sleep(0.005)

        with capture_logs() as lines:
            api.stop.set()
            async with asyncio.timeout(30):  # it would wait for the rest of the request for ever
                answer = await reader.read()
                await api.served
        writer.close()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"content-type: application/problem+json" in head
    assert b"x-content-type-options: nosniff" in head
    assert b"retry-after: " in head
    assert b'"code":"going_down"' in body
    assert not any("exception" in line or line.get("exc_info") for line in lines)


async def test_what_is_on_its_way_when_the_server_goes_down_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a connection that was used before, and on one that was not; both then end."""
    monkeypatch.setattr(connection, "DRAIN_S", 0.8)
    get = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with running(tmp_path) as api, asyncio.timeout(30):
        used = await asyncio.open_connection("127.0.0.1", api.port)
        fresh = await asyncio.open_connection("127.0.0.1", api.port)
        used[1].write(get)
        await used[0].readuntil(b"}")  # they are accepted in order, and a request comes later
        assert (await api.get("/livez"))[0] == 200

        api.stop.set()
        while True:
            try:
                (await asyncio.open_connection("127.0.0.1", api.port))[1].close()
            except ConnectionError:
                break
            await asyncio.sleep(0)
        for reader, writer in (used, fresh):
            writer.write(get)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close\r\n" in answer
            writer.close()


@pytest.mark.parametrize("turns", range(6))
async def test_what_is_accepted_while_the_server_goes_down_is_answered(
    api: Api, turns: int
) -> None:
    """Or is left to who has the socket as well: so many turns of the loop after it connects."""
    context = api.app.state.context
    terms = Terms(connections_max=9, safe_headers=(), requests=context.requests)
    server = _Server(_config(api.app, terms), lambda: None)
    with listen("127.0.0.1", 0) as listening, listening.dup() as kept:
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([listening])
        with socket.create_connection(kept.getsockname()) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for _ in range(turns):
                await asyncio.sleep(0)
            await server.shutdown([listening])
            client.settimeout(0.1)
            kept.setblocking(False)
            with suppress(BlockingIOError):
                kept.accept()[0].close()
                return
            assert client.recv(9) == b"HTTP/1.1 "
