"""One connection to a SQLite file: how it is opened, how a batch runs on it, what its errors mean.

SQLite comes with `apsw` rather than with the interpreter, for its version; see ADR 2. No other
SQLite library may open the file in the same process: closing one library's file handle drops the
POSIX locks that the other believes it holds.
"""

import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from indexer.errors import (
    ConfigError,
    Conflict,
    InvariantError,
    SchemaMismatch,
    StoreBroken,
    StoreUnavailable,
)


#: The first release in which two connections may write and checkpoint at once without a chance
#: of corruption (the WAL-reset bug of 3.7.0 to 3.51.2, https://sqlite.org/wal.html#walresetbug).
SQLITE_VERSION_MIN: Final = (3, 51, 3)

#: Seconds to wait for another process's write before giving up.
BUSY_TIMEOUT_S: Final = 5.0
#: Seconds between two tries for a lock. SQLite's own handler soon waits 100 ms between tries, and
#: against a process that writes without a break, which leaves gaps of microseconds, that is
#: seconds until it happens to look at the right moment.
LOCK_PAUSE_S: Final = 0.001
#: Bytes that the write-ahead log is cut back to after a burst.
WAL_BYTES_KEPT: Final = 64 * 1024 * 1024

#: A file up to this size is examined as a whole when a daemon opens it: a quarter of a second.
CHECKED_BYTES_MAX: Final = 256 * 1024 * 1024

#: Bytes of room without which a database cannot be opened.
_ROOM_BYTES: Final = 64 * 1024

#: No page of a database is smaller, and no database is smaller than a page.
PAGE_BYTES_MIN: Final = 512

#: What a file holds, for `another_ones`.
TABLES: Final = (
    "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
)

Parameter = str | int | bytes | None
Rows = list[tuple[Any, ...]]


class Statement(NamedTuple):
    """One SQL statement and what its `?` stand for. Never two statements in one text."""

    sql: str
    parameters: tuple[Parameter, ...] = ()


#: What the surroundings did: the same batch may succeed later. Everything else is a constraint
#: of the data, or a mistake in our SQL.
_UNAVAILABLE: Final = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.NoMemError,
    apsw.ProtocolError,
    apsw.InterruptError,
    apsw.PermissionsError,
    apsw.ReadOnlyError,
)

#: The file is not what it should be, and will not become it.
_BROKEN: Final = (apsw.CorruptError, apsw.NotADBError)

_FULL: Final = "database or disk is full: make room on the disk that holds the database"
_RESTORE: Final = (
    "keep the file, put a backup in its place, and run `axiompay replay`: what was paid since "
    "the backup is on the chain"
)


def check_version(found: str) -> None:
    """Refuses a SQLite library that may corrupt a database that several processes write.

    Raises:
        ConfigError: the library is older than `SQLITE_VERSION_MIN`.
    """
    if tuple(int(part) for part in found.split(".")) < SQLITE_VERSION_MIN:
        wanted = ".".join(str(part) for part in SQLITE_VERSION_MIN)
        raise ConfigError(
            (f"SQLite {found} can corrupt a database: install apsw {wanted} or newer",)
        )


def connect(path: str, *, read_only: bool, thorough: bool = False) -> apsw.Connection:
    """Opens the file; a writer creates it if need be. Blocks for `BUSY_TIMEOUT_S` at most.

    Args:
        path: of the file.
        read_only: cannot write.
        thorough: the whole file is examined, unless it is larger than `CHECKED_BYTES_MAX`.

    Raises:
        ConfigError: the SQLite library is too old; the path is a folder.
        SchemaMismatch: it is the database of another program.
        StoreBroken: the file is damaged, cut off, or no database.
        StoreUnavailable: the file cannot be opened or written, or stays locked.
    """
    check_version(apsw.sqlite_lib_version())
    _refuse_what_is_empty(Path(path))
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return _open(path, read_only=read_only, thorough=thorough)
        except (apsw.BusyError, apsw.LockedError) as error:
            # While the first process turns the file into WAL mode, or the last one leaves,
            # SQLite refuses others at once instead of waiting.
            if time.monotonic() >= deadline:
                locked = f"another process kept it locked for {BUSY_TIMEOUT_S:g} s: {error}"
                raise StoreUnavailable(f"cannot open {path}: {locked}") from error
            time.sleep(LOCK_PAUSE_S)
        except _BROKEN as error:
            raise _broken(path, str(error)) from error
        except apsw.Error as error:
            raise StoreUnavailable(f"cannot open {path}: {_why(path, error)}") from error


def _broken(path: str, problem: str) -> StoreBroken:
    if problem == "file is not a database":
        return StoreBroken(f"{path}: {problem}; AXIOM_DATABASE_URL should name another")
    return StoreBroken(f"{path} is damaged ({problem}): {_RESTORE}")


def _why(path: str, error: apsw.Error) -> str:
    """SQLite's word, and what it leaves out: whose permission is missing."""
    file, folder = Path(path), Path(path).parent
    if isinstance(error, apsw.FullError) or _is_full(folder):
        return _FULL
    if _size(file) is not None and not os.access(file, os.R_OK | os.W_OK):
        return f"{error}: this user may not read and write it"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{error}: this user may not write the folder {folder}, where its log has to be"
    return str(error)


