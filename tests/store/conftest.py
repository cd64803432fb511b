"""A database of each test's own, with the real schema: a file, and once more on a real server.

Whoever asks for `empty` or `database` runs on both. What is about the file itself (locks, pages,
the log beside it) asks for `url`, which is one.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from indexer.demo.sqld.launcher import Sqld
from store.database import Database, open_database
from store.migrate import migrate


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where the test's file is."""
    return f"sqlite:///{tmp_path}/axiom.db"


@pytest.fixture
def sqld(tmp_path: Path) -> Iterator[Sqld]:
    """A libSQL server with nothing in it."""
    server = Sqld(tmp_path / "sqld")
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "libsql"])
def backend_url(request: pytest.FixtureRequest) -> str:
    """Where the test's database is, on either backend."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("url"))
    server: Sqld = request.getfixturevalue("sqld")
    return server.url


@pytest.fixture
async def empty(backend_url: str) -> AsyncIterator[Database]:
    """A database without a schema."""
    database = await open_database(backend_url)
    yield database
    await database.close()


@pytest.fixture
async def database(empty: Database) -> Database:
    """A database with the whole schema and nothing in it."""
    await migrate(empty)
    return empty
