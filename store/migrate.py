"""Brings a database's schema up to date: numbered files, each applied once, whole or not at all.

    python -m store.migrate --write-schema      writes migrations/schema.sql anew

A file and the record that it was applied are one batch. Files only ever get added; one that was
applied may not change.

A file says which releases may still run on what it makes, in a line of its own:

    -- runs-with: 5      the code whose last migration is number 5 may, and all that is newer

Without it only code may that knows the file itself. So a release is rolled out while the one
before still runs: first the file that adds (expand), then the processes, one by one. What they
then do not need any more, a later release takes away (contract).
"""

import asyncio
import hashlib
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import apsw
import structlog

from indexer.errors import Conflict, InvariantError, SchemaMismatch
from store.connection import TABLES, Rows, another_ones
from store.database import Database, Statement, open_database


log = structlog.get_logger(__name__)

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_RUNS_WITH: Final = re.compile(r"^-- runs-with: ([1-9]\d{0,3})$", re.MULTILINE)

_CREATE_RECORD: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    checksum   TEXT NOT NULL,            -- SHA-256 of the file, hex
    applied_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT
""".strip()
_READ_RECORD: Final = "SELECT version, name, checksum, {} FROM schema_migrations ORDER BY version"
_WRITE_RECORD: Final = "INSERT INTO schema_migrations (version, name, checksum) VALUES (?, ?, ?)"
_WRITE_RUNS_WITH: Final = "UPDATE schema_migrations SET runs_with = ? WHERE version = ?"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file.

    Attributes:
        version: its number, from 1 without a gap.
        statements: its SQL, cut at the ends of statements (a trigger is one).
        runs_with: the oldest version whose code may run on what it makes; None: its own.
    """

    version: int
    name: str
    checksum: str
    statements: tuple[str, ...]
    runs_with: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a database stands to this code, which may run on it once nothing is missing.

    Attributes:
        version: the database's, 0 when it is empty.
        missing: what it lacks, in order.
        newer: names of what it has and this code does not know, but may run with.
    """

    version: int
    missing: tuple[Migration, ...] = ()
    newer: tuple[str, ...] = ()

    @property
    def contracting(self) -> tuple[str, ...]:
        """Names of what is missing that the code of the database's version cannot run on."""
        if not self.version:
            return ()
        return tuple(
            each.name for each in self.missing if (each.runs_with or each.version) > self.version
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """That a migration was applied, as the database tells it."""

    version: int
    name: str
    checksum: str
    runs_with: int


def known(folder: Traversable | None = None) -> list[Migration]:
    """Every migration that this code brings, in order; or those of another folder."""
    found = []
    for file in (folder or files("migrations")).iterdir():
        match = _FILE_NAME.fullmatch(file.name)
        if match is not None:
            text = file.read_text(encoding="utf-8")
            checksum = hashlib.sha256(text.encode()).hexdigest()
            version = int(match[1])
            runs_with = _runs_with(file.name, version, text)
            found.append(Migration(version, file.name, checksum, split(text), runs_with))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise InvariantError("the migrations are not numbered 1, 2, 3 …")
    return found


def _runs_with(name: str, version: int, text: str) -> int | None:
    """What the file says of the code that may run on it; None when it says nothing."""
    said = _RUNS_WITH.findall(text)
    if len(said) != text.count("runs-with") or len(said) > 1:
        raise InvariantError(f"{name}: one line says `-- runs-with:` and a number, or none does")
    if not said:
        return None
    if int(said[0]) > version:
        raise InvariantError(f"{name}: `-- runs-with: {said[0]}` is beyond its own number")
    return int(said[0])


def split(text: str) -> tuple[str, ...]:
    """The statements of a file; a semicolon in a trigger, a string or a comment ends none."""
    statements, gathered = [], ""
    for piece in re.split(r"(?<=;)", text):
        gathered += piece
        if apsw.complete(gathered):
            statements.append(gathered.strip())
            gathered = ""
    rest = [line for line in gathered.splitlines() if line.strip() and not line.startswith("--")]
    if rest:
        raise InvariantError(f"a migration ends in the middle of a statement: {rest[0]}")
    return tuple(statements)


async def migrate(
    database: Database, *, migrations: Sequence[Migration] | None = None
) -> list[str]:
    """Applies what is missing; returns the names of what was applied here.

    Args:
        database: open; may be empty.
        migrations: in order; None: those that this code brings.

    Raises:
        SchemaMismatch: the database is too new for this code, or an applied file has changed.
        Conflict: the data that is stored does not fit a new rule; that file is not applied.
    """
    migrations = known() if migrations is None else migrations
    applied = []
    for migration in (await standing(database, migrations=migrations)).missing:
        try:
            await database.write(batch(migration))
        except Conflict:
            if migration in (await standing(database, migrations=migrations)).missing:
                raise
            continue  # another process was faster, and applied the same
        log.info("migration.applied", name=migration.name)
        applied.append(migration.name)
    await check(database, migrations=migrations)
    return applied


def batch(migration: Migration) -> list[Statement]:
    """What applies it. The record first: of two that race, the slower is refused by its key."""
    record = (migration.version, migration.name, migration.checksum)
    return [
        Statement(_CREATE_RECORD),
        Statement(_WRITE_RECORD, record),
        *(Statement(sql) for sql in migration.statements),
        *_said(migration),
    ]


def _said(migration: Migration) -> list[Statement]:
    """Which code may run with it. Last: the column came with one of the files."""
    if migration.runs_with is None:
        return []
    return [Statement(_WRITE_RUNS_WITH, (migration.runs_with, migration.version))]


async def pending(database: Database) -> list[str]:
    """The names of the migrations that the database lacks.

    Raises:
        SchemaMismatch: the database is too new for this code, or an applied file has changed.
    """
    return [migration.name for migration in (await standing(database)).missing]


async def check(database: Database, *, migrations: Sequence[Migration] | None = None) -> None:
    """Refuses a database on which this code may not run.

    Raises:
        SchemaMismatch: says whether to migrate or to upgrade.
    """
    missing = (await standing(database, migrations=migrations)).missing
    if missing:
        names = ", ".join(migration.name for migration in missing)
        raise SchemaMismatch(f"the database lacks {names}; run `axiompay migrate`")


async def standing(
    database: Database, *, migrations: Sequence[Migration] | None = None
) -> Standing:
    """What the database lacks, and what it has beyond this code.

    Args:
        database: open; may be empty.
        migrations: in order; None: those that this code brings.

    Raises:
        SchemaMismatch: the database is too new for this code, or an applied file has changed.
    """
    migrations = known() if migrations is None else migrations
    stored = await _stored(database)
    for number, record in enumerate(stored, start=1):
        if record.version != number:
            raise SchemaMismatch(
                f"the database has {record.name} but not number {number} before it"
            )
        if number > len(migrations):
            _refuse_what_is_too_new(record, len(migrations))
        elif record.checksum != migrations[number - 1].checksum:
            raise SchemaMismatch(
                f"{record.name} was applied with another content than this release brings; "
                "restore the file, and put the change into a new one"
            )
    return Standing(
        version=len(stored),
        missing=tuple(migrations[len(stored) :]),
        newer=tuple(record.name for record in stored[len(migrations) :]),
    )


def _refuse_what_is_too_new(record: _Record, ours: int) -> None:
    if record.runs_with > ours:
        raise SchemaMismatch(
            f"the database has {record.name}, of a newer release; this one ends at number {ours}, "
            f"and only code that knows number {record.runs_with} runs on it: upgrade to the "
            "release that applied it, or restore a backup from before"
        )


async def _stored(database: Database) -> list[_Record]:
    [tables] = await database.read([Statement(TABLES)])
    if not tables:
        return []
    if (problem := another_ones(tables)) is not None:
        raise SchemaMismatch(f"the database {problem}")
    said = "runs_with" if _tells(tables) else "NULL"
    [found] = await database.read([Statement(_READ_RECORD.format(said))])
    return [
        _Record(version=version, name=name, checksum=checksum, runs_with=runs_with or version)
        for version, name, checksum, runs_with in found
    ]


def _tells(tables: Rows) -> bool:
    """Whether the records have the column: databases of older releases do not."""
    return any(name == "schema_migrations" and "runs_with" in sql for name, sql in tables)


async def schema(database: Database) -> str:
    """The schema as it stands, for people: every table, index and trigger."""
    [found] = await database.read(
        [
            Statement(
                "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' "
                "ORDER BY tbl_name, type = 'trigger', type = 'index', name"
            )
        ]
    )
    head = "-- Generated by `python -m store.migrate --write-schema`: the sum of the migrations.\n"
    return head + "".join(f"\n{sql};\n" for (sql,) in found)


async def schema_of_all_migrations() -> str:
    """The schema that a new database gets."""
    with tempfile.TemporaryDirectory() as folder:
        database = await open_database(f"sqlite:///{folder}/schema.db")
        try:
            await migrate(database)
            return await schema(database)
        finally:
            await database.close()


if __name__ == "__main__":
    if sys.argv[1:] != ["--write-schema"]:
        sys.exit("usage: python -m store.migrate --write-schema")
    target = Path(str(files("migrations"))) / "schema.sql"
    target.write_text(asyncio.run(schema_of_all_migrations()), encoding="utf-8")
