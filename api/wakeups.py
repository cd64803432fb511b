"""Says that something was committed, and nothing of what it was: here, and to other processes.

A wake-up carries no data: whoever waits reads the database again after what it has seen last.
So a wake-up that is lost, or comes from another process and never arrives, costs the time until
the next look, never an event.
"""

import asyncio
from contextlib import suppress
from typing import Final, NoReturn

from indexer.errors import SharedUnavailable
from indexer.log import get_logger
from store.shared import Shared


log = get_logger(__name__)

_CHANNEL: Final = "woken"
#: Seconds between two messages to other processes, however often something is committed here.
BREATH_S: Final = 0.01
#: Seconds until a connection that broke is tried again.
PAUSE_S: Final = 0.5
#: Seconds after which there is another look whether there is something to tell.
_IDLE_S: Final = 60.0


class Wakeups:
    """Wakes all who wait, at once. To be used from the event loop's own thread.

    Attributes:
        count: how often there was one; taken before a read and given to `wait`, it closes
            the gap between the two.
        own: how many of them are of this process.
    """

    def __init__(self) -> None:
        self.count = 0
        self.own = 0
        self._next = asyncio.Event()

    def wake(self) -> None:
        """Tells everyone to look again: call it after a commit, never before."""
        self.own += 1
        self.heard()

    def heard(self) -> None:
        """The same, because of a commit of another process."""
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


class Bell:
    """Passes wake-ups on to other processes, and theirs to this one, through Redis.

    All of it may be lost at any time: who waits looks again soon in any case.
    """

    def __init__(self, wakeups: Wakeups, shared: Shared) -> None:
        """Nothing is passed on before `run`."""
        self._wakeups = wakeups
        self._shared = shared

    async def run(self) -> NoReturn:
        """Tells and listens for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell(), name="bell:tell")
            await self._listen()

    async def _tell(self) -> NoReturn:
        told = self._wakeups.own
        while True:
            seen = self._wakeups.count
            if self._wakeups.own == told:
                await self._wakeups.wait(_IDLE_S, since=seen)
                continue
            told = self._wakeups.own
            with suppress(SharedUnavailable):  # which `Shared` has said already
                await self._shared.say(_CHANNEL)
            await asyncio.sleep(BREATH_S)

    async def _listen(self) -> NoReturn:
        while True:
            try:
                async for _ in self._shared.messages(_CHANNEL):
                    self._wakeups.heard()
            except SharedUnavailable as error:
                log.debug("bell.silent", error=str(error))
            await asyncio.sleep(PAUSE_S)
