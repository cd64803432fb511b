import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from indexer.demo.sqld.launcher import Sqld
from indexer.errors import Conflict, InvariantError, StoreUnavailable
from store import libsql_readers, libsql_writer
from store.connection import Rows, Statement
from store.database import Database, open_database
from store.figures import ReplicaOutcome
from store.hrana import ReadRequest
from store.libsql import Server
from store.libsql_readers import LibsqlReaders
from store.libsql_writer import LibsqlWriter
from store.migrate import migrate
from tests.servers.meddler import Meddler, Way


VALUE = Statement("SELECT value FROM deployment WHERE name = 'a'")
PUT = Statement("INSERT INTO deployment (name, value) VALUES ('a', '0')")


def change(value: int) -> Statement:
    return Statement("UPDATE deployment SET value = ? WHERE name = 'a'", (str(value),))


@pytest.fixture
async def replicas(sqld: Sqld, tmp_path: Path) -> AsyncIterator[tuple[Sqld, Sqld]]:
    """Two replicas of `sqld`, which holds the schema and one row."""
    database = await open_database(sqld.url)
    await migrate(database)
    await database.write([PUT])
    await database.close()
    async with (
        Sqld.running(tmp_path / "one", primary=sqld) as one,
        Sqld.running(tmp_path / "two", primary=sqld) as two,
    ):
        yield one, two


@asynccontextmanager
async def opened(primary: str, *replica_urls: str) -> AsyncIterator[Database]:
    database = await open_database(primary, replica_urls=replica_urls)
    yield database
    await database.close()


def readers_of(database: Database) -> LibsqlReaders:
    assert isinstance(database._readers, LibsqlReaders)
    return database._readers


async def value(database: Database) -> int:
    [[(found,)]] = await database.read([VALUE])
    return int(found)


async def value_or_none(database: Database) -> int | None:
    try:
        return await value(database)
    except StoreUnavailable:
        return None


async def test_what_was_written_is_read_by_every_process(
    sqld: Sqld, replicas: tuple[Sqld, Sqld]
) -> None:
    one, two = replicas
    async with opened(sqld.url, one.url) as writing, opened(sqld.url, two.url) as other:
        for n in range(150):
            await writing.write([change(n)])
            assert {*await asyncio.gather(value(writing), value(other))} == {n}


async def test_a_replica_that_is_not_told_how_far_it_must_be_answers_from_the_past(
    sqld: Sqld, replicas: tuple[Sqld, Sqld]
) -> None:
    """Shows that the test above could fail."""
    request = ReadRequest([VALUE])
    stale = 0
    async with opened(sqld.url) as writing, Server(replicas[0].url, None) as replica:
        for n in range(1_000):
            await writing.write([change(n)])
            [[(found,)]], _ = request.outcome(await replica.post(request.body(), timeout_s=30))
            stale += int(found) != n
            if stale:
                break

    assert stale


async def test_one_question_serves_all_who_wait(sqld: Sqld, replicas: tuple[Sqld, Sqld]) -> None:
    async with Meddler(sqld.url) as road, opened(road.url, replicas[0].url) as database:
        await asyncio.gather(*(value(database) for _ in range(200)))

        assert 1 <= road.requests < 100  # as many as there were questions one after the other


async def test_without_the_primary_nothing_is_told_of_the_past(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_writer, "RESOLVE_S", 0.1)
    monkeypatch.setattr(libsql_readers, "REPLICA_TIMEOUT_S", 0.3)
    async with opened(sqld.url, *(each.url for each in replicas)) as database:
        await database.write([change(5)])
        assert await value(database) == 5
        sqld.kill()

        # A replica that has to open a connection of its own first does not get it from a dead
        # primary: then it is no answer, and never one from the past.
        assert {await value_or_none(database) for _ in range(3)} <= {5, None}
        with pytest.raises(StoreUnavailable):
            await database.write([change(6)])

        sqld.start()
        await database.write([change(7)])
        assert await value(database) == 7


