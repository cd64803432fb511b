import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from store import migrate
from store.database import open_database
from store.migrate import Migration
from tests.indexer.cli.conftest import Run


FIRST = "0001_initial.sql"


def test_it_says_what_it_applied_and_then_has_nothing_to_do(run: Run) -> None:
    first, second = run("migrate"), run("migrate")

    assert first.code == second.code == 0
    assert first.lines[0] == FIRST
    assert second.out == ""


def test_a_check_changes_nothing(run: Run, tmp_path: Path) -> None:
    before = run("migrate", "--check")
    assert (before.code, before.lines[0]) == (1, FIRST)
    assert list(tmp_path.iterdir()) == []

    run("migrate")
    assert (run("migrate", "--check").code, run("migrate", "--check").out) == (0, "")


def test_a_folder_that_is_not_there_is_named(run: Run) -> None:
    result = run("migrate", DATABASE_URL="sqlite:////nowhere/at/all/axiom.db")

    assert result.code == 2
    assert "there is no folder /nowhere/at/all" in result.err
    assert result.err.count("\n") == 1


def test_before_it_is_applied_is_said_whether_older_processes_may_go_on(
    run: Run, tmp_path: Path
) -> None:
    run("payments", "list")  # whose settings say what is logged from now on: nothing of this
    apply(tmp_path, migrate.known()[:4])
    stopping = run("migrate", "--check")

    assert (stopping.code, stopping.lines) == (1, [each.name for each in migrate.known()[4:]])
    assert stopping.err == (
        "axiompay: stop every process before you apply 0005_several_processes.sql: "
        "older releases cannot run on it\n"
    )


def test_a_newer_database_that_only_has_more_is_no_reason_to_stop(
    migrated: Run, tmp_path: Path
) -> None:
    apply(tmp_path, [*migrate.known(), next_one(runs_with=len(migrate.known()))])

    checked, again = migrated("migrate", "--check"), migrated("migrate")

    name = next_one().name
    assert (checked.code, checked.out) == (0, "")
    assert checked.err == f"axiompay: {name}: of a newer release; this one may run with it\n"
    assert (again.code, again.out, again.err) == (0, "", "")


def test_a_database_that_is_too_new_is_refused_with_what_to_do(
    migrated: Run, tmp_path: Path
) -> None:
    apply(tmp_path, [*migrate.known(), next_one()])

    for arguments in (("migrate", "--check"), ("migrate",), ("keys", "list")):
        refused = migrated(*arguments)
        assert (refused.code, refused.out) == (1, "")
        assert f"{next_one().name}, of a newer release" in refused.err
        assert "upgrade to the release that applied it" in refused.err
        assert refused.err.count("\n") == 1


def next_one(runs_with: int | None = None) -> Migration:
    number = len(migrate.known()) + 1
    return Migration(number, f"{number:04d}_next.sql", "0", ("CREATE TABLE n (n)",), runs_with)


def apply(folder: Path, migrations: Sequence[Migration]) -> None:
    async def applied() -> None:
        database = await open_database(f"sqlite:///{folder}/axiom.db")
        await migrate.migrate(database, migrations=migrations)
        await database.close()

    asyncio.run(applied())


def test_what_only_adds_stops_nobody(migrated: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    adding = next_one(runs_with=len(migrate.known()))
    following = [*migrate.known(), adding]
    monkeypatch.setattr(migrate, "known", lambda: following)

    checked = migrated("migrate", "--check")

    assert (checked.code, checked.lines) == (1, [adding.name])
    assert checked.err == (
        "axiompay: the processes that run now may go on while this is applied, and after it\n"
    )


def test_of_an_empty_database_nobody_has_to_be_told(run: Run, tmp_path: Path) -> None:
    apply(tmp_path, [])
    for checked in (
        run("migrate", "--check"),
        run("migrate", "--check", DATABASE_URL="sqlite:///b"),
    ):
        assert (checked.code, checked.err) == (1, "")
