"""The clock of a world in which days pass: it leaps where nothing happens.

A leap is what a process sees that was frozen meanwhile, with its machine: all that waited for a
time before it goes on at once, in order. So a week costs no more than what happens in it.
"""

import asyncio

from tests.simulation.chain import EPOCH
from tests.simulation.loop import BEGINNING_S, VirtualLoop


class Calendar:
    """Unix seconds."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._awaited: list[float] = []

    def now(self) -> float:
        """Unix seconds."""
        return EPOCH + self._loop.time() - BEGINNING_S

    @property
    def next_at(self) -> float | None:
        """The next time that somebody in the world waits for; None: nobody waits."""
        return min(self._awaited, default=None)

    async def until(self, unix_s: float) -> None:
        """Returns at that time, or soon after a leap over it."""
        self._awaited.append(unix_s)
        try:
            await asyncio.sleep(max(0.0, unix_s - self.now()))
        finally:
            self._awaited.remove(unix_s)

    async def sleep(self, delay_s: float) -> None:
        """Returns after so many seconds."""
        await self.until(self.now() + delay_s)

    def leap(self, unix_s: float) -> None:
        """It is that time now; a time that is over changes nothing."""
        self._loop.leap(unix_s - self.now())
