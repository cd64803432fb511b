import asyncio
import signal
import socket
from pathlib import Path

from api.server import serve
from api.sockets import listen
from tests.api.running import Api, running


async def test_the_applications_loop_keeps_its_signal_handlers(api: Api) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert (await api.get("/livez"))[0] == 200


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


async def test_a_request_that_never_ends_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(
            b"POST /api/pay HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\nIdempotency-Key: k\r\nAuthorization: "
            + api.writer["Authorization"].encode()
            + b"\r\n\r\n{"
        )
        await writer.drain()
        while not api.app.state.context.gate._known:
            await asyncio.sleep(0.005)

        api.stop.set()
        async with asyncio.timeout(30):  # it would wait for the rest of the request for ever
            await api.served
        writer.close()
