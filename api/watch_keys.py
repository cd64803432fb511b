"""Which watch key a new payment gets: the one that is meant for its caller, else a shared one.

The list is read from the database and kept for a moment, so that a rotation is noticed within
seconds. In these a payment may still get a key that was retired just now: whatever key an open
payment carries is watched.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

from indexer.core.creation import Policy
from indexer.errors import InvariantError
from store import watch_keys
from store.database import Database
from store.watch_keys import Purpose, WatchKey


#: Seconds for which the list is kept: as long as an API key is.
KEPT_S: Final = 2.0


class WatchKeys:
    """Makes the policy of each payment."""

    def __init__(
        self,
        database: Database,
        policy: Callable[[str, frozenset[str]], Policy],
        *,
        monotonic: Callable[[], float],
    ) -> None:
        """Nothing is read yet.

        Args:
            database: where the keys are.
            policy: what the deployment allows, from the key of a payment and the set of all.
            monotonic: seconds, by which the list is forgotten.
        """
        self._database = database
        self._policy = policy
        self._monotonic = monotonic
        self._turn = itertools.count()
        self._known: tuple[float, list[WatchKey]] | None = None
        self._reading = asyncio.Lock()

    async def policy(self, reserved: str | None = None) -> Policy:
        """What a payment may be, with the watch key that it gets.

        Args:
            reserved: the key that is meant for the caller; None: any that is shared, in turn.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        known = await self._read()
        in_use = {each.key: each for each in known if each.retired_at is None}
        every = frozenset(each.key for each in known)
        if reserved is not None and reserved in in_use:
            return self._policy(reserved, every)
        shared = [key for key, each in in_use.items() if each.purpose is Purpose.SHARED]
        if not shared:
            raise InvariantError("no shared watch key is in use; one always is")
        return self._policy(shared[next(self._turn) % len(shared)], every)

    async def _read(self) -> list[WatchKey]:
        async with self._reading:  # one asks, and all who wait for it have the answer
            now = self._monotonic()
            if self._known is None or now - self._known[0] >= KEPT_S:
                self._known = (now, await watch_keys.listing(self._database))
            return self._known[1]
