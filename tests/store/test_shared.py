"""What processes share, over a real Redis that is killed, paused and started again."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import pytest_asyncio
import uvloop
from structlog.testing import capture_logs

from indexer.errors import SharedUnavailable
from store import shared as module
from store.shared import CONNECTIONS_MAX, PREFIX, Script, Shared
from tests.ports import free_port
from tests.servers.redis_server import PATIENCE_S, RedisServer


COUNT: Final = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


@pytest_asyncio.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with RedisServer() as server:
        yield server


@asynccontextmanager
async def used(url: str) -> AsyncIterator[Shared]:
    """With the task that looks after it."""
    async with Shared(url) as shared:
        looking = asyncio.create_task(shared.run())
        try:
            yield shared
        finally:
            looking.cancel()
            await asyncio.wait([looking])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


async def until_back(shared: Shared) -> None:
    await until(lambda: shared.problem is None)


async def until_away(shared: Shared) -> None:
    await until(lambda: shared.problem is not None)


# ----------------------------------------------------------------------------- while it is there


async def test_a_value_is_there_until_its_time_is_over(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        assert await shared.get("a") is None
        assert await shared.put("a", b"\x00\xff one", ttl_ms=60_000)
        assert await shared.get("a") == b"\x00\xff one"
        assert await shared.put("a", b"two", ttl_ms=1)
        async with asyncio.timeout(PATIENCE_S):
            while await shared.get("a") is not None:
                await asyncio.sleep(0.001)


async def test_only_new_puts_nothing_over_what_is_there(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        assert await shared.put("a", b"first", ttl_ms=60_000, only_new=True)
        assert not await shared.put("a", b"second", ttl_ms=60_000, only_new=True)
        assert await shared.get("a") == b"first"


async def test_a_value_is_deleted_only_as_long_as_it_is_the_same(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        await shared.put("a", b"theirs", ttl_ms=60_000)

        assert not await shared.delete_if("a", b"mine")
        assert await shared.delete_if("a", b"theirs")
        assert not await shared.delete_if("a", b"theirs")
        assert await shared.get("a") is None


async def test_of_many_at_once_one_is_the_first(redis: RedisServer) -> None:
    async with used(redis.url) as one, used(redis.url) as other:
        tries = [
            each.put("lock", b"%d" % number, ttl_ms=60_000, only_new=True)
            for number, each in enumerate([one, other] * 50)
        ]

        assert sum(await asyncio.gather(*tries)) == 1


async def test_every_key_has_the_prefix(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        await shared.put("a", b"1", ttl_ms=60_000)
        await shared.script(COUNT, ["b"], [1])
        names = Script("return redis.call('KEYS', '*')")

        assert {key.decode() for key in await shared.script(names, [], [])} >= {
            f"{PREFIX}a",
            f"{PREFIX}b",
        }
        assert all(key.startswith(PREFIX.encode()) for key in await shared.script(names, [], []))


async def test_a_script_that_redis_does_not_know_is_sent_whole(redis: RedisServer) -> None:
    forget = Script("return 1")
    async with used(redis.url) as shared:
        assert await shared.script(COUNT, ["n"], [2]) == 2
        assert await shared.script(COUNT, ["n"], [3]) == 5
        await command(redis, "SCRIPT FLUSH")
        assert await shared.script(COUNT, ["n"], [4]) == 9
        assert await shared.script(forget, [], []) == 1


async def test_more_callers_than_connections_take_turns(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        said = await asyncio.gather(*(shared.script(COUNT, ["n"], [1]) for _ in range(500)))

        assert sorted(said) == list(range(1, 501))
        assert len(shared._idle) <= CONNECTIONS_MAX
        assert shared.problem is None


async def test_an_answer_nobody_waits_for_any_more_is_not_given_to_another(
    redis: RedisServer,
) -> None:
    async with used(redis.url) as shared:
        for number in range(100):
            await shared.put(f"mine:{number}", b"%d" % number, ttl_ms=60_000)
        for number in range(100):
            gone = asyncio.create_task(shared.get("mine:0"))
            for _ in range(number % 8):
                await asyncio.sleep(0)
            gone.cancel()
            assert await shared.get(f"mine:{number}") == b"%d" % number
            await asyncio.wait([gone])


async def test_a_password_and_a_database_are_used(caplog: pytest.LogCaptureFixture) -> None:
    async with RedisServer("--requirepass", "canary-3f2a9c") as server:
        url = f"redis://:canary-3f2a9c@127.0.0.1:{server.port}/3"
        async with used(url) as shared:
            assert await shared.put("a", b"1", ttl_ms=60_000)
        async with used(url.replace("canary-3f2a9c", "canary-wrong")) as shared:
            with capture_logs() as lines, pytest.raises(SharedUnavailable) as refused:
                await shared.get("a")
    assert "canary" not in f"{lines}{refused.value}{refused.value.__cause__}"


async def test_a_socket_in_the_file_system_will_do(tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("r") / "r.sock"
    async with RedisServer("--unixsocket", str(path)), used(f"unix://{path}") as shared:
        assert await shared.put("a", b"1", ttl_ms=60_000)


# ------------------------------------------------------------------------------ while it is away


ASKING: Final[dict[str, Callable[[Shared], Awaitable[object]]]] = {
    "get": lambda shared: shared.get("a"),
    "put": lambda shared: shared.put("a", b"1", ttl_ms=1_000),
    "script": lambda shared: shared.script(COUNT, ["n"], [1]),
    "delete_if": lambda shared: shared.delete_if("a", b"1"),
}


@pytest.mark.parametrize("asking", ASKING)
async def test_where_nothing_listens_everyone_is_told_so(asking: str) -> None:
    async with Shared(f"redis://127.0.0.1:{free_port()}/0") as shared:
        with pytest.raises(SharedUnavailable):
            await ASKING[asking](shared)
        assert shared.problem == "Redis does not answer"
        assert shared.away_s >= 0


async def test_while_it_is_known_to_be_away_nobody_waits(redis: RedisServer) -> None:
    """Not even for an attempt: whoever asked would be held up by each of them."""
    async with Shared(redis.url) as shared:
        redis.pause()
        with pytest.raises(SharedUnavailable):
            await shared.get("a")
        asking = asyncio.create_task(shared.get("a"))
        await asyncio.sleep(0)

        assert asking.done()
        assert isinstance(asking.exception(), SharedUnavailable)


async def test_all_who_wait_when_it_stops_are_told_after_one_limit(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turn by turn it would take 32 of them, and longer than a test has patience."""
    monkeypatch.setattr(module, "TIMEOUT_S", 1.5)
    async with Shared(redis.url) as shared:
        redis.pause()
        async with asyncio.timeout(PATIENCE_S):
            asking = (shared.get("a") for _ in range(500))
            said = await asyncio.gather(*asking, return_exceptions=True)

    assert {type(each) for each in said} == {SharedUnavailable}


