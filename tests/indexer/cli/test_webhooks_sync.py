"""`axiompay webhooks sync`, against the webhooks API on loopback."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.indexer.cli.conftest import Run
from tests.instructions import key
from tests.servers.fake_helius import AUTH_HEADER, FakeHelius


API_KEY = "0f1e2d3c-canary-api-key"
WATCH_KEY = key("watch key")
STRANGER = key("stranger")


@pytest.fixture
def helius() -> Iterator[FakeHelius]:
    """In a loop of its own: the command has one as well."""
    fake = FakeHelius(API_KEY)
    fake.add("hook", [STRANGER])
    with in_a_thread(fake):
        yield fake


@contextmanager
def in_a_thread(fake: FakeHelius) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fake.__aenter__(), loop).result(30)
        yield
        asyncio.run_coroutine_threadsafe(fake.__aexit__(None, None, None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def settings_for(fake: FakeHelius, **others: str) -> dict[str, str]:
    return {
        "HELIUS_API_URL": fake.url,
        "HELIUS_API_KEY": API_KEY,
        "HELIUS_WEBHOOK_ID": "hook",
        "HELIUS_WEBHOOK_SECRETS": AUTH_HEADER.replace(" ", "-"),
    } | others


@pytest.fixture(autouse=True)
def _known_header(helius: FakeHelius) -> None:
    helius.hooks["hook"]["authHeader"] = AUTH_HEADER.replace(" ", "-")


@pytest.fixture
def started(migrated: Run) -> Run:
    """With a watch key, as after the first start of a daemon."""
    assert migrated("watch", "add", "first", "--key", WATCH_KEY).code == 0
    return migrated


def test_it_makes_the_webhook_what_it_should_be(started: Run, helius: FakeHelius) -> None:
    result = started("webhooks", "sync", **settings_for(helius))

    assert result.code == 0, result.err
    assert result.out == ""
    assert "addresses added: 1, removed: 1, kept: 0" in result.err
    assert helius.hooks["hook"]["accountAddresses"] == [WATCH_KEY]

    again = started("webhooks", "sync", **settings_for(helius))
    assert (again.code, "is as wanted; addresses: 1" in again.err) == (0, True)
    assert helius.methods() == ["GET", "PUT", "GET"]


def test_a_dry_run_changes_nothing_and_says_that_something_differs(
    started: Run, helius: FakeHelius
) -> None:
    helius.hooks["hook"]["active"] = False

    result = started("webhooks", "sync", "--dry-run", **settings_for(helius))

    assert result.code == 1
    assert "addresses to be added: 1, to be removed: 1" in result.err
    assert "it was off and would be switched on" in result.err
    assert helius.methods() == ["GET"]


def test_a_dry_run_of_what_is_as_wanted_is_well(started: Run, helius: FakeHelius) -> None:
    helius.hooks["hook"]["accountAddresses"] = [WATCH_KEY]

    assert started("webhooks", "sync", "--dry-run", **settings_for(helius)).code == 0


def test_json_names_the_addresses(started: Run, helius: FakeHelius) -> None:
    result = started("webhooks", "sync", "--json", **settings_for(helius))

    [line] = result.lines
    assert json.loads(line) == {
        "webhook_id": "hook",
        "dry_run": False,
        "added": [WATCH_KEY],
        "removed": [STRANGER],
        "kept": 0,
        "switched_on": False,
        "warning": None,
    }


def test_what_it_cannot_put_right_is_said(started: Run, helius: FakeHelius) -> None:
    helius.hooks["hook"]["authHeader"] = "canary-of-the-webhook"

    result = started("webhooks", "sync", **settings_for(helius))

    assert result.code == 1
    assert "none of AXIOM_HELIUS_WEBHOOK_SECRETS" in result.err
    assert "canary" not in result.out + result.err


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("HELIUS_API_KEY", "another-canary", "AXIOM_HELIUS_API_KEY is not accepted"),
        ("HELIUS_WEBHOOK_ID", "none", "no webhook none; see AXIOM_HELIUS_WEBHOOK_ID"),
        ("HELIUS_API_URL", "http://127.0.0.1:1", "ClientConnectorError"),
    ],
)
def test_a_refusal_is_one_line_without_a_key(
    started: Run, helius: FakeHelius, setting: str, value: str, words: str
) -> None:
    result = started("webhooks", "sync", **settings_for(helius, **{setting: value}))

    assert result.code == 1
    assert words in result.err
    assert "canary" not in result.out + result.err


def test_without_its_settings_it_says_which(migrated: Run) -> None:
    result = migrated("webhooks", "sync")

    assert result.code == 2
    assert "AXIOM_HELIUS_API_KEY" in result.err


def test_before_there_is_a_watch_key_it_says_who_makes_one(
    migrated: Run, helius: FakeHelius
) -> None:
    result = migrated("webhooks", "sync", **settings_for(helius))

    assert result.code == 1
    assert "`axiompay up` makes it" in result.err
    assert helius.calls == []
