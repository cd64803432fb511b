"""Frontiers: up to where everything finalized under a watched key is stored."""

from collections.abc import Collection
from dataclasses import dataclass

from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


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


def advance_from(frontier: Frontier, first_slot: int) -> Statement:
    """Begins a frontier, or moves one on that reaches `first_slot`; any other stays.

    Everything from `first_slot` on is stored, and nothing before it matters where there is no
    frontier yet.
    """
    values = (frontier.key, frontier.slot, frontier.block_time, frontier.updated_at, first_slot)
    return Statement(QUERIES["cursor_advance_from"], values)


def advance_over_coverage(frontier: Frontier) -> Statement:
    """Moves a frontier on, if what is covered goes on from it without a hole."""
    values = (frontier.key, frontier.slot, frontier.block_time, frontier.updated_at)
    return Statement(QUERIES["cursor_advance_over_coverage"], values)


def advance_whole_lives(
    frontier: Frontier, first_slot: int, *, created_from: int, created_before: int
) -> Statement:
    """Moves the references of open payments of a watch key that lived within what was examined.

    Args:
        frontier: of the watch key; all that carries any reference is stored up to there.
        first_slot: from where on.
        created_from: unix seconds; payments made since, whose deadline the frontier has passed.
        created_before: unix seconds; those made later were not looked for.
    """
    values = (frontier.key, frontier.slot, frontier.block_time, frontier.updated_at, first_slot)
    return Statement(
        QUERIES["cursors_advance_whole_lives"], (*values, created_from, created_before)
    )


async def get(database: Database, key: str) -> Frontier | None:
    """The frontier of one key; None before its first complete sweep."""
    [found] = await database.read([Statement(QUERIES["cursor_get"], (key,))])
    return _frontier(*found[0]) if found else None


async def several(database: Database, keys: Collection[str]) -> list[Frontier]:
    """The frontiers of these keys, in the order of the keys; those that have none are left out."""
    [found] = await database.read([Statement(QUERIES["cursors_of"], (json_text(sorted(keys)),))])
    return [_frontier(*row) for row in found]


async def times(database: Database, keys: Collection[str]) -> dict[str, int]:
    """The block time of each key's frontier, unix seconds; without the keys that have none."""
    parameters = (json_text(sorted(keys)),)
    [found] = await database.read([Statement(QUERIES["cursor_times"], parameters)])
    return dict(found)


def _frontier(key: str, slot: int, block_time: int, updated_at: int) -> Frontier:
    return Frontier(key=key, slot=slot, block_time=block_time, updated_at=updated_at)
