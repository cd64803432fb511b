"""`backup` and `restore`, as they are typed."""

import json
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from indexer import keyring
from indexer.cli.command import CommandFailed, clock
from indexer.errors import ConfigError
from indexer.settings import Settings
from store import deployment, numbering
from tests.indexer.cli.commanding import Commanding
from tests.indexer.cli.conftest import Run
from tests.indexer.stage import stage


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


def test_numbers_go_on_from_the_time_of_the_restore(migrated: Run) -> None:
    assert migrated("backup", "b.db").code == 0
    before = int(clock())
    assert migrated("restore", "b.db", DATABASE_URL="sqlite:///new.db").code == 0

    with closing(apsw.Connection("new.db")) as connection:
        [(seq,)] = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
    assert numbering.first_after(before) <= seq <= numbering.first_after(int(clock()))


async def test_a_backup_of_another_cluster_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, new = str(tmp_path / "b.db"), tmp_path / "new"
    new.mkdir()
    async with stage(tmp_path) as it:
        await deployment.put_once(it.database, "genesis_hash", "another")
        await Commanding(it, tmp_path, capsys)("backup", copy)
        restoring = Commanding(it, new, capsys)

        with pytest.raises(ConfigError, match="the backup was filled from another"):
            await restoring("restore", copy)
        assert not list(new.iterdir())
        await it.node.stop()
        with pytest.raises(CommandFailed, match="--any-cluster"):
            await restoring("restore", copy)
        assert not list(new.iterdir())
        assert (await restoring("restore", copy, "--any-cluster")).code == 0


async def test_a_backup_of_the_cluster_that_is_served_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, new = str(tmp_path / "b.db"), tmp_path / "new"
    new.mkdir()
    async with stage(tmp_path) as it:
        await deployment.put_once(it.database, "genesis_hash", it.chain.genesis_hash)
        await Commanding(it, tmp_path, capsys)("backup", copy)

        result = await Commanding(it, new, capsys)("restore", copy, "--json")

    assert json.loads(result.out)["cluster"] == it.chain.genesis_hash


def test_the_key_that_receivers_know_is_asked_for_and_then_named(
    migrated: Run, tmp_path: Path
) -> None:
    """Also when the daemon has made another one meanwhile."""
    assert migrated("webhooks", "endpoints", "create", "https://shop.example/").code == 0
    [key] = keyring.peek(Settings(database_url=f"sqlite:///{tmp_path}/axiom.db"))
    assert migrated("backup", "b.db").code == 0
    (tmp_path / "elsewhere").mkdir()
    there = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/elsewhere/axiom.db",
        "RPC_URLS": "http://127.0.0.1:9",
    }

    restored = migrated("restore", "b.db", **there)
    assert "elsewhere/axiom.db.key back before the start" in restored.err
    missing = migrated("doctor", **there)
    assert f"the signing key {key.id} is missing" in missing.out
    keyring.load(Settings(database_url=there["DATABASE_URL"]))
    assert f"the signing key {key.id} is missing" in migrated("doctor", **there).out
    (tmp_path / "axiom.db.key").replace(tmp_path / "elsewhere/axiom.db.key")
    assert key.id not in migrated("doctor", **there).out
