import json
import re
from pathlib import Path

import pytest

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


def test_a_key_has_an_end_and_a_rate(migrated: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.cli.keys.clock", lambda: 1_795_377_600.9)
    migrated("keys", "create", "plain", "--scopes", "ops")
    result = migrated(
        "keys", "create", "partner", "--scopes=proxy", "--expires-in=90d", "--rate=100/10s"
    )

    assert result.code == 0
    table, machine = migrated("keys", "list"), migrated("keys", "list", "--json")
    rows = {row["name"]: row for row in map(json.loads, machine.lines)}
    ends = [(row["rate"], row["expires_at"]) for row in (rows["plain"], rows["partner"])]
    assert ends == [(None, None), ("100/10s", "2027-02-20T20:00:00Z")]
    assert re.search(r"partner +proxy +100/10s +2026-11-22T20:00:00Z +2027-02-20T20", table.out)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--expires-in=0d", "no time such as 90d"),
        ("--expires-in=-1d", "no time such as 90d"),
        ("--expires-in=90", "no time such as 90d"),
        ("--expires-in=3651d", "at most ten years"),
        ("--expires-in=" + "9" * 10_000 + "d", "no time such as 90d"),
        ("--rate=10", "no rate"),
        ("--rate=0/10s", "no rate"),
        ("--rate=999999/1s", "must be 1 to"),
    ],
)
def test_no_end_and_no_rate_is_refused(migrated: Run, option: str, problem: str) -> None:
    result = migrated("keys", "create", "partner", "--scopes", "proxy", option)

    assert (result.code, result.out) == (2, "")
    assert problem in " ".join(result.err.split())
    assert migrated("keys", "list", "--json").out == ""


def test_a_key_is_changed_for_another_of_its_name(migrated: Run) -> None:
    """Two are valid at once; the name moves on with the one that stays."""
    first = migrated("keys", "create", "shop", "--scopes", "ops").out
    second = migrated("keys", "create", "shop-new", "--scopes", "ops").out

    assert migrated("keys", "revoke", "shop").code == 0
    third = migrated("keys", "create", "shop", "--scopes", "ops").out

    assert len({first, second, third}) == 3
    rows = [json.loads(line) for line in migrated("keys", "list", "--json").lines]
    assert sorted(row["name"] for row in rows if not row["revoked_at"]) == ["shop", "shop-new"]


def test_a_key_is_given_another_watch_key(migrated: Run) -> None:
    own = migrated("watch", "add", "coffee", "--reserved").out.strip()
    migrated("keys", "create", "till", "--scopes", "payments:write")

    def assigned() -> str | None:
        row: dict[str, str | None] = json.loads(migrated("keys", "list", "--json").out)
        return row["watch_key"]

    result = migrated("keys", "assign", "till", "--watch", "coffee")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert assigned() == own

    assert migrated("keys", "assign", "till", "--shared").code == 0
    assert assigned() is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("till",), "one of the arguments --watch --shared is required"),
        (("till", "--watch", "coffee", "--shared"), "not allowed with argument"),
        (("till", "--watch", "none"), "watch: no reserved watch key named 'none' is in use"),
        (("none", "--shared"), "name: there is no valid key 'none'; see `axiompay keys list`"),
    ],
)
def test_what_cannot_be_assigned_is_said(
    migrated: Run, arguments: tuple[str, ...], problem: str
) -> None:
    migrated("watch", "add", "coffee", "--reserved")
    migrated("keys", "create", "till", "--scopes", "payments:write", "--watch", "coffee")

    result = migrated("keys", "assign", *arguments)

    assert (result.code, result.out) == (2, "")
    assert problem in " ".join(result.err.split())
    assert json.loads(migrated("keys", "list", "--json").out)["watch_key"] is not None
