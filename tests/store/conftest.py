"""A database of each test's own: a real file with the real schema."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store.database import Database, open_database
from store.migrate import migrate


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where the test's database is."""
    return f"sqlite:///{tmp_path}/axiom.db"


@pytest.fixture
async def empty(url: str) -> AsyncIterator[Database]:
    """A database without a schema."""
    database = await open_database(url)
    yield database
    await database.close()


@pytest.fixture
async def database(empty: Database) -> Database:
    """A database with the whole schema and nothing in it."""
    await migrate(empty)
    return empty
