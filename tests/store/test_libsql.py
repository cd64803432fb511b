import pytest
from aiohttp import web

from indexer.demo.sqld.launcher import Sqld
from store import libsql
from store.connection import Statement
from store.hrana import ReadRequest
from store.libsql import Lost, NotSent, Refused, Server
from tests.ports import free_port
from tests.servers.answering import answering
from tests.servers.meddler import Meddler, Way


ONE = ReadRequest([Statement("SELECT 1")])


async def test_a_real_server_answers(sqld: Sqld) -> None:
    async with Server(sqld.url, None) as server:
        raw = await server.post(ONE.body(), timeout_s=30)

    assert ONE.outcome(raw)[0] == [[(1,)]]


async def test_the_token_goes_along_and_is_not_named() -> None:
    seen = []

    async def refuse(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response(status=401, text="expired\n")

    async with answering(refuse) as server:
        with pytest.raises(Refused, match="answers 401: expired; AXIOM_DATABASE_TOKEN") as caught:
            await server.post(b"{}", timeout_s=30)

    assert seen == ["Bearer tok-12345678"]
    assert "tok-" not in str(caught.value)


@pytest.mark.parametrize(("status", "error"), [(302, Refused), (404, Refused), (500, Lost)])
async def test_another_status_is_no_answer(status: int, error: type[Exception]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:1/"})

    async with answering(answer) as server:
        with pytest.raises(error, match=f"answers {status}"):
            await server.post(b"{}", timeout_s=30)


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libsql, "ANSWER_BYTES_MAX", 1_000)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 5_000)

    async with answering(answer) as server:
        with pytest.raises(Lost, match="more than 1000 bytes"):
            await server.post(b"{}", timeout_s=30)


async def test_who_is_not_there_was_not_reached() -> None:
    async with Server(f"http://127.0.0.1:{free_port()}", None) as server:
        with pytest.raises(NotSent, match="cannot be reached"):
            await server.post(b"{}", timeout_s=30)


async def test_who_broke_off_may_have_carried_it_out(sqld: Sqld) -> None:
    async with Meddler(sqld.url) as road, Server(road.url, None) as server:
        for way in (Way.NO_REQUEST, Way.NO_ANSWER):
            road.meddle(way)
            with pytest.raises(Lost, match="broke off"):
                await server.post(ONE.body(), timeout_s=30)


async def test_who_is_silent_may_have_carried_it_out(sqld: Sqld) -> None:
    async with Server(sqld.url, None) as server:
        await server.post(ONE.body(), timeout_s=30)
        sqld.pause()
        with pytest.raises(Lost, match=r"has not answered for 0\.1 s"):
            await server.post(ONE.body(), timeout_s=0.1)


async def test_a_closed_one_is_not_asked(sqld: Sqld) -> None:
    server = Server(sqld.url, None)
    async with server:
        pass

    with pytest.raises(NotSent, match="closed"):
        await server.post(ONE.body(), timeout_s=30)


@pytest.mark.parametrize(
    ("url", "name"), [("libsql://db.example", "db.example"), ("http://h:1/ns/", "h:1")]
)
def test_a_server_is_named_by_its_host(url: str, name: str) -> None:
    assert Server(url, None).name == name
