from argparse import Namespace
from pathlib import Path

import pytest

from indexer.cli.command import CommandFailed, bounds_of, chain_of, database_of, env_files
from indexer.environment import merged
from indexer.errors import ConfigError, SchemaMismatch
from indexer.settings import Settings
from store import deployment, migrate
from store.database import open_database
from tests.indexer.daemons import settings_for
from tests.indexer.stage import stage
from tests.servers.fake_rpc import http


async def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/axiom.db")

    with pytest.raises(CommandFailed, match="does not exist"):
        async with database_of(settings):
            pass

    assert list(tmp_path.iterdir()) == []


async def test_a_database_must_be_up_to_date(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/axiom.db")
    database = await open_database(settings.database_url)

    with pytest.raises(SchemaMismatch):
        async with database_of(settings):
            pass
    await migrate.migrate(database)
    await database.close()

    async with database_of(settings) as same:
        assert await migrate.pending(same) == []


def test_the_bounds_of_an_endpoint_are_the_settings() -> None:
    bounds = bounds_of(Settings(rpc_concurrency=3, rpc_rate=7))

    assert (bounds.concurrency, bounds.rate) == (3, 7)


async def test_endpoints_of_the_same_cluster_are_opened(tmp_path: Path) -> None:
    """One that is down says nothing; who needs it will be told."""
    async with stage(tmp_path, nodes=2) as it:
        await deployment.put_once(it.database, "genesis_hash", it.chain.genesis_hash)
        it.nodes[1].fail("getGenesisHash", http(500), times=None)
        settings = settings_for(tmp_path, *it.nodes, verify_quorum=2)

        async with chain_of(settings, it.database) as rpc:
            assert rpc.quorum == 2
            assert await rpc.finalized_slot()


async def test_an_endpoint_of_another_cluster_is_refused(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await deployment.put_once(it.database, "genesis_hash", "another")

        with pytest.raises(ConfigError, match="AXIOM_RPC_URLS: http://127"):
            async with chain_of(settings_for(tmp_path, *it.nodes), it.database):
                pass


async def test_a_database_that_was_never_filled_belongs_to_no_cluster(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, chain_of(settings_for(tmp_path, *it.nodes), it.database):
        assert await deployment.get(it.database, "genesis_hash") is None


async def test_a_database_that_is_to_be_filled_belongs_to_the_cluster_from_then_on(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        settings = settings_for(tmp_path, *it.nodes)
        async with chain_of(settings, it.database, fills=True):
            pass
        it.chain.genesis_hash = "another"

        with pytest.raises(ConfigError, match="AXIOM_RPC_URLS: http://127"):
            async with chain_of(settings, it.database, fills=True):
                pass


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_an_encrypted_file_that_cannot_be_read_is_not_passed_over(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert env_files(Namespace()) == ()
    path = Path(".env.age")
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("nowhere")

    assert env_files(Namespace()) == (path,)
    with pytest.raises(ConfigError, match=r"cannot read \.env\.age: "):
        merged({}, *env_files(Namespace()))
