import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiohttp import web

from indexer.demo.sqld.launcher import Sqld
from indexer.errors import InvariantError, StoreUnavailable
from store import libsql_streams
from store.connection import Statement
from store.database import open_database
from store.hrana import ReadRequest, Unreadable
from store.libsql import Lost, NotSent, Refused, Server, TimedOut
from store.libsql_streams import Streams
from tests.ports import free_port
from tests.servers.answering import answering
from tests.servers.meddler import Meddler, Way


ONE = ReadRequest([Statement("SELECT 1")])
CHANGES = ReadRequest([Statement("SELECT value FROM kept")])


NOTHING: dict[str, Any] = {"cols": [], "rows": []}
ROW: dict[str, Any] = {"cols": [], "rows": [[{"type": "integer", "value": "1"}]]}


@dataclass
class Keeper:
    """Answers as a server does that keeps streams, and notes what it is asked.

    Attributes:
        asked: of each request its baton, and whether it closes its stream.
        answer_all_with: a status; None: what there is to say.
        known: batons that it takes.
        refusal: what becomes of any other one.
        steps: what came of each step.
        base_url: which it names for what comes next.
        gate: answers wait for it.
    """

    asked: list[tuple[str | None, bool]] = field(default_factory=list)
    answer_all_with: int | None = None
    known: set[str] = field(default_factory=set)
    refusal: Callable[[], web.Response] = lambda: web.Response(status=400, text="invalid baton")
    steps: list[dict[str, Any] | None] = field(default_factory=lambda: [NOTHING, ROW, NOTHING])
    base_url: str | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read())
        baton, closes = body["baton"], body["requests"][-1]["type"] == "close"
        self.asked.append((baton, closes))
        fresh = None if closes else f"stream {len(self.asked)}"
        await self.gate.wait()
        if self.answer_all_with is not None:
            return web.Response(status=self.answer_all_with)
        if baton is not None and baton not in self.known:
            return self.refusal()
        self.known.discard(baton or "")
        self.known.add(fresh or "")
        return web.json_response(
            {"baton": fresh, "base_url": self.base_url, "results": [batch_of(self.steps)]}
        )


def batch_of(steps: list[dict[str, Any] | None]) -> dict[str, Any]:
    """What is None failed."""
    wrong = {"message": "no such table: nowhere", "code": "SQLITE_ERROR"}
    errors = [wrong if each is None else None for each in steps]
    result = {"step_results": steps, "step_errors": errors}
    return {"type": "ok", "response": {"type": "batch", "result": result}}


def says(code: str) -> Callable[[], web.Response]:
    error = {"type": "error", "error": {"message": "it is gone", "code": code}}
    return lambda: web.json_response({"baton": None, "results": [error]})


@asynccontextmanager
async def kept(keeper: Keeper) -> AsyncIterator[Streams]:
    keeper.gate.set()
    async with answering(keeper.answer) as server:
        yield Streams(server)


async def read(streams: Streams) -> None:
    assert await streams.read(ONE, timeout_s=30) == ([[(1,)]], None)


async def until_asked(keeper: Keeper, count: int) -> None:
    async with asyncio.timeout(30):
        while len(keeper.asked) < count:
            await asyncio.sleep(0.01)


async def test_a_stream_is_used_again() -> None:
    keeper = Keeper()
    async with kept(keeper) as streams:
        for _ in range(3):
            await read(streams)

    assert keeper.asked == [(None, False), ("stream 1", False), ("stream 2", False)]


async def test_reads_at_once_have_a_stream_each_and_more_of_them_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libsql_streams, "AT_ONCE", 2)
    keeper = Keeper()
    async with kept(keeper) as streams:
        keeper.gate.clear()
        reads = [asyncio.create_task(read(streams)) for _ in range(5)]
        await until_asked(keeper, 2)
        with pytest.raises(TimedOut, match=r"has been busy for 0\.1 s"):
            await streams.read(ONE, timeout_s=0.1)
        assert len(keeper.asked) == 2

        keeper.gate.set()
        await asyncio.gather(*reads)

    assert [baton is None for baton, _ in keeper.asked] == [True, True, False, False, False]
    assert not any(closes for _, closes in keeper.asked)


async def test_who_leaves_while_it_reads_gives_its_place_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libsql_streams, "AT_ONCE", 1)
    keeper = Keeper()
    async with kept(keeper) as streams:
        keeper.gate.clear()
        reading, waiting = (asyncio.create_task(read(streams)) for _ in range(2))
        await until_asked(keeper, 1)
        waiting.cancel()
        reading.cancel()
        await asyncio.gather(reading, waiting, return_exceptions=True)
        keeper.gate.set()
        await read(streams)

    assert keeper.asked == [(None, False)] * 2  # of a stream whose answer is not known, no more


async def test_one_that_waited_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libsql_streams, "IDLE_S", 0.0)
    keeper = Keeper()
    async with kept(keeper) as streams:
        await read(streams)
        await read(streams)

    assert keeper.asked == [(None, False)] * 2


async def test_one_that_is_led_elsewhere_is_not_kept() -> None:
    keeper = Keeper(base_url="http://127.0.0.1:1")
    async with kept(keeper) as streams:
        await read(streams)
        await read(streams)

    assert keeper.asked == [(None, False)] * 2


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: web.Response(status=400, text="invalid baton"),
        lambda: web.Response(status=500, text="no such stream"),
        says("STREAM_EXPIRED"),
    ],
)
async def test_who_does_not_know_it_any_more_is_asked_once_more(
    refusal: Callable[[], web.Response],
) -> None:
    keeper = Keeper(refusal=refusal)
    async with kept(keeper) as streams:
        await read(streams)
        keeper.known.clear()
        await read(streams)

    assert keeper.asked == [(None, False), ("stream 1", False), (None, False)]


