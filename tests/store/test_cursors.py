from dataclasses import replace

import pytest

from indexer.errors import Conflict
from store import cursors
from store.cursors import Frontier
from store.database import Database, Statement


FRONTIER = Frontier(key="watch", slot=100, block_time=1_000, updated_at=1_010)


async def test_a_frontier_is_kept_for_each_key(database: Database) -> None:
    other = replace(FRONTIER, key="other", slot=7)
    await database.write([cursors.advance(FRONTIER), cursors.advance(other)])

    assert await cursors.get(database, "watch") == FRONTIER
    assert await cursors.get(database, "other") == other
    assert await cursors.get(database, "unknown") is None


async def test_the_times_of_many_keys_are_read_at_once(database: Database) -> None:
    other = replace(FRONTIER, key="other", block_time=7)
    await database.write([cursors.advance(FRONTIER), cursors.advance(other)])

    times = await cursors.times(database, ["watch", "other", "unknown"])

    assert times == {"watch": 1_000, "other": 7}
    assert await cursors.times(database, []) == {}


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (replace(FRONTIER, slot=101, block_time=1_001, updated_at=1_020), None),
        (replace(FRONTIER, updated_at=1_020), None),
        (replace(FRONTIER, slot=99, updated_at=1_020), FRONTIER),
        (replace(FRONTIER, slot=99, block_time=2_000, updated_at=1_020), FRONTIER),
        # Blocks' times are estimates and may step back a little.
        (
            replace(FRONTIER, slot=101, block_time=998),
            replace(FRONTIER, slot=101, block_time=1_000),
        ),
    ],
)
async def test_a_frontier_never_moves_back(
    database: Database, later: Frontier, expected: Frontier | None
) -> None:
    await database.write([cursors.advance(FRONTIER)])
    await database.write([cursors.advance(later)])

    assert await cursors.get(database, "watch") == (expected or later)


@pytest.mark.parametrize("change", ["slot = slot - 1", "block_time = block_time - 1"])
async def test_not_even_by_other_means(database: Database, change: str) -> None:
    await database.write([cursors.advance(FRONTIER)])

    with pytest.raises(Conflict, match="a frontier never moves back"):
        await database.write([Statement(f"UPDATE cursors SET {change}")])  # noqa: S608 - a case of the table above
