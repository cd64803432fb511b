"""Reads from a libSQL server: from its replicas where there are any, and never from the past.

A replica is a little behind its primary, so what was just told to somebody could be gone again
when he asks the next time, from this process or from another one. So every read asks the primary
first how far it has come, and the replica answers once it has come as far. That question is tiny,
and one serves all reads that wait for it: however many reads there are, the primary answers one
question at a time, and the replicas do the work.

    read ──► how far is the primary? ──► the replica's answer, not before it is as far
    read ──┘ (one question for both)

While the primary is away, nothing can be written that could be missed. Reads go on then, from a
replica that has come as far as anything that this process has written, read or been told.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from indexer.errors import StoreUnavailable
from store.connection import Rows, Statement
from store.hrana import ReadRequest, Unreadable
from store.libsql import Lost, Server
from store.libsql_writer import LibsqlWriter


log = structlog.get_logger(__name__)

#: Seconds for one batch of reads on the primary.
READ_TIMEOUT_S: Final = 5.0
#: Seconds that a replica has, until another server is asked.
REPLICA_TIMEOUT_S: Final = 1.0
#: Seconds that the primary has to say how far it is, and for which it is not asked again when it
#: did not.
INDEX_TIMEOUT_S: Final = 1.0
AWAY_S: Final = 1.0
#: Seconds for which a replica that did not answer is asked last.
RESTING_S: Final = 2.0

_HOW_FAR: Final = (Statement("SELECT 1"),)


class Replica:
    """One replica, and how it does.

    Attributes:
        resting_until: loop time; until then others are asked first.
        under_way: reads that it has not answered yet.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.resting_until = 0.0
        self.under_way = 0


class LibsqlReaders:
    """Answers read batches, each from one moment, after every write that was told to anybody.

    Attributes:
        index: the highest replication index that this process knows; None: none yet.
        primary_away: the primary did not say how far it is.
    """

    def __init__(self, primary: Server, replicas: Sequence[Server], writer: LibsqlWriter) -> None:
        """Takes the servers, which are open; closes the replicas' only.

        Args:
            primary: where writes go.
            replicas: asked instead of it; none: it answers itself.
            writer: whose writes must be seen.
        """
        self._loop = asyncio.get_running_loop()
        self._primary = primary
        self._replicas = [Replica(server) for server in replicas]
        self._writer = writer
        self._index: int | None = None
        self._away_until = 0.0
        self._asking: asyncio.Task[None] | None = None  # under way
        self._next: asyncio.Task[None] | None = None  # begins when that one has ended
        self._closing = False

    @property
    def index(self) -> int | None:
        """The highest replication index that this process knows."""
        known = [each for each in (self._index, self._writer.index) if each is not None]
        return max(known, default=None)

    @property
    def primary_away(self) -> bool:
        """Whether the primary did not answer a moment ago."""
        return self._loop.time() < self._away_until

    async def read(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows of each statement, all from the same moment.

        Raises:
            StoreUnavailable: busy, out of reach, closed; no replica is as far as it must be.
        """
        if self._closing:
            raise StoreUnavailable("the database is closed")
        request = ReadRequest(batch)
        if not self._replicas:
            return await self._asked(self._primary, request, None, READ_TIMEOUT_S)
        await self._catch_up()
        problems = []
        for replica in self._in_order():
            try:
                return await self._of_replica(replica, request)
            except StoreUnavailable as error:
                replica.resting_until = self._loop.time() + RESTING_S
                problems.append(str(error))
        if self.primary_away:
            raise StoreUnavailable("; ".join(problems))
        return await self._asked(self._primary, request, None, READ_TIMEOUT_S)

    async def close(self) -> None:
        """Closes the connections; reads under way fail."""
        self._closing = True
        for task in (self._asking, self._next):
            if task is not None:
                task.cancel()
        for replica in self._replicas:
            await replica.server.close()

    def _in_order(self) -> list[Replica]:
        """Those first that are well and have the least to do."""
        now = self._loop.time()
        return sorted(self._replicas, key=lambda each: (each.resting_until > now, each.under_way))

    async def _of_replica(self, replica: Replica, request: ReadRequest) -> list[Rows]:
        replica.under_way += 1
        try:
            return await self._asked(replica.server, request, self.index, REPLICA_TIMEOUT_S)
        finally:
            replica.under_way -= 1

    async def _asked(
        self, server: Server, request: ReadRequest, index: int | None, timeout_s: float
    ) -> list[Rows]:
        try:
            raw = await server.post(request.body(index=index), timeout_s=timeout_s)
        except Lost:
            # A connection that the server had closed looks like this, at once. Reads may be
            # repeated; one that timed out has had its time.
            raw = await server.post(request.body(index=index), timeout_s=timeout_s)
        try:
            rows, at = request.outcome(raw)
        except Unreadable as error:
            raise StoreUnavailable(f"{server.name} answered, but {error}") from error
        self._know(at)
        return rows

    def _know(self, index: int | None) -> None:
        if index is not None and (self._index is None or index > self._index):
            self._index = index

    # ---------------------------------------------------------------- how far the primary is

    async def _catch_up(self) -> None:
        """Returns when the index is known that the primary had after this call, or it is away."""
        if self.primary_away:
            return
        if self._next is None:
            self._next = asyncio.create_task(self._ask(self._asking), name="store-index")
        await asyncio.shield(self._next)

    async def _ask(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        self._asking, self._next = asyncio.current_task(), None
        known = self.index
        request = ReadRequest(_HOW_FAR)
        try:
            raw = await self._primary.post(request.body(), timeout_s=INDEX_TIMEOUT_S)
            _, index = request.outcome(raw)
        except (StoreUnavailable, Unreadable) as error:
            self._away_until = self._loop.time() + AWAY_S
            log.warning("store.primary_away", error=str(error))
            return
        if index is not None and known is not None and index < known:
            self._begin_anew(known, index)
        self._know(index)

    def _begin_anew(self, known: int, index: int) -> None:
        """The database is another one than before: it was restored from a backup."""
        log.error("store.went_back", known_index=known, index=index)
        self._index = index
        self._writer.index = None
