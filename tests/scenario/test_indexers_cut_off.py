"""Indexers that are frozen, that lose their database for a while, or whose clocks are wrong.

On a libSQL server: a process that is frozen in the middle of a write to a file keeps it locked.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from indexer import daemon, tenure
from indexer.core.shares import unit_of
from indexer.demo.cluster import Cluster
from indexer.demo.sqld.launcher import Sqld
from indexer.demo.surfnet.launcher import Surfnet
from store import leases
from store.database import Database
from store.deliveries import Delivery
from tests.scenario.deployment import Deployment
from tests.scenario.indexers import (
    Market,
    Worker,
    divided,
    environment_for,
    remember,
    shares,
    taken,
    until,
    working,
)
from tests.servers.receiver import Answer, Fate, Post, Receiver


HOUR_S = 3_600.0
#: Beats of two indexers in which one that compared clocks would have taken the other's work.
BEATS = 8


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Sqld]:
    async with Sqld.running(tmp_path / "sqld") as server:
        yield server


@pytest_asyncio.fixture
async def market(
    surfnet: Surfnet, cluster: Cluster, tmp_path: Path, server: Sqld
) -> AsyncIterator[Market]:
    async with (
        Deployment.over(surfnet, tmp_path, database_url=server.url) as deployment,
        Receiver() as receiver,
    ):
        market = Market(deployment, cluster, receiver)
        await market.add_key("east")
        await market.add_endpoint(1)
        await remember(market.database)
        yield market


class Late:
    """Keeps the first post waiting, says no to the second, and yes to all others."""

    def __init__(self) -> None:
        self.count = 0
        self.is_over = asyncio.Event()

    def __call__(self, _: Post) -> Answer | Fate:
        self.count += 1
        if self.count == 1:
            return self._wait
        return Answer(status=503 if self.count == 2 else 200)

    async def _wait(self, _: web.BaseRequest, __: Post) -> web.StreamResponse:
        await self.is_over.wait()
        return web.Response(status=500)


async def test_one_that_was_frozen_while_it_posted_spoils_nothing(
    market: Market, surfnet: Surfnet, tmp_path: Path, server: Sqld
) -> None:
    """It gets its answer when the other has long tried the same: nothing of it is noted."""
    environment = environment_for(surfnet, tmp_path, server.url)
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(tmp_path, environment)) for _ in "ab"]
        await divided(market.database, market.keys, *workers)
        await one_is_frozen(market, *workers)
        await divided(market.database, market.keys, *workers)
        await market.sell(2)
        await market.settled(*workers)
        await market.judge()


async def one_is_frozen(market: Market, *workers: Worker) -> None:
    market.receiver.choice = late = Late()
    database, [endpoint] = market.database, market.endpoints
    await market.sell(1)

    async def has_posted() -> bool:
        return late.count == 1

    await until(has_posted, *workers)
    [frozen], [other] = await by_holder(database, unit_of(endpoint), *workers)
    frozen.send(signal.SIGSTOP)
    await divided(database, market.keys, other)

    async def has_tried() -> bool:
        return bool((await first_delivery(market)).history)

    await until(has_tried, other)
    [noted] = (await first_delivery(market)).history
    late.is_over.set()
    frozen.send(signal.SIGCONT)

    async def has_heard() -> bool:
        return bool(frozen.said("delivery.not_stored"))

    await until(has_heard, frozen)
    assert (await first_delivery(market)).history[0] == noted
    assert any(said["lost"] for said in frozen.said("tenure.changed"))


async def first_delivery(market: Market) -> Delivery:
    return (await market.delivered())[-1]


async def by_holder(
    database: Database, unit: str, *workers: Worker
) -> tuple[list[Worker], list[Worker]]:
    """Who has it, and the others."""
    found = await shares(database, *workers)
    holds = [unit in units for units in found]
    have = [worker for worker, has in zip(workers, holds, strict=True) if has]
    return have, [worker for worker in workers if worker not in have]


@dataclass(frozen=True)
class Named:
    """An indexer in this process."""

    id: str

    def is_it(self, instance: str) -> bool:
        return instance == self.id


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexers of one loop have no reason to be patient with one another."""
    monkeypatch.setattr(tenure, "BEAT_S", 0.3)


@pytest.mark.usefixtures("one_process")
async def test_clocks_that_are_an_hour_apart_take_nobody_s_work(market: Market) -> None:
    database = market.database
    async with two(market, apart_s=HOUR_S) as names:
        await divided(database, market.keys, *names)
        before = await taken(database)
        often = max((await beats(database)).values()) + BEATS
        await until(partial(have_beaten, database, often))
        assert await taken(database) == before
        await market.sell(4)
        await market.paid()
        await market.judge_payments()


@pytest.mark.usefixtures("one_process")
async def test_a_server_that_was_away_for_longer_than_a_lease_leaves_all_as_it_was(
    market: Market, server: Sqld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenure, "LEASE_S", 3.0)
    monkeypatch.setattr(tenure, "HELD_S", 2.5)
    database = market.database
    async with two(market) as names:
        await divided(database, market.keys, *names)
        before = await taken(database)
        server.kill()
        await asyncio.sleep(tenure.LEASE_S + 1)
        server.start()
        await market.sell(4)
        await market.settled()
        await market.judge()
        await divided(database, market.keys, *names)
        assert await taken(database) == before


@asynccontextmanager
async def two(market: Market, *, apart_s: float = 0.0) -> AsyncIterator[list[Named]]:
    """Two indexers in this process, whose clocks are that far apart."""
    settings, stop = market.deployment.settings, asyncio.Event()
    settings = replace(settings, webhook_private_networks=(ip_network("127.0.0.0/8"),))
    run = partial(daemon.run, settings, indexer=True, api=False, stop=stop)
    async with asyncio.TaskGroup() as group:
        group.create_task(run(clock=time.time))
        group.create_task(run(clock=lambda: time.time() + apart_s))
        await until(partial(have_beaten, market.database, 1))
        yield [Named(id_) for id_ in await beats(market.database)]
        stop.set()


async def beats(database: Database) -> dict[str, int]:
    return {id_: each.beats for id_, each in (await leases.read(database)).instances.items()}


async def have_beaten(database: Database, often: int) -> bool:
    """Whether both are there, and have that often said so."""
    found = await beats(database)
    return len(found) == 2 and min(found.values()) >= often
