"""The one writer of a process: everything that waits is committed together.

A durable commit waits for the disk, and the disk takes no longer for fifty batches than for one.
So the writer takes whatever has gathered while it was busy and commits it as a group:

    BEGIN IMMEDIATE
      SAVEPOINT batch … RELEASE          a batch that was applied
      SAVEPOINT batch … ROLLBACK TO      a batch that was refused: alone, the others stay
    COMMIT                               only now anyone is told anything

A caller who is told that its batch is stored can rely on it even if the power fails next.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import apsw

from indexer.errors import Conflict, StoreBroken, StoreUnavailable
from store.connection import Rows, Statement, run, wrapped
from store.lane import Job, Lane, Outcome


#: Batches that may wait or be under way.
WAITING_MAX: Final = 2_000
#: What one commit takes at most, so that other processes get their turn.
GROUP_BATCHES_MAX: Final = 500
GROUP_STATEMENTS_MAX: Final = 10_000


class Writer:
    """Writes batches, each all or nothing, many to a commit.

    Attributes:
        groups: commits that were tried, since the start.
        batches: what was in them.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.groups = self.batches = 0
        self._connection = connection
        self._lane = Lane(waiting_max=WAITING_MAX)
        self._lane.start("store-writer", self._work)

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows that each statement returned, once the batch is durable.

        Raises:
            Conflict: a constraint did not hold; nothing of the batch was written.
            StoreUnavailable: busy, full, closed; whether it was written is unknown.
            StoreBroken: the file is damaged.
        """
        return await self._lane.submit(batch)

    async def close(self) -> None:
        """Commits what waits and closes the connection."""
        await self._lane.close()

    def _work(self) -> None:
        while jobs := self._lane.take(
            batches_max=GROUP_BATCHES_MAX, statements_max=GROUP_STATEMENTS_MAX
        ):
            self.groups += 1
            self.batches += len(jobs)
            self._lane.deliver(jobs, self._commit(jobs))
        with suppress(apsw.Error):  # a reader elsewhere may be in the way: it can wait
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        with suppress(apsw.Error):  # a full disk: the log stays beside the file, and is read again
            self._connection.close()

    def _commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._apply(job.batch) for job in jobs]
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the top of a thread: it goes to all who wait
            self._roll_back()
            return [_of_group(error) for _ in jobs]
        return outcomes

    def _apply(self, batch: Sequence[Statement]) -> Outcome:
        """What became of one batch of the group. Raises what concerns the whole group."""
        self._connection.execute("SAVEPOINT batch")
        try:
            rows = run(self._connection, batch)
        except Exception as error:
            refusal = wrapped(error)
            if isinstance(refusal, StoreUnavailable | StoreBroken):
                raise
            self._connection.execute("ROLLBACK TO batch")
            self._connection.execute("RELEASE batch")
            return refusal
        self._connection.execute("RELEASE batch")
        return rows

    def _roll_back(self) -> None:
        # SQLite may have rolled back by itself (a full disk). Where even ROLLBACK fails, the
        # next BEGIN does too, and says so to its callers.
        if self._connection.in_transaction:
            with suppress(apsw.Error):
                self._connection.execute("ROLLBACK")


def _of_group(error: Exception) -> Exception:
    """One error for each caller: none of their batches is to blame."""
    wrapper = wrapped(error)
    if isinstance(wrapper, Conflict):
        wrapper = StoreUnavailable(f"the commit failed: {error}")
        wrapper.__cause__ = error
    return wrapper
