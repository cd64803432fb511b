"""What may be claimed once all of a range of slots is stored: coverage, frontiers, whole lives.

A frontier says that a key is complete up to a slot, and payments expire by it. So it moves only
where nothing is left out between what it said and what was examined, and it begins only where
nothing that matters can lie before. Every claim is a condition in the statement itself: somebody
else may have moved the same frontier meanwhile.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from indexer.blocks import LOOKAHEAD_GROWTH, LOOKAHEAD_SLOTS
from indexer.core.ranges import Slots
from indexer.sources.rpc import Rpc
from store import coverage, cursors, gaps, watching
from store.cursors import Frontier
from store.database import Database, Statement


#: Seconds by which our clock and the blocks' may differ.
CLOCKS_DIFFER_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Block times (unix seconds) of the first and last blocks of a range; None when unknown."""

    first: int | None
    last: int | None


class Claims:
    """What follows from a range."""

    def __init__(self, database: Database, rpc: Rpc, *, clock: Callable[[], float]) -> None:
        self._database = database
        self._rpc = rpc
        self._clock = clock

    async def times(self, slots: Slots) -> Times:
        """When the first and the last block that are listed of the range were made.

        Should a node leave some out, less is claimed.
        """
        first, last = await self._first_block(slots), await self._last_block(slots)
        return Times(
            first=None if first is None else await self._rpc.block_time(first),
            last=None if last is None else await self._rpc.block_time(last),
        )

    async def of(
        self,
        key: str,
        slots: Slots,
        times: Times,
        *,
        foreign: Collection[str],
        looked_for_before: int | None,
    ) -> list[Statement]:
        """What to write for a key, once everything of the range that carries it is stored.

        Args:
            key: base58.
            slots: all of the range.
            times: of the range.
            foreign: references that were made elsewhere, which may have been paid before we
                heard of them.
            looked_for_before: the references of all payments made before this time (unix
                seconds) were looked for as well, by their own; None when none was.
        """
        now = int(self._clock())
        batch = coverage.add(key, slots, now)
        if times.last is not None:
            frontier = Frontier(key=key, slot=slots.last, block_time=times.last, updated_at=now)
            batch.append(cursors.advance_over_coverage(frontier))
            since = _made_within(slots, times)
            if since is not None and await self._may_begin(key, slots, since, foreign):
                batch.append(cursors.advance_from(frontier, slots.first))
            if since is not None and looked_for_before is not None:
                lives = {"created_from": since, "created_before": looked_for_before}
                batch.append(cursors.advance_whole_lives(frontier, slots.first, **lives))
        return [*batch, gaps.close_covered(key, now)]

    async def _may_begin(
        self, key: str, slots: Slots, since: int, foreign: Collection[str]
    ) -> bool:
        """Whether nothing that matters to a key can have happened before the range."""
        if key in foreign and slots.first > 0:
            return False
        oldest = await watching.oldest_payable(self._database, key, now=int(self._clock()))
        return oldest is None or oldest >= since

    async def _first_block(self, slots: Slots) -> int | None:
        """The first slot of the range of which a block is listed."""
        begin, span = slots.first, LOOKAHEAD_SLOTS
        while begin <= slots.last:
            end = min(begin + span - 1, slots.last)
            if listed := await self._rpc.blocks(begin, end):
                return listed[0]
            begin, span = end + 1, span * LOOKAHEAD_GROWTH
        return None

    async def _last_block(self, slots: Slots) -> int | None:
        """The last one; its time is no later than that of the last slot."""
        end, span = slots.last, LOOKAHEAD_SLOTS
        while end >= slots.first:
            begin = max(end - span + 1, slots.first)
            if listed := await self._rpc.blocks(begin, end):
                return listed[-1]
            end, span = begin - 1, span * LOOKAHEAD_GROWTH
        return None


def _made_within(slots: Slots, times: Times) -> int | None:
    """Payments made since then cannot have been paid before the range; None: nobody knows."""
    if slots.first == 0:
        return 0
    return None if times.first is None else times.first + CLOCKS_DIFFER_S
