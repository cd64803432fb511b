"""The exact sliding window: a log of what was let through, one entry for each.

A request is let through when fewer than `quota` entries are younger than the window, so that no
window of that length, wherever it begins, ever holds more. What was refused leaves no entry. An
entry that is exactly as old as the window has left it.

`store/sliding_log.lua` is the same in Redis; a test holds both to one another, and to a count by
hand. Everything is whole microseconds: a Lua number holds those of today exactly.

A clock may be set back. Then the newest entry lies in the future, and the whole log is moved so
that it is of now: entries are only ever taken for younger than they are, and nobody waits longer
than a window.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from indexer.core.rate import Rate


US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a request found a log, and how it left it.

    Attributes:
        has_room: the log would let the request through.
        remaining: how many more it would let through now.
        reset_us: until it would let through one more than that; 0 when it is empty.
    """

    has_room: bool
    remaining: int
    reset_us: int


class SlidingLog:
    """When requests were let through, the oldest first."""

    __slots__ = ("_times", "window_us")

    def __init__(self, window_us: int) -> None:
        self.window_us = window_us
        self._times = array("q")

    def __len__(self) -> int:
        return len(self._times)

    def note(self, at_us: int) -> None:
        """Enters one; entries may come out of order."""
        insort(self._times, at_us)

    def withdraw(self, at_us: int) -> None:
        """Takes one of that moment back, if it is still there."""
        place = bisect_left(self._times, at_us)
        if place < len(self._times) and self._times[place] == at_us:
            del self._times[place]

    def forget(self, now_us: int) -> None:
        """Drops what has left the window."""
        if self._times and self._times[-1] > now_us:
            ahead_us = self._times[-1] - now_us
            self._times = array("q", (each - ahead_us for each in self._times))
        del self._times[: bisect_right(self._times, now_us - self.window_us)]

    def reset_us(self, quota: int, now_us: int) -> int:
        """Until one more is let through than now; 0 when it is empty."""
        if not self._times:
            return 0
        above = max(0, len(self._times) - quota)  # the quota may have been lowered
        return self._times[above] + self.window_us - now_us


def look(logs: Sequence[SlidingLog], rates: Sequence[Rate], now_us: int) -> tuple[Standing, ...]:
    """How a request would find the logs; nothing is entered."""
    for log in logs:
        log.forget(now_us)
    pairs = zip(logs, rates, strict=True)
    return tuple(
        _standing(log, rate, now_us, has_room=len(log) < rate.quota) for log, rate in pairs
    )


def take(logs: Sequence[SlidingLog], rates: Sequence[Rate], now_us: int) -> tuple[Standing, ...]:
    """Enters one request into all of the logs, or into none where one has no room.

    Args:
        logs: all of them different.
        rates: what each of them allows.
        now_us: by a clock that may go back.

    Returns:
        How each stands; the request was let through when all of them had room.
    """
    found = look(logs, rates, now_us)
    if not all(standing.has_room for standing in found):
        return found
    for log in logs:
        log.note(now_us)
    pairs = zip(logs, rates, strict=True)
    return tuple(_standing(log, rate, now_us, has_room=True) for log, rate in pairs)


def _standing(log: SlidingLog, rate: Rate, now_us: int, *, has_room: bool) -> Standing:
    return Standing(
        has_room=has_room,
        remaining=max(0, rate.quota - len(log)),
        reset_us=log.reset_us(rate.quota, now_us),
    )
