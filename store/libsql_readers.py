"""Reads from a libSQL server: from its replicas where there are any, and never from the past.

A replica is a little behind its primary, so what was just told to somebody could be gone again
when he asks the next time, from this process or from another one. So every read asks the primary
first how far it has come, and counts only when it is as far. That question is tiny, and one serves
all reads that wait for it: however many reads there are, the primary answers one question at a
time, and the replicas do the work.

    read ──► which revision has the primary? ──► the replica's answer, which names its own:
    read ──┘ (one question for both)               as far: good · behind: once more, in a moment

The primary's replication index only tells the replica how long to wait before it answers. It
proves nothing: a primary that is restarted counts anew from 1.

While the primary is away, nothing can be written that could be missed. Reads go on then, from a
replica that has come as far as anything that this process has written, read or been told; and fail
where there is none.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from indexer.errors import InvariantError, StoreUnavailable
from store.connection import Rows, Statement
from store.figures import ReplicaOutcome
from store.hrana import ReadRequest, Unreadable
from store.libsql import Server
from store.libsql_streams import Streams
from store.libsql_writer import LibsqlWriter
from store.queries import QUERIES


log = structlog.get_logger(__name__)

#: Seconds for one batch of reads on the primary.
READ_TIMEOUT_S: Final = 5.0
#: Seconds that a replica has, until another server is asked.
REPLICA_TIMEOUT_S: Final = 1.0
#: Seconds that the primary has to say how far it is, and for which it is not asked again when it
#: did not.
INDEX_TIMEOUT_S: Final = 1.0
AWAY_S: Final = 1.0
#: Seconds for which a replica that did not answer is left alone; then one read tries it.
RESTING_S: Final = 2.0
#: Seconds until a replica that was behind is asked once more; the pauses double.
BEHIND_PAUSE_S: Final = 0.002

_REVISION: Final = Statement(QUERIES["revision_get"])


class Replica:
    """One replica, and how it does.

    Attributes:
        resting_until: loop time; until then others are asked, the primary too.
        has_failed: when it was asked last.
        under_way: reads that it has not answered yet.
        turn: grows; the replica with the lowest was asked the longest ago.
        outcomes: what came of asking it.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.resting_until = 0.0
        self.has_failed = False
        self.under_way = 0
        self.turn = 0
        self.outcomes = Counter(dict.fromkeys(ReplicaOutcome, 0))

    def rest(self, now: float) -> None:
        """It did not answer; `now` is loop time."""
        self.has_failed = True
        self.resting_until = now + RESTING_S

    def recover(self) -> None:
        """It answered."""
        self.has_failed = False
        self.resting_until = 0.0


