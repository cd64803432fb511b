"""Signatures to look at: each once, however many sources ring about it.

A doorbell is never a fact. What does not fit is not dropped in silence: the owner is told, notes
a gap, and sweeps, which finds everything that was rung about and more.
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
    """A bounded queue that forgets what it has seen before. For one event loop."""

    def __init__(
        self,
        *,
        waiting_max: int = DOORBELLS_MAX,
        remembered_max: int = REMEMBERED_MAX,
        on_overflow: Callable[[int], object] | None = None,
    ) -> None:
        """Nothing waits yet.

        Args:
            waiting_max: how many may wait.
            remembered_max: how many are known when they ring again; not fewer than may wait.
            on_overflow: called for each that did not fit, with the slot it is said to be in, or
                0; must not block.
        """
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
            if self._on_overflow is not None:
                self._on_overflow(slot)
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
