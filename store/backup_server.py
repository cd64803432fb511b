"""A libSQL server's tables into a SQLite file, and back.

    fetch   one stream, in it one read transaction, in it every table a page at a time: so all is
            of one moment, however long it takes and whatever is written meanwhile
    send    tables, rows, then triggers and the record of migrations last of all: a server on which
            it came to no end is refused by whoever opens it

The server's own `/dump` gives SQL to be executed as it comes; here values are bound, and the file
is the same as that of a database in a file.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw

from indexer.errors import InvalidInput, InvariantError, StoreBroken, StoreError, StoreUnavailable
from store import numbering
from store.connection import Rows, Statement, wrapped
from store.hrana import Steps, Unreadable, WriteRequest, read_answer
from store.libsql import Server


Tell = Callable[[int, int], None]

#: Rows of one question, and how many where those are too much for one answer.
ROWS_AT_ONCE: Final = 2_000
FEWER_ROWS: Final = (50, 1)
#: Rows and characters of one batch that is sent, well below what a server takes.
SENT_ROWS_MAX: Final = 500
SENT_CHARS_MAX: Final = 1_000_000
#: Seconds for one question; the last step of a restore makes all indexes.
TIMEOUT_S: Final = 120.0
_INDEX_TIMEOUT_S: Final = 3_600.0

_SCHEMA: Final = (
    "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL "
    "AND name NOT LIKE 'sqlite!_%' ESCAPE '!' AND name NOT LIKE 'libsql!_%' ESCAPE '!' "
    "ORDER BY rowid"
)
_RECORD: Final = "schema_migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """How the rows of a table are read in an order, and written.

    Attributes:
        key: columns that name a row.
        columns: all of them, with the row's number where that is none of the others.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]

    def page(self, after: Sequence[Any] | None, limit: int) -> Statement:
        """The rows behind a key, or the first ones."""
        names, key = ", ".join(map(_quoted, self.columns)), ", ".join(map(_quoted, self.key))
        marks = ", ".join("?" for _ in self.key)
        where = "" if after is None else f"WHERE ({key}) > ({marks})"
        sql = f"SELECT {names} FROM {_quoted(self.name)} {where} ORDER BY {key} LIMIT ?"  # noqa: S608 - names of our own schema
        return Statement(sql, (*(after or ()), limit))

    def key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """What names that row."""
        return tuple(row[self.columns.index(name)] for name in self.key)

    @property
    def count(self) -> str:
        """How many rows there are."""
        return f"SELECT count(*) FROM {_quoted(self.name)}"  # noqa: S608 - names of our own schema

    @property
    def insert(self) -> str:
        """Writes one row."""
        names, marks = ", ".join(map(_quoted, self.columns)), ", ".join("?" for _ in self.columns)
        return f"INSERT INTO {_quoted(self.name)} ({names}) VALUES ({marks})"  # noqa: S608 - the same


# ------------------------------------------------------------------------------------------ reading


async def fetch(url: str, token: str | None, draft: Path, tell: Tell) -> None:
    """Writes all tables of the server, as they are at one moment, into an empty file.

    Raises:
        StoreUnavailable: the server is out of reach, or there is no room for the file.
        StoreBroken: what it says cannot be made into a database.
    """
    async with Server(url, token) as server:
        for rows_at_once in (ROWS_AT_ONCE, *FEWER_ROWS):
            try:
                with closing(apsw.Connection(str(draft))) as copy:
                    return await _fill(_Stream(server, rows_at_once), copy, tell)
            except apsw.Error as error:
                raise wrapped(error) from error
            except Unreadable as error:
                raise StoreUnavailable(f"{server.name} gives no answer that can be read") from error
            except (StoreError, InvariantError) as error:
                # The transaction has ended with it: all is read anew, from another moment.
                if not _is_too_large(error) or rows_at_once == FEWER_ROWS[-1]:
                    raise
                await asyncio.to_thread(draft.write_bytes, b"")
    return None


