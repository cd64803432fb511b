"""Streams over two API processes on a replica each: a client may be at either, and move."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from api.wakeups import Bell
from store import events
from store.shared import Shared
from tests.api.running import Api, running
from tests.api.sse import Message, Reader, stream
from tests.scenario.twins import two
from tests.servers.redis_server import RedisServer


ALL: Final = "/api/sse/events"


@asynccontextmanager
async def belled(api: Api, url: str) -> AsyncIterator[None]:
    """Gives the API what the daemon gives it where there is a Redis."""
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(Shared(url))
        tasks = [
            asyncio.create_task(each()) for each in (shared.run, Bell(api.wakeups, shared).run)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until_heard(one: Api, other: Api) -> None:
    """Returns once what the one says reaches the other."""
    before = other.wakeups.count
    async with asyncio.timeout(90):
        while other.wakeups.count == before:
            one.wakeups.wake()
            await other.wakeups.wait(0.1, since=before)


async def next_of(reader: Reader) -> Message:
    message = await reader.event()
    assert message is not None
    return message


async def test_a_wake_up_is_never_answered_from_the_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was, would wait an hour for the next look."""
    monkeypatch.setattr("api.hub.STREAM_POLL_S", 3_600.0)
    async with (
        RedisServer() as redis,
        two(tmp_path) as (one, other),
        belled(one, redis.url),
        belled(other, redis.url),
    ):
        await until_heard(one, other)
        payment = await one.create()
        async with stream(other.session, ALL, {**one.reader, "Last-Event-ID": "0"}) as reader:
            assert (await next_of(reader)).event == "payment.created"
            for n in range(100):
                await one.publish(payment["id"], 1, first=1_000 + n)

                assert (await next_of(reader)).id == str(n + 2)


async def test_a_client_that_moves_between_them_misses_nothing(tmp_path: Path) -> None:
    events_count, page = 300, 7
    async with two(tmp_path) as apis:
        payment = await apis[0].create()

        async def publish() -> None:
            for n in range(events_count):
                await apis[n % 2].publish(payment["id"], 1, first=1_000 + n)

        publishing = asyncio.create_task(publish())
        heard: list[str] = []
        moves = 0
        async with asyncio.timeout(60):
            while len(heard) <= events_count:
                headers = {**apis[0].reader, "Last-Event-ID": heard[-1] if heard else "0"}
                async with stream(apis[moves % 2].session, ALL, headers) as reader:
                    wanted = min(page, events_count + 1 - len(heard))
                    heard += [str((await next_of(reader)).id) for _ in range(wanted)]
                moves += 1
        await publishing
        last = await events.last_seq(apis[1].database)

    assert moves > 40
    assert heard == [str(seq) for seq in range(1, last + 1)]


async def nothing(_redis: RedisServer) -> None:
    pass


async def killed(redis: RedisServer) -> None:
    redis.kill()


async def frozen(redis: RedisServer) -> None:
    redis.pause()


@pytest.mark.parametrize(
    ("was_there", "befalls"), [(False, nothing), (True, killed), (True, frozen)]
)
async def test_streams_go_on_without_redis(
    tmp_path: Path,
    was_there: bool,
    befalls: Callable[[RedisServer], Awaitable[None]],
) -> None:
    async with RedisServer() as redis, running(tmp_path) as one:
        url = redis.url if was_there else "redis://127.0.0.1:1/0"
        async with (
            running(tmp_path, beside=one) as other,
            belled(one, url),
            belled(other, url),
        ):
            if was_there:
                await until_heard(one, other)
            payment = await one.create()
            async with stream(other.session, f"/api/sse/payments/{payment['id']}") as reader:
                assert (await next_of(reader)).event == "payment"
                await befalls(redis)
                await one.settle(payment["id"], 12_500_000)
                assert [each.event for each in await reader.rest()] == ["payment.settled"]