async def test_who_refuses_a_new_one_is_not_asked_again() -> None:
    async def refuse(_: web.Request) -> web.Response:
        asked.append(1)
        return web.Response(status=401, text="expired")

    asked: list[int] = []
    async with answering(refuse) as server:
        with pytest.raises(Refused):
            await Streams(server).read(ONE, timeout_s=30)

    assert len(asked) == 1


async def test_who_is_not_there_is_not_asked_again() -> None:
    async with Server(f"http://127.0.0.1:{free_port()}", None) as server:
        with pytest.raises(NotSent):
            await Streams(server).read(ONE, timeout_s=30)


@pytest.mark.parametrize(
    ("steps", "next_baton"),
    [([NOTHING, None, NOTHING], "stream 1"), ([NOTHING, None, None], None)],
    ids=["its transaction has ended", "its transaction may be open"],
)
async def test_a_stream_on_which_a_statement_failed_is_used_again_where_it_is_sound(
    steps: list[dict[str, Any] | None], next_baton: str | None
) -> None:
    """A server would keep each of them for ten seconds, and has not many."""
    keeper = Keeper(steps=steps)
    async with kept(keeper) as streams:
        with pytest.raises(InvariantError, match="nowhere"):
            await streams.read(ONE, timeout_s=30)
        keeper.steps = Keeper().steps
        await read(streams)

    assert keeper.asked == [(None, False), (next_baton, False)]


async def test_what_is_cut_off_is_no_answer_and_its_stream_is_not_used_again() -> None:
    async def cut_off(request: web.Request) -> web.Response:
        asked.append(msgspec.json.decode(await request.read())["baton"])
        return web.Response(text='{"baton": "stream 1", "results": [{"type": "ok", "resp')

    asked: list[str | None] = []
    async with answering(cut_off) as server:
        streams = Streams(server)
        for _ in range(2):
            with pytest.raises(Unreadable):
                await streams.read(ONE, timeout_s=30)

    assert asked == [None, None]


async def test_a_token_that_is_not_good_any_more_is_told_and_a_new_one_begins_anew() -> None:
    keeper = Keeper(refusal=lambda: web.Response(status=401, text="expired"))
    async with kept(keeper) as streams:
        await read(streams)
        keeper.answer_all_with = 401
        with pytest.raises(Refused, match="AXIOM_DATABASE_TOKEN"):
            await streams.read(ONE, timeout_s=30)
        keeper.answer_all_with = None
        await read(streams)

    assert [baton for baton, _ in keeper.asked] == [None, "stream 1", None, None]


async def test_a_real_server_that_was_killed_answers_when_it_is_back(sqld: Sqld) -> None:
    async with Server(sqld.url, None) as server:
        streams = Streams(server)
        await read_one(streams)
        await asyncio.to_thread(sqld.restart)
        await read_one(streams)


async def test_a_real_server_shows_what_was_written_meanwhile(sqld: Sqld) -> None:
    database = await open_database(sqld.url)
    await database.write([Statement("CREATE TABLE kept (value INTEGER)")])
    await database.write([Statement("INSERT INTO kept VALUES (0)")])
    async with Server(sqld.url, None) as server:
        streams = Streams(server)
        for value in range(5):
            await database.write([Statement("UPDATE kept SET value = ?", (value,))])
            assert (await streams.read(CHANGES, timeout_s=30))[0] == [[(value,)]]
    await database.close()


async def test_a_statement_that_fails_leaves_no_transaction_open(sqld: Sqld) -> None:
    wrong = ReadRequest([Statement("SELECT * FROM nowhere")])
    async with Server(sqld.url, None) as server:
        streams = Streams(server)
        await read_one(streams)
        for _ in range(3):
            with pytest.raises(InvariantError, match="nowhere"):
                await streams.read(wrong, timeout_s=30)
            await read_one(streams)


async def test_an_answer_that_is_lost_is_asked_for_on_another_stream(sqld: Sqld) -> None:
    async with Meddler(sqld.url) as road, Server(road.url, None) as server:
        streams = Streams(server)
        await read_one(streams)
        road.way, road.times = Way.NO_ANSWER, 1
        await read_one(streams)
        assert road.requests == 3


async def test_a_silent_server_is_asked_once(sqld: Sqld) -> None:
    async with Meddler(sqld.url) as road, Server(road.url, None) as server:
        streams = Streams(server)
        await read_one(streams)
        road.way = Way.SILENT
        with pytest.raises(Lost, match="has not answered"):
            await streams.read(ONE, timeout_s=0.2)
        assert road.requests == 2


async def test_what_a_server_cannot_do_now_is_told(sqld: Sqld) -> None:
    keeper = Keeper()
    keeper.gate.set()

    async def busy(_: web.Request) -> web.Response:
        return says("SQLITE_BUSY")()

    async with answering(busy) as server:
        with pytest.raises(StoreUnavailable, match="it is gone"):
            await Streams(server).read(ONE, timeout_s=30)


async def read_one(streams: Streams) -> None:
    rows, _ = await streams.read(ONE, timeout_s=30)
    assert rows == [[(1,)]]
