"""`axiompay webhooks list` and `show`: what came in, and what went out."""

import json
from pathlib import Path

import pytest

from indexer.cli import webhooks
from indexer.core.types import WebhookSource, WebhookVerdict
from store import deliveries, webhook_events
from store.deliveries import Attempt
from tests.builders import NOW
from tests.indexer.cli.conftest import Run
from tests.indexer.cli.mail import HOSTILE, NOBODY, URL, arrived, sold, write


@pytest.fixture
def endpoint(migrated: Run) -> str:
    """The id of a receiver."""
    migrated("webhooks", "endpoints", "create", URL)
    [line] = migrated("webhooks", "endpoints", "list", "--json").lines
    return str(json.loads(line)["id"])


def tried(folder: Path, delivery_id: str, *, status: int | None, response: str = "") -> None:
    number = int(delivery_id.removeprefix("dlv_"))
    problem = None if status == 200 else f"answered {status}"
    attempt = Attempt(
        number=1, at=NOW + 5, duration_ms=7, status=status, problem=problem, response=response
    )
    end = deliveries.delivered(number, NOW + 5)
    if problem is not None:
        end = deliveries.again(number, NOW + 10)
    write(folder, deliveries.tried(number, attempt), end)


def listed(run: Run, *arguments: str) -> list[str]:
    result = run("webhooks", "list", "--json", *arguments)
    assert (result.code, result.err) == (0, "")
    return [json.loads(line)["id"] for line in result.lines]


# ---------------------------------------------------------------------------------- what came in


def test_what_came_in_is_listed_the_newest_first(migrated: Run, tmp_path: Path) -> None:
    payment_id = sold(tmp_path)
    first = arrived(
        tmp_path,
        "one",
        verdict=WebhookVerdict.DONE,
        detail=f"settled{HOSTILE}",
        payment_ids=(payment_id,),
    )
    second = arrived(tmp_path, "two", source=WebhookSource.PAYMOB, at=NOW + 9)

    table = migrated("webhooks", "list")

    assert (table.code, table.err) == (0, "")
    assert [line.split()[1] for line in table.lines] == ["id", second, first]
    for wanted in ("paymob", "waiting", "helius", "done", payment_id, "2026-11-22T20:00:00Z"):
        assert wanted in table.out
    assert all(char.isprintable() or char == "\n" for char in table.out)
    assert "settled\\x1b[2J\\x9b1m\\u202e\\x07" in table.out
    assert listed(migrated) == [second, first]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--source", "helius"), ["whe_3", "whe_1"]),
        (("--verdict", "failed"), ["whe_2"]),
        (("--since", "2026-11-22T20:00:10Z"), ["whe_3", "whe_2"]),
        (("--until", "2026-11-22T20:00:10Z"), ["whe_1"]),
        (("--since", "2026-11-22T20:00:10Z", "--until", "2026-11-22T20:00:20Z"), ["whe_2"]),
        (("--limit", "1"), ["whe_3"]),
        (("--source", "quicknode"), []),
    ],
)
def test_it_is_filtered(
    migrated: Run, tmp_path: Path, arguments: tuple[str, ...], expected: list[str]
) -> None:
    arrived(tmp_path, "one")
    arrived(
        tmp_path,
        "two",
        source=WebhookSource.PAYMOB,
        at=NOW + 10,
        verdict=WebhookVerdict.FAILED,
    )
    arrived(tmp_path, "three", at=NOW + 20)

    assert listed(migrated, *arguments) == expected


def test_it_is_filtered_by_payment(migrated: Run, tmp_path: Path) -> None:
    payment_id = sold(tmp_path)
    arrived(tmp_path, "other")
    about = arrived(tmp_path, "one", verdict=WebhookVerdict.DONE, payment_ids=(payment_id,))

    assert listed(migrated, "--payment", payment_id) == [about]


