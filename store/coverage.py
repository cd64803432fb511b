"""Which slots were examined for a key, whoever examined them: sweeps, repairs, replays."""

from indexer.core.ranges import Slots
from store.database import Database, Statement
from store.queries import QUERIES


def add(key: str, slots: Slots, now: int) -> list[Statement]:
    """Everything finalized in these slots that carries the key is stored.

    Belongs into the batch that stores the last of it, or into a later one.
    """
    return [
        Statement(QUERIES["coverage_add"], (key, slots.first, slots.last, now)),
        Statement(QUERIES["coverage_tidy"], (key,)),
    ]


async def of(database: Database, key: str) -> list[Slots]:
    """The ranges of one key, ascending; they neither overlap nor touch."""
    [found] = await database.read([Statement(QUERIES["coverage_of"], (key,))])
    return [Slots(first, last) for first, last in found]
