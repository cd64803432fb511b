from pathlib import Path

import pytest

from indexer.cli.command import CommandFailed, bounds_of, database_of
from indexer.errors import SchemaMismatch
from indexer.settings import Settings
from store import migrate
from store.database import open_database


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
