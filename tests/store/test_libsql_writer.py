import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from indexer.demo.sqld.launcher import Sqld
from indexer.errors import Conflict, InvariantError, StoreUnavailable
from store import libsql_writer
from store.connection import Statement
from store.database import Database, open_database
from store.hrana import WriteRequest
from store.libsql import Server
from store.libsql_writer import LibsqlWriter
from store.migrate import migrate
from tests.servers.answering import answering
from tests.servers.meddler import Meddler, Way


NAMES = Statement("SELECT name FROM deployment ORDER BY name")
WRITES = Statement("SELECT number, state FROM writes ORDER BY number")


def put(name: str) -> Statement:
    return Statement("INSERT INTO deployment (name, value) VALUES (?, 'v')", (name,))


def put_returning(name: str) -> Statement:
    return Statement(f"{put(name).sql} RETURNING name", (name,))


@asynccontextmanager
async def meddled(url: str) -> AsyncIterator[tuple[Meddler, LibsqlWriter]]:
    async with Meddler(url) as road:
        writer = LibsqlWriter(await Server(road.url, None).__aenter__())
        yield road, writer
        await writer.close()


@pytest.fixture
async def direct(sqld: Sqld) -> AsyncIterator[Database]:
    """The same database, by the straight way."""
    database = await open_database(sqld.url)
    await migrate(database)
    yield database
    await database.close()


async def names(database: Database) -> list[str]:
    [rows] = await database.read([NAMES])
    return [name for (name,) in rows]


async def test_what_waits_goes_as_one_group(sqld: Sqld, direct: Database) -> None:
    async with meddled(sqld.url) as (road, writer):
        first = asyncio.create_task(writer.write([put("first")]))
        while not road.requests:
            await asyncio.sleep(0)
        others = [asyncio.create_task(writer.write([put(f"{n:03}")])) for n in range(60)]
        await asyncio.gather(first, *others)

        assert road.requests <= 3
        assert writer.group_size > 1
    assert len(await names(direct)) == 61


async def test_of_a_group_only_the_batch_that_is_wrong_is_refused(
    sqld: Sqld, direct: Database
) -> None:
    async with meddled(sqld.url) as (_, writer):
        found = await asyncio.gather(
            writer.write([put("a")]),
            writer.write([put("b"), put("a")]),
            writer.write([put("c"), Statement("INSERT INTO nowhere VALUES (1)")]),
            writer.write([put_returning("d")]),
            return_exceptions=True,
        )

    assert [type(each) for each in found] == [list, Conflict, InvariantError, list]
    assert found[3] == [[("d",)]]
    assert await names(direct) == ["a", "d"]


async def test_a_lost_answer_is_looked_up(sqld: Sqld, direct: Database) -> None:
    async with meddled(sqld.url) as (road, writer):
        road.meddle(Way.NO_ANSWER)
        assert await writer.write([put("a"), put("b")]) == [[], []]

        assert road.requests == 2  # it was not written a second time
        assert writer.answers_lost == 1
    assert await names(direct) == ["a", "b"]


async def test_what_a_lost_answer_brought_is_to_be_read(sqld: Sqld, direct: Database) -> None:
    async with meddled(sqld.url) as (road, writer):
        road.meddle(Way.NO_ANSWER)
        with pytest.raises(StoreUnavailable, match="it was written, but what it returned"):
            await writer.write([put_returning("a")])
    assert await names(direct) == ["a"]


async def test_what_did_not_arrive_is_sent_once_more(sqld: Sqld, direct: Database) -> None:
    async with meddled(sqld.url) as (road, writer):
        road.meddle(Way.NO_REQUEST)
        assert await writer.write([put_returning("a")]) == [[("a",)]]
        road.meddle(Way.NO_REQUEST)
        with pytest.raises(Conflict):
            await writer.write([put("a")])
    assert await names(direct) == ["a"]


