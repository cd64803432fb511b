"""Several indexers on one database divide the work, and who dies or leaves is replaced."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from indexer.core.shares import SHARDS
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from store import leases
from tests.scenario.deployment import Deployment
from tests.scenario.indexers import (
    Market,
    Worker,
    divided,
    environment_for,
    figures,
    remember,
    shares,
    taken,
    told,
    until,
    working,
)
from tests.scenario.serving import axiompay
from tests.servers.receiver import Answer, Receiver


#: Of webhooks, in shards that two and three indexers divide.
ENDPOINTS = 6
#: Beats that pass before others may take what somebody does who does not answer are four at least;
#: who sees that he is gone takes it with the next one.
BEATS_AT_ONCE = 3


@pytest_asyncio.fixture
async def market(
    surfnet: Surfnet, cluster: Cluster, tmp_path: Path, database_url: str
) -> AsyncIterator[Market]:
    async with (
        Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment,
        Receiver() as receiver,
    ):
        market = Market(deployment, cluster, receiver)
        for name in ("east", "west", "north", "south"):
            await market.add_key(name)
        for number in range(1, ENDPOINTS + 1):
            await market.add_endpoint(number)
        await remember(market.database)
        yield market


@pytest.mark.parametrize("place", ["libsql"], indirect=True)
async def test_three_divide_the_work_and_do_that_of_one_who_dies_or_leaves(
    market: Market, surfnet: Surfnet, tmp_path: Path, database_url: str
) -> None:
    environment = environment_for(surfnet, tmp_path, database_url)
    market.keys.append(axiompay(environment, "watch", "add", "center").split()[-1])
    async with AsyncExitStack() as stack:
        one, other, third = [
            await stack.enter_async_context(working(tmp_path, environment)) for _ in range(3)
        ]
        await divided(market.database, market.keys, one, other, third)
        await each_does_a_part(market, one, other, third)
        await one_is_killed(market, one, other, third)
        await one_leaves(market, other, third)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_two_divide_the_work_and_one_after_both_begins_at_once(
    market: Market, surfnet: Surfnet, tmp_path: Path, database_url: str
) -> None:
    environment = environment_for(surfnet, tmp_path, database_url)
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(working(tmp_path, environment)) for _ in range(2)
        ]
        await divided(market.database, market.keys, one, other)
        await each_does_a_part(market, one, other)
        await one_is_killed(market, one, other)
        await other.kill()
        last = await stack.enter_async_context(working(tmp_path, environment))
        await a_single_one_begins_at_once(market, last)


async def each_does_a_part(market: Market, *workers: Worker) -> None:
    """While nobody dies, nothing is sent twice."""
    database = market.database
    before = await taken(database)
    await market.sell(len(market.keys))
    await market.settled(*workers)
    found = await market.judge()

    if await taken(database) == before:  # nobody was taken for dead on a machine that is too busy
        sent = Counter((post.path, post.id) for post in market.receiver.posts)
        assert set(sent.values()) == {1}
    attempts = await told(database, "axiom_webhook_attempts_total", len(found), *workers)
    assert min(attempts) > 0
    assert sum(await figures(database, "axiom_watch_keys_held", *workers)) == len(market.keys)
    held = await figures(database, "axiom_shards_held", *workers)
    assert (min(held), sum(held)) == (SHARDS // len(workers), SHARDS)
    assert min(await figures(database, "axiom_rpc_requests_total", *workers)) > 0


async def one_is_killed(market: Market, victim: Worker, *others: Worker) -> None:
    """While payments and webhooks are under way."""
    market.receiver.answer = Answer(delay_s=0.1)
    selling = asyncio.create_task(market.sell(2 * len(market.keys)))
    before = len(market.receiver.posts)

    async def is_busy() -> bool:
        return len(market.receiver.posts) > before

    await until(is_busy, victim)
    await victim.kill()
    await selling
    await divided(market.database, market.keys, *others)
    await market.settled(*others)
    await market.judge()


async def one_leaves(market: Market, leaver: Worker, last: Worker) -> None:
    """In order: what it did is nobody's when it has ended."""
    leaver.send(signal.SIGTERM)
    assert await leaver.ended() == 0
    board = await leases.read(market.database)
    assert not any(map(leaver.is_it, board.instances))
    assert await shares(market.database, leaver) == [set()]
    await divided(market.database, market.keys, last)


async def a_single_one_begins_at_once(market: Market, worker: Worker) -> None:
    """The one before was killed on the same machine."""
    await divided(market.database, market.keys, worker)
    await market.sell(1)
    await market.settled(worker)
    await market.judge()
    beats = {at for _, holder, at in await taken(market.database) if worker.is_it(holder)}
    assert max(beats) <= BEATS_AT_ONCE
