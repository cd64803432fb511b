"""`axiompay webhooks endpoints`: receivers, without a server."""

import json
import re
from pathlib import Path

import pytest

from indexer.cli import webhook_endpoints
from indexer.core import standard_webhooks
from indexer.core.ids import endpoint_id
from indexer.core.receiver import ENDPOINTS_MAX
from indexer.core.standard_webhooks import signing_key
from store import deliveries, webhook_endpoints as stored
from store.deliveries import Attempt
from tests.builders import NOW
from tests.indexer.cli.conftest import Result, Run
from tests.indexer.cli.mail import HOSTILE, NOBODY, URL, sold, within, write


SIGNING_KEY = "0123456789abcdef0123456789ABCDEF"
KEYS = {"WEBHOOK_SIGNING_KEYS": SIGNING_KEY}


def create(run: Run, *arguments: str, url: str = URL, **settings: str) -> Result:
    result = run("webhooks", "endpoints", "create", url, *arguments, **settings)
    assert result.code == 0, result.err
    return result


def listed(run: Run) -> list[dict[str, object]]:
    return [json.loads(line) for line in run("webhooks", "endpoints", "list", "--json").lines]


def test_a_secret_is_printed_alone(migrated: Run, tmp_path: Path) -> None:
    result = create(migrated, "--event-types", "payment.settled, payment.created")

    [endpoint] = listed(migrated)
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=\n", result.out)
    assert result.err == (
        f"axiompay: {endpoint['id']} is sent payment.created, payment.settled at {URL}\n"
    )
    assert endpoint["event_types"] == ["payment.created", "payment.settled"]
    secret = result.out.strip().removeprefix("whsec_").encode()
    assert all(secret not in file.read_bytes() for file in tmp_path.iterdir())


def test_the_key_is_made_once_and_kept_beside_the_database(migrated: Run, tmp_path: Path) -> None:
    first, second = create(migrated), create(migrated)

    key = signing_key((tmp_path / "axiom.db.key").read_text().strip())
    ids = [str(endpoint["id"]) for endpoint in listed(migrated)]
    made = {standard_webhooks.secret_of(key, id_, 1) for id_ in ids}
    assert {first.out.strip(), second.out.strip()} == made


def test_a_configured_key_is_the_one_that_is_used(migrated: Run, tmp_path: Path) -> None:
    result = create(migrated, **KEYS)

    [endpoint] = listed(migrated)
    secret = standard_webhooks.secret_of(signing_key(SIGNING_KEY), str(endpoint["id"]), 1)
    assert result.out.strip() == secret
    assert not (tmp_path / "axiom.db.key").exists()


@pytest.mark.parametrize(
    ("url", "arguments", "field"),
    [
        ("http://shop.example/", (), "url"),
        ("https://127.0.0.1/", (), "url"),
        ("https://u:p@shop.example/", (), "url"),
        ("shop.example", (), "url"),
        (URL, ("--event-types", "payment.paid"), "event_types"),
        (URL, ("--event-types", ""), "event_types"),
        (URL, ("--description", ""), "description"),
        (URL, ("--description", f"tea{HOSTILE}"), "description"),
    ],
)
def test_what_is_wrong_is_named(
    migrated: Run, tmp_path: Path, url: str, arguments: tuple[str, ...], field: str
) -> None:
    result = migrated("webhooks", "endpoints", "create", url, *arguments)

    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"axiompay: {field}: ")
    assert result.err.rstrip("\n").isprintable()
    assert listed(migrated) == []
    assert not (tmp_path / "axiom.db.key").exists()


def test_a_listed_network_may_be_registered(migrated: Run) -> None:
    create(migrated, url="http://127.0.0.1:9000/", WEBHOOK_PRIVATE_NETWORKS="127.0.0.0/8")

    assert [endpoint["url"] for endpoint in listed(migrated)] == ["http://127.0.0.1:9000/"]


def test_there_is_a_bound(migrated: Run, tmp_path: Path) -> None:
    batch = [
        stored.create(
            id=endpoint_id(number.to_bytes(16, "big")),
            url=URL,
            event_types=(),
            description=None,
            key_id="k",
            now=NOW,
            at_most=ENDPOINTS_MAX,
        )
        for number in range(ENDPOINTS_MAX)
    ]
    write(tmp_path, *batch)

    result = migrated("webhooks", "endpoints", "create", URL)

    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[-1] == "axiompay: there are 100 receivers; delete one first"


def test_without_a_database_nothing_is_made(run: Run, tmp_path: Path) -> None:
    result = run("webhooks", "endpoints", "create", URL)

    assert (result.code, result.out) == (1, "")
    assert "does not exist" in result.err
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------- rotating


