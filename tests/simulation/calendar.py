"""The clock of a world in which days pass: it runs with the loop, and leaps where nothing happens.

What polls, polls in the loop's seconds. A leap only moves the time that is written down, as for
a machine that was asleep: so a week costs no more than what happens in it.
"""

import asyncio
from contextlib import suppress

from tests.simulation.chain import EPOCH
from tests.simulation.loop import BEGINNING_S, VirtualLoop


class Calendar:
    """Unix seconds.

    Attributes:
        leapt_s: how many seconds were left out so far.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.leapt_s = 0.0
        self._loop = loop
        self._awaited: list[float] = []
        self._leapt = asyncio.Event()

    def now(self) -> float:
        """Unix seconds."""
        return EPOCH + self._loop.time() - BEGINNING_S + self.leapt_s

    @property
    def next_at(self) -> float | None:
        """The next time that somebody in the world waits for; None: nobody waits."""
        return min(self._awaited, default=None)

    async def until(self, unix_s: float) -> None:
        """Returns at that time, or soon after a leap over it."""
        self._awaited.append(unix_s)
        try:
            while (left_s := unix_s - self.now()) > 0:
                leapt = self._leapt
                with suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await leapt.wait()
        finally:
            self._awaited.remove(unix_s)

    async def sleep(self, delay_s: float) -> None:
        """Returns after so many seconds."""
        await self.until(self.now() + delay_s)

    def leap(self, unix_s: float) -> None:
        """It is that time now; a time that is over changes nothing."""
        self.leapt_s += max(0.0, unix_s - self.now())
        leapt, self._leapt = self._leapt, asyncio.Event()
        leapt.set()
