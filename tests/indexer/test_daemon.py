"""The parts together: what starts, what refuses to, what is said of it, what ends it."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer import daemon
from indexer.errors import ConfigError, InvariantError, SchemaMismatch, StoreUnavailable
from indexer.settings import Settings
from indexer.sources import heads
from indexer.watch import Watched
from store import deployment, migrate, watch_keys
from store.database import Database, Rows, open_database
from tests.chain import key
from tests.indexer.daemons import PATIENCE_S, hurry, running, settings_for, until_swept, until_told
from tests.indexer.stage import WATCH_KEY, Stage, stage
from tests.servers.fake_rpc import FakeChain, FakeNode, eventually, hang, result, rpc_error


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch.setattr)


# --------------------------------------------------------------------------- watch keys


async def started(database: Database, watch_key: str | None = None) -> set[str]:
    """The keys in use after the start of a daemon with that setting."""
    settings = replace(Settings(), watch_key=watch_key)
    await daemon.ensure_watch_key(database, settings, lambda: 100.9)
    return {each.key for each in await watch_keys.listing(database) if each.retired_at is None}


async def test_a_watch_key_is_made_once_and_kept(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate.migrate(database)

    made = await started(database)

    assert len(made) == 1
    assert await started(database) == made
    await database.close()


async def test_one_that_is_set_is_taken_in_once_beside_those_in_use(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        assert await started(it.database, key("set")) == {WATCH_KEY, key("set")}
        [added] = [k for k in await watch_keys.listing(it.database) if k.key == key("set")]
        await watch_keys.retire(it.database, added.name, now=200)

        assert await started(it.database, key("set")) == {WATCH_KEY}, "it stays retired"
        assert await started(it.database) == {WATCH_KEY}


async def test_the_first_one_may_be_set(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate.migrate(database)

    assert await started(database, key("set")) == {key("set")}
    await database.close()


# ----------------------------------------------------------------------------- starting


async def test_an_indexer_alone_does_not_migrate(tmp_path: Path) -> None:
    async with FakeNode() as node, running(settings_for(tmp_path, node)) as it:
        with pytest.raises(SchemaMismatch):
            await it.ended()


async def test_both_together_migrate_and_serve(tmp_path: Path) -> None:
    async with FakeNode() as node, running(settings_for(tmp_path, node), api=True) as it:
        async with asyncio.timeout(PATIENCE_S):
            await it.ready.wait()

        database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
        await migrate.check(database)
        await until_swept(database)
        await database.close()


async def test_everything_well_is_said_of_every_part(tmp_path: Path) -> None:
    async with (
        stage(tmp_path) as it,
        it.chain.ticking(),
        running(settings_for(tmp_path, it.node)),
    ):
        for part in ("indexer", "rpc", "sweep", "pubsub:0"):
            await until_told(it.database, part, lambda problem: problem is None)


async def test_nodes_that_are_down_at_the_start_are_waited_for(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order)
        await it.node.stop()
        async with running(settings_for(tmp_path, it.node)) as daemon_:
            await until_told(
                it.database, "cluster", lambda problem: "ConnectorError" in str(problem)
            )
            await until_told(it.database, "rpc", lambda problem: "ConnectorError" in str(problem))
            await until_told(it.database, "pubsub:0", lambda problem: problem)
            assert not daemon_.task.done()

            await it.node.start()
            await until_swept(it.database)
        assert (await it.events(order))[-1] == "settled"


# -------------------------------------------------------------------------- one cluster


async def test_the_cluster_of_the_first_start_is_kept(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        async with running(settings_for(tmp_path, it.node)):
            await until_swept(it.database)
        assert await deployment.get(it.database, "genesis_hash") == it.chain.genesis_hash

        async with running(settings_for(tmp_path, it.node)):
            await until_swept(it.database)


async def test_another_cluster_is_refused_and_nothing_of_it_is_read(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.settle(replace(it.pay(order), signature=key("parked")))
        await it.pipeline.sight([it.pay(order)])
        await deployment.put_once(it.database, "genesis_hash", key("another"))
        it.node.calls.clear()
        before = await it.events(order)

        async with running(settings_for(tmp_path, it.node)) as daemon_:
            with pytest.RaisesGroup(ConfigError, flatten_subgroups=True) as caught:
                await daemon_.ended()

        (error,) = leaves(caught.value)
        assert "AXIOM_RPC_URLS" in str(error)
        assert key("another") in str(error)
        asked = {call.method for call in it.node.calls if not call.method.endswith("Subscribe")}
        assert asked == {"getGenesisHash"}
        assert await it.events(order) == before


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def test_no_endpoint_may_be_of_another_cluster(tmp_path: Path) -> None:
    other = FakeChain()
    other.genesis_hash = key("another")
    async with stage(tmp_path) as it, FakeNode(other) as stray:
        await deployment.put_once(it.database, "genesis_hash", it.chain.genesis_hash)
        async with running(settings_for(tmp_path, it.node, stray)) as daemon_:
            with pytest.RaisesGroup(ConfigError, flatten_subgroups=True):
                await daemon_.ended()


async def test_an_endpoint_that_was_down_is_asked_for_its_cluster_when_it_is_back(
    tmp_path: Path,
) -> None:
    other = FakeChain()
    other.genesis_hash = key("another")
    async with stage(tmp_path) as it, FakeNode(other) as stray:
        await stray.stop()
        async with running(settings_for(tmp_path, it.node, stray)) as daemon_:
            await until_swept(it.database)
            await stray.start()
            with pytest.RaisesGroup(ConfigError, flatten_subgroups=True):
                await daemon_.ended()


async def test_one_endpoint_that_hangs_does_not_delay_the_start(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=2) as it:
        it.nodes[0].fail("getGenesisHash", hang(), times=None)
        async with running(settings_for(tmp_path, *it.nodes)):
            await until_swept(it.database)


# ------------------------------------------------------------------------------ running


async def test_what_goes_wrong_is_said_and_taken_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, running(settings_for(tmp_path, it.node)):
        await until_swept(it.database)
        it.node.fail("getSignaturesForAddress", rpc_error(-32601, "turned off"), times=None)
        it.chain.advance(5)
        await until_told(it.database, "sweep", lambda problem: "turned off" in str(problem))
        it.node.heal()
        await until_swept(it.database)


async def test_a_source_that_stands_still_and_a_chain_that_does_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "INTERVAL_S", 0.05)
    monkeypatch.setattr(heads, "BEHIND_S_MAX", 1.0)
    monkeypatch.setattr(heads, "CAUGHT_UP_S_MAX", 0.8)
    monkeypatch.setattr(heads, "STALL_S_MIN", 2.0)
    async with stage(tmp_path, nodes=2) as it, running(settings_for(tmp_path, *it.nodes)):
        async with it.chain.ticking(0.02):
            it.node.fail("getSlot", result(it.chain.finalized), times=None)
            await until_told(it.database, "rpc:0", lambda problem: "behind" in str(problem))
            await until_told(it.database, "chain", lambda problem: problem is None)
            it.node.heal()
            await until_told(it.database, "rpc:0", lambda problem: problem is None)

        await until_told(it.database, "chain", lambda problem: "stands still" in str(problem))


async def test_a_report_that_cannot_be_stored_is_no_reason_to_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        write, failures = Database.write, [StoreUnavailable("disk full")] * 3

        async def fail_first(self: Database, batch: Any) -> list[Rows]:
            if failures and "INTO health" in batch[0].sql:
                raise failures.pop()
            return await write(self, batch)

        monkeypatch.setattr(Database, "write", fail_first)
        async with running(settings_for(tmp_path, it.node)):
            await until_swept(it.database)
        assert failures == []


async def test_a_task_that_ends_by_itself_ends_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tired(*_: Any, **__: Any) -> None:
        return

    async with stage(tmp_path) as it:
        monkeypatch.setattr(Watched, "run", tired)
        async with running(settings_for(tmp_path, it.node)) as daemon_:
            with pytest.RaisesGroup(
                pytest.RaisesExc(InvariantError, match="'watch' ended by itself")
            ):
                await daemon_.ended()


async def test_a_daemon_that_is_told_to_stop_leaves_nothing_behind(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        before = asyncio.all_tasks()
        async with running(settings_for(tmp_path, it.node), api=True) as daemon_:
            await until_swept(it.database)
            await eventually(lambda: it.node.sockets)
            daemon_.stop.set()
            await daemon_.ended()

        await eventually(lambda: not it.node.sockets)
        await eventually(lambda: len(asyncio.all_tasks()) <= len(before))


async def test_a_taken_port_is_an_error_of_the_settings(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        it: Stage = await stack.enter_async_context(stage(tmp_path))
        settings = settings_for(tmp_path, it.node, port=it.node.port)
        daemon_ = await stack.enter_async_context(running(settings, api=True))

        with pytest.RaisesGroup(ConfigError, flatten_subgroups=True):
            await daemon_.ended()


async def test_an_api_alone_asks_no_chain(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        settings = settings_for(tmp_path, it.node)
        async with running(settings, indexer=False, api=True) as daemon_:
            async with asyncio.timeout(PATIENCE_S):
                await daemon_.ready.wait()

        assert it.node.calls == []
        assert await it.table("health") == []
