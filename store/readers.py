"""Reading beside the writer: each reader has a thread and a read-only connection of its own."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import apsw

from indexer.errors import InvariantError
from store.connection import Rows, Statement, run, wrapped
from store.lane import Lane, Outcome


#: Batches that may wait or be under way.
WAITING_MAX: Final = 2_000


class Readers:
    """Answers read batches; whichever reader is free takes the next."""

    def __init__(self, connections: Sequence[apsw.Connection]) -> None:
        self._lane = Lane(waiting_max=WAITING_MAX)
        for number, connection in enumerate(connections):
            self._lane.start(f"store-reader-{number}", partial(self._work, connection))

    async def read(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows of each statement, all from the same moment.

        Raises:
            StoreUnavailable: busy, out of reach, closed.
        """
        return await self._lane.submit(batch)

    async def close(self) -> None:
        """Answers what waits and closes the connections."""
        await self._lane.close()

    def _work(self, connection: apsw.Connection) -> None:
        while jobs := self._lane.take():
            self._lane.deliver(jobs, [_answer(connection, job.batch) for job in jobs])
        connection.close()


def _answer(connection: apsw.Connection, batch: Sequence[Statement]) -> Outcome:
    try:
        connection.execute("BEGIN")  # deferred: the first SELECT fixes the moment
        rows = run(connection, batch)
    except apsw.ReadOnlyError as error:
        refusal = InvariantError(f"a read batch writes: {error}")
        refusal.__cause__ = error
        return refusal
    except Exception as error:  # noqa: BLE001 - the top of a thread: it goes to who waits
        return wrapped(error)
    else:
        return rows
    finally:
        if connection.in_transaction:
            with suppress(apsw.Error):
                connection.execute("ROLLBACK")
