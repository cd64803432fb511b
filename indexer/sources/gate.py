"""How much is asked of one endpoint at once, and who goes first when that is not enough.

Requests wait here for two things: one of so many places, and their turn at so many a second.
Both are given to the most urgent, and among equals to the one that came first.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from indexer.sources.priority import Priority


#: The rate bound may be overdrawn by this much time, so that a short batch need not queue.
BURST_S: Final = 0.25

#: The shortest time that a timer is set to, in seconds: event loops round down to milliseconds,
#: and would go round and round until the rest has passed.
_TIMER_S_MIN: Final = 0.001


class Pace:
    """Spaces requests out: a token bucket that is kept as one point in time."""

    def __init__(self, rate: float) -> None:
        self._interval_s = 1 / rate if rate > 0 else 0.0
        self._last_at = float("-inf")

    def next_at(self, now: float) -> float:
        """When one more request may go: `now`, or later."""
        return max(now, self._last_at + self._interval_s)

    def take(self, now: float) -> None:
        """One request goes now."""
        self._last_at = max(self._last_at + self._interval_s, now - BURST_S)


class Gate:
    """A semaphore and a pace with a queue in order of priority. For one event loop."""

    def __init__(self, concurrency: int, rate: float) -> None:
        self._free = concurrency
        self._pace = Pace(rate)
        self._waiting: dict[Priority, OrderedDict[asyncio.Future[None], None]] = {
            priority: OrderedDict() for priority in Priority
        }
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def place(self, priority: Priority) -> AsyncIterator[None]:
        """One request's place, from its turn until the block is left."""
        await self._enter(priority)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, priority: Priority) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue = self._waiting[priority]
        queue[turn] = None
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # cancelled between being let in and going in
            queue.pop(turn, None)
            raise

    def _leave(self) -> None:
        self._free += 1
        self._let_in()

    def _let_in(self) -> None:
        """As many as there is room and time for; a timer when only time is missing."""
        loop = asyncio.get_running_loop()
        while self._free and (queue := self._first_queue()) is not None:
            now = loop.time()
            if (next_at := self._pace.next_at(now)) > now:
                if self._timer is None:
                    self._timer = loop.call_at(max(next_at, now + _TIMER_S_MIN), self._on_time)
                return
            turn, _ = queue.popitem(last=False)
            self._pace.take(now)
            self._free -= 1
            turn.set_result(None)

    def _first_queue(self) -> OrderedDict[asyncio.Future[None], None] | None:
        """The queue of the most urgent request, with that one at its head; None when none waits."""
        for queue in self._waiting.values():
            while queue and next(iter(queue)).done():
                queue.popitem(last=False)  # cancelled, and did not run since
            if queue:
                return queue
        return None

    def _on_time(self) -> None:
        self._timer = None
        self._let_in()
