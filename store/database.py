"""One SQLite file behind the store's face: batches in, rows out.

A write is a batch of statements that is applied all or nothing. One thread writes; it takes the
batches that wait, gives each a savepoint of its own, and commits them together, because a commit
costs the same for one as for a hundred. A batch that breaks a rule (a unique key, a version, a
trigger) is rolled back alone and its caller told; the others are not touched. A caller is only
answered once its batch is on the disk.

Readers have connections and threads of their own, beside the writer (WAL), and see one
consistent moment for each `read`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import apsw

from indexer.errors import (
    ConfigError,
    Conflict,
    InvariantError,
    StoreError,
    StoreUnavailable,
)


#: The first SQLite without the WAL-reset bug, which corrupts a file that two processes write.
SQLITE_VERSION_MIN: Final = (3, 51, 3)
#: Batches that may wait to be written; beyond it, callers wait for room.
WAITING_MAX: Final = 10_000
#: Batches that one commit takes along.
GROUP_MAX: Final = 500
#: Milliseconds that a connection waits for another process to release the file.
BUSY_TIMEOUT_MS: Final = 5_000
READERS: Final = 2

Value = str | int | bytes | None
Rows = list[tuple[Any, ...]]
T = TypeVar("T")


class Statement(NamedTuple):
    """One SQL statement and its parameters."""

    sql: str
    parameters: tuple[Value, ...] = ()


class _Waiting(NamedTuple):
    batch: Sequence[Statement]
    done: "asyncio.Future[list[Rows]]"


async def open_database(url: str, *, readers: int = READERS) -> "Database":
    """Opens the file that a URL names, and makes it if it is not there.

    Args:
        url: `sqlite:///` and a path: relative, or absolute with a fourth slash.
        readers: how many reads may run at once.

    Raises:
        ConfigError: the URL is no such URL, or the folder does not exist.
        StoreUnavailable: the file cannot be opened.
    """
    path = _path(url)
    _check_library()
    database = Database(path, readers)
    await database.start()
    return database


def _path(url: str) -> Path:
    prefix = "sqlite:///"
    if not url.startswith(prefix) or not url[len(prefix) :]:
        problem = f"AXIOM_DATABASE_URL: expected sqlite:///path, got {url.partition('?')[0][:80]}"
        raise ConfigError((problem,))
    path = Path(url[len(prefix) :])
    if not path.parent.is_dir():
        problem = f"AXIOM_DATABASE_URL: there is no folder {path.parent}; create it first"
        raise ConfigError((problem,))
    return path


def _check_library() -> None:
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < SQLITE_VERSION_MIN:
        wanted = ".".join(map(str, SQLITE_VERSION_MIN))
        problem = (
            f"SQLite {apsw.sqlite_lib_version()} corrupts a database that two processes write; "
            f"install an apsw that brings {wanted} or newer"
        )
        raise ConfigError((problem,))


class Database:
    """An open database. Made by `open_database`; closed by `close`."""

    def __init__(self, path: Path, readers: int) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="store-reader")
        self._write_connection: apsw.Connection
        self._idle_readers: deque[apsw.Connection] = deque()
        self._reader_count = readers
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(WAITING_MAX)
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Opens the connections and starts the writer."""
        loop = asyncio.get_running_loop()
        try:
            self._write_connection = await loop.run_in_executor(
                self._writer, _open_for_writing, self._path
            )
            for _ in range(self._reader_count):
                self._idle_readers.append(
                    await loop.run_in_executor(self._readers, _open_for_reading, self._path)
                )
        except apsw.Error as error:
            raise StoreUnavailable(f"cannot open {self._path}: {error}") from error
        self._task = loop.create_task(self._write_for_ever(), name="store-writer")

    async def close(self) -> None:
        """Writes what waits, and closes the file. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        await self._waiting.join()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._idle_readers:
            connection.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._write_connection.close)
        await asyncio.to_thread(self._writer.shutdown)

    # ------------------------------------------------------------------------------- reading

    async def read(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows of each statement, all as of one moment.

        Raises:
            StoreUnavailable: the file is locked or unreadable.
        """
        if self._closed:
            raise StoreUnavailable("the database is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, batch)

    def _read(self, batch: Sequence[Statement]) -> list[Rows]:
        connection = self._idle_readers.popleft()
        try:
            return _mapped(lambda: _in_snapshot(connection, batch))
        finally:
            self._idle_readers.append(connection)

    # ------------------------------------------------------------------------------- writing

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        """Applies the batch, all or nothing; the rows of each statement (of RETURNING).

        It is durable when this returns. A caller that is cancelled leaves its batch either
        written or not, never half.

        Raises:
            Conflict: a rule of the schema refused it; nothing was written.
            StoreUnavailable: the file is locked or full; whether it was written must be read.
        """
        if self._closed:
            raise StoreUnavailable("the database is closed")
        done: asyncio.Future[list[Rows]] = asyncio.get_running_loop().create_future()
        await self._waiting.put(_Waiting(batch, done))
        return await done

    async def _write_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            group = [await self._waiting.get()]
            while len(group) < GROUP_MAX and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            outcomes = await loop.run_in_executor(
                self._writer, self._write_group, [waiting.batch for waiting in group]
            )
            for waiting, outcome in zip(group, outcomes, strict=True):
                self._waiting.task_done()
                if waiting.done.done():  # its caller was cancelled
                    continue
                if isinstance(outcome, BaseException):
                    waiting.done.set_exception(outcome)
                else:
                    waiting.done.set_result(outcome)

    def _write_group(self, batches: Sequence[Sequence[Statement]]) -> list[list[Rows] | Exception]:
        """One transaction around all, a savepoint around each. Never raises."""
        connection = self._write_connection
        try:
            _mapped(lambda: connection.execute("BEGIN IMMEDIATE"))
            outcomes = [_in_savepoint(connection, batch) for batch in batches]
            _mapped(lambda: connection.execute("COMMIT"))
        except StoreError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return [error for _ in batches]
        except InvariantError as error:  # a statement that cannot be run at all
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return [error for _ in batches]
        return outcomes


def _in_savepoint(
    connection: apsw.Connection, batch: Sequence[Statement]
) -> list[Rows] | Exception:
    connection.execute("SAVEPOINT batch")
    try:
        rows = _mapped(lambda: _run(connection, batch))
    except (Conflict, InvariantError) as error:
        connection.execute("ROLLBACK TO batch")
        connection.execute("RELEASE batch")
        return error
    connection.execute("RELEASE batch")
    return rows


def _in_snapshot(connection: apsw.Connection, batch: Sequence[Statement]) -> list[Rows]:
    if len(batch) == 1:
        return _run(connection, batch)
    connection.execute("BEGIN DEFERRED")
    try:
        return _run(connection, batch)
    finally:
        connection.execute("ROLLBACK")


def _run(connection: apsw.Connection, batch: Sequence[Statement]) -> list[Rows]:
    return [connection.execute(s.sql, s.parameters).fetchall() for s in batch]


def _mapped(run: Callable[[], T]) -> T:
    """Runs, and turns SQLite's errors into ours."""
    try:
        return run()
    except apsw.ConstraintError as error:
        raise Conflict(str(error)) from error
    except (
        apsw.BusyError,
        apsw.LockedError,
        apsw.FullError,
        apsw.IOError,
        apsw.CantOpenError,
        apsw.ReadOnlyError,
        apsw.CorruptError,
        apsw.NotADBError,
        apsw.NoMemError,
        apsw.InterruptError,
    ) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
    except apsw.Error as error:
        raise InvariantError(f"a statement that SQLite cannot run: {error}") from error


def _open_for_writing(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: a commit is on the disk before its caller is answered, also when the power fails.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _open_for_reading(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA query_only = ON")
    return connection
