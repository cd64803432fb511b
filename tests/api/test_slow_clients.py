"""Clients that keep a connection and give or take next to nothing: each has its time."""

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from api import connection as module
from api.limits import PIPELINED_MAX
from tests.api.raw import LAST, PATIENCE_S, answers_in, get_with, post, talk
from tests.api.running import Api, running


@pytest.mark.parametrize(
    "drip",
    [
        pytest.param([b"\r\n"] * 40, id="empty lines"),
        pytest.param([post(b"Content-Length: 99")] + [b"a"] * 40, id="a body nobody waits for"),
        pytest.param([get_with()[:20]] + [b"a"] * 40, id="half a head"),
    ],
)
async def test_dripping_does_not_keep_a_connection(
    api: Api, monkeypatch: pytest.MonkeyPatch, drip: list[bytes]
) -> None:
    """The time is counted from the beginning, not from the last drop."""
    monkeypatch.setattr(module, "HEAD_TIMEOUT_S", 0.5)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    async with asyncio.timeout(PATIENCE_S):
        writer.write(get_with())
        await reader.readuntil(b"}")
        while True:
            try:
                for piece in drip:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.05)
            except ConnectionError:
                break
            if reader.at_eof():
                break
    writer.close()


async def test_a_body_that_stops_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.body.BODY_TIMEOUT_S", 0.3)
    headers = [
        b"Authorization: " + api.writer["Authorization"].encode(),
        b"Idempotency-Key: k",
        b"Content-Type: application/json",
        b"Content-Length: 100",
    ]
    monkeypatch.setattr(module, "HEAD_TIMEOUT_S", 0.3)

    answers = await talk(api, post(*headers, body=b"{"), b" ")

    assert [answer.status for answer in answers] == [408]


@dataclass
class Watched:
    """The connection whose client does not take its answers.

    Attributes:
        waits: once it has more to send than fits anywhere.
    """

    connection: module.Connection | None
    waits: asyncio.Event
    lost: asyncio.Event


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    found = Watched(None, asyncio.Event(), asyncio.Event())
    pause, lose = module.Connection.pause_writing, module.Connection.connection_lost

    def paused(connection: module.Connection) -> None:
        pause(connection)
        found.connection = connection
        found.waits.set()

    def lost(connection: module.Connection, exc: Exception | None) -> None:
        lose(connection, exc)
        if connection is found.connection:
            found.lost.set()

    monkeypatch.setattr(module.Connection, "pause_writing", paused)
    monkeypatch.setattr(module.Connection, "connection_lost", lost)
    return found


async def ask_for_much(api: Api) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with a small buffer, and more asked for than fits into all buffers."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", api.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1)
    writer.write(get_with(path=b"/api/openapi.json") * PIPELINED_MAX)
    return reader, writer


async def test_a_client_that_takes_no_answer_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    monkeypatch.setattr(module, "UNTAKEN_S", 0.3)
    async with running(tmp_path, send_buffer=4_096) as api, asyncio.timeout(PATIENCE_S):
        _, writer = await ask_for_much(api)
        await watched.lost.wait()
        writer.close()

        assert (await api.get("/livez"))[0] == 200


async def test_a_client_that_takes_its_time_gets_every_answer(
    tmp_path: Path, watched: Watched
) -> None:
    async with running(tmp_path, send_buffer=4_096) as api, asyncio.timeout(PATIENCE_S):
        reader, writer = await ask_for_much(api)
        await watched.waits.wait()
        writer.write(get_with(path=b"/nothing"))
        raw = b""
        while b"no_such_path" not in raw:
            raw += await reader.read(65_536)
        assert watched.connection is not None
        assert watched.connection._untaken is None

        writer.write(LAST)
        answers = answers_in(raw + await reader.read())

        assert [a.status for a in answers] == [200] * PIPELINED_MAX + [404, 200]
        writer.close()


async def test_one_connection_too_many_is_closed_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a browser's EventSource that is a server that is away, which it tries again."""
    monkeypatch.setattr("api.server.CONNECTIONS_MAX", 2)
    async with running(tmp_path) as api, asyncio.timeout(PATIENCE_S):
        payment = await api.create()  # whose connection is the first one, and stays
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(get_with(path=f"/api/sse/payments/{payment['id']}".encode()))
        await reader.readuntil(b"event: payment")

        assert await talk(api, LAST) == []
        assert (await api.get("/livez"))[0] == 200

        writer.close()
        while not await talk(api, LAST):
            await asyncio.sleep(0.01)
