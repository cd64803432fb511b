"""The store without threads: the real SQL on the real SQLite, in memory, that fails on demand.

One file in memory outlives all processes of a world, as a disk does. A process reaches it
through a `Handle`, which goes dead with it: from that instant nothing of the process is written
or read any more. Whoever is cancelled while a batch is under way does not know whether it was
applied, as with the real writer: it will be, unless the process dies first.

`server.ServerDisk` is the same on a real libSQL server.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import apsw
import structlog

from indexer.errors import Conflict, StoreUnavailable
from store import migrate
from store.connection import Rows, Statement, run, wrapped
from store.database import Database
from tests.simulation.loop import VirtualLoop


T = TypeVar("T")

#: Between two batches of one writer, in virtual seconds: they keep their order.
_STEP_S: Final = 1e-6


class Disk:
    """The database file, and who is told of each commit.

    Attributes:
        committed: called after each write with the batch, in the instant it is applied.
    """

    def __init__(self) -> None:
        self.connection = apsw.Connection(":memory:")
        self.connection.deserialize("main", _migrated())
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.committed: Callable[[int, Sequence[Statement]], None] = lambda _process, _batch: None

    def apply(self, batch: Sequence[Statement], process: int) -> list[Rows]:
        """Applies a batch, all or nothing; raises our own errors, as the writer does."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            rows = run(self.connection, batch)
            self.connection.execute("COMMIT")
        except Exception as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise wrapped(error) from error
        self.committed(process, batch)
        return rows

    def answer(self, batch: Sequence[Statement]) -> list[Rows]:
        """Reads, all from one moment."""
        try:
            return run(self.connection, batch)
        except Exception as error:
            raise wrapped(error) from error

    def way(self, loop: VirtualLoop, process: int, troubles: "Troubles") -> "Way":
        """How a process reaches it."""
        return Handle(self, loop, process, troubles)

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """For those who look from outside."""
        return self.connection.execute(sql, parameters).fetchall()

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        """Every table, every row, in a fixed order."""
        tables = self.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        names = [name for (name,) in tables if not name.startswith(("sqlite_", "schema_"))]
        return {name: self._table(name) for name in names}

    def _table(self, name: str) -> list[dict[str, Any]]:
        columns = self._columns(name)
        found = self.rows(self._everything_in(name))
        return [dict(zip(columns, row, strict=True)) for row in found]

    def _columns(self, name: str) -> list[str]:
        return [row[1] for row in self.rows(f"PRAGMA table_info({name})")]

    def _everything_in(self, name: str) -> str:
        order = ", ".join(str(position + 1) for position in range(len(self._columns(name))))
        return f"SELECT * FROM {name} ORDER BY {order}"  # noqa: S608 - names from the schema

    def close(self) -> None:
        self.connection.close()


class Troubles:
    """What goes wrong with a database, and how slow it is. All chances from 0 to 1.

    Attributes:
        latency_s: the longest that one half of a batch's way takes.
        read_fails, write_fails: chances of `StoreUnavailable`.
        after: chance that a failing write was applied all the same.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        latency_s: float = 0.0,
        read_fails: float = 0.0,
        write_fails: float = 0.0,
        after: float = 0.5,
    ) -> None:
        self.rng = rng
        self.latency_s = latency_s
        self.read_fails = read_fails
        self.write_fails = write_fails
        self.after = after

    def delay_s(self) -> float:
        # The square makes short delays common and long ones rare.
        return self.latency_s * self.rng.random() ** 2


class Way:
    """The way of one process to a disk, and what of it a crash takes away.

    Attributes:
        reads, writes: how many there were so far.
        at: called before and after each; may call `die`.
    """

    def __init__(self, loop: VirtualLoop, process: int, troubles: Troubles) -> None:
        self.process = process
        self.is_dead = False
        self.reads = 0
        self.writes = 0
        self.at: Callable[[str], None] = lambda _point: None
        self._loop = loop
        self._troubles = troubles

    def database(self) -> Database:
        """As everyone else sees it."""
        raise NotImplementedError

    def die(self) -> None:
        """The process is gone: nothing reaches the disk any more, and nobody is answered."""
        self.is_dead = True

    def _tell(self, answer: asyncio.Future[T], result: T | Exception) -> None:
        if self.is_dead:
            return
        self._loop.call_later(self._troubles.delay_s(), self._deliver, answer, result)

    def _deliver(self, answer: asyncio.Future[T], result: T | Exception) -> None:
        if self.is_dead or answer.done():
            return
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def _dies(self, point: str) -> bool:
        self.at(point)
        return self.is_dead

    def _draw(self, chance: float) -> bool:
        return chance > 0 and self._troubles.rng.random() < chance


class Handle(Way):
    """The way to a file: what `Database` calls its writer and its readers."""

    def __init__(self, disk: Disk, loop: VirtualLoop, process: int, troubles: Troubles) -> None:
        super().__init__(loop, process, troubles)
        self._disk = disk
        self._applied_at = 0.0

    def database(self) -> Database:
        return Database(self, self)

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        answer: asyncio.Future[list[Rows]] = self._loop.create_future()
        delay_s = self._troubles.delay_s()
        self._applied_at = max(self._loop.time() + delay_s, self._applied_at + _STEP_S)
        self._loop.call_at(self._applied_at, self._write, list(batch), answer)
        return await answer

    async def read(self, batch: Sequence[Statement]) -> list[Rows]:
        answer: asyncio.Future[list[Rows]] = self._loop.create_future()
        # A read sees every write that was finished before it was asked.
        self._loop.call_later(self._troubles.delay_s(), self._read, list(batch), answer)
        return await answer

    async def close(self) -> None:
        pass

    def _write(self, batch: Sequence[Statement], answer: asyncio.Future[list[Rows]]) -> None:
        if self.is_dead:
            return
        self.writes += 1
        if self._dies(f"write {self.writes}, before"):
            return
        fails = self._draw(self._troubles.write_fails)
        is_applied = not fails or self._draw(self._troubles.after)
        result: list[Rows] | Exception = []
        if is_applied:
            try:
                result = self._disk.apply(batch, self.process)
            except (Conflict, StoreUnavailable) as error:
                result = error
        if fails:
            result = StoreUnavailable("disk I/O error (simulated)")
        self.at(f"write {self.writes}, after")
        self._tell(answer, result)

    def _read(self, batch: Sequence[Statement], answer: asyncio.Future[list[Rows]]) -> None:
        if self.is_dead:
            return
        self.reads += 1
        self.at(f"read {self.reads}")
        result: list[Rows] | Exception
        if self._draw(self._troubles.read_fails):
            result = StoreUnavailable("database is locked (simulated)")
        else:
            result = self._disk.answer(batch)
        self._tell(answer, result)


@cache
def _migrated() -> bytes:
    """An empty database with the schema of all migrations, made once in a process."""
    connection = apsw.Connection(":memory:")

    class Inline:
        async def write(self, batch: Sequence[Statement]) -> list[Rows]:
            with connection:
                rows = run(connection, batch)
            return rows  # noqa: RET504 - to mypy, leaving the block might swallow an error

        async def read(self, batch: Sequence[Statement]) -> list[Rows]:
            return run(connection, batch)

        async def close(self) -> None:
            pass

    inline = Inline()
    at_once(migrate.migrate(Database(inline, inline)))
    return bytes(connection.serialize("main"))


def at_once(migration: Coroutine[Any, Any, object]) -> None:
    """Runs to its end what does not wait for anything."""
    try:
        with structlog.testing.capture_logs():
            migration.send(None)
    except StopIteration:
        return
    raise AssertionError("a migration waits for something")
