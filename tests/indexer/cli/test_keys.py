import json
import re
from pathlib import Path

from tests.indexer.cli.conftest import Run


def test_a_new_key_is_printed_alone(migrated: Run, tmp_path: Path) -> None:
    result = migrated("keys", "create", "shop", "--scopes", "payments:read, payments:write")

    assert result.code == 0
    assert re.fullmatch(r"axk_[A-Za-z0-9_\-]{43}\n", result.out)
    assert result.err == ""
    assert result.out.strip().encode() not in (tmp_path / "axiom.db").read_bytes()


def test_keys_are_listed_without_themselves(migrated: Run) -> None:
    key = migrated("keys", "create", "shop", "--scopes", "payments:read").out.strip()

    table, machine = migrated("keys", "list"), migrated("keys", "list", "--json")

    assert "shop" in table.out
    assert key not in table.out + machine.out
    row = json.loads(machine.out)
    assert (row["name"], row["scopes"], row["revoked_at"]) == ("shop", ["payments:read"], None)


def test_a_name_is_used_once(migrated: Run) -> None:
    migrated("keys", "create", "shop", "--scopes", "ops")

    result = migrated("keys", "create", "shop", "--scopes", "ops")

    assert result.code == 2
    assert result.out == ""
    assert result.err == "axiompay: name: there is a key named 'shop' already\n"


def test_a_key_is_revoked_by_name_or_id_once(migrated: Run) -> None:
    migrated("keys", "create", "first", "--scopes", "ops")
    migrated("keys", "create", "second", "--scopes", "ops")
    ids = [json.loads(line)["id"] for line in migrated("keys", "list", "--json").lines]

    codes = [migrated("keys", "revoke", name).code for name in ("first", ids[1], "first", "no")]

    revoked = [json.loads(line)["revoked_at"] for line in migrated("keys", "list", "--json").lines]
    assert codes == [0, 0, 1, 1]
    assert all(revoked)
