import base64
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator, validate as validate_value

from api.routes import CALLS
from api.webhook_events import PARSERS
from api.webhook_schema import WebhookEventBody
from indexer.core.types import WebhookSource, WebhookVerdict
from store import webhook_events
from store.webhook_events import Arrived, Outcome
from tests.api.running import NOW, Api, make_key, running
from tests.api.test_openapi import DOCUMENT, schema_of


HELIUS, QUICKNODE, PAYMOB = WebhookSource
WAITING, DONE, IGNORED, REFUSED, FAILED, UNAUTHENTICATED = WebhookVerdict


class Desk:
    """Somebody who may look at the audit trail."""

    def __init__(self, api: Api, headers: Mapping[str, str]) -> None:
        self.api = api
        self.headers = headers

    async def get(self, path: str = "") -> tuple[int, dict[str, Any]]:
        return await self.api.get(f"/api/webhooks/events{path}", self.headers)

    async def retry(self, id: str) -> tuple[int, dict[str, Any]]:
        return await self.api.post(f"/api/webhooks/events/{id}/retry", self.headers)

    async def ids(self, query: str = "") -> list[str]:
        status, body = await self.get(query)
        assert status == 200, body
        return [event["id"] for event in body["data"]]

    async def arrived(
        self, name: str, source: WebhookSource = HELIUS, *, at: int = NOW, body: bytes = b"[]"
    ) -> int:
        """An event that came in; its number."""
        arrived = Arrived(
            source=source,
            kind="transactions",
            dedupe_key=name,
            nonce=None,
            body=body,
            headers={"user-agent": "Helius"},
            address="192.0.2.7",
        )
        [[(event_id, _, _)]] = await self.api.database.write([webhook_events.receive(arrived, at)])
        return int(event_id)

    async def ended(self, event_id: int, verdict: WebhookVerdict, *payment_ids: str) -> None:
        outcome = Outcome(verdict=verdict, detail="so it is", payment_ids=payment_ids)
        await self.api.database.write(webhook_events.finish(event_id, outcome, NOW + 5))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with running(tmp_path) as api:
        yield Desk(api, await make_key(api.database, "ops", "ops"))


async def test_the_trail_shows_everything_but_the_body(desk: Desk) -> None:
    payment = await desk.api.create()
    event_id = await desk.arrived("a", body=b'["x"]')
    await desk.ended(event_id, DONE, payment["id"])

    assert await desk.get() == (
        200,
        {
            "data": [
                {
                    "id": f"whe_{event_id}",
                    "source": "helius",
                    "kind": "transactions",
                    "verdict": "done",
                    "detail": "so it is",
                    "received_at": "2026-11-22T20:00:00Z",
                    "updated_at": "2026-11-22T20:00:05Z",
                    "attempts": 1,
                    "repeats": 0,
                    "address": "192.0.2.7",
                    "headers": {"user-agent": "Helius"},
                    "payments": [payment["id"]],
                    "body_bytes": 5,
                }
            ],
            "next_cursor": None,
        },
    )


@pytest.mark.parametrize(
    ("body", "shown", "encoding"),
    [
        (b'["caf\xc3\xa9"]', '["café"]', "text"),
        (b"", "", "text"),
        (b"\xff\x00", base64.b64encode(b"\xff\x00").decode(), "base64"),
    ],
)
async def test_one_event_is_shown_with_its_body(
    desk: Desk, body: bytes, shown: str, encoding: str
) -> None:
    event_id = await desk.arrived("a", body=body)

    status, found = await desk.get(f"/whe_{event_id}")

    assert (status, found["body"], found["body_encoding"]) == (200, shown, encoding)


async def test_the_trail_is_filtered(desk: Desk) -> None:
    payment = await desk.api.create()
    a = await desk.arrived("a", HELIUS, at=NOW)
    b = await desk.arrived("b", PAYMOB, at=NOW + 60)
    c = await desk.arrived("c", HELIUS, at=NOW + 120)
    await desk.ended(a, IGNORED)
    await desk.ended(b, DONE, payment["id"])
    names = {f"whe_{a}": "a", f"whe_{b}": "b", f"whe_{c}": "c"}

    for query, expected in {
        "": "cba",
        "?source=helius": "ca",
        "?source=quicknode": "",
        "?verdict=waiting": "c",
        "?verdict=done&source=paymob": "b",
        "?since=2026-11-22T20:01:00Z": "cb",
        "?since=2026-11-22T21:01:00%2B01:00": "cb",
        "?since=2026-11-22T21:01:00+01:00": "cb",
        "?until=2026-11-22T20:01:00Z": "a",
        "?since=2026-11-22T20:00:01Z&until=2026-11-22T20:02:00Z": "b",
        f"?payment={payment['id']}": "b",
        f"?payment=pay_{'z' * 26}": "",
        f"?cursor=whe_{c}": "ba",
    }.items():
        assert "".join(names[each] for each in await desk.ids(query)) == expected, query


