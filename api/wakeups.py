"""Says within this process that something was committed, and nothing of what it was.

A wake-up carries no data: whoever waits reads the database again after what it has seen last.
So a wake-up that is lost, or comes from another process and never arrives, costs the time until
the next look, never an event.
"""

import asyncio


class Wakeups:
    """Wakes all who wait, at once. To be used from the event loop's own thread.

    Attributes:
        count: how often `wake` was called; taken before a read and given to `wait`, it closes
            the gap between the two.
    """

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()

    def wake(self) -> None:
        """Tells everyone to look again: call it after a commit, never before."""
        self.count += 1
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, timeout_s: float, *, since: int | None = None) -> None:
        """Returns at the next wake-up, or after `timeout_s` seconds without one.

        Args:
            timeout_s: how long to wait at most.
            since: `count` as it was before the caller last read; a wake-up that came after it
                is not waited for again.
        """
        if since is not None and since != self.count:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._next.wait()
        except TimeoutError:
            return
