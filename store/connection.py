"""One connection to a SQLite file: how it is opened, how a batch runs on it, what its errors mean.

SQLite comes with `apsw` rather than with the interpreter, for its version; see ADR 2. No other
SQLite library may open the file in the same process: closing one library's file handle drops the
POSIX locks that the other believes it holds.
"""

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import apsw

from indexer.errors import ConfigError, Conflict, InvariantError, StoreUnavailable


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
    apsw.CorruptError,
    apsw.NotADBError,
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


def connect(path: str, *, read_only: bool) -> apsw.Connection:
    """Opens the file; a writer creates it if need be. Blocks for `BUSY_TIMEOUT_S` at most.

    Raises:
        ConfigError: the SQLite library is too old.
        StoreUnavailable: the file cannot be opened, or stays locked.
    """
    check_version(apsw.sqlite_lib_version())
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return _open(path, read_only=read_only)
        except (apsw.BusyError, apsw.LockedError) as error:
            # While the first process turns the file into WAL mode, or the last one leaves,
            # SQLite refuses others at once instead of waiting.
            if time.monotonic() >= deadline:
                raise StoreUnavailable(f"cannot open {path}: {error}") from error
            time.sleep(LOCK_PAUSE_S)
        except apsw.Error as error:
            raise StoreUnavailable(f"cannot open {path}: {error}") from error


def _open(path: str, *, read_only: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY if read_only else flags)
    try:
        connection.set_busy_handler(_wait_for_lock)
        if not read_only:
            _set_up(connection, path)
        # The first look at the file: says here, not in the first query, that it is no database.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _wait_for_lock(tries: int) -> bool:
    """Whether to try once more, after a pause."""
    time.sleep(LOCK_PAUSE_S)
    return tries * LOCK_PAUSE_S < BUSY_TIMEOUT_S


def _set_up(connection: apsw.Connection, path: str) -> None:
    if connection.execute("PRAGMA journal_mode = WAL").fetchall() != [("wal",)]:
        raise StoreUnavailable(f"cannot open {path}: its file system does not support WAL mode")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")


def run(connection: apsw.Connection, batch: Sequence[Statement]) -> list[Rows]:
    """The rows of each statement, in order. Raises the library's own errors; see `wrapped`."""
    return [connection.execute(sql, parameters).fetchall() for sql, parameters in batch]


def wrapped(error: Exception) -> Conflict | StoreUnavailable | InvariantError:
    """Our error for one that `run` raised, with SQLite's own words and the original as cause."""
    wrapper: Conflict | StoreUnavailable | InvariantError
    match error:
        case apsw.ConstraintError():
            wrapper = Conflict(str(error))
        case _ if isinstance(error, _UNAVAILABLE):
            wrapper = StoreUnavailable(str(error))
        case _:
            wrapper = InvariantError(f"{type(error).__name__}: {error}")
    wrapper.__cause__ = error
    return wrapper
