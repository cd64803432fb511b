"""Brings a database's schema up to date: numbered files, each applied once, whole or not at all.

    python -m store.migrate --write-schema      writes migrations/schema.sql anew

A file and the record that it was applied are one batch. Files only ever get added; one that was
applied may not change, and a database with more of them than this code knows was written by a
newer release, which this one must not touch.
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
from store.connection import TABLES, another_ones
from store.database import Database, Statement, open_database


log = structlog.get_logger(__name__)

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

_CREATE_RECORD: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    checksum   TEXT NOT NULL,            -- SHA-256 of the file, hex
    applied_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT
""".strip()
_READ_RECORD: Final = "SELECT version, name, checksum FROM schema_migrations ORDER BY version"
_WRITE_RECORD: Final = "INSERT INTO schema_migrations (version, name, checksum) VALUES (?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file.

    Attributes:
        version: its number, from 1 without a gap.
        statements: its SQL, cut at the ends of statements (a trigger is one).
    """

    version: int
    name: str
    checksum: str
    statements: tuple[str, ...]


def known(folder: Traversable | None = None) -> list[Migration]:
    """Every migration that this code brings, in order; or those of another folder."""
    found = []
    for file in (folder or files("migrations")).iterdir():
        match = _FILE_NAME.fullmatch(file.name)
        if match is not None:
            text = file.read_text(encoding="utf-8")
            checksum = hashlib.sha256(text.encode()).hexdigest()
            found.append(Migration(int(match[1]), file.name, checksum, split(text)))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise InvariantError("the migrations are not numbered 1, 2, 3 …")
    return found


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
        SchemaMismatch: the database is newer than this code, or an applied file has changed.
        Conflict: the data that is stored does not fit a new rule; that file is not applied.
    """
    migrations = known() if migrations is None else migrations
    applied = []
    for migration in await _missing(database, migrations):
        try:
            await database.write(_batch(migration))
        except Conflict:
            if migration in await _missing(database, migrations):
                raise
            continue  # another process was faster, and applied the same
        log.info("migration.applied", name=migration.name)
        applied.append(migration.name)
    await check(database, migrations=migrations)
    return applied


def _batch(migration: Migration) -> list[Statement]:
    """The record first: of two that race, the slower is refused by its key."""
    record = (migration.version, migration.name, migration.checksum)
    return [
        Statement(_CREATE_RECORD),
        Statement(_WRITE_RECORD, record),
        *(Statement(sql) for sql in migration.statements),
    ]


async def pending(database: Database) -> list[str]:
    """The names of the migrations that the database lacks."""
    return [migration.name for migration in await _missing(database, known())]


async def check(database: Database, *, migrations: Sequence[Migration] | None = None) -> None:
    """Refuses a database whose schema is not exactly the one this code was written for.

    Raises:
        SchemaMismatch: says whether to migrate or to upgrade.
    """
    missing = await _missing(database, known() if migrations is None else migrations)
    if missing:
        names = ", ".join(migration.name for migration in missing)
        raise SchemaMismatch(f"the database lacks {names}; run `axiompay migrate`")


async def _missing(database: Database, migrations: Sequence[Migration]) -> list[Migration]:
    stored = await _stored(database)
    for number, (version, name, checksum) in enumerate(stored, start=1):
        if version != number:
            raise SchemaMismatch(f"the database has {name} but not number {number} before it")
        if version > len(migrations):
            raise SchemaMismatch(
                f"the database has {name}, which this release does not know; "
                "it was written by a newer one: upgrade"
            )
        if checksum != migrations[version - 1].checksum:
            raise SchemaMismatch(
                f"{name} was applied with another content than this release brings; "
                "restore the file, and put the change into a new one"
            )
    return list(migrations[len(stored) :])


async def _stored(database: Database) -> list[tuple[int, str, str]]:
    [tables] = await database.read([Statement(TABLES)])
    if not tables:
        return []
    if (problem := another_ones(tables)) is not None:
        raise SchemaMismatch(f"the database {problem}")
    [found] = await database.read([Statement(_READ_RECORD)])
    return [(version, name, checksum) for version, name, checksum in found]


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
