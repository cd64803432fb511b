import asyncio
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from indexer.core.types import EventType, Status
from indexer.errors import Conflict, InvariantError, SchemaMismatch
from store import migrate, payments
from store.database import Database, Statement, open_database
from store.migrate import Migration
from tests.builders import NOW, make_event, make_payment
from tests.store.keeping import create, settled, stored
from tests.store.sending import due, endpoint_id, register, tell


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


# ---------------------------------------------------------- the previous release on the next schema

#: What a release after this one may bring: it adds, and takes nothing that today's code needs.
EXPANDING = (
    "ALTER TABLE payments ADD COLUMN colour TEXT",
    "CREATE TABLE colours (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    "CREATE INDEX payments_by_colour ON payments (colour) WHERE colour IS NOT NULL",
    """CREATE TRIGGER payments_colours AFTER INSERT ON payments WHEN NEW.colour IS NOT NULL
    BEGIN INSERT OR IGNORE INTO colours VALUES (NEW.colour); END""",
)


def following(*statements: str, runs_with: int | None) -> list[Migration]:
    """Those of this release, and one more of the next."""
    ours = migrate.known()
    return [*ours, replace(make(len(ours) + 1, *statements), runs_with=runs_with)]


OURS = len(migrate.known())
TOO_NEW = "_test.sql, of a newer release; this one ends at number"


async def test_this_release_runs_on_the_next_schema_as_long_as_that_only_adds(
    database: Database,
) -> None:
    """The database is migrated under its feet: a payment is made before and settles after."""
    first, second = make_payment(number=1), make_payment(number=2)
    await create(database, first)
    await migrate.migrate(database, migrations=following(*EXPANDING, runs_with=OURS))

    await migrate.check(database)
    await create(database, second)
    for payment in (first, second):
        done = settled(payment)
        event = make_event(done, EventType.SETTLED)
        await database.write(payments.save(payment, done, events=[event], now=NOW))

    assert [(await stored(database, each)).payment.state.status for each in (first, second)] == [
        Status.SETTLED,
        Status.SETTLED,
    ]
    assert await migrate.migrate(database) == []
    assert (await migrate.standing(database)).newer == (f"{OURS + 1:04d}_test.sql",)


@pytest.mark.parametrize("runs_with", [None, OURS + 1])
async def test_this_release_is_refused_where_the_next_one_takes_something_away(
    database: Database, runs_with: int | None
) -> None:
    contracting = following("DROP TABLE measures", runs_with=runs_with)
    await migrate.migrate(database, migrations=contracting)

    for refuse in (migrate.migrate, migrate.check, migrate.standing):
        with pytest.raises(SchemaMismatch, match=TOO_NEW) as refusal:
            await refuse(database)
        assert f"only code that knows number {OURS + 1} runs on it" in str(refusal.value)
        assert "upgrade to the release that applied it" in str(refusal.value)


async def test_one_of_several_newer_ones_that_takes_away_is_enough(database: Database) -> None:
    """Also when the newest of them would run with anything."""
    expanding = following(*EXPANDING, runs_with=OURS)
    taking = [*expanding, replace(make(OURS + 2, "DROP TABLE measures"), runs_with=OURS + 1)]
    adding = [*taking, replace(make(OURS + 3, "CREATE TABLE u (n)"), runs_with=1)]

    await migrate.migrate(database, migrations=adding)

    with pytest.raises(SchemaMismatch, match=f"{OURS + 2:04d}{TOO_NEW}"):
        await migrate.check(database)
    await migrate.check(database, migrations=expanding)


async def test_what_an_older_release_applied_says_nothing_of_who_may_run(empty: Database) -> None:
    """Before number 5 the records have no column for it: then only its own code may."""
    before = migrate.known()[:4]
    await migrate.migrate(empty, migrations=before)

    assert (await migrate.standing(empty)).version == 4
    with pytest.raises(SchemaMismatch, match="only code that knows number 4 runs on it"):
        await migrate.check(empty, migrations=before[:3])
    assert await migrate.migrate(empty) == [each.name for each in migrate.known()[4:]]
    await migrate.check(empty)


async def test_what_takes_away_is_told_before_it_is_applied(database: Database) -> None:
    name = f"{OURS + 1:04d}_test.sql"
    adding = await migrate.standing(database, migrations=following(*EXPANDING, runs_with=OURS))
    taking = await migrate.standing(database, migrations=following(runs_with=OURS + 1))
    silent = await migrate.standing(database, migrations=following(runs_with=None))

    assert [each.name for each in adding.missing] == [name]
    assert adding.contracting == ()
    assert taking.contracting == silent.contracting == (name,)


async def test_nobody_runs_on_an_empty_database(empty: Database) -> None:
    assert (await migrate.standing(empty)).contracting == ()


async def test_the_fifth_stops_the_code_before_it(empty: Database) -> None:
    """It makes `health` anew: what the release before reports there would be refused."""
    known = migrate.known()
    await migrate.migrate(empty, migrations=known[:4])
    assert (await migrate.standing(empty)).contracting == tuple(each.name for each in known[4:])

    await migrate.migrate(empty)
    with pytest.raises(SchemaMismatch, match=r"0005_several_processes\.sql, of a newer release"):
        await migrate.check(empty, migrations=known[:4])


async def test_the_fifth_makes_due_what_was_never_tried(empty: Database) -> None:
    """What was tried keeps its turn; what ended stays as it is."""
    delivery = (
        "INSERT INTO webhook_deliveries (endpoint_id, state, attempts, next_try_at, created_at,"
        " asked_at, ended_at) VALUES (?, ?, ?, 7000, 7000, 7000, ?)"
    )
    rows = [("waiting", 0, None), ("waiting", 1, None), ("failed", 10, 8), ("dropped", 0, 8)]
    await migrate.migrate(empty, migrations=migrate.known()[:4])
    await register(empty)
    await empty.write([Statement(delivery, (endpoint_id(1), *row)) for row in rows])

    await migrate.migrate(empty)

    [found] = await empty.read([Statement("SELECT next_try_at FROM webhook_deliveries")])
    assert found == [(0,), (7000,), (7000,), (7000,)]
    await tell(empty, 1, at=7000)
    assert [each.event_seq for each in await due(empty, endpoint_id(1), 6999)] == [None, 1]


def test_each_file_from_the_fifth_on_says_who_may_run_with_it() -> None:
    said = [each.runs_with for each in migrate.known()]

    assert said[:4] == [None] * 4
    assert None not in said[4:]


@pytest.mark.parametrize(
    ("text", "runs_with"),
    [("SELECT 1;", None), ("-- words\n-- runs-with: 1\nSELECT 1;", 1), ("-- runs-with: 2\n", 2)],
)
def test_a_file_says_which_code_may_run_with_it(
    tmp_path: Path, text: str, runs_with: int | None
) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1;")
    (tmp_path / "0002_b.sql").write_text(text)

    assert migrate.known(tmp_path)[1].runs_with == runs_with


@pytest.mark.parametrize(
    "text",
    [
        "-- runs-with: 2\n",
        "-- runs-with: 0\n",
        "-- runs-with: all\n",
        "-- runs-with 1\n",
        "--runs-with: 1\n",
        "-- runs-with: 1 and later\n",
        "-- runs-with: 1\n-- runs-with: 1\n",
        "-- runs-with: 01\n",
    ],
)
def test_a_file_that_says_it_in_another_way_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "0001_a.sql").write_text(text)

    with pytest.raises(InvariantError, match=r"0001_a\.sql: .*runs-with"):
        migrate.known(tmp_path)
