"""Which keys are watched: the deployment's watch keys, and the references that lack one.

Every payment whose URL was made here carries a watch key beside its own reference: one
subscription and one cursor find all that carry the same. A key that was retired is watched until
the grace time of all of them is over. A payment whose URL was made elsewhere has none; its own
reference is then watched. A node allows only so many subscriptions: what is beyond the bound is
swept, a few at a time, and found a little later.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog

from indexer.errors import StoreUnavailable
from indexer.tenure import Everything, Share
from store import watching
from store.database import Database


log = structlog.get_logger(__name__)

#: References that are subscribed to one by one, the newest first.
SUBSCRIPTIONS_MAX: Final = 100
#: References that are watched at all; older ones wait until newer ones are closed.
FOREIGN_MAX: Final = 10_000
#: References that are swept in one round, beside the watch keys.
SWEPT_PER_ROUND: Final = 20
#: Seconds after which the list is read again, if nobody wakes us.
REFRESH_INTERVAL_S: Final = 2.0


class Watched:
    """The keys, as they are now."""

    def __init__(
        self,
        database: Database,
        watch_keys: Iterable[str],
        *,
        clock: Callable[[], float],
        share: Share | None = None,
    ) -> None:
        """Knows the watch keys of the start, so that nothing waits for the first `refresh`.

        Args:
            database: where payments are.
            watch_keys: those of the start.
            clock: unix seconds.
            share: which of them are watched here; all when None.
        """
        self._database = database
        self._clock = clock
        self._share = share or Everything()
        self._watch_keys: tuple[str, ...] = tuple(watch_keys)
        self._foreign: tuple[str, ...] = ()
        self._turn = 0

    def all(self) -> tuple[str, ...]:
        """The watch keys, those of before a rotation among them, whoever watches them."""
        return self._watch_keys

    def to_subscribe(self) -> tuple[str, ...]:
        """The keys that deserve a subscription of this indexer."""
        foreign = [key for key in self._foreign[:SUBSCRIPTIONS_MAX] if self._share.does(key)]
        return (*self.shared(), *foreign)

    def shared(self) -> tuple[str, ...]:
        """The watch keys that are watched here, those of before a rotation among them, in order."""
        return tuple(key for key in self._watch_keys if self._share.keeps_key(key))

    def next_to_sweep(self) -> tuple[str, ...]:
        """The watch keys, always, and the next few of the references, in turn."""
        keys = [key for key in self._watch_keys if self._share.does_key(key)]
        foreign = [key for key in self._foreign if self._share.does(key)]
        if len(foreign) <= SWEPT_PER_ROUND:
            return (*keys, *foreign)
        start = self._turn % len(foreign)
        self._turn = start + SWEPT_PER_ROUND
        return (*keys, *(foreign + foreign)[start : start + SWEPT_PER_ROUND])

    async def refresh(self) -> bool:
        """Reads the list from the store; True when it changed."""
        now = int(self._clock())
        foreign = tuple(await watching.foreign(self._database, now=now, limit=FOREIGN_MAX))
        keys = tuple(await watching.watch_keys(self._database, now=now))
        changed = (keys, foreign) != (self._watch_keys, self._foreign)
        self._watch_keys, self._foreign = keys, foreign
        return changed

    async def run(
        self, *, changed: Callable[[], None], wait: Callable[[float], Awaitable[object]]
    ) -> None:
        """Keeps the list fresh for ever.

        Args:
            changed: called when a key came or went.
            wait: returns after that many seconds, or earlier when something was stored.
        """
        while True:
            try:
                if await self.refresh():
                    changed()
            except StoreUnavailable as error:
                log.warning("watch.refresh_failed", error=str(error))
            await wait(REFRESH_INTERVAL_S)
