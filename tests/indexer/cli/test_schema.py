from pathlib import Path

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