async def _fill(stream: "_Stream", copy: apsw.Connection, tell: Tell) -> None:
    # Nobody reads the file before it is whole, so it needs no journal.
    copy.execute("PRAGMA journal_mode = OFF").fetchall()
    copy.execute("PRAGMA synchronous = OFF").fetchall()
    schema = await stream.begin()
    copy.execute("BEGIN").fetchall()
    for kind, _, _, sql in schema:
        if kind == "table":
            copy.execute(sql).fetchall()
    tables = _tables(copy)
    counts = await stream.ask([Statement(table.count) for table in tables])
    total, done = sum(int(rows[0][0]) for rows in counts), 0
    for table in tables:
        after: tuple[Any, ...] | None = None
        while rows := await stream.page(table, after):
            await asyncio.to_thread(copy.executemany, table.insert, rows)
            done, after = done + len(rows), table.key_of(rows[-1])
            tell(done, total)
    if copy.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").fetchall():
        [numbers] = await stream.ask([Statement("SELECT name, seq FROM sqlite_sequence")])
        copy.execute("DELETE FROM sqlite_sequence").fetchall()
        copy.executemany("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", numbers)
    await stream.end()
    for kind, _, _, sql in schema:
        if kind != "table":
            await asyncio.to_thread(copy.execute, sql)
    await asyncio.to_thread(copy.execute, "COMMIT")


