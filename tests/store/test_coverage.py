"""Slots that were examined: merged as they are written, and never more than was said."""

import apsw
import pytest
from hypothesis import given, settings, strategies as st

from indexer.core.ranges import Slots, merged
from store import coverage, migrate
from store.connection import run
from store.database import Database


NOW = 1_000


async def add(database: Database, *ranges: tuple[int, int], key: str = "key") -> None:
    for first, last in ranges:
        await database.write(coverage.add(key, Slots(first, last), NOW))


async def covered(database: Database, key: str = "key") -> list[tuple[int, int]]:
    return [(slots.first, slots.last) for slots in await coverage.of(database, key)]


@pytest.mark.parametrize(
    ("added", "stored"),
    [
        ([(5, 9)], [(5, 9)]),
        ([(5, 9), (5, 9)], [(5, 9)]),
        ([(5, 9), (6, 7)], [(5, 9)]),
        ([(6, 7), (5, 9)], [(5, 9)]),
        ([(5, 9), (8, 12)], [(5, 12)]),
        ([(5, 9), (10, 12)], [(5, 12)]),
        ([(10, 12), (5, 9)], [(5, 12)]),
        ([(5, 9), (11, 12)], [(5, 9), (11, 12)]),
        ([(5, 9), (11, 12), (10, 10)], [(5, 12)]),
        ([(1, 2), (4, 5), (7, 8), (2, 7)], [(1, 8)]),
        ([(1, 2), (4, 5), (7, 8), (0, 100)], [(0, 100)]),
        ([(5, 9), (5, 20)], [(5, 20)]),
        ([(5, 9), (0, 9)], [(0, 9)]),
        ([(0, 0), (2**62, 2**62)], [(0, 0), (2**62, 2**62)]),
    ],
)
async def test_ranges_are_merged_as_they_are_written(
    database: Database, added: list[tuple[int, int]], stored: list[tuple[int, int]]
) -> None:
    await add(database, *added)

    assert await covered(database) == stored


async def test_each_key_has_its_own(database: Database) -> None:
    await add(database, (1, 5), key="one")
    await add(database, (6, 9), key="other")

    assert await covered(database, "one") == [(1, 5)]
    assert await covered(database, "other") == [(6, 9)]
    assert await covered(database, "unknown") == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=12))
def test_what_is_stored_is_what_was_added(ranges: list[tuple[int, int]]) -> None:
    """Compared with the same ranges merged in memory."""
    connection = apsw.Connection(":memory:")
    for migration in migrate.known():
        run(connection, migrate.batch(migration))
    added = [Slots(first, first + length) for first, length in ranges]
    for slots in added:
        for addition in coverage.add("key", slots, NOW):
            connection.execute(addition.sql, addition.parameters)

    found = connection.execute("SELECT first_slot, last_slot FROM coverage ORDER BY first_slot")
    assert [Slots(first, last) for first, last in found] == merged(added)