async def test_what_arrives_late_is_refused(sqld: Sqld, direct: Database) -> None:
    async with meddled(sqld.url) as (road, writer):
        road.meddle(Way.LATE)
        written = Statement("UPDATE deployment SET value = value || 'x' WHERE name = 'a'")
        await direct.write([put("a")])
        await writer.write([written])

        [answer] = await road.release()

        assert b"UNIQUE constraint failed: writes" in answer
    [[(value,)]] = await direct.read([Statement("SELECT value FROM deployment")])
    assert value == "vx"


async def test_nobody_waits_for_ever_for_what_nobody_can_tell(
    sqld: Sqld, direct: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_writer, "RESOLVE_S", 0.2)
    monkeypatch.setattr(libsql_writer, "RESOLVE_PAUSE_S", 0.01)
    async with meddled(sqld.url) as (road, writer):
        road.meddle(Way.LATE, times=0)
        with pytest.raises(StoreUnavailable, match="broke off"):
            await writer.write([put("late")])

        road.meddle(Way.THROUGH)
        await writer.write([put("next")])  # and takes away what is still on its way
        await road.release()

    assert await names(direct) == ["next"]


async def test_a_server_that_is_not_there_is_told(
    sqld: Sqld, direct: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_writer, "RESOLVE_S", 0.2)
    sqld.kill()
    with pytest.raises(StoreUnavailable, match="broke off"):  # on the connection that there was
        await direct.write([put("lost")])
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await direct.write([put("a")])

    sqld.start()
    await direct.write([put("b")])

    assert await names(direct) == ["b"]


async def test_a_frozen_server_is_not_waited_for(
    sqld: Sqld, direct: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_writer, "WRITE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(libsql_writer, "RESOLVE_S", 0.2)
    sqld.pause()
    with pytest.raises(StoreUnavailable, match="has not answered"):
        await direct.write([put("a")])

    sqld.resume()
    monkeypatch.setattr(libsql_writer, "WRITE_TIMEOUT_S", 30.0)
    await direct.write([put("b")])

    assert "b" in await names(direct)


async def test_who_leaves_does_not_take_his_batch_along(sqld: Sqld, direct: Database) -> None:
    async with meddled(sqld.url) as (_, writer):
        leaving = asyncio.create_task(writer.write([put("a")]))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await writer.write([put("b")])

    assert await names(direct) == ["a", "b"]


async def test_closing_writes_what_waits_and_refuses_the_rest(sqld: Sqld, direct: Database) -> None:
    async with Meddler(sqld.url) as road:
        writer = LibsqlWriter(await Server(road.url, None).__aenter__())
        waiting = [asyncio.create_task(writer.write([put(f"{n}")])) for n in range(5)]
        await asyncio.sleep(0)
        await writer.close()

        await asyncio.gather(*waiting)
        with pytest.raises(StoreUnavailable, match="closed"):
            await writer.write([put("late")])
    assert len(await names(direct)) == 5


async def test_closing_does_not_wait_for_a_dead_server(
    sqld: Sqld, direct: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_writer, "CLOSE_WAIT_S", 0.1)
    async with Meddler(sqld.url) as road:
        writer = LibsqlWriter(await Server(road.url, None).__aenter__())
        road.meddle(Way.SILENT, times=0)
        waiting = [asyncio.create_task(writer.write([put(f"{n}")])) for n in range(5)]
        await asyncio.sleep(0)
        await writer.close()

        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(each) for each in found} == {StoreUnavailable}


async def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libsql_writer, "BUSY_PAUSE_S", 0.01)
    locked = {"message": "SQLite error: database is locked", "code": "SQLITE_BUSY"}
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        steps = len((await request.json())["requests"][0]["batch"]["steps"])
        results: list[Any] = [{"rows": []}] * steps
        errors: list[Any] = [None] * steps
        results[1] = {"rows": [[{"type": "integer", "value": "1"}]]}  # the revision
        if asked % 3:
            results, errors[0] = [None] * steps, locked
        result = {"step_results": results, "step_errors": errors}
        said = {"type": "ok", "response": {"type": "batch", "result": result}}
        return web.json_response({"results": [said]})

    async with answering(answer) as server:
        writer = LibsqlWriter(server)
        assert await writer.write([put("a")]) == [[]]
        assert asked == 3
        await writer.close()


