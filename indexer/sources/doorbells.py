"""Signatures to look at: each once, however many sources ring about it.

A doorbell is never a fact. What does not fit is not dropped in silence: `overflowed` is set,
and the owner sweeps, which finds everything that was rung about and more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


#: Doorbells that may wait to be answered.
DOORBELLS_MAX: Final = 10_000

#: Signatures that are remembered, so that the second source to ring is not answered again.
REMEMBERED_MAX: Final = 50_000


@dataclass(frozen=True, slots=True)
class Doorbell:
    """Look at this signature.

    Attributes:
        slot: where the source says that it landed; 0 when it does not say.
    """

    signature: str
    slot: int


class Doorbells:
    """A bounded queue that forgets what it has seen before. For one event loop.

    Attributes:
        overflowed: something was rung about that is neither waiting nor answered: sweep.
            The owner sets it back when the sweep begins.
    """

    def __init__(
        self,
        *,
        waiting_max: int = DOORBELLS_MAX,
        remembered_max: int = REMEMBERED_MAX,
        on_overflow: Callable[[], None] | None = None,
    ) -> None:
        self.overflowed = False
        self._waiting: deque[Doorbell] = deque()
        self._waiting_max = waiting_max
        self._remembered: dict[str, int] = {}
        self._remembered_max = max(remembered_max, waiting_max)
        self._on_overflow = on_overflow
        self._rung = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def ring(self, signature: str, slot: int = 0) -> bool:
        """Queues a signature; False when it was rung before, or did not fit.

        The same signature in another slot rings again: its first block was dropped by a fork.
        """
        known = self._remembered.get(signature)
        if known is not None and (slot in {known, 0} or known == 0):
            self._remember(signature, slot or known)
            return False
        if len(self._waiting) >= self._waiting_max:
            self._overflow()
            return False
        self._remember(signature, slot)
        self._waiting.append(Doorbell(signature, slot))
        self._rung.set()
        return True

    async def take(self, limit: int) -> list[Doorbell]:
        """The oldest doorbells, at least one and at most `limit`; waits for the first."""
        while not self._waiting:
            self._rung.clear()
            await self._rung.wait()
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    def _remember(self, signature: str, slot: int) -> None:
        self._remembered.pop(signature, None)
        self._remembered[signature] = slot
        if len(self._remembered) > self._remembered_max:
            del self._remembered[next(iter(self._remembered))]

    def _overflow(self) -> None:
        if self.overflowed:
            return
        self.overflowed = True
        if self._on_overflow is not None:
            self._on_overflow()
