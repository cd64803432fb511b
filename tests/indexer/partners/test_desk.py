"""Calls to partners from real processes that share a Redis, and may die over it."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.core.profile import Auth, AuthKind, PartnerSecrets
from indexer.errors import InvariantError
from indexer.partners import tokens as tokens_module
from indexer.partners.desk import Partners
from store.limiter import Limiter
from store.shared import Shared
from tests.indexer.partners.calling import PATIENCE_S, SECRETS, Caller, callers, shipped, until
from tests.servers.fake_amadeus import FakeAmadeus, says
from tests.servers.redis_server import RedisServer


ROOT = Path(__file__).resolve().parents[3]
CHILD = Path(__file__).with_name("calling_child.py")


class Child:
    """A process that calls when it is told to."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return (await self._process.stdout.readline()).decode().strip()

    async def begin(self, turn: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{turn}\n".encode())
        await self._process.stdin.drain()

    async def outcomes(self) -> Any:
        return json.loads(await self.line())

    def kill(self) -> None:
        self._process.kill()


@asynccontextmanager
async def child(
    fake: FakeAmadeus, redis: RedisServer, name: str, count: int
) -> AsyncIterator[Child]:
    arguments = [sys.executable, str(CHILD), fake.url, redis.url, name, str(count)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *arguments, cwd=ROOT, stdin=pipe, stdout=pipe, env={"PYTHONPATH": str(ROOT)}
    )
    try:
        made = Child(process)
        assert await made.line() == "ready"
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # its pipes would be a warning


async def test_two_processes_with_an_expired_token_and_two_hundred_calls_buy_one() -> None:
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        child(fake, redis, "A", 100) as one,
        child(fake, redis, "B", 100) as two,
    ):
        for turn in range(3):
            fake.pause_s = 0.2  # so that both are under way
            await asyncio.gather(one.begin(f"{turn}X"), two.begin(f"{turn}X"))
            found = [await one.outcomes(), await two.outcomes()]
            assert found == [["200"] * 100] * 2
            assert fake.count("token") == turn + 1
            assert {call.token for call in fake.calls if call.token} == set(fake.tokens)
            fake.expire_tokens()


async def test_a_process_that_dies_while_it_buys_holds_up_the_other_no_longer_than_its_lock() -> (
    None
):
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        child(fake, redis, "A", 5) as one,
        child(fake, redis, "B", 5) as two,
    ):
        fake.hold("token")
        await one.begin("X")
        await until(lambda: fake.count("token") == 1)
        await two.begin("X")
        one.kill()
        fake.release("token")

        assert await two.outcomes() == ["200"] * 5
        assert fake.count("token") == 2
    assert tokens_module.LOCK_TTL_S < tokens_module.PATIENCE_S
    assert tokens_module.TIMEOUT_S < tokens_module.LOCK_TTL_S


async def test_each_partner_has_a_road_of_its_own() -> None:
    async with FakeAmadeus() as one, FakeAmadeus() as two:
        first = shipped(one.url, name="one")
        second = shipped(two.url, name="two", auth=Auth(kind=AuthKind.KEY))
        partners = Partners(
            [first, second],
            {"one": SECRETS, "two": PartnerSecrets(key="k3y")},
            shared=None,
            limiter=Limiter(None, time.monotonic),
            monotonic=time.monotonic,
        )
        async with partners:
            assert set(partners.profiles) == {"one", "two"}
            two.fail("location", says(200, b'{"data":{"name":"of two"}}'))
            shown = [
                (await Caller(partners, profile, None).call("location", id="ALEI")).body
                for profile in (first, second)
            ]
        assert b"LEI" in shown[0]
        assert shown[1] == b'{"data":{"name":"of two"}}'
        assert two.last("location").headers["Authorization"] == "Bearer k3y"


async def test_a_partner_that_is_not_configured_is_not_called() -> None:
    async with FakeAmadeus() as fake, callers(fake) as [it]:
        it.profile = shipped(fake.url, name="other")
        with pytest.raises(InvariantError):
            await it.call("location", id="ALEI")


async def test_closing_ends_what_is_under_way_and_nothing_stays_open() -> None:
    async with FakeAmadeus() as fake:
        async with callers(fake) as [it]:
            fake.hold("location")
            waiting = asyncio.create_task(it.call("location", id="ALEI"))
            await until(lambda: fake.count("location") == 1)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        fake.release("location")


async def test_the_secret_of_a_partner_is_not_in_redis() -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, callers(fake, 1, redis) as [it]:
        await it.call("location", id="ALEI")
        reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
        writer.write(b"KEYS *\r\n")
        count = int((await reader.readline())[1:])
        names = [[await reader.readline() for _ in range(2)][1].strip() for _ in range(count)]
        told = b""
        for name in names:
            writer.write(b"TYPE %s\r\nDUMP %s\r\nPTTL %s\r\n" % (name, name, name))
            await reader.readline()
            size = int((await reader.readline())[1:])
            told += name + await reader.readexactly(size + 2)
            assert int((await reader.readline())[1:]) > 0  # all of it ends by itself
        writer.close()

        assert len(names) >= 3  # a token, an answer, a rate
        assert SECRETS.client_secret.encode() not in told
        assert SECRETS.client_id.encode() not in told


async def test_a_shared_redis_that_is_away_from_the_start_is_no_hindrance() -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake:
        redis.kill()
        async with callers(fake, 2, redis) as both:
            found = await asyncio.gather(
                *(it.outcome("location", id=f"A{n}") for it in both for n in range(20))
            )
            assert found == ["200"] * 40
            assert all(isinstance(it.shared, Shared) for it in both)

    assert fake.count("token") == 2
