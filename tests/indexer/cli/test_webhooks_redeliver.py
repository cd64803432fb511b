"""`axiompay webhooks redeliver`: what came in and what went out, once more."""

import json
from pathlib import Path

import pytest

from indexer.cli import webhook_endpoints, webhooks_redeliver
from indexer.core.types import WebhookSource, WebhookVerdict
from store import deliveries, webhook_events
from tests.builders import NOW
from tests.indexer.cli.conftest import Result, Run
from tests.indexer.cli.mail import NOBODY, URL, arrived, sold, within, write


SOON = "2026-11-22T20:00:00Z"


@pytest.fixture(autouse=True)
def _at_a_known_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (webhooks_redeliver, webhook_endpoints):
        monkeypatch.setattr(module, "clock", lambda: NOW + 60.5)


@pytest.fixture
def endpoint(migrated: Run) -> str:
    """The id of a receiver."""
    migrated("webhooks", "endpoints", "create", URL)
    [line] = migrated("webhooks", "endpoints", "list", "--json").lines
    return str(json.loads(line)["id"])


def shown(run: Run, id_: str) -> dict[str, object]:
    result = run("webhooks", "show", id_, "--json")
    assert result.code == 0
    said: dict[str, object] = json.loads(result.out)
    return said


def sent(run: Run) -> list[str]:
    return [json.loads(line)["id"] for line in run("webhooks", "list", "--sent", "--json").lines]


@pytest.mark.parametrize(
    "verdict",
    [
        WebhookVerdict.FAILED,
        WebhookVerdict.IGNORED,
        WebhookVerdict.REFUSED,
        WebhookVerdict.DONE,
        WebhookVerdict.WAITING,
    ],
)
def test_what_came_in_is_processed_again(
    migrated: Run, tmp_path: Path, verdict: WebhookVerdict
) -> None:
    id_ = arrived(tmp_path, "one", verdict=verdict)

    result = migrated("webhooks", "redeliver", id_)

    assert result == Result(0, f"{id_}  waiting\n", "")
    assert shown(migrated, id_)["verdict"] == "waiting"
    helius = WebhookSource.HELIUS
    due = within(tmp_path, lambda database: webhook_events.waiting(database, helius, NOW + 60, 9))
    assert [f"whe_{event.id}" for event in due] == [id_]


def test_what_was_never_authentic_is_not_processed(migrated: Run, tmp_path: Path) -> None:
    sample = webhook_events.sample(
        WebhookSource.HELIUS, 7, count=1, address="192.0.2.7", detail="no secret", now=NOW
    )
    write(tmp_path, sample)

    result = migrated("webhooks", "redeliver", "whe_1")

    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "axiompay: whe_1 was never authentic: there is nothing to process again\n"
    )


@pytest.mark.parametrize("end", [deliveries.delivered, deliveries.failed])
def test_a_delivery_is_sent_again_whatever_came_of_it(
    migrated: Run, tmp_path: Path, endpoint: str, end: object
) -> None:
    sold(tmp_path)
    [id_] = sent(migrated)
    assert callable(end)
    write(tmp_path, end(int(id_.removeprefix("dlv_")), NOW))

    result = migrated("webhooks", "redeliver", id_, "--json")

    assert (result.code, json.loads(result.out)) == (0, {"id": id_, "state": "waiting"})
    after = shown(migrated, id_)
    assert (after["state"], after["attempts"], after["endpoint_id"]) == ("waiting", 0, endpoint)


def test_each_stands_for_itself(migrated: Run, tmp_path: Path, endpoint: str) -> None:
    sold(tmp_path)
    [delivery] = sent(migrated)
    event = arrived(tmp_path, "one", verdict=WebhookVerdict.FAILED)

    result = migrated("webhooks", "redeliver", "whe_77", event, "dlv_77", delivery, delivery)

    assert endpoint
    assert result.code == 1
    assert result.lines == [f"{event}  waiting", f"{delivery}  waiting"]
    assert result.err == (
        "axiompay: there is no whe_77; see `axiompay webhooks list`\n"
        "axiompay: there is no dlv_77; see `axiompay webhooks list --sent`\n"
    )


@pytest.mark.parametrize("verb", ["disable", "delete"])
def test_a_receiver_that_is_not_there_is_sent_nothing(
    migrated: Run, tmp_path: Path, endpoint: str, verb: str
) -> None:
    sold(tmp_path)
    [id_] = sent(migrated)
    migrated("webhooks", "endpoints", verb, endpoint)

    one = migrated("webhooks", "redeliver", id_)
    all_ = migrated("webhooks", "redeliver", "--endpoint", endpoint, "--since", SOON)

    assert (one.code, one.out, all_.code, all_.out) == (1, "", 1, "")
    assert f"goes to {endpoint}, which is disabled or deleted" in one.err
    assert endpoint in all_.err
    assert shown(migrated, id_)["state"] == "dropped"


def test_a_receiver_is_sent_what_it_missed(migrated: Run, tmp_path: Path, endpoint: str) -> None:
    migrated("webhooks", "endpoints", "disable", endpoint)
    sold(tmp_path)
    sold(tmp_path, 2, at=NOW + 10)
    migrated("webhooks", "endpoints", "enable", endpoint)
    asked = ("webhooks", "redeliver", "--endpoint", endpoint, "--since")

    later = migrated(*asked, "2026-11-22T20:00:10Z", "--json")
    all_ = migrated(*asked, SOON)

    assert json.loads(later.out) == {"endpoint_id": endpoint, "count": 1}
    assert all_ == Result(0, f"{endpoint}: 2 wait to be sent\n", "")
    assert len(sent(migrated)) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--endpoint", NOBODY),
        ("--since", SOON),
        ("whe_1", "--endpoint", NOBODY),
        ("whe_1", "--since", SOON),
        ("whe_1", "--endpoint", NOBODY, "--since", SOON),
        ("whe_x",),
        ("--endpoint", "we_x", "--since", SOON),
        ("--endpoint", NOBODY, "--since", "yesterday"),
        ("--endpoint", NOBODY, "--since", "2026-11-22T20:01:01Z"),
        ("--endpoint", NOBODY, "--since", "2026-08-24T20:00:59Z"),
    ],
)
def test_what_is_to_be_sent_must_be_said(migrated: Run, arguments: tuple[str, ...]) -> None:
    result = migrated("webhooks", "redeliver", *arguments)

    assert (result.code, result.out) == (2, "")