class _Stream:
    """One read transaction on the server."""

    def __init__(self, server: Server, rows_at_once: int) -> None:
        self._server = server
        self._baton: str | None = None
        self._rows_at_once = rows_at_once

    async def begin(self) -> Rows:
        """Opens it; the schema as it is in it."""
        _, rows = await self._send([Statement("BEGIN READONLY"), Statement(_SCHEMA)])
        return rows

    async def ask(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows of each statement."""
        if self._baton is None:
            raise StoreUnavailable(f"{self._server.name} keeps no transaction open: try again")
        return await self._send(batch)

    async def page(self, table: _Table, after: Sequence[Any] | None) -> Rows:
        """The next rows."""
        [rows] = await self.ask([table.page(after, self._rows_at_once)])
        return rows

    async def end(self) -> None:
        """Closes it."""
        await self._send([Statement("COMMIT")], keeps=False)

    async def _send(self, batch: Sequence[Statement], *, keeps: bool = True) -> list[Rows]:
        steps = Steps()
        for statement in batch:
            steps.add(statement)
        body = steps.request(baton=self._baton, keeps=keeps)
        answer = read_answer(await self._server.post(body, timeout_s=TIMEOUT_S), len(batch))
        self._baton = answer.baton
        for error in answer.errors:
            if error is not None:
                raise error
        return [rows or [] for rows in answer.results]


def _is_too_large(error: Exception) -> bool:
    return "too large" in str(error).lower() or "too_large" in str(error).lower()


# ------------------------------------------------------------------------------------------ writing


async def send(backup: apsw.Connection, url: str, token: str | None, now: int, tell: Tell) -> None:
    """Fills a server that has no table yet with what is in an examined backup.

    Args:
        backup: open for reading.
        url: of the server.
        token: what it is asked with.
        now: unix seconds, from which all numbers go on; see `store.numbering`.
        tell: is told how far it is.

    Raises:
        InvalidInput: it has tables.
        StoreUnavailable: it is out of reach; what was sent until then makes no database.
    """
    async with Server(url, token) as server:
        await _refuse_what_is_not_empty(server)
        await _pour(server, backup, now, tell)


async def _refuse_what_is_not_empty(server: Server) -> None:
    [rows] = await _written(server, [Statement(_SCHEMA)])
    if rows:
        raise InvalidInput(
            "AXIOM_DATABASE_URL",
            f"{server.name} holds {rows[0][1]} already: stop it, move its data folder away, and "
            "start it with an empty one; so with each replica",
        )


async def _pour(server: Server, backup: apsw.Connection, now: int, tell: Tell) -> None:
    schema = [tuple(map(str, row)) for row in backup.execute(_SCHEMA).fetchall()]
    tables = {table.name: table for table in _tables(backup)}
    # Foreign keys hold from the first row on: nobody comes before those that it names.
    ordered = [tables[name] for name in _parents_first(backup, list(tables))]
    total, done = sum(_number(backup, table.count) for table in ordered), 0
    made = [sql for kind, name, _, sql in schema if kind == "table" and name != _RECORD]
    await _written(server, [Statement(sql) for sql in made])
    for table in ordered:
        if table.name != _RECORD:
            # What a migration puts into a table is in the backup as well.
            for batch in _batches(backup, table):
                await _written(server, batch)
                done += len(batch)
                tell(done, total)
    for kind, _, _, sql in schema:
        if kind == "index":
            await _written(server, [Statement(sql)], timeout_s=_INDEX_TIMEOUT_S)
    await _written(server, list(_last(backup, schema, tables[_RECORD], now)))


def _last(
    backup: apsw.Connection, schema: Sequence[tuple[str, ...]], record: _Table, now: int
) -> Iterator[Statement]:
    """What makes a database of the tables."""
    numbers = backup.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
    yield Statement("DELETE FROM sqlite_sequence")
    for name, number in numbers:
        values = (str(name), int(str(number)))
        yield Statement("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", values)
    yield from numbering.go_on(now)
    for kind, name, _, sql in schema:
        if (kind, name) == ("table", _RECORD) or kind == "trigger":
            yield Statement(sql)
    for batch in _batches(backup, record):
        yield from batch


async def _written(
    server: Server, batch: Sequence[Statement], *, timeout_s: float = TIMEOUT_S
) -> list[Rows]:
    request = WriteRequest([batch])
    try:
        [outcome], _ = request.outcomes(await server.post(request.body(), timeout_s=timeout_s))
    except Unreadable as error:
        raise StoreUnavailable(f"{server.name} gives no answer that can be read") from error
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _batches(backup: apsw.Connection, table: _Table) -> Iterator[list[Statement]]:
    """All rows of a table, as batches of a size that a server takes."""
    names, batch, chars = ", ".join(map(_quoted, table.columns)), [], 0
    for row in backup.execute(f"SELECT {names} FROM {_quoted(table.name)}"):  # noqa: S608 - names of our own schema
        batch.append(Statement(table.insert, row))
        chars += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(batch) == SENT_ROWS_MAX or chars > SENT_CHARS_MAX:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


# --------------------------------------------------------------------------------------- the schema


def _tables(connection: apsw.Connection) -> list[_Table]:
    """All tables, the record of migrations last: without it, it is no database."""
    listed = connection.execute("SELECT name, wr FROM pragma_table_list WHERE type = 'table'")
    found = [
        _table(connection, str(name), has_number=not without)
        for name, without in listed.fetchall()
        if not str(name).startswith(("sqlite_", "libsql_"))
    ]
    return sorted(found, key=lambda table: (table.name == _RECORD, table.name))


def _table(connection: apsw.Connection, name: str, *, has_number: bool) -> _Table:
    columns = connection.execute("SELECT name, type, pk FROM pragma_table_info(?)", (name,))
    rows = columns.fetchall()
    names = tuple(str(column) for column, _, _ in rows)
    keyed = sorted((int(str(pk)), str(column), str(kind)) for column, kind, pk in rows if pk)
    if not has_number or [kind.upper() for _, _, kind in keyed] == ["INTEGER"]:
        return _Table(name=name, key=tuple(column for _, column, _ in keyed), columns=names)
    return _Table(name=name, key=("rowid",), columns=("rowid", *names))


def _parents_first(connection: apsw.Connection, names: Sequence[str]) -> list[str]:
    """The tables in an order in which each comes after those that it refers to."""
    parents: dict[str, set[str]] = defaultdict(set)
    for name in names:
        found = connection.execute('SELECT "table" FROM pragma_foreign_key_list(?)', (name,))
        parents[name] = {str(row[0]) for row in found.fetchall()} - {name}
    ordered: list[str] = []
    while len(ordered) < len(names):
        ready = [each for each in names if each not in ordered and parents[each] <= set(ordered)]
        if not ready:
            raise StoreBroken("the tables of the backup refer to each other in a circle")
        ordered += ready
    return ordered


def _number(connection: apsw.Connection, sql: str) -> int:
    return int(str(connection.execute(sql).fetchall()[0][0]))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