class LibsqlReaders:
    """Answers read batches, each from one moment, after every write that was told to anybody."""

    def __init__(self, primary: Server, replicas: Sequence[Server], writer: LibsqlWriter) -> None:
        """Takes the servers, which are open; closes the replicas' only.

        Args:
            primary: where writes go.
            replicas: asked instead of it; none: it answers itself.
            writer: whose writes must be seen.
        """
        self._loop = asyncio.get_running_loop()
        self._primary = primary
        self._streams = {each: Streams(each) for each in (primary, *replicas)}
        self._replicas = [Replica(server) for server in replicas]
        self._writer = writer
        self._turns = 0
        self._revision = 0
        self._index: int | None = None
        self._is_counted = True
        self._away_until = 0.0
        self._asking: asyncio.Task[None] | None = None  # under way
        self._next: asyncio.Task[None] | None = None  # begins when that one has ended
        self._closing = False

    @property
    def revision(self) -> int:
        """The highest revision that this process knows of."""
        return max(self._revision, self._writer.revision or 0)

    @property
    def outcomes(self) -> Mapping[tuple[str, ReplicaOutcome], int]:
        """What came of asking the replicas, since the start."""
        return {
            (replica.server.name, outcome): count
            for replica in self._replicas
            for outcome, count in replica.outcomes.items()
        }

    @property
    def failing(self) -> list[str]:
        """The replicas that failed when they were asked last: others are read in their place."""
        return [replica.server.name for replica in self._replicas if replica.has_failed]

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
        if not self._replicas:
            return await self._of(self._primary, ReadRequest(batch), None, READ_TIMEOUT_S)
        await self._catch_up()
        if not self._is_counted:
            return await self._of(self._primary, ReadRequest(batch), None, READ_TIMEOUT_S)
        was_away, problems = self.primary_away, []
        for replica in self._in_order(resting_too=was_away):
            try:
                return await self._of_replica(replica, batch)
            except StoreUnavailable as error:
                log.warning("store.replica_away", error=str(error))
                replica.rest(self._loop.time())
                replica.outcomes[ReplicaOutcome.FAILED] += 1
                problems.append(str(error))
        if was_away:
            raise StoreUnavailable("; ".join(problems))
        return await self._of(self._primary, ReadRequest(batch), None, READ_TIMEOUT_S)

    async def close(self) -> None:
        """Closes the connections; reads under way fail."""
        self._closing = True
        for task in (self._asking, self._next):
            if task is not None:
                task.cancel()
        for replica in self._replicas:
            await replica.server.close()

    def _in_order(self, *, resting_too: bool) -> list[Replica]:
        """Those first that are well and have the least to do; of these, whoever waited longest.

        So each is asked now and then, and what became of it is noticed. One that rests costs a
        read its whole patience: while the primary answers, nobody waits for it.
        """
        now = self._loop.time()
        return sorted(
            (each for each in self._replicas if resting_too or each.resting_until <= now),
            key=lambda each: (each.resting_until > now, each.under_way, each.turn),
        )

    async def _of_replica(self, replica: Replica, batch: Sequence[Statement]) -> list[Rows]:
        """What it answers once it is as far as it must be."""
        if replica.has_failed:
            replica.rest(self._loop.time())  # this read tries it, for all others
        wanted, request = self.revision, ReadRequest([*batch, _REVISION])
        deadline, pause_s = self._loop.time() + REPLICA_TIMEOUT_S, BEHIND_PAUSE_S
        replica.under_way += 1
        self._turns += 1
        replica.turn = self._turns
        try:
            while (left_s := deadline - self._loop.time()) > 0:
                *rows, [[revision]] = await self._of(replica.server, request, self._index, left_s)
                if revision >= wanted:
                    self._revision = max(self._revision, revision)
                    replica.outcomes[ReplicaOutcome.ANSWERED] += 1
                    replica.recover()
                    return rows
                replica.outcomes[ReplicaOutcome.BEHIND] += 1
                await asyncio.sleep(pause_s)
                pause_s *= 2
        finally:
            replica.under_way -= 1
        # Perhaps only its streams are. When its primary is restarted, a replica makes its database
        # anew, and they see the old one for ever, without an error.
        self._streams[replica.server].forget()
        raise StoreUnavailable(f"{replica.server.name} is behind the primary")

    async def _of(
        self, server: Server, request: ReadRequest, index: int | None, timeout_s: float
    ) -> list[Rows]:
        try:
            rows, _ = await self._streams[server].read(request, index=index, timeout_s=timeout_s)
        except Unreadable as error:
            raise StoreUnavailable(f"{server.name} answered, but {error}") from error
        return rows

    # ---------------------------------------------------------------- how far the primary is

    async def _catch_up(self) -> None:
        """Returns when the revision after this call is known, or the primary is away."""
        if self.primary_away:
            return
        if self._next is None:
            self._next = asyncio.create_task(self._ask(self._asking), name="store-revision")
        asking = self._next
        await asyncio.wait({asking})  # who leaves does not end it for the others
        if asking.cancelled():
            raise StoreUnavailable("the database is closed")
        asking.result()

    async def _ask(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        self._asking, self._next = asyncio.current_task(), None
        known, request = self.revision, ReadRequest([_REVISION])
        try:
            [[[revision]]], index = await self._streams[self._primary].read(
                request, timeout_s=INDEX_TIMEOUT_S
            )
        except (StoreUnavailable, Unreadable) as error:
            self._away_until = self._loop.time() + AWAY_S
            self._index = None  # the next one may count anew
            log.warning("store.primary_away", error=str(error))
            return
        except InvariantError:
            self._is_counted = False  # before the migration that brings revisions
            return
        self._index, self._is_counted = index, True
        if revision < known:
            self._begin_anew(known, revision)
        self._revision = max(self._revision, revision)

    def _begin_anew(self, known: int, revision: int) -> None:
        """The database is an older one than before: it was restored from a backup."""
        log.error("store.went_back", known_revision=known, revision=revision)
        self._revision = revision
        self._writer.revision = None
