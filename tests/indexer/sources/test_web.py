"""A client's connections remember nothing, and no answer is read without a bound."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web as server

from indexer.sources import web


Answer = Callable[[server.Request], Awaitable[server.StreamResponse]]

DATE = "Tue, 15 Nov 1994 08:12:31 GMT"
LATER = "Tue, 15 Nov 1994 08:12:36 GMT"


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    runner = server.ServerRunner(server.Server(answer))  # type: ignore[arg-type]  # a plain request
    await runner.setup()
    site = server.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("size", "fits"), [(0, True), (1_000, True), (1_001, False)])
async def test_an_answer_is_read_as_a_whole_or_not_at_all(size: int, fits: bool) -> None:
    async def answer(_: server.Request) -> server.Response:
        return server.Response(body=b"x" * size)

    async with serving(answer) as url, web.session() as session, session.get(url) as response:
        assert await web.whole_body(response, 1_000) == (b"x" * size if fits else None)


async def test_what_is_packed_small_and_unpacks_large_is_not_read_to_the_end() -> None:
    async def answer(_: server.Request) -> server.Response:
        response = server.Response(body=b"x" * 10_000_000)
        response.enable_compression(server.ContentCoding.gzip)
        return response

    async with serving(answer) as url, web.session() as session, session.get(url) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert await web.whole_body(response, 1_000_000) is None


async def test_no_cookie_is_sent_back() -> None:
    cookies: list[str | None] = []

    async def answer(request: server.Request) -> server.Response:
        cookies.append(request.headers.get("Cookie"))
        return server.Response(headers={"Set-Cookie": "session=1"})

    async with serving(answer) as url, web.session() as session:
        for _ in range(2):
            async with session.get(url) as response:
                await response.read()

    assert cookies == [None, None]


async def test_no_proxy_of_the_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def answer(_: server.Request) -> server.Response:
        return server.Response()

    async with serving(answer) as url, web.session() as session, session.get(url) as response:
        assert response.status == 200


async def test_a_session_has_no_time_limit_of_its_own() -> None:
    """Its message would hold the URL."""
    async with web.session() as session:
        assert session.timeout == aiohttp.ClientTimeout(total=None, sock_connect=None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": LATER, "Date": DATE}, 5.0),
        ({"Retry-After": "soon"}, None),
    ],
)
async def test_a_pause_is_what_the_server_asks_for(
    headers: dict[str, str], expected: float | None
) -> None:
    async def answer(_: server.Request) -> server.Response:
        return server.Response(status=503, headers=headers)

    async with serving(answer) as url, web.session() as session, session.get(url) as response:
        assert web.pause_s(response) == expected
