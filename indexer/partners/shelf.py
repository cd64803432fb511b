"""Bytes that are kept for a while: in Redis where it is there, and else in this process.

Whatever is lost costs one more call to a partner, and nothing else.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from indexer.errors import SharedUnavailable
from store.shared import Script, Shared


#: What this process keeps by itself, in bytes; the oldest makes room.
BYTES_MAX: Final = 32 * 1024 * 1024
#: One value, in bytes. A longer one is not kept: Redis serves others, too.
VALUE_BYTES_MAX: Final = 1024 * 1024
#: What a value costs beside its own bytes, roughly.
_OVERHEAD_BYTES: Final = 300

_LOOK: Final = Script("return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}")


@dataclass(frozen=True, slots=True)
class Kept:
    """A value, and for how long it is still good.

    Attributes:
        left_s: seconds.
    """

    value: bytes
    left_s: float


async def look(shared: Shared, key: str) -> Kept | None:
    """What Redis keeps there; None: nothing.

    Raises:
        SharedUnavailable: it does not say.
    """
    value, left_ms = await shared.script(_LOOK, [key], [])
    return None if value is None or left_ms <= 0 else Kept(value, left_ms / 1000)


class Shelf:
    """Values of one process, and through Redis those of all."""

    def __init__(self, shared: Shared | None, monotonic: Callable[[], float]) -> None:
        """Nothing is kept yet.

        Args:
            shared: Redis; None: this process is alone.
            monotonic: seconds of a clock that only goes forward.
        """
        self._shared = shared
        self._own = _Own(monotonic)

    async def get(self, key: str) -> Kept | None:
        """What is kept there; None: nothing, or nothing any more."""
        if self._shared is not None:
            try:
                return await look(self._shared, key)
            except SharedUnavailable:
                pass
        return self._own.get(key)

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Keeps it for so long, if it is not too long for that."""
        if len(value) > VALUE_BYTES_MAX or ttl_s <= 0:
            return
        if self._shared is not None:
            try:
                await self._shared.put(key, value, ttl_ms=max(1, round(ttl_s * 1000)))
            except SharedUnavailable:
                pass
            else:
                return
        self._own.put(key, value, ttl_s)


class _Own:
    """What this process keeps by itself: bounded, and the least recently used goes first."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._size = 0

    def get(self, key: str) -> Kept | None:
        found = self._values.get(key)
        if found is None:
            return None
        value, until = found
        left_s = until - self._monotonic()
        if left_s <= 0:
            self._drop(key)
            return None
        self._values.move_to_end(key)
        return Kept(value, left_s)

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self._drop(key)
        self._values[key] = value, self._monotonic() + ttl_s
        self._size += _size(key, value)
        while self._size > BYTES_MAX:
            self._drop(next(iter(self._values)))

    def _drop(self, key: str) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._size -= _size(key, found[0])


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD_BYTES
