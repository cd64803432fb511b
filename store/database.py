"""The database as everyone else sees it: a batch of statements goes in, rows come out.

A write is one batch, applied all or nothing. There is no transaction that stays open over an
await: who decides on what was read puts the condition into the batch (a unique key, a version),
and starts over on a `Conflict`.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from indexer.errors import ConfigError, StoreBroken, StoreUnavailable
from indexer.settings import Settings
from store.connection import Parameter, Rows, Statement, connect
from store.figures import Figures
from store.libsql import Server
from store.libsql_readers import LibsqlReaders
from store.libsql_writer import LibsqlWriter
from store.readers import Readers
from store.writer import Writer


__all__ = [
    "Database",
    "Parameter",
    "Rows",
    "Statement",
    "is_file",
    "open_configured",
    "open_database",
    "path_of",
]

#: Threads that read, beside the one that writes. Two keep a long list from delaying a lookup.
READERS: Final = 2

#: Seconds for which a failed write is told of, unless one succeeds before.
PROBLEM_KEPT_S: Final = 30.0

_SCHEME: Final = "sqlite:///"
_OF_SERVERS: Final = ("libsql://", "https://", "http://")


class Writing(Protocol):
    """Applies batches one after another, each all or nothing."""

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows of each statement, once the batch is durable."""

    async def close(self) -> None:
        """Finishes what was asked."""


class Reading(Protocol):
    """Answers batches of reads, each from one moment."""

    async def read(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows of each statement."""

    async def close(self) -> None:
        """Finishes what was asked."""


class Database:
    """A SQLite file or a libSQL server: one writer, several readers.

    Belongs to the loop it was opened in.
    """

    def __init__(
        self, writer: Writing, readers: Reading, *, figures: Callable[[], Figures] = Figures
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._figures = figures
        self._failure: tuple[float, str] | None = None

    @property
    def figures(self) -> Figures:
        """What was counted until now."""
        return self._figures()

    @property
    def problem(self) -> str | None:
        """Why the last write failed, such as a full disk; None when it did not, or is long ago.

        Nobody may write again for a while: an old failure says nothing of now.
        """
        if self._failure is None:
            return None
        failed_at, problem = self._failure
        is_fresh = asyncio.get_running_loop().time() - failed_at < PROBLEM_KEPT_S
        return problem if is_fresh else None

    async def read(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows of each statement, all from the same moment, after every finished write.

        Raises:
            StoreUnavailable: busy or out of reach.
            StoreBroken: the file is damaged.
        """
        return await self._readers.read(batch) if batch else []

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows that each statement returned. When it returns, the batch is durable.

        A caller who is cancelled does not know whether its batch was written; it was, or not,
        but never in part.

        Raises:
            Conflict: a constraint or condition of the batch did not hold; nothing was written.
            StoreUnavailable: busy or out of reach; whether it was written is unknown: read it.
            StoreBroken: the file is damaged.
        """
        try:
            written = await self._writer.write(batch) if batch else []
        except (StoreUnavailable, StoreBroken) as error:
            self._failure = (asyncio.get_running_loop().time(), str(error))
            raise
        self._failure = None
        return written

    async def close(self) -> None:
        """Finishes what was asked and closes the file. Further batches are refused."""
        # The writer last: the last connection to leave tidies the log into the file, and a
        # read-only one could not.
        await self._readers.close()
        await self._writer.close()


def is_file(url: str) -> bool:
    """Whether the database is a file of this machine; otherwise it is a server."""
    return not url.startswith(_OF_SERVERS)


async def open_configured(
    settings: Settings, *, replicas: bool = False, thorough: bool = False
) -> Database:
    """Opens the database that is configured; see `open_database`.

    Args:
        settings: what was configured.
        replicas: reads go to the replicas, if there are any: for those who only serve what is
            stored.
        thorough: a file is examined before.
    """
    return await open_database(
        settings.database_url,
        thorough=thorough,
        token=settings.database_token,
        replica_urls=settings.database_replica_urls if replicas else (),
    )


async def open_database(
    url: str,
    *,
    readers: int = READERS,
    thorough: bool = False,
    token: str | None = None,
    replica_urls: Sequence[str] = (),
) -> Database:
    """Opens the file, or creates it, or prepares to ask the server; does not migrate it.

    Args:
        url: `sqlite:///relative/path.db`, `sqlite:////absolute/path.db`, or that of a libSQL
            server: `libsql://`, `https://`, `http://`.
        readers: how many batches may be read from a file at once.
        thorough: the whole file is examined before, unless it is very large.
        token: what a server is asked with; None: nothing.
        replica_urls: servers that answer reads in the place of that one.

    Raises:
        ConfigError: the URL is none of these; there is no such folder; the SQLite library is
            too old.
        StoreBroken: the file is damaged, cut off, or no database.
        StoreUnavailable: the file cannot be opened or written.
    """
    if not url.startswith(_OF_SERVERS):
        return await _open_file(str(path_of(url)), readers=readers, thorough=thorough)
    return await _open_server(url, token, replica_urls)


async def _open_file(path: str, *, readers: int, thorough: bool) -> Database:
    # The writer first: it makes the file, and the log that read-only connections need.
    writer = await asyncio.to_thread(connect, path, read_only=False, thorough=thorough)
    opened = []
    try:
        for _ in range(readers):
            opened.append(await asyncio.to_thread(connect, path, read_only=True))  # noqa: PERF401 - what was opened must be known when the next one fails
    except BaseException:
        for connection in (*opened, writer):
            connection.close()
        raise
    lane = Writer(writer)
    return Database(
        lane,
        Readers(opened),
        figures=lambda: Figures(groups=lane.groups, batches=lane.batches),
    )


async def _open_server(url: str, token: str | None, replica_urls: Sequence[str]) -> Database:
    primary = await Server(url, token).__aenter__()
    replicas = [await Server(each, token).__aenter__() for each in replica_urls]
    writer = LibsqlWriter(primary)
    readers = LibsqlReaders(primary, replicas, writer)

    def figures() -> Figures:
        return Figures(
            groups=writer.groups,
            batches=writer.batches,
            answers_lost=writer.answers_lost,
            replica_reads=readers.outcomes,
            replicas_failing=readers.failing,
        )

    return Database(writer, readers, figures=figures)


def path_of(url: str) -> Path:
    """The file that the URL names, which need not exist.

    Raises:
        ConfigError: it names none, or one in a folder that does not exist.
    """
    text = url.removeprefix(_SCHEME)
    if text == url or text.strip("/") in {"", ":memory:"} or text.endswith("/"):
        problem = (
            f"AXIOM_DATABASE_URL: {url!r} must be sqlite:///relative/path.db "
            "or sqlite:////absolute/path.db"
        )
        raise ConfigError((problem,))
    path = Path(text)
    try:
        is_there = path.parent.is_dir()
    except OSError as error:
        problem = f"AXIOM_DATABASE_URL: cannot look for {path.parent}: {error.strerror}"
        raise ConfigError((problem,)) from error
    if not is_there:
        problem = f"AXIOM_DATABASE_URL: there is no folder {path.parent}; create it first"
        raise ConfigError((problem,))
    return path
