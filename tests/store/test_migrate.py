import asyncio
from itertools import chain
from pathlib import Path

import pytest

from indexer.errors import Conflict, InvariantError, SchemaMismatch
from store import migrate
from store.database import Database, Statement, open_database
from store.migrate import Migration


def make(version: int, *statements: str, checksum: str | None = None) -> Migration:
    return Migration(
        version, f"{version:04d}_test.sql", checksum or f"checksum of {version}", statements
    )


FIRST = make(1, "CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT")
TRIGGER = "CREATE TRIGGER a AFTER DELETE ON t BEGIN\n  SELECT 1;\n  DELETE FROM u;\nEND;"
SECOND = make(2, "INSERT INTO t VALUES (1)", "ALTER TABLE t ADD COLUMN text TEXT")


async def names(database: Database) -> list[str]:
    [rows] = await database.read([Statement("SELECT name FROM sqlite_schema ORDER BY name")])
    return [name for (name,) in rows]


async def test_what_is_missing_is_applied_once_in_order(empty: Database) -> None:
    assert await migrate.migrate(empty, migrations=[FIRST]) == ["0001_test.sql"]
    assert await migrate.migrate(empty, migrations=[FIRST, SECOND]) == ["0002_test.sql"]
    assert await migrate.migrate(empty, migrations=[FIRST, SECOND]) == []

    assert await empty.read([Statement("SELECT n, text FROM t")]) == [[(1, None)]]


async def test_our_own_are_pending_until_they_are_applied(empty: Database) -> None:
    shipped = [migration.name for migration in migrate.known()]

    assert await migrate.pending(empty) == shipped
    with pytest.raises(SchemaMismatch, match=r"lacks 0001_initial.*run `axiompay migrate`"):
        await migrate.check(empty)
    assert await migrate.migrate(empty) == shipped
    assert await migrate.pending(empty) == []
    await migrate.check(empty)


async def test_a_file_that_fails_leaves_nothing_of_itself(empty: Database) -> None:
    broken = make(2, "CREATE TABLE u (n)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)")

    with pytest.raises(Conflict, match=r"UNIQUE constraint failed: t\.n"):
        await migrate.migrate(empty, migrations=[FIRST, broken])

    assert await names(empty) == ["schema_migrations", "t"]
    assert await empty.read([Statement("SELECT * FROM t")]) == [[]]
    assert await migrate.migrate(empty, migrations=[FIRST, SECOND]) == ["0002_test.sql"]


async def test_a_mistake_in_a_file_leaves_nothing_of_itself(empty: Database) -> None:
    with pytest.raises(InvariantError, match="syntax error"):
        await migrate.migrate(empty, migrations=[make(1, "CREATE TABLE u (n)", "CREAT TABLE v")])

    assert await names(empty) == []


async def test_a_newer_database_is_left_alone(empty: Database) -> None:
    await migrate.migrate(empty, migrations=[FIRST, SECOND])

    for refuse in (migrate.migrate, migrate.check):
        with pytest.raises(SchemaMismatch, match=r"0002_test\.sql.*newer.*upgrade"):
            await refuse(empty, migrations=[FIRST])


async def test_an_applied_file_may_not_change(empty: Database) -> None:
    await migrate.migrate(empty, migrations=[FIRST])
    changed = make(1, "CREATE TABLE t (n)", checksum="another")

    for refuse in (migrate.migrate, migrate.check):
        with pytest.raises(SchemaMismatch, match=r"0001_test\.sql was applied with another"):
            await refuse(empty, migrations=[changed, SECOND])


async def test_a_record_with_a_gap_is_refused(empty: Database) -> None:
    await migrate.migrate(empty, migrations=[FIRST, SECOND])
    await empty.write([Statement("DELETE FROM schema_migrations WHERE version = 1")])

    with pytest.raises(SchemaMismatch, match="not number 1 before it"):
        await migrate.check(empty, migrations=[FIRST, SECOND])


async def test_of_two_that_race_one_applies_and_both_go_on(
    empty: Database, backend_url: str
) -> None:
    others = [await open_database(backend_url) for _ in range(3)]

    applied = await asyncio.gather(*(migrate.migrate(each) for each in (empty, *others)))

    assert sorted(chain(*applied)) == [migration.name for migration in migrate.known()]
    for other in others:
        await migrate.check(other)
        await other.close()


async def test_the_slower_of_two_that_differ_is_refused(empty: Database, backend_url: str) -> None:
    """Two releases race: what the loser brings is not what the database has."""
    other = await open_database(backend_url)
    await migrate.migrate(other, migrations=[FIRST])
    await other.close()

    with pytest.raises(SchemaMismatch, match="another content"):
        await migrate.migrate(empty, migrations=[make(1, "CREATE TABLE t (n)", checksum="mine")])


@pytest.mark.parametrize(
    "files",
    [["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"]],
)
def test_numbers_have_no_gaps(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).write_text("SELECT 1;")

    with pytest.raises(InvariantError, match="not numbered 1, 2, 3"):
        migrate.known(tmp_path)


def test_a_checksum_tells_contents_apart(tmp_path: Path) -> None:
    checksums = set()
    for text in ("SELECT 1;", "SELECT 1;\n", "SELECT 2;"):
        (tmp_path / "0001_a.sql").write_text(text)
        checksums.add(migrate.known(tmp_path)[0].checksum)

    assert len(checksums) == 3


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("", ()),
        ("-- only; words\n", ()),
        ("SELECT 1; SELECT 2;", ("SELECT 1;", "SELECT 2;")),
        ("SELECT ';'; -- a; b\nSELECT 2;", ("SELECT ';';", "-- a; b\nSELECT 2;")),
        ("/* a; */ SELECT 1;\n", ("/* a; */ SELECT 1;",)),
        (
            f"{TRIGGER}\nSELECT 1;",
            (TRIGGER, "SELECT 1;"),
        ),
    ],
)
def test_a_file_is_cut_into_its_statements(text: str, statements: tuple[str, ...]) -> None:
    assert migrate.split(text) == statements


@pytest.mark.parametrize(
    "text", ["SELECT 1", "SELECT 1; SELECT 2", "SELECT ';", "CREATE TRIGGER a BEGIN SELECT 1;"]
)
def test_a_file_that_ends_too_early_is_refused(text: str) -> None:
    with pytest.raises(InvariantError, match="ends in the middle"):
        migrate.split(text)


@pytest.mark.parametrize(
    "table", ["CREATE TABLE bookmarks (url TEXT)", "CREATE TABLE schema_migrations (version TEXT)"]
)
async def test_the_database_of_another_program_is_left_alone(empty: Database, table: str) -> None:
    await empty.write([Statement(table)])

    with pytest.raises(SchemaMismatch, match="holds the tables of another program"):
        await migrate.migrate(empty)
    with pytest.raises(SchemaMismatch, match="AXIOM_DATABASE_URL should name another file"):
        await migrate.check(empty)