async def test_a_restarted_primary_that_counts_anew_is_followed(
    sqld: Sqld, replicas: tuple[Sqld, Sqld]
) -> None:
    one, two = replicas
    async with opened(sqld.url, one.url) as writing, opened(sqld.url, two.url) as other:
        for n in range(1, 31):
            if n % 10 == 0:
                sqld.restart()
                with suppress(StoreUnavailable):  # what was found broken was not written, or was
                    await writing.write([change(n)])
            await writing.write([change(n)])
            assert await value(writing) == n
            assert await value(other) == n


async def test_a_replica_is_read_again_after_its_primary_was_restarted(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made anew then: streams of before see its old database for ever, and nothing fails."""
    monkeypatch.setattr(libsql_readers, "RESTING_S", 0.1)
    monkeypatch.setattr(libsql_readers, "REPLICA_TIMEOUT_S", 0.3)
    answered = (urlsplit(replicas[0].url).netloc, ReplicaOutcome.ANSWERED)
    async with opened(sqld.url, replicas[0].url) as database:
        for n in range(10):
            await database.write([change(n)])
            assert await value(database) == n
        before = database.figures.replica_reads[answered]
        await asyncio.to_thread(sqld.restart)

        async with asyncio.timeout(30):
            while database.figures.replica_reads[answered] < before + 3:
                with suppress(StoreUnavailable):
                    await database.write([change(7)])
                assert await value(database) in {7, 9}


async def test_a_frozen_primary_does_not_hold_up_reads_for_long(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_readers, "INDEX_TIMEOUT_S", 0.1)
    monkeypatch.setattr(libsql_readers, "REPLICA_TIMEOUT_S", 0.3)
    async with opened(sqld.url, replicas[0].url) as database:
        assert await value(database) == 0
        sqld.pause()
        assert await value_or_none(database) in {0, None}
        sqld.resume()
        assert await value(database) == 0


async def test_the_others_answer_for_a_replica_that_does_not(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_readers, "REPLICA_TIMEOUT_S", 0.3)
    one, two = replicas
    async with opened(sqld.url, one.url, two.url) as database:
        one.pause()
        assert [await value(database) for _ in range(4)] == [0] * 4
        two.kill()
        assert await value(database) == 0  # by the primary
        one.resume()
        assert await value(database) == 0


async def test_a_replica_that_cannot_come_so_far_does_not_tell_of_the_past(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_readers, "REPLICA_TIMEOUT_S", 0.2)
    monkeypatch.setattr(libsql_writer, "RESOLVE_S", 0.1)
    one, _ = replicas
    async with opened(sqld.url, one.url) as database:
        assert await value(database) == 0
        one.pause()
        await database.write([change(1)])
        sqld.kill()
        one.resume()

        assert await value_or_none(database) in {1, None}  # nothing is better than the past


async def test_a_database_from_a_backup_is_noticed(sqld: Sqld, replicas: tuple[Sqld, Sqld]) -> None:
    servers = [await Server(each.url, None).__aenter__() for each in (sqld, replicas[0])]
    writer = LibsqlWriter(servers[0])
    readers = LibsqlReaders(servers[0], servers[1:], writer)
    readers._revision = writer.revision = 1_000_000  # as far as the one before had come

    assert await readers.read([VALUE]) == [[("0",)]]
    assert readers.revision < 1_000_000
    await readers.close()
    await writer.close()


async def test_a_conflict_through_a_replica_is_one(sqld: Sqld, replicas: tuple[Sqld, Sqld]) -> None:
    async with opened(replicas[0].url) as database:
        with pytest.raises(Conflict):
            await database.write([PUT])
        await database.write([change(3)])
    async with opened(sqld.url) as direct:
        assert await value(direct) == 3


async def test_a_read_does_not_write(sqld: Sqld, replicas: tuple[Sqld, Sqld]) -> None:
    async with opened(sqld.url, replicas[0].url) as database:
        with pytest.raises(InvariantError, match="a read batch writes"):
            await database.read([change(1)])


async def test_a_broken_connection_is_replaced_for_a_read(
    sqld: Sqld, replicas: tuple[Sqld, Sqld]
) -> None:
    async with Meddler(replicas[0].url) as road, opened(sqld.url, road.url) as database:
        for way in (Way.NO_ANSWER, Way.NO_REQUEST):
            road.meddle(way)
            assert await value(database) == 0


async def test_there_is_one_question_at_a_time(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = most = 0
    post = Server.post

    async def counted(server: Server, body: bytes, *, timeout_s: float) -> bytes:
        nonlocal under_way, most
        if server.name != urlsplit(sqld.url).netloc:
            return await post(server, body, timeout_s=timeout_s)
        under_way += 1
        most = max(most, under_way)
        try:
            return await post(server, body, timeout_s=timeout_s)
        finally:
            under_way -= 1

    async def now_and_then(database: Database) -> None:
        for _ in range(10):
            await value(database)

    async with opened(sqld.url, replicas[0].url) as database:
        monkeypatch.setattr(Server, "post", counted)
        await asyncio.gather(*(now_and_then(database) for _ in range(20)))

    assert most == 1


async def test_a_silent_replica_is_asked_once_and_then_left_alone(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_readers, "RESTING_S", 60.0)
    async with (
        Meddler(replicas[0].url) as road,
        opened(sqld.url, road.url, replicas[1].url) as database,
    ):
        assert await value(database) == 0
        asked = road.requests
        road.meddle(Way.SILENT, times=0)
        for _ in range(5):
            assert await value(database) == 0

        assert road.requests == asked + 1


async def test_nobody_waits_for_the_only_replica_while_it_rests(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_readers, "RESTING_S", 3_600.0)
    async with Meddler(replicas[0].url) as road, opened(sqld.url, road.url) as database:
        assert await value(database) == 0
        asked = road.requests
        road.meddle(Way.SILENT, times=0)
        for _ in range(5):
            assert await value(database) == 0
        assert road.requests == asked + 1

        # When it is time again, one read tries it for all others.
        [replica] = readers_of(database)._replicas
        replica.resting_until = 0.0
        await asyncio.gather(*(value(database) for _ in range(20)))
        assert road.requests == asked + 2

        road.meddle(Way.THROUGH)
        replica.resting_until = 0.0
        await value(database)
        await asyncio.gather(*(value(database) for _ in range(20)))
        assert road.requests == asked + 23


async def test_without_the_primary_one_that_rests_is_asked_too(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_readers, "RESTING_S", 3_600.0)
    async with Meddler(replicas[0].url) as road, opened(sqld.url, road.url) as database:
        await asyncio.gather(*(value(database) for _ in range(3)))  # some connections are open
        road.meddle(Way.SILENT)
        assert await value(database) == 0
        asked = road.requests
        sqld.kill()

        # It answers where it has a connection still; opening one needs the primary.
        assert await value_or_none(database) in {0, None}
        assert road.requests > asked


async def test_who_leaves_does_not_keep_the_others_from_the_answer(
    sqld: Sqld, replicas: tuple[Sqld, Sqld]
) -> None:
    async with opened(sqld.url, replicas[0].url) as database:
        tasks = [asyncio.create_task(value(database)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()

        assert await asyncio.gather(*tasks[1::2]) == [0] * 10


async def test_whoever_waits_when_it_is_closed_is_refused(
    sqld: Sqld, replicas: tuple[Sqld, Sqld]
) -> None:
    async with Meddler(sqld.url) as road, opened(road.url, replicas[0].url) as database:
        road.meddle(Way.SILENT, times=0)
        waiting = [asyncio.create_task(value(database)) for _ in range(3)]
        async with asyncio.timeout(30):
            while not road.requests:
                await asyncio.sleep(0.01)
        await database.close()

        for task in waiting:
            with pytest.raises(StoreUnavailable, match="closed"):
                await task


async def test_a_replica_whose_streams_stand_still_is_asked_on_others(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had been made anew, and they still saw the database of before."""
    monkeypatch.setattr(libsql_readers, "RESTING_S", 0.0)
    monkeypatch.setattr(libsql_readers, "REPLICA_TIMEOUT_S", 0.3)
    answered = (urlsplit(replicas[0].url).netloc, ReplicaOutcome.ANSWERED)
    async with opened(sqld.url, replicas[0].url) as database:
        assert await value(database) == 0
        stands_still(monkeypatch, readers_of(database)._replicas[0].server)
        await database.write([change(1)])
        before = database.figures.replica_reads[answered]

        assert await value(database) == 1  # by the primary
        assert await value(database) == 1

        after = database.figures.replica_reads[answered]
        assert after == before + 1


def stands_still(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """What it is asked on a stream that there is, it answers as if nothing had been written."""
    post = server.post

    async def answer(body: bytes, *, timeout_s: float) -> bytes:
        found = msgspec.json.decode(await post(body, timeout_s=timeout_s))
        if msgspec.json.decode(body)["baton"] is not None:
            *_, revision, _ = found["results"][0]["response"]["result"]["step_results"]
            revision["rows"] = [[{"type": "integer", "value": "0"}]]
        return msgspec.json.encode(found)

    monkeypatch.setattr(server, "post", answer)


async def test_a_closed_one_refuses(sqld: Sqld, replicas: tuple[Sqld, Sqld]) -> None:
    async with opened(sqld.url, replicas[0].url) as database:
        pass

    with pytest.raises(StoreUnavailable, match="closed"):
        await database.read([VALUE])


async def test_what_came_of_asking_each_replica_is_counted(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_readers, "RESTING_S", 0.0)
    one, two = (urlsplit(each.url).netloc for each in replicas)
    async with opened(sqld.url, *(each.url for each in replicas)) as database:
        for _ in range(10):
            await value(database)
        reads = dict(database.figures.replica_reads)
        assert (reads[one, ReplicaOutcome.ANSWERED], reads[two, ReplicaOutcome.ANSWERED]) == (5, 5)
        assert reads[one, ReplicaOutcome.FAILED] == reads[two, ReplicaOutcome.FAILED] == 0
        assert database.figures.replicas_failing == []

        replicas[0].kill()
        for _ in range(10):
            assert await value(database) == 0
        away = dict(database.figures.replica_reads)
        assert away[one, ReplicaOutcome.FAILED] > 1  # asked again and again
        assert away[two, ReplicaOutcome.ANSWERED] == 15
        assert database.figures.replicas_failing == [one]

        replicas[0].start()
        async with asyncio.timeout(30):
            while database.figures.replica_reads[one, ReplicaOutcome.ANSWERED] <= 5:
                await value(database)
        assert database.figures.replicas_failing == []


async def test_an_answer_from_the_past_is_counted_and_not_told(
    sqld: Sqld, replicas: tuple[Sqld, Sqld], monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = (urlsplit(replicas[0].url).netloc, ReplicaOutcome.BEHIND)
    ask = LibsqlReaders._of

    async def ask_hastily(
        self: LibsqlReaders, server: Server, request: ReadRequest, _: int | None, timeout_s: float
    ) -> list[Rows]:
        return await ask(self, server, request, None, timeout_s)

    # The replica is not told how far it must be, as after a restart of the primary.
    monkeypatch.setattr(LibsqlReaders, "_of", ask_hastily)
    n = 0
    async with opened(sqld.url, replicas[0].url) as database, asyncio.timeout(30):
        while not database.figures.replica_reads[behind]:
            n += 1
            await database.write([change(n)])
            assert await value(database) == n
