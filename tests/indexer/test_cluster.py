import asyncio
from pathlib import Path

import pytest

from indexer import cluster
from indexer.cluster import SameCluster
from indexer.errors import ConfigError
from store import deployment
from tests.chain import key
from tests.indexer.stage import Stage, stage
from tests.servers.fake_rpc import http


async def until_known(it: Stage) -> SameCluster:
    same = SameCluster(it.database, it.rpc)
    asking = asyncio.create_task(same.run())
    try:
        async with asyncio.timeout(90):
            await same.known.wait()
    finally:
        asking.cancel()
    return same


async def test_the_first_cluster_is_kept_and_the_same_one_is_welcome(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        first = await until_known(it)
        again = await until_known(it)

        assert first.problem is again.problem is None


async def test_another_cluster_is_refused(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await until_known(it)
        it.chain.genesis_hash = key("another genesis")

        with pytest.raises(ConfigError, match="another AXIOM_DATABASE_URL"):
            await cluster.check(it.database, it.rpc.endpoints[0])


async def test_one_of_another_cluster_is_refused_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PAUSE_S", 0.01)
    async with stage(tmp_path, nodes=2) as it:
        stray = it.nodes[1]
        stray.fail("getGenesisHash", http(503), times=3)
        same = SameCluster(it.database, it.rpc)
        asking = asyncio.create_task(same.run())
        async with asyncio.timeout(90):
            await same.known.wait()
            it.chain.genesis_hash = key("another genesis")
            with pytest.raises(BaseExceptionGroup) as caught:
                await asking

        assert caught.group_contains(ConfigError)


async def test_until_one_answers_it_says_why_nothing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PAUSE_S", 0.01)
    async with stage(tmp_path) as it:
        it.node.fail("getGenesisHash", http(503), times=None)
        same = SameCluster(it.database, it.rpc)
        before = same.problem
        asking = asyncio.create_task(same.run())
        async with asyncio.timeout(90):
            while same.problem == before:
                await asyncio.sleep(0.01)
        asking.cancel()

        assert "503" in (same.problem or "")
        assert not same.known.is_set()


async def test_all_are_compared_and_nothing_is_written(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=2) as it:
        await cluster.check_all(it.database, it.rpc)
        assert await deployment.get(it.database, "genesis_hash") is None

        await until_known(it)
        it.nodes[0].fail("getGenesisHash", http(503), times=1)
        await cluster.check_all(it.database, it.rpc)

        it.chain.genesis_hash = key("another genesis")
        with pytest.raises(ConfigError, match="another AXIOM_DATABASE_URL"):
            await cluster.check_all(it.database, it.rpc)
