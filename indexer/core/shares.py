"""How several indexers divide work: what each takes, and what it gives up.

Work comes in units of some kinds. Of each kind every indexer does its share: the number of units
divided by that of indexers. Whoever has more gives up what is too much; whoever has less takes
what nobody does. Nobody talks to anybody: each decides from what all see.
"""

import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final


#: Parts into which what has no key of its own is divided. More than there will be indexers, so
#: that their shares are about even, and few enough to be looked at by people.
SHARDS: Final = 16


def key_unit(key: str) -> str:
    """The unit of a watch key: its subscription, its sweeps, and what expires by them."""
    return f"key:{key}"


def shard_unit(shard: int) -> str:
    """The unit of one shard of everything else."""
    return f"shard:{shard:02}"


#: Of all shards, in their order.
SHARD_UNITS: Final = tuple(shard_unit(shard) for shard in range(SHARDS))


def unit_of(name: str) -> str:
    """The unit that something of that name belongs to: the same in every process."""
    return SHARD_UNITS[zlib.crc32(name.encode()) % SHARDS]


@dataclass(frozen=True, slots=True)
class Division:
    """What one indexer does next.

    Attributes:
        take: units that nobody does.
        leave: units of its own that are too much.
    """

    take: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()


def divide(
    kinds: Iterable[Sequence[str]],
    holders: Mapping[str, str],
    present: Collection[str],
    *,
    me: str,
) -> Division:
    """What to take and what to leave.

    Args:
        kinds: the units of each kind.
        holders: who has which unit; one that is missing was never taken.
        present: the indexers that are there.
        me: one of them.
    """
    there = {*present, me}
    take: list[str] = []
    leave: list[str] = []
    for units in kinds:
        held = Counter(holder for unit in units if (holder := holders.get(unit)) in there)
        # What cannot be divided evenly stays where it is: who has more has the first choice.
        ranks = sorted(there, key=lambda each: (-held[each], each))
        whole, rest = divmod(len(units), len(ranks))
        lacking = [max(whole + (rank < rest) - held[each], 0) for rank, each in enumerate(ranks)]
        rank = ranks.index(me)
        mine = [unit for unit in units if holders.get(unit) == me]
        leave += mine[whole + (rank < rest) :]
        free = [unit for unit in units if holders.get(unit) not in there]
        # Whoever sees the same leaves each his own: two do not want the same.
        start = sum(lacking[:rank])
        take += free[start : start + lacking[rank]]
    return Division(tuple(take), tuple(leave))