def _is_full(folder: Path) -> bool:
    """Whether there is no room for the memory that connections share, a file beside the log."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _ROOM_BYTES


def _refuse_what_is_empty(path: Path) -> None:
    """Refuses a file that SQLite would take for a new database and write over.

    With an empty one it deletes the log that lies beside it, which may hold everything.

    The file is not opened to look at it: closing it again would drop the locks that a
    connection of this process holds on it.
    """
    found = _stat(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise ConfigError((f"AXIOM_DATABASE_URL: {path} is a folder, not a file",))
    # The log first: whoever makes a new file meanwhile writes to the file before the log.
    logged, size = _log_size(path), _size(path)
    if logged and size == 0:
        raise _broken(str(path), f"it is empty, and the log {path}-wal is not")
    if size and size < PAGE_BYTES_MIN:
        problem = f"its {size} bytes are no database, or what is left of one"
        raise _broken(str(path), problem)


def _refuse_what_is_cut_off(connection: apsw.Connection, path: Path, logged: int) -> None:
    """Refuses a file whose last page is cut short: the rest would read as zeros.

    With a log beside it that is no damage: a checkpoint that a full disk stopped leaves it so,
    and the page is still in the log.
    """
    page_size = int(str(connection.execute("PRAGMA page_size").fetchall()[0][0]))
    if not logged and (size := _size(path) or 0) % page_size:
        raise _broken(str(path), f"it ends in the middle of a page, after {size} bytes")


def _log_size(path: Path) -> int:
    return _size(path.with_name(f"{path.name}-wal")) or 0


def _size(path: Path) -> int | None:
    """Bytes of a file; None when it is not there, or this user may not know."""
    found = _stat(path)
    return None if found is None else found.st_size


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _open(path: str, *, read_only: bool, thorough: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    logged = _log_size(Path(path))
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY if read_only else flags)
    try:
        connection.set_busy_handler(_wait_for_lock)
        # The first look at the file: says here, not in the first query, that it is no database.
        tables = connection.execute(TABLES).fetchall()
        if not read_only:
            _refuse_what_is_cut_off(connection, Path(path), logged)
            if (problem := another_ones(tables)) is not None:
                raise SchemaMismatch(f"{path} {problem}")  # noqa: TRY301 - closed like all others
            _set_up(connection, path)
        if thorough:
            _examine(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _examine(connection: apsw.Connection, path: str) -> None:
    """Looks at the whole file, unless that would take long."""
    if Path(path).stat().st_size <= CHECKED_BYTES_MAX:
        found = str(connection.execute("PRAGMA quick_check(1)").fetchall()[0][0])
        if found != "ok":
            raise _broken(path, " ".join(found.split()))


def _wait_for_lock(tries: int) -> bool:
    """Whether to try once more, after a pause."""
    time.sleep(LOCK_PAUSE_S)
    return tries * LOCK_PAUSE_S < BUSY_TIMEOUT_S


def _set_up(connection: apsw.Connection, path: str) -> None:
    if connection.readonly("main"):
        # SQLite opens what it may not write for reading, and would say so at the first write.
        raise StoreUnavailable(f"cannot open {path}: this user may not write it")
    if connection.execute("PRAGMA journal_mode = WAL").fetchall() != [("wal",)]:
        raise StoreUnavailable(f"cannot open {path}: its file system does not support WAL mode")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")


def another_ones(tables: Rows) -> str | None:
    """What is wrong with the tables of a file (rows of `TABLES`); None when they may be ours."""
    record = [sql for name, sql in tables if name == "schema_migrations"]
    if not tables or (record and "checksum" in record[0]):
        return None
    return (
        f"holds the tables of another program, such as {tables[0][0]}; "
        "AXIOM_DATABASE_URL should name another file"
    )


def run(connection: apsw.Connection, batch: Sequence[Statement]) -> list[Rows]:
    """The rows of each statement, in order. Raises the library's own errors; see `wrapped`."""
    return [connection.execute(sql, parameters).fetchall() for sql, parameters in batch]


def wrapped(error: Exception) -> Conflict | StoreUnavailable | StoreBroken | InvariantError:
    """Our error for one that `run` raised, with SQLite's own words and the original as cause."""
    wrapper: Conflict | StoreUnavailable | StoreBroken | InvariantError
    match error:
        case apsw.ConstraintError():
            wrapper = Conflict(str(error))
        case apsw.FullError():
            wrapper = StoreUnavailable(_FULL)
        case _ if isinstance(error, _BROKEN):
            wrapper = StoreBroken(f"the database is damaged ({error}): {_RESTORE}")
        case _ if isinstance(error, _UNAVAILABLE):
            wrapper = StoreUnavailable(str(error))
        case _:
            wrapper = InvariantError(f"{type(error).__name__}: {error}")
    wrapper.__cause__ = error
    return wrapper