def test_a_secret_is_replaced(
    migrated: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(webhook_endpoints, "clock", lambda: NOW + 0.5)
    before = create(migrated)
    id_ = str(listed(migrated)[0]["id"])

    after = migrated("webhooks", "endpoints", "rotate", id_)
    [shown] = listed(migrated)

    key = signing_key((tmp_path / "axiom.db.key").read_text().strip())
    assert after.code == 0
    assert after.out.strip() == standard_webhooks.secret_of(key, id_, 2) != before.out.strip()
    assert "the secret before signs too until 2026-11-23T20:00:00Z" in after.err
    assert shown["old_secret_until"] == "2026-11-23T20:00:00Z"


def test_a_leaked_secret_ends_at_once(migrated: Run) -> None:
    create(migrated)
    id_ = str(listed(migrated)[0]["id"])

    result = migrated("webhooks", "endpoints", "rotate", id_, "--overlap-s", "0")

    assert result.code == 0
    assert "signs too" not in result.err
    assert listed(migrated)[0]["old_secret_until"] is None


def test_a_rotation_in_between_is_said(
    migrated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(migrated)
    id_ = str(listed(migrated)[0]["id"])
    stale = within(tmp_path, lambda database: stored.get(database, id_))
    migrated("webhooks", "endpoints", "rotate", id_)

    async def found(*_: object) -> object:
        return stale

    monkeypatch.setattr(webhook_endpoints, "found", found)
    result = migrated("webhooks", "endpoints", "rotate", id_)

    assert (result.code, result.out) == (1, "")
    assert "another rotation came in between" in result.err


# --------------------------------------------------------------------------------- as they are


def test_they_are_listed_with_how_they_stand(migrated: Run, tmp_path: Path) -> None:
    create(migrated, "--description", "the shop")
    sold(tmp_path)
    attempt = Attempt(
        number=1,
        at=NOW,
        duration_ms=7,
        status=500,
        problem=f"answered 500{HOSTILE}",
        response="",
    )
    write(tmp_path, deliveries.tried(1, attempt), deliveries.failed(1, NOW))

    table = migrated("webhooks", "endpoints", "list")
    [shown] = listed(migrated)

    assert (table.code, table.err) == (0, "")
    assert all(char.isprintable() or char == "\n" for char in table.out)
    for wanted in (str(shown["id"]), URL, "enabled", "all", "answered 500\\x1b[2J", "the shop"):
        assert wanted in table.out
    assert (shown["waiting"], shown["failed"]) == (0, 1)
    assert "secret" not in shown


def test_one_is_disabled_and_enabled(migrated: Run, tmp_path: Path) -> None:
    create(migrated)
    id_ = str(listed(migrated)[0]["id"])
    sold(tmp_path)

    assert migrated("webhooks", "endpoints", "disable", id_) == Result(0, "", "")
    assert migrated("webhooks", "endpoints", "disable", id_).code == 0
    [disabled] = listed(migrated)
    table = migrated("webhooks", "endpoints", "list").out
    assert migrated("webhooks", "endpoints", "enable", id_) == Result(0, "", "")
    [enabled] = listed(migrated)

    assert disabled["state_reason"] == "disabled from the command line"
    assert "disabled: disabled from the command line" in table
    assert (disabled["waiting"], enabled["state"]) == (0, "enabled")


def test_one_is_deleted_for_good(migrated: Run) -> None:
    create(migrated)
    id_ = str(listed(migrated)[0]["id"])

    assert migrated("webhooks", "endpoints", "delete", id_) == Result(0, "", "")
    assert listed(migrated) == []


def test_a_test_is_named_by_its_delivery(migrated: Run) -> None:
    create(migrated)
    id_ = str(listed(migrated)[0]["id"])

    result = migrated("webhooks", "endpoints", "test", id_)
    shown = json.loads(migrated("webhooks", "show", result.out.strip(), "--json").out)

    assert (result.code, result.err) == (0, "")
    assert (shown["type"], shown["endpoint_id"], shown["state"]) == (
        "webhook.test",
        id_,
        "waiting",
    )
    migrated("webhooks", "endpoints", "disable", id_)
    refused = migrated("webhooks", "endpoints", "test", id_)
    assert (refused.code, refused.out) == (1, "")


@pytest.mark.parametrize("verb", ["rotate", "enable", "disable", "delete", "test"])
def test_one_that_is_not_there_is_named(migrated: Run, verb: str) -> None:
    missing = migrated("webhooks", "endpoints", verb, NOBODY)
    wrong = migrated("webhooks", "endpoints", verb, "we_1")

    assert (missing.code, missing.out) == (1, "")
    assert missing.err == (
        f"axiompay: there is no receiver {NOBODY}; see `axiompay webhooks endpoints list`\n"
    )
    assert (wrong.code, wrong.out) == (2, "")