async def test_it_comes_back_by_itself_and_says_each_once(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        await shared.put("a", b"1", ttl_ms=60_000)
        with capture_logs() as lines:
            redis.kill()
            await until_away(shared)
            for _ in range(20):
                with pytest.raises(SharedUnavailable):
                    await shared.get("a")
            await redis.start()
            await until_back(shared)
        assert await shared.get("a") is None, "a Redis that ended has forgotten everything"
        assert shared.away_s == 0

    assert [line["event"] for line in lines] == ["shared.away", "shared.back"]


async def test_no_connection_of_before_is_used_once_it_is_back(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        await asyncio.gather(*(shared.get("a") for _ in range(100)))
        assert len(shared._idle) > 1
        redis.kill()
        await until_away(shared)
        assert not shared._idle
        await redis.start()
        await until_back(shared)

        assert await asyncio.gather(*(shared.get("a") for _ in range(100))) == [None] * 100


async def test_it_is_missed_also_when_nobody_uses_it(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        redis.kill()
        await until_away(shared)


async def test_it_comes_back_after_a_pause(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        redis.pause()
        await until_away(shared)
        redis.resume()
        await until_back(shared)
        assert await shared.put("a", b"1", ttl_ms=60_000)


async def test_one_that_takes_no_writes_is_away(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        with capture_logs() as lines:
            await command(redis, f"REPLICAOF 127.0.0.1 {free_port()}")
            await until_away(shared)
            await command(redis, "REPLICAOF NO ONE")
            await until_back(shared)

    assert [line["event"] for line in lines if line["event"] != "shared.refused"] == [
        "shared.away",
        "shared.back",
    ]


async def test_what_redis_refuses_of_one_does_not_concern_the_others(redis: RedisServer) -> None:
    async with used(redis.url) as shared:
        await shared.script(Script("return redis.call('RPUSH', KEYS[1], 1)"), ["list"], [])
        with pytest.raises(SharedUnavailable, match="refused"):
            await shared.get("list")

        assert shared.problem is None
        assert await shared.put("a", b"1", ttl_ms=60_000)


async def test_refusals_of_one_and_the_same_are_told_once(redis: RedisServer) -> None:
    """Nobody fills the log by asking again, nor does a Redis that takes no writes for days."""
    async with used(redis.url) as shared:
        await shared.script(Script("return redis.call('RPUSH', KEYS[1], 1)"), ["list"], [])
        with capture_logs() as lines:
            for _ in range(20):
                with pytest.raises(SharedUnavailable, match="refused"):
                    await shared.get("list")
    assert [line["event"] for line in lines] == ["shared.refused"]


async def test_a_redis_that_takes_no_writes_is_told_of_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROBE_EVERY_S", 0.01)
    probes = 0
    probe = Shared._probe

    async def counted(shared: Shared) -> None:
        nonlocal probes
        await probe(shared)
        probes += 1

    monkeypatch.setattr(Shared, "_probe", counted)
    with capture_logs() as lines:
        async with used(redis.url) as shared:
            await command(redis, f"REPLICAOF 127.0.0.1 {free_port()}")
            await until_away(shared)
            told_at = probes
            await until(lambda: probes > told_at + 10)
    events = [line["event"] for line in lines]
    assert events.count("shared.refused") <= 1
    assert events.count("shared.away") == 1


NO_REDIS: Final = {
    "web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "no number": b":one\r\n",
    "no length": b"$x\r\n",
    "half": b"$5\r\nab",
    "nothing": b"",
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("case", NO_REDIS)
async def test_what_is_no_redis_is_one_that_is_away(case: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(NO_REDIS[case])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Shared(f"redis://127.0.0.1:{port}/0") as shared:
        with pytest.raises(SharedUnavailable):
            await shared.get("a")
        assert shared.problem is not None


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_process_that_was_late_itself_gives_redis_more_time(
    run: Callable[[Coroutine[Any, Any, None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is over before this process has even asked: that is no fault of Redis."""
    monkeypatch.setattr(module, "_LATE_GRACE_S", PATIENCE_S)

    async def late() -> None:
        async with RedisServer() as redis, Shared(redis.url) as shared:
            asking = asyncio.create_task(shared.get("a"))
            await asyncio.sleep(0)  # it connects
            time.sleep(module.TIMEOUT_S + 2 * module._LATE_S)  # noqa: ASYNC251 - that is the point

            assert await asking is None
            assert shared.problem is None

    run(late())


async def test_a_connection_that_was_long_idle_is_not_used(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Shared(redis.url) as shared:
        await shared.get("a")
        [(_, first)] = shared._idle
        await shared.get("a")
        assert [connection for _, connection in shared._idle] == [first]

        monkeypatch.setattr(module, "_IDLE_S_MAX", -1.0)
        await shared.get("a")
        assert [connection for _, connection in shared._idle] != [first]
        assert not first.is_connected


async def command(redis: RedisServer, text: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    writer.write(f"{text}\r\n".encode())
    assert (await reader.readline()).startswith(b"+OK")
    writer.close()
    await writer.wait_closed()