async def test_the_trail_is_turned_page_by_page(desk: Desk) -> None:
    numbers = [await desk.arrived(f"{number:03d}") for number in range(5)]
    seen, cursor = [], ""
    for _ in range(3):
        status, body = await desk.get(f"?limit=2{cursor}")
        assert status == 200
        seen += [event["id"] for event in body["data"]]
        cursor = f"&cursor={body['next_cursor']}"

    assert seen == [f"whe_{number}" for number in reversed(numbers)]
    assert body["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("source=solana", "source"),
        ("source=", "source"),
        ("source=Helius", "source"),
        ("verdict=good", "verdict"),
        ("since=yesterday", "since"),
        ("since=1795377600", "since"),
        ("until=2026-13-01T00:00:00Z", "until"),
        ("payment=1", "payment"),
        ("payment=pay_" + "A" * 26, "payment"),
        ("cursor=1", "cursor"),
        ("cursor=whe_0", "cursor"),
        ("cursor=whe_" + "9" * 19, "cursor"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=1&limit=2", "limit"),
        ("order=asc", "order"),
    ],
)
async def test_a_wrong_filter_is_named(desk: Desk, query: str, field: str) -> None:
    status, body = await desk.get(f"?{query}")

    assert status == 422
    assert [error["field"] for error in body["errors"]] == [field]


@pytest.mark.parametrize(
    "id", ["whe_1", "whe_0", "whe_-1", "whe_01", "1", "whe_", "whe_" + "9" * 18, "whe_" + "9" * 99]
)
async def test_what_is_not_there_is_not_found(desk: Desk, id: str) -> None:
    for status, body in (await desk.get(f"/{id}"), await desk.retry(id)):
        assert (status, body["code"]) == (404, "no_such_event")


@pytest.mark.parametrize("verdict", [DONE, IGNORED, REFUSED, FAILED])
async def test_an_event_is_processed_again_when_it_is_asked_for(
    desk: Desk, verdict: WebhookVerdict
) -> None:
    event_id = await desk.arrived("a")
    await desk.ended(event_id, verdict)
    woken = desk.api.wakeups.count

    status, body = await desk.retry(f"whe_{event_id}")

    assert (status, body["verdict"], body["attempts"]) == (200, "waiting", 0)
    due = await webhook_events.waiting(desk.api.database, HELIUS, NOW, 10)
    assert [event.id for event in due] == [event_id]
    assert desk.api.wakeups.count == woken + 1


async def test_what_waits_goes_on_waiting(desk: Desk) -> None:
    event_id = await desk.arrived("a")
    before = await webhook_events.get(desk.api.database, event_id)

    assert (await desk.retry(f"whe_{event_id}"))[0] == 200
    assert await webhook_events.get(desk.api.database, event_id) == before


async def test_what_was_turned_away_is_not_processed(desk: Desk) -> None:
    sample = webhook_events.sample(HELIUS, 1, count=3, address="192.0.2.7", detail="no", now=NOW)
    await desk.api.database.write([sample])
    [id_] = await desk.ids("?verdict=unauthenticated")

    status, body = await desk.retry(id_)

    assert (status, body["code"]) == (409, "not_retryable")
    assert await desk.ids("?verdict=unauthenticated") == [id_]


@pytest.mark.parametrize("scopes", [(), ("payments:read", "payments:write", "webhooks")])
async def test_the_trail_is_for_ops(desk: Desk, scopes: tuple[str, ...]) -> None:
    event_id = await desk.arrived("a")
    headers = await make_key(desk.api.database, "other", *scopes) if scopes else {}
    stranger = Desk(desk.api, headers)
    expected = 403 if scopes else 401

    assert (await stranger.get())[0] == expected
    assert (await stranger.get(f"/whe_{event_id}"))[0] == expected
    assert (await stranger.retry(f"whe_{event_id}"))[0] == expected


async def test_the_trail_is_as_described(desk: Desk) -> None:
    event_id = await desk.arrived("a")

    for path, name in (("", "WebhookEventPageBody"), (f"/whe_{event_id}", "WebhookEventBody")):
        _, body = await desk.get(path)
        validate_value(body, schema_of(name), cls=OAS31Validator)


def test_the_words_are_those_of_the_core() -> None:
    properties = DOCUMENT["components"]["schemas"][WebhookEventBody.__name__]["properties"]
    parameters = DOCUMENT["paths"]["/api/webhooks/events"]["get"]["parameters"]

    assert set(properties["source"]["enum"]) == set(WebhookSource)
    assert set(properties["verdict"]["enum"]) == set(WebhookVerdict)
    assert [parameter["name"] for parameter in parameters] == list(PARSERS)


def test_nobody_else_may_see_what_came_in() -> None:
    scopes = {c.access.scope for c in CALLS if c.path.startswith("/api/webhooks/events")}

    assert scopes == {"ops"}
