"""A disk that is full: what was acknowledged stays, and there is room again one day."""

import asyncio
from collections.abc import Iterator

import pytest

from indexer.errors import StoreUnavailable
from store import migrate
from store.database import Statement, open_database
from tests.servers.disk import Disk


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk() as disk:
        yield disk


def note(name: str) -> Statement:
    return Statement("INSERT INTO deployment (name, value) VALUES (?, ?)", (name, "x" * 5_000))


NAMES = Statement("SELECT name FROM deployment ORDER BY name")


async def test_what_was_acknowledged_is_there_and_what_was_refused_is_not(
    url: str, disk: Disk
) -> None:
    database = await open_database(url)
    await migrate.migrate(database)
    await database.write([note("before")])
    disk.full = True

    for name in ("while full 1", "while full 2"):
        with pytest.raises(StoreUnavailable, match=r"disk is full: make room"):
            await database.write([note(name)])
    assert "disk is full" in str(database.problem)
    assert await database.read([NAMES]) == [[("before",)]]

    disk.full = False
    await database.write([note("after")])
    assert not database.problem
    assert await database.read([NAMES]) == [[("after",), ("before",)]]
    await database.close()
    assert disk.refused


async def test_all_that_wait_for_one_commit_are_told(url: str, disk: Disk) -> None:
    database = await open_database(url)
    await migrate.migrate(database)
    disk.full = True

    outcomes = await asyncio.gather(
        *(database.write([note(f"{n}")]) for n in range(50)), return_exceptions=True
    )

    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
    disk.full = False
    assert await database.read([NAMES]) == [[]]
    await database.write([note("after")])
    await database.close()


async def test_closing_on_a_full_disk_loses_nothing(url: str, disk: Disk) -> None:
    """The log cannot be tidied into the file; it stays beside it and is read again."""
    database = await open_database(url)
    await migrate.migrate(database)
    for n in range(20):
        await database.write([note(f"{n:02}")])
    disk.full = True
    await database.close()
    disk.full = False

    database = await open_database(url, thorough=True)
    assert await database.read([NAMES]) == [[(f"{n:02}",) for n in range(20)]]
    await database.close()


async def test_an_old_failure_says_nothing_of_now(
    url: str, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.database.PROBLEM_KEPT_S", 0.0)
    database = await open_database(url)
    disk.full = True
    with pytest.raises(StoreUnavailable):
        await database.write([Statement("CREATE TABLE t (x)")])

    assert database.problem is None
    disk.full = False
    await database.close()
