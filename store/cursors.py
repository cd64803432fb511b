"""Frontiers: up to where everything finalized under a watched key is stored."""

from dataclasses import dataclass

from store.database import Database, Statement
from store.queries import QUERIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """Up to where one key is complete.

    Attributes:
        key: base58 of the watched key.
        slot: everything finalized up to this slot is stored.
        block_time: unix seconds of that slot's block.
        updated_at: unix seconds, when a sweep last got there.
    """

    key: str
    slot: int
    block_time: int
    updated_at: int


def advance(frontier: Frontier) -> Statement:
    """Moves a frontier on; one that lies behind the stored one changes nothing."""
    values = (frontier.key, frontier.slot, frontier.block_time, frontier.updated_at)
    return Statement(QUERIES["cursor_advance"], values)


async def get(database: Database, key: str) -> Frontier | None:
    """The frontier of one key; None before its first complete sweep."""
    [found] = await database.read([Statement(QUERIES["cursor_get"], (key,))])
    return _frontier(*found[0]) if found else None


async def all_of(database: Database) -> list[Frontier]:
    """Every frontier there is."""
    [found] = await database.read([Statement(QUERIES["cursors_all"])])
    return [_frontier(*row) for row in found]


def _frontier(key: str, slot: int, block_time: int, updated_at: int) -> Frontier:
    return Frontier(key=key, slot=slot, block_time=block_time, updated_at=updated_at)
