"""`backup` and `restore`, as they are typed."""

import json
from pathlib import Path

from tests.indexer.cli.conftest import Run


def test_a_backup_is_taken_and_makes_a_database(migrated: Run, tmp_path: Path) -> None:
    taken = migrated("backup", "b.db", "--json")
    assert taken.code == 0, taken.err
    found = json.loads(taken.out)
    assert (found["payments"], found["cluster"], found["newest_payment_at"]) == (0, None, None)

    restored = migrated("restore", "b.db", "--json", DATABASE_URL="sqlite:///new.db")
    assert restored.code == 0, restored.err
    assert json.loads(restored.out) == found
    assert "payments restore" in restored.err
    assert migrated("migrate", "--check", DATABASE_URL="sqlite:///new.db").code == 0


def test_nothing_is_overwritten_unasked(migrated: Run) -> None:
    assert migrated("backup", "b.db").code == 0
    assert migrated("backup", "b.db").code == 2
    assert migrated("backup", "b.db", "--replace").code == 0
    refused = migrated("restore", "b.db")
    assert refused.code == 2
    assert "exists already" in refused.err


def test_what_is_no_backup_and_what_is_not_there_is_said(migrated: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("payment,amount\n" * 100)
    for name, problem in (("text", "is no backup"), ("nothing", "No such file")):
        result = migrated("restore", name, DATABASE_URL="sqlite:///new.db")
        assert (result.code, problem in result.err) == (1, True), result.err
    result = migrated("backup", "b.db", DATABASE_URL="sqlite:///other.db")
    assert (result.code, "does not exist" in result.err) == (1, True)
    assert migrated("backup", "no/such/folder/b.db").code == 2