def test_a_long_trail_is_read_a_page_at_a_time(
    migrated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_PAGE_SIZE", 2)
    ids = [arrived(tmp_path, str(number)) for number in range(5)]

    assert listed(migrated) == ids[::-1]
    assert listed(migrated, "--limit", "3") == ids[:1:-1]


def test_one_is_shown_whole(migrated: Run, tmp_path: Path) -> None:
    body = '{\n  "signature": "5abc"\x1b]0;title\x07\x9b2J\u202e\n}'
    id_ = arrived(tmp_path, "one", body=body.encode())

    text, line = migrated("webhooks", "show", id_), migrated("webhooks", "show", id_, "--json")

    assert (text.code, text.err) == (0, "")
    assert text.lines[-3:] == [
        "{",
        '  "signature": "5abc"\\x1b]0;title\\x07\\x9b2J\\u202e',
        "}",
    ]
    assert all(char.isprintable() or char == "\n" for char in text.out + line.out)
    assert "user-agent: Helius\\x1b[2J" in text.out
    said = json.loads(line.out)
    assert (said["id"], said["body"], said["address"]) == (id_, body, "192.0.2.7")


def test_a_body_that_is_no_text_is_shown_in_base64(migrated: Run, tmp_path: Path) -> None:
    id_ = arrived(tmp_path, "one", body=b"\xff\x1b")

    assert migrated("webhooks", "show", id_).lines[-1] == "/xs="


def test_what_was_turned_away_is_a_line_of_the_list(migrated: Run, tmp_path: Path) -> None:
    sample = webhook_events.sample(
        WebhookSource.HELIUS, 7, count=40, address="192.0.2.7", detail="no secret", now=NOW
    )
    write(tmp_path, sample)

    assert "unauthenticated" in migrated("webhooks", "list").out
    assert " 40 " in migrated("webhooks", "list", "--verdict", "unauthenticated").out


# -------------------------------------------------------------------------------- what went out


def test_what_went_out_is_listed_the_newest_first(
    migrated: Run, tmp_path: Path, endpoint: str
) -> None:
    ids = [sold(tmp_path, number) for number in (1, 2)]
    newest, oldest = listed(migrated, "--sent")
    tried(tmp_path, oldest, status=200)

    table = migrated("webhooks", "list", "--sent")

    assert [line.split()[1] for line in table.lines] == ["id", newest, oldest]
    for wanted in (*ids, endpoint, "payment.created", "waiting", "delivered"):
        assert wanted in table.out
    assert listed(migrated, "--sent", "--state", "delivered") == [oldest]
    assert listed(migrated, "--sent", "--payment", ids[1]) == [newest]
    assert listed(migrated, "--sent", "--endpoint", endpoint) == [newest, oldest]
    assert listed(migrated, "--sent", "--endpoint", NOBODY) == []


def test_a_long_list_of_deliveries_is_read_a_page_at_a_time(
    migrated: Run, tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_PAGE_SIZE", 2)
    for number in range(1, 6):
        sold(tmp_path, number)

    every = listed(migrated, "--sent", "--endpoint", endpoint)

    assert len(set(every)) == 5
    assert listed(migrated, "--sent", "--limit", "3") == every[:3]


def test_a_delivery_is_shown_with_its_attempts(
    migrated: Run, tmp_path: Path, endpoint: str
) -> None:
    sold(tmp_path)
    [id_] = listed(migrated, "--sent", "--endpoint", endpoint)
    tried(tmp_path, id_, status=500, response=f"down{HOSTILE}\nfor good")

    text, line = migrated("webhooks", "show", id_), migrated("webhooks", "show", id_, "--json")

    assert (text.code, text.err) == (0, "")
    assert all(char.isprintable() or char == "\n" for char in text.out + line.out)
    assert "answered 500" in text.out
    assert "down\\x1b[2J\\x9b1m\\u202e\\x07\\nfor good" in text.lines[-1]
    said = json.loads(line.out)
    assert [each["response"] for each in said["history"]] == [f"down{HOSTILE}\nfor good"]


# ------------------------------------------------------------------------------------ wrong usage


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--sent", "--source", "helius"), "--source"),
        (("--sent", "--verdict", "done"), "--verdict"),
        (("--sent", "--since", "2026-11-22T20:00:00Z"), "--since"),
        (("--sent", "--until", "2026-11-22T20:00:00Z"), "--until"),
        (("--state", "failed"), "--state"),
        (("--endpoint", NOBODY), "--endpoint"),
    ],
)
def test_filters_of_the_other_list_are_refused(
    migrated: Run, arguments: tuple[str, ...], named: str
) -> None:
    result = migrated("webhooks", "list", *arguments)

    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"axiompay: webhooks list: {named} cannot be asked of what ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--source", "stripe"),
        ("list", "--verdict", "paid"),
        ("list", "--since", "yesterday"),
        ("list", "--limit", "0"),
        ("list", "--limit", "100001"),
        ("list", "--payment", "pay_1"),
        ("list", "--sent", "--endpoint", "we_1"),
        ("list", "--sent", "--state", "lost"),
        ("show", "7"),
        ("show", "whe_0"),
        ("show", "whe_\u0661"),
        ("show", "whe_" + "9" * 19),
        ("show", "evt_7"),
        ("show",),
    ],
)
def test_what_is_typed_wrong_ends_with_2(migrated: Run, arguments: tuple[str, ...]) -> None:
    result = migrated("webhooks", *arguments)

    assert (result.code, result.out) == (2, "")


@pytest.mark.parametrize(
    ("id_", "where"), [("whe_7", "list`"), ("dlv_7", "list --sent`"), ("whe_" + "9" * 18, "list`")]
)
def test_one_that_is_not_there_is_named(migrated: Run, id_: str, where: str) -> None:
    result = migrated("webhooks", "show", id_)

    assert (result.code, result.out) == (1, "")
    assert result.err == f"axiompay: there is no {id_}; see `axiompay webhooks {where}\n"
