"""`axiompay watch`: keys are put to use, rotated and retired by people."""

import asyncio
import json
from typing import Any

import pytest

from indexer.core.account import is_key
from indexer.core.payment import Payment
from store.database import open_database
from tests.builders import make_payment
from tests.indexer.cli.conftest import Run
from tests.instructions import key
from tests.store.keeping import create


def listed(run: Run) -> dict[str, dict[str, Any]]:
    """The keys in use by name, the others by key."""
    rows = [json.loads(line) for line in run("watch", "list", "--json").lines]
    return {row["name"] if row["state"] == "in_use" else row["key"]: row for row in rows}


async def stored(*payments: Payment) -> None:
    database = await open_database("sqlite:///axiom.db")
    await create(database, *payments)
    await database.close()


def test_a_key_is_printed_alone_and_is_random(migrated: Run) -> None:
    results = [migrated("watch", "add", name) for name in ("east", "west")]

    assert [(each.code, each.err) for each in results] == [(0, "")] * 2
    first, second = (each.out.strip() for each in results)
    assert is_key(first)
    assert is_key(second)
    assert first != second
    assert {name: row["key"] for name, row in listed(migrated).items()} == {
        "east": first,
        "west": second,
    }


def test_a_list_shows_what_hangs_on_each(migrated: Run) -> None:
    shop = migrated("watch", "add", "coffee", "--reserved").out.strip()
    migrated("watch", "add", "all", "--key", key("all"))
    migrated("keys", "create", "barista", "--scopes", "payments:write", "--watch", "coffee")

    table, rows = migrated("watch", "list").out, listed(migrated)

    assert rows["coffee"] | {"created_at": ""} == {
        "name": "coffee",
        "key": shop,
        "purpose": "reserved",
        "state": "in_use",
        "created_at": "",
        "retired_at": None,
        "open_payments": 0,
        "frontier_slot": None,
        "frontier_age_s": None,
        "api_keys": ["barista"],
    }
    assert (rows["all"]["purpose"], rows["all"]["api_keys"]) == ("shared", [])
    assert all(word in table for word in ("coffee", shop, "reserved", "in_use", "barista", "all"))
    [api_key] = map(json.loads, migrated("keys", "list", "--json").lines)
    assert api_key["watch_key"] == shop


def test_a_rotation_keeps_the_name_and_the_callers(migrated: Run) -> None:
    old = migrated("watch", "add", "coffee", "--reserved").out.strip()
    migrated("keys", "create", "barista", "--scopes", "payments:write", "--watch", "coffee")

    result = migrated("watch", "rotate", "coffee")

    rows, fresh = listed(migrated), result.out.strip()
    assert (result.code, result.err) == (0, "")
    assert fresh != old
    assert (rows["coffee"]["key"], rows["coffee"]["api_keys"]) == (fresh, ["barista"])
    assert (rows[old]["name"], rows[old]["state"], rows[old]["api_keys"]) == (
        "coffee",
        "closed",
        [],
    )
    assert rows[old]["retired_at"]


def test_one_with_open_payments_is_watched_after_its_end(migrated: Run) -> None:
    migrated("watch", "add", "all")
    migrated("watch", "add", "east", "--key", key("east"))
    carried = [make_payment(n, watch_key=key(name)) for n, name in enumerate(("east", "nobody's"))]
    asyncio.run(stored(*carried))

    result = migrated("watch", "retire", "east")

    assert (result.code, result.out) == (0, "")
    assert f"{key('east')} is retired; open payments that have it: 1" in result.err
    rows = listed(migrated)
    assert (rows[key("east")]["state"], rows[key("east")]["open_payments"]) == ("watched", 1)
    assert (rows[key("nobody's")]["name"], rows[key("nobody's")]["state"]) == (None, "watched")
    assert key("nobody's") in migrated("watch", "list").out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("add", "all"), "name: there is a watch key named 'all' already"),
        (("add", "a\nb"), "name: must be printable"),
        (("add", "x", "--key", "nonsense"), "key: 'nonsense' is no key"),
        (("add", "x", "--key", key("all")), "is the watch key 'all' already, which is in use"),
        (("add", "x", "--key", key("recipient")), "is the recipient or a mint"),
        (("add", "x", "--key", key("mint")), "is the recipient or a mint"),
        (("rotate", "none"), "no watch key named 'none' is in use"),
        (("retire", "none"), "no watch key named 'none' is in use"),
        (("retire", "all"), "is the last shared key: rotate it instead"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    migrated: Run, words: tuple[str, ...], problem: str
) -> None:
    migrated("watch", "add", "all", "--key", key("all"))
    before = listed(migrated)

    result = migrated("watch", *words, RECIPIENT=key("recipient"), TOKENS=f"SOL,USDC={key('mint')}")

    assert (result.code, result.out) == (2, "")
    assert problem in result.err
    assert result.err.count("\n") == 1
    assert listed(migrated) == before


def test_an_api_key_is_not_made_without_its_watch_key(migrated: Run) -> None:
    migrated("watch", "add", "all")

    result = migrated("keys", "create", "x", "--scopes", "payments:write", "--watch", "all")

    assert (result.code, result.out) == (2, "")
    assert "no reserved watch key named 'all' is in use" in result.err
    assert migrated("keys", "list", "--json").out == ""
