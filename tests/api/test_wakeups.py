import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import api.wakeups
import store.shared
from api.wakeups import Bell, Wakeups
from store.shared import Shared
from tests.api.running import running
from tests.servers.redis_server import RedisServer


async def test_everyone_who_waits_is_woken() -> None:
    wakeups = Wakeups()
    waiting = [asyncio.create_task(wakeups.wait(60)) for _ in range(3)]
    await asyncio.sleep(0)

    wakeups.wake()

    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)


async def test_a_wait_ends_without_a_wakeup() -> None:
    async with asyncio.timeout(30):
        await Wakeups().wait(0.001)


async def test_a_wakeup_before_the_wait_is_not_waited_for_again() -> None:
    wakeups = Wakeups()
    seen = wakeups.count
    wakeups.wake()

    async with asyncio.timeout(30):
        await wakeups.wait(60, since=seen)


async def test_a_wakeup_that_was_seen_does_not_end_the_next_wait() -> None:
    wakeups = Wakeups()
    wakeups.wake()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await wakeups.wait(60, since=wakeups.count)


# --------------------------------------------------------------------------- between processes


@asynccontextmanager
async def belled(redis: RedisServer) -> AsyncIterator[Wakeups]:
    """The wake-ups of one process on that Redis."""
    wakeups = Wakeups()
    async with Shared(redis.url) as shared:
        tasks = [asyncio.create_task(each()) for each in (shared.run, Bell(wakeups, shared).run)]
        yield wakeups
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_heard(one: Wakeups, other: Wakeups) -> None:
    """Wakes the one until the other has heard of it, of which the first ones may be lost."""
    before = other.count
    async with asyncio.timeout(30):
        while other.count == before:
            one.wake()
            await other.wait(0.1, since=before)


async def test_what_one_process_commits_wakes_the_others() -> None:
    async with RedisServer() as redis, belled(redis) as one, belled(redis) as other:
        await until_heard(one, other)
        await until_heard(other, one)

        assert (one.own > 0, other.own > 0) == (True, True)


async def test_what_was_heard_is_not_passed_on() -> None:
    async with RedisServer() as redis, belled(redis) as one, belled(redis) as other:
        await until_heard(one, other)

        assert other.own == 0


async def test_many_commits_are_few_messages() -> None:
    async with RedisServer() as redis, belled(redis) as one, belled(redis) as other:
        await until_heard(one, other)
        before = other.count
        for _ in range(10_000):
            one.wake()
        await until_heard(other, one)
        await until_heard(one, other)

        assert other.count - before < 1_000


async def test_it_comes_back_with_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.wakeups, "PAUSE_S", 0.01)
    async with RedisServer() as redis, belled(redis) as one, belled(redis) as other:
        await until_heard(one, other)
        await redis.restart()
        await until_heard(one, other)
        await until_heard(other, one)


async def test_a_redis_that_is_frozen_is_given_up_and_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api.wakeups, "PAUSE_S", 0.01)
    monkeypatch.setattr(store.shared, "SILENT_S", 0.05)
    async with RedisServer() as redis, belled(redis) as one, belled(redis) as other:
        await until_heard(one, other)
        redis.pause()
        await asyncio.sleep(0.3)
        redis.resume()
        await until_heard(one, other)


async def test_silence_is_not_taken_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.shared, "SILENT_S", 0.02)
    async with RedisServer() as redis, belled(redis) as one, belled(redis) as other:
        await until_heard(one, other)
        before = one.count
        await asyncio.sleep(0.3)  # many times as long; each new connection would be heard

        assert one.count == before


async def test_a_stream_is_told_of_another_process_without_waiting_for_its_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.hub.STREAM_POLL_S", 3_600.0)
    async with (
        RedisServer() as redis,
        belled(redis) as elsewhere,
        running(tmp_path) as here,
        Shared(redis.url) as shared,
        asyncio.timeout(30),
    ):
        bell = asyncio.create_task(Bell(here.wakeups, shared).run())
        await until_heard(elsewhere, here.wakeups)
        payment = await here.create()
        async with here.session.get(f"/api/sse/payments/{payment['id']}") as stream:
            await stream.content.readuntil(b"event: payment\n")
            here.wakeups = elsewhere  # the settling is another process's
            await here.settle(payment["id"], 12_500_000)
            await stream.content.readuntil(b"event: payment.settled\n")
        bell.cancel()
