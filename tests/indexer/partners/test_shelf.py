"""What is kept for a while: in a real Redis, in this process while there is none, and bounded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from indexer.errors import SharedUnavailable
from indexer.partners import shelf as module
from indexer.partners.shelf import VALUE_BYTES_MAX, Shelf, look
from store.shared import Shared
from tests.servers.redis_server import RedisServer


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def shared_by(*servers: RedisServer) -> AsyncIterator[list[Shared]]:
    async with asyncio.TaskGroup() as group:
        made = [Shared(server.url) for server in servers]
        running = [group.create_task(each.run()) for each in made]
        yield made
        for task in running:
            task.cancel()
        for each in made:
            await each.__aexit__(None, None, None)


async def test_alone_a_value_is_kept_for_its_time() -> None:
    clock = Clock()
    shelf = Shelf(None, clock)
    await shelf.put("a", b"1", ttl_s=10)

    clock.now = 4.0
    found = await shelf.get("a")
    assert found is not None
    assert (found.value, found.left_s) == (b"1", 6.0)
    assert await shelf.get("b") is None
    clock.now = 10.0
    assert await shelf.get("a") is None


async def test_a_value_without_a_time_or_a_too_long_one_is_not_kept() -> None:
    shelf = Shelf(None, Clock())
    await shelf.put("a", b"1", ttl_s=0)
    await shelf.put("b", b"1", ttl_s=-1)
    await shelf.put("c", bytes(VALUE_BYTES_MAX + 1), ttl_s=9)
    await shelf.put("d", bytes(VALUE_BYTES_MAX), ttl_s=9)

    assert [await shelf.get(key) is not None for key in "abcd"] == [False, False, False, True]


async def test_alone_there_is_room_for_so_many_bytes_and_the_least_used_go() -> None:
    clock = Clock()
    shelf = Shelf(None, clock)
    for number in range(100):
        await shelf.put(f"{number}", bytes(VALUE_BYTES_MAX), ttl_s=9)
        await shelf.get("0")
        await shelf.put("1", b"again", ttl_s=9)

    assert await shelf.get("0") is not None
    assert await shelf.get("1") is not None
    assert await shelf.get("50") is None
    assert await shelf.get("99") is not None
    values = shelf._own._values.items()
    assert shelf._own._size == sum(module._size(key, value) for key, (value, _) in values)
    assert shelf._own._size <= module.BYTES_MAX


async def test_what_one_process_keeps_another_finds_with_the_time_that_is_left() -> None:
    async with RedisServer() as server, shared_by(server, server) as (one, other):
        await Shelf(one, Clock()).put("a", b"\x00\xff", ttl_s=60)
        found = await Shelf(other, Clock()).get("a")
        assert found is not None
        assert found.value == b"\x00\xff"
        assert 0 < found.left_s <= 60
        assert await look(other, "b") is None


async def test_while_redis_is_away_a_process_keeps_for_itself() -> None:
    async with RedisServer() as server, shared_by(server) as [shared]:
        shelf = Shelf(shared, Clock())
        await shelf.put("a", b"shared", ttl_s=60)
        server.kill()
        assert await shelf.get("a") is None
        await shelf.put("a", b"own", ttl_s=60)
        found = await shelf.get("a")
        assert found is not None
        assert found.value == b"own"
        await server.start()
        async with asyncio.timeout(90):
            while shared.problem is not None:
                await asyncio.sleep(0.02)
        assert await shelf.get("a") is None  # nobody knows whether it is still the latest


async def test_what_has_no_end_was_not_put_there_by_us() -> None:
    async with RedisServer() as server, shared_by(server) as [shared]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"SET axiom:a stranger\r\n")
        assert await reader.readline() == b"+OK\r\n"
        writer.close()

        assert await shared.get("a") == b"stranger"
        assert await look(shared, "a") is None


async def test_who_looks_himself_is_told_that_redis_is_away() -> None:
    async with RedisServer() as server:
        shared = Shared(server.url)
        server.kill()
        for _ in range(2):
            try:
                await look(shared, "a")
            except SharedUnavailable:
                continue
            raise AssertionError
