"""Requests that never get as far as the application, over the real server."""

import asyncio
from typing import Final

import pytest

from api import connection as module
from api.limits import HEAD_BYTES_MAX
from tests.api.running import Api


PIECE_BYTES: Final = 64 * 1024
#: More than a server that stops reading, and the buffers on the way to it, can take: 64 MiB.
PIECES: Final = 1_024

REQUEST: Final = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


async def talk(api: Api, *pieces: bytes) -> tuple[int, bytes]:
    """How many pieces could be sent, and what came back until the server closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    sent = 0
    async with asyncio.timeout(30):
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                sent += 1
            return sent, await reader.read()
        except ConnectionError:
            return sent, b""
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        pytest.param(b"GET /", b"a" * PIECE_BYTES, id="first line"),
        pytest.param(REQUEST + b"X: ", b"a" * PIECE_BYTES, id="value"),
        pytest.param(REQUEST, b"a" * PIECE_BYTES, id="name"),
        pytest.param(REQUEST, b"X: a\r\n" * (PIECE_BYTES // 6), id="many headers"),
    ],
)
async def test_a_head_without_end_is_cut_off(api: Api, begin: bytes, more: bytes) -> None:
    sent, _ = await talk(api, begin, *[more] * PIECES)

    assert sent < PIECES
    assert (await api.get("/livez"))[0] == 200


async def test_a_long_head_in_many_pieces_is_read(api: Api) -> None:
    value = b"a" * (HEAD_BYTES_MAX // 2)

    _, answer = await talk(api, REQUEST, b"X: ", value, b"\r\nConnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_every_head_on_a_connection_is_counted_by_itself(api: Api) -> None:
    head = [REQUEST, b"X: " + b"a" * (HEAD_BYTES_MAX // 2)]

    _, answer = await talk(api, *[*head, b"\r\n\r\n"] * 4, *head, b"\r\nConnection: close\r\n\r\n")

    assert answer.count(b"HTTP/1.1 200 ") == 5


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(REQUEST, id="half a head"),
        pytest.param(REQUEST + b"\r\n" + REQUEST, id="half a second head"),
    ],
)
async def test_who_does_not_go_on_is_let_go(
    api: Api, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(module, "HEAD_TIMEOUT_S", 0.5)

    _, answer = await talk(api, sent)

    assert answer.count(b"HTTP/1.1 200 ") == sent.count(b"\r\n\r\n")


async def test_a_whole_head_has_all_the_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIMEOUT_S", 1.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(
        b"POST /api/pay HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Idempotency-Key: k\r\nAuthorization: "
        + api.writer["Authorization"].encode()
        + b"\r\nContent-Length: 2\r\n\r\n"
    )
    await asyncio.sleep(1.5)
    writer.write(b"{}")

    async with asyncio.timeout(30):
        assert (await reader.readline()).startswith(b"HTTP/1.1 422 ")
    writer.close()
