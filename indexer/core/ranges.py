"""Ranges of slots: what was examined, and what is missing between them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Slots:
    """All slots from `first` to `last`, both included. Never empty."""

    first: int
    last: int

    def __post_init__(self) -> None:
        """A range that ends before it begins is a mistake of ours."""
        if not 0 <= self.first <= self.last:
            raise ValueError(f"slots {self.first} to {self.last} are no range")

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, slot: int) -> bool:
        return self.first <= slot <= self.last


def merged(ranges: Iterable[Slots]) -> list[Slots]:
    """The same slots in as few ranges as possible, ascending."""
    whole: list[Slots] = []
    for each in sorted(ranges):
        if whole and each.first <= whole[-1].last + 1:
            whole[-1] = Slots(whole[-1].first, max(whole[-1].last, each.last))
        else:
            whole.append(each)
    return whole


def missing(wanted: Slots, ranges: Iterable[Slots]) -> Sequence[Slots]:
    """The slots of `wanted` that are in none of the ranges, ascending."""
    holes: list[Slots] = []
    begin = wanted.first
    for each in merged(ranges):
        if each.first > wanted.last:
            break
        if each.first > begin:
            holes.append(Slots(begin, each.first - 1))
        begin = max(begin, each.last + 1)
    if begin <= wanted.last:
        holes.append(Slots(begin, wanted.last))
    return holes
