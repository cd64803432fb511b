"""A backup: the whole database of one moment, as one SQLite file, from a file or a server alike.

It is written under another name beside its place and gets its own when it is complete and on the
disk, so a file of that name is whole. It holds what the database holds: hashed keys, addresses of
receivers, bodies of webhooks. So nobody but its owner may read it.

    take       a database in use    ->  FILE
    examine    FILE                 ->  what is in it, once it is proven to be whole
    restore    FILE                 ->  a database that was not there, or a server with no table

A restored event log goes on from a number that no log of this deployment ever gave: what was lost
had numbers as well, and clients of streams may come back with one.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import apsw

from indexer.errors import InvalidInput, SchemaMismatch, StoreBroken, StoreUnavailable
from store import backup_server, migrate, numbering
from store.connection import TABLES, another_ones, connect, wrapped
from store.database import is_file, path_of


#: Pages that are copied before progress is told and a cancellation is heard.
PAGES_AT_ONCE: Final = 2_000
#: What SQLite writes at the beginning of every database; https://sqlite.org/fileformat2.html.
_MAGIC: Final = b"SQLite format 3\x00"
_HEADER_BYTES: Final = 100
#: Where the header says that the database has a log beside it.
_READ_VERSION: Final = 19
_WITH_LOG: Final = 2
_COPY_BYTES: Final = 4 * 1024 * 1024
_SHOWN_MAX: Final = 5
#: Of the names of a database's files.
_ENDS: Final = ("", "-journal", "-wal", "-shm")

#: Is told how much is done, and how much there is.
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is in a backup.

    Attributes:
        schema_version: number of its last migration.
        cluster: genesis hash of the cluster that it was filled from; None: of none yet.
        last_seq: of the last event; 0: there is none.
        newest_at: when the newest payment was created, unix seconds; None: there is none.
        receivers: merchants' webhook endpoints that are not deleted.
    """

    schema_version: int
    cluster: str | None
    payments: int
    events: int
    last_seq: int
    newest_at: int | None
    receivers: int
    watch_keys: int
    bytes: int


async def take(
    url: str, target: Path, *, token: str | None = None, replace: bool = False, tell: Tell
) -> Contents:
    """Writes a backup of a database that may be in use, and examines it.

    Args:
        url: of the database, a file or a server.
        target: the backup.
        token: what a server is asked with.
        replace: a file of that name gives way, once the new one is complete.
        tell: is told how far it is.

    Raises:
        InvalidInput: there is a file of that name, or no such folder.
        SchemaMismatch: the database is not one of ours, or of a newer release.
        StoreBroken: the database is damaged.
        StoreUnavailable: it is out of reach, or there is no room for the backup.
    """
    if not replace and await asyncio.to_thread(target.exists):
        raise InvalidInput("FILE", f"{target} exists already; --replace overwrites it")
    with _draft(target) as draft:
        if is_file(url):
            await _copy_file(path_of(url), draft, tell)
        else:
            await backup_server.fetch(url, token, draft, tell)
        contents = await asyncio.to_thread(examine, draft)
        await asyncio.to_thread(_publish, draft, target, replace=replace)
    return contents


async def restore(
    path: Path, url: str, *, token: str | None = None, now: int, tell: Tell
) -> Contents:
    """Makes a database of a backup, where there is none, and returns what is in the backup.

    Args:
        path: the backup.
        url: of the database to be, a file or a server.
        token: what a server is asked with.
        now: unix seconds, from which all numbers go on; see `store.numbering`.
        tell: is told how far it is.

    Raises:
        InvalidInput: there is a database already.
        SchemaMismatch: the backup is not one of ours, or of a newer release.
        StoreBroken: it is damaged, or not whole.
        StoreUnavailable: the server is out of reach, or there is no room.
    """
    contents = await asyncio.to_thread(examine, path)
    if not is_file(url):
        with closing(_opened(path)) as connection:
            await backup_server.send(connection, url, token, now, tell)
        return contents
    target = path_of(url)
    # SQLite would play what lies there under such a name into the restored file.
    for taken in (target.with_name(f"{target.name}{end}") for end in _ENDS):
        if taken.exists():
            problem = f"{taken} exists already: move the old database away, all of its files"
            raise InvalidInput("AXIOM_DATABASE_URL", problem)
    with _draft(target) as draft:
        await asyncio.to_thread(_copy, path, draft, tell)
        contents = await asyncio.to_thread(examine, draft)
        await asyncio.to_thread(_number, draft, now)
        await asyncio.to_thread(_publish, draft, target, replace=False)
    return contents