async def test_rows_of_what_was_answered_do_not_pile_up(sqld: Sqld, direct: Database) -> None:
    for n in range(20):
        await direct.write([put(f"{n}")])

    [rows] = await direct.read([WRITES])
    assert len(rows) == 1


async def test_a_large_batch_is_a_group_by_itself(sqld: Sqld, direct: Database) -> None:
    big = "x" * (libsql_writer.GROUP_BYTES_MAX // 2 + 1)
    statement = "INSERT INTO deployment (name, value) VALUES (?, ?)"
    async with meddled(sqld.url) as (road, writer):
        await asyncio.gather(
            *(writer.write([Statement(statement, (f"{n}", big))]) for n in range(3))
        )
        assert road.requests == 3
    assert len(await names(direct)) == 3


async def test_the_order_of_one_writer_is_kept(sqld: Sqld, direct: Database) -> None:
    add = "UPDATE deployment SET value = value || ? WHERE name = 'a'"
    await direct.write([put("a")])
    await asyncio.gather(*(direct.write([Statement(add, (f",{n}",))]) for n in range(200)))

    [[(value,)]] = await direct.read([Statement("SELECT value FROM deployment")])
    assert value.split(",")[1:] == [str(n) for n in range(200)]


@pytest.mark.parametrize("value", ["\ud800", 2**63])
async def test_what_cannot_be_sent_does_not_take_its_neighbours_along(
    sqld: Sqld, direct: Database, value: str | int
) -> None:
    bad = Statement("INSERT INTO deployment (name, value) VALUES ('bad', ?)", (value,))
    found = await asyncio.gather(
        direct.write([put("a")]), direct.write([bad]), direct.write([put("b")]),
        return_exceptions=True,
    )  # fmt: skip

    assert [type(each) for each in found] == [list, InvariantError, list]
    assert await names(direct) == ["a", "b"]


async def test_where_a_statement_ends_the_transaction_nothing_of_the_group_is_applied(
    sqld: Sqld, direct: Database
) -> None:
    """As a full disk does: what comes after it must not be applied by itself."""
    await direct.write([put("taken")])
    ending = Statement("INSERT OR ROLLBACK INTO deployment (name, value) VALUES ('taken', 'v')")
    async with Server(sqld.url, None) as server:
        request = WriteRequest([[put("before")], [ending], [put("after")]])
        raw = await server.post(request.body(), timeout_s=30)
        with pytest.raises(StoreUnavailable, match="UNIQUE"):
            request.outcomes(raw)

    assert await names(direct) == ["taken"]


async def test_every_batch_gives_its_place_back(
    sqld: Sqld, direct: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_writer, "WAITING_MAX", 2)
    monkeypatch.setattr(libsql_writer, "ROOM_WAIT_S", 30.0)
    async with meddled(sqld.url) as (_, writer):
        for _ in range(3):
            written = (writer.write([put_returning("a")]) for _ in range(4))
            await asyncio.gather(*written, return_exceptions=True)
        await writer.write([put("b")])

    assert await names(direct) == ["a", "b"]


async def test_the_writer_ends_by_itself_once_all_is_written(sqld: Sqld, direct: Database) -> None:
    async with meddled(sqld.url) as (_, writer):
        waiting = [asyncio.create_task(writer.write([put(f"{n}")])) for n in range(5)]
        await asyncio.sleep(0)
        await writer.close()

        assert not writer._task.cancelled()
        await asyncio.gather(*waiting)


async def test_numbers_that_were_taken_away_are_forgotten(
    sqld: Sqld, direct: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_writer, "RESOLVE_S", 0.1)
    monkeypatch.setattr(libsql_writer, "RESOLVE_PAUSE_S", 0.01)
    async with meddled(sqld.url) as (road, writer):
        road.meddle(Way.LATE, times=0)
        with pytest.raises(StoreUnavailable):
            await writer.write([put("a")])
        assert writer._unresolved == [1]

        road.meddle(Way.THROUGH)
        await writer.write([put("b")])
        assert writer._unresolved == []