def examine(path: Path) -> Contents:
    """What is in the backup. Reads all of it.

    Raises:
        SchemaMismatch: it is the database of another program, or of a newer release.
        StoreBroken: it is no database, damaged, or not whole.
        StoreUnavailable: it cannot be read.
    """
    _refuse_what_is_no_backup(path)
    try:
        with closing(_opened(path)) as connection:
            _check(connection, path)
            return _contents(connection, path)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreBroken(f"{path} is damaged ({error}): take another backup") from error
    except apsw.Error as error:
        raise StoreUnavailable(f"cannot read {path}: {error}") from error


# ------------------------------------------------------------------------------------- a look at it


def _opened(path: Path) -> apsw.Connection:
    """A backup for reading. Nobody changes one: so no lock is taken, and none is needed."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"file:{quote(str(path.absolute()))}?immutable=1", flags=flags)


def _refuse_what_is_no_backup(path: Path) -> None:
    try:
        with path.open("rb") as file:
            header, size = file.read(_HEADER_BYTES), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise StoreUnavailable(f"cannot read {path}: {error.strerror}") from error
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise StoreBroken(f"{path} is no backup: it does not begin as a SQLite file does")
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65_536 if page_size == 1 else page_size
    expected = page_size * int.from_bytes(header[28:32], "big")
    if size != expected:
        raise StoreBroken(f"{path} is not whole: it has {size} bytes of {expected}")
    if header[_READ_VERSION] == _WITH_LOG:
        raise StoreBroken(
            f"{path} is the file of a database in use, whose log may hold more: name it as "
            "AXIOM_DATABASE_URL, with its log beside it, and run `axiompay backup`"
        )


def _check(connection: apsw.Connection, path: Path) -> None:
    found = connection.execute(f"PRAGMA integrity_check({_SHOWN_MAX})").fetchall()
    if found != [("ok",)]:
        said = "; ".join(" ".join(str(row[0]).split()) for row in found)
        raise StoreBroken(f"{path} is damaged ({said}): take another backup")
    tables = connection.execute(TABLES).fetchall()
    if not tables or (problem := another_ones(tables)) is not None:
        raise SchemaMismatch(f"{path} {problem if tables else 'is empty: it is no backup'}")
    _check_version(connection, path)
    broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    if broken:
        names = ", ".join(sorted({str(row[0]) for row in broken}))
        raise StoreBroken(f"{path}: rows of {names} belong to rows that are not there")


def _check_version(connection: apsw.Connection, path: Path) -> None:
    """Refuses what this release does not know: it could not tell whether all is well."""
    known = {each.version: each for each in migrate.known()}
    query = "SELECT version, name, checksum FROM schema_migrations ORDER BY version"
    applied = connection.execute(query).fetchall()
    if [version for version, _, _ in applied] != list(range(1, len(applied) + 1)) or not applied:
        raise SchemaMismatch(f"{path}: its migrations are not 1, 2, 3 …")
    for version, name, checksum in applied:
        if version not in known:
            raise SchemaMismatch(f"{path} has {name}, of a newer release: restore it with that")
        if known[int(version)].checksum != checksum:
            raise SchemaMismatch(f"{path} has {name} with another content than this release brings")


def _contents(connection: apsw.Connection, path: Path) -> Contents:
    def one(sql: str) -> int:
        return int(str(connection.execute(sql).fetchall()[0][0] or 0))

    version = one("SELECT max(version) FROM schema_migrations")
    names = {str(name) for name, _ in connection.execute(TABLES).fetchall()}
    cluster = connection.execute(
        "SELECT value FROM deployment WHERE name = 'genesis_hash'"
    ).fetchall()
    return Contents(
        schema_version=version,
        cluster=str(cluster[0][0]) if cluster else None,
        payments=one("SELECT count(*) FROM payments"),
        events=one("SELECT count(*) FROM events"),
        last_seq=one("SELECT max(seq) FROM events"),
        newest_at=one("SELECT max(created_at) FROM payments") or None,
        receivers=one("SELECT count(*) FROM webhook_endpoints")
        if "webhook_endpoints" in names
        else 0,
        watch_keys=one("SELECT count(*) FROM watch_keys") if "watch_keys" in names else 0,
        bytes=path.stat().st_size,
    )


# ---------------------------------------------------------------------------------- files


async def _copy_file(source: Path, draft: Path, tell: Tell) -> None:
    """Copies a database in use, as it is at one moment.

    The moment is held by a read transaction: otherwise each commit of another process would have
    the copy begin anew, and a busy database would never be copied.
    """
    if not await asyncio.to_thread(source.exists):
        raise StoreUnavailable(f"{source} does not exist: AXIOM_DATABASE_URL names another")
    origin = await asyncio.to_thread(connect, str(source), read_only=True)
    try:
        copy = apsw.Connection(str(draft))
        try:
            origin.execute("BEGIN").fetchall()
            origin.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            with copy.backup("main", origin, "main") as backup:
                while not backup.done:
                    await asyncio.to_thread(backup.step, PAGES_AT_ONCE)
                    tell(backup.page_count - backup.remaining, backup.page_count)
            # Without a log: one file, which needs nothing beside it.
            await asyncio.to_thread(_end_log, copy)
        finally:
            copy.close()
    except apsw.Error as error:
        raise wrapped(error) from error
    finally:
        origin.close()


def _end_log(copy: apsw.Connection) -> None:
    copy.execute("PRAGMA journal_mode = DELETE").fetchall()


def _copy(source: Path, draft: Path, tell: Tell) -> None:
    try:
        with source.open("rb") as origin, draft.open("wb") as copy:
            size, done = os.fstat(origin.fileno()).st_size, 0
            while piece := origin.read(_COPY_BYTES):
                copy.write(piece)
                done += len(piece)
                tell(done, size)
    except OSError as error:
        raise StoreUnavailable(f"cannot copy {source}: {error.strerror}") from error


def _number(draft: Path, now: int) -> None:
    """Lets the numbers of the restored file go on from that time."""
    try:
        with closing(apsw.Connection(str(draft))) as copy, copy:
            for statement in numbering.go_on(now):
                copy.execute(statement.sql, statement.parameters).fetchall()
    except apsw.Error as error:
        raise wrapped(error) from error


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A file beside the target that its owner alone may read; gone at the end."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}.partial")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise InvalidInput("FILE", f"cannot write {target}: {error.strerror}") from error
    try:
        yield draft
    finally:
        for end in _ENDS:
            draft.with_name(f"{draft.name}{end}").unlink(missing_ok=True)


def _publish(draft: Path, target: Path, *, replace: bool) -> None:
    """Gives the draft its name, once it and the name outlive a power cut."""
    try:
        _sync(draft)
        if replace:
            draft.replace(target)
        else:
            os.link(draft, target)  # refuses to replace one that came in between
        _sync(target.parent)
    except FileExistsError as error:
        raise InvalidInput("FILE", f"{target} was made by somebody else meanwhile") from error
    except OSError as error:
        raise StoreUnavailable(f"cannot write {target}: {error.strerror}") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
