"""What was sent to receivers, over HTTP, and what is sent again."""

from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator, validate as validate_value

from api.deliveries import PARSERS
from api.openapi import _EXAMPLES
from api.routes import CALLS
from api.webhook_schema import RedeliveryBody
from indexer.settings import Settings
from store.webhook_endpoints import disable
from tests.api.merchant import DELIVERIES, ENDPOINTS, Merchant
from tests.api.running import NOW, Api, make_key
from tests.api.test_openapi import schema_of


SOON = "2026-11-22T20:00:00Z"


@pytest.fixture
async def merchant(api: Api) -> Merchant:
    return Merchant(api, await make_key(api.database, "shop", "webhooks"))


def described(body: dict[str, Any], name: str) -> None:
    validate_value(body, schema_of(name), cls=OAS31Validator)


async def told(merchant: Merchant, count: int = 1) -> tuple[str, list[dict[str, Any]]]:
    """A receiver, and its deliveries of that many payments, the newest first."""
    endpoint_id = (await merchant.register())["id"]
    for number in range(count):
        await merchant.api.create(order_id=str(number))
    return endpoint_id, await merchant.sent(endpoint_id)


# --------------------------------------------------------------------------------------- looking


async def test_a_delivery_is_shown_with_each_attempt(merchant: Merchant) -> None:
    endpoint_id, [delivery] = await told(merchant)
    await merchant.tried(delivery["id"], status=500, response="down")
    await merchant.tried(delivery["id"], status=204, number=2, at=NOW + 10)

    status, body = await merchant.get(f"{DELIVERIES}/{delivery['id']}")

    assert status == 200
    described(body, "DeliveryBody")
    payment_id = delivery["payment_id"]
    assert body == {
        "id": delivery["id"],
        "endpoint_id": endpoint_id,
        "event_id": f"evt_{payment_id.removeprefix('pay_')}_1_0",
        "type": "payment.created",
        "payment_id": payment_id,
        "state": "delivered",
        "attempts": 2,
        "next_try_at": None,
        "created_at": SOON,
        "ended_at": "2026-11-22T20:00:10Z",
        "history": [
            {
                "at": "2026-11-22T20:00:05Z",
                "duration_ms": 12,
                "status": 500,
                "problem": "answered 500",
                "response": "down",
            },
            {
                "at": "2026-11-22T20:00:10Z",
                "duration_ms": 12,
                "status": 204,
                "problem": None,
                "response": "",
            },
        ],
    }


async def test_one_that_waits_says_until_when(merchant: Merchant) -> None:
    _, [delivery] = await told(merchant)
    await merchant.tried(delivery["id"], status=None)

    _, body = await merchant.get(f"{DELIVERIES}/{delivery['id']}")

    described(body, "DeliveryBody")
    assert (body["state"], body["attempts"], body["ended_at"]) == ("waiting", 1, None)
    assert body["next_try_at"] == "2026-11-22T20:00:10Z"
    assert body["history"][0]["status"] is None


async def test_all_are_listed_a_page_at_a_time(merchant: Merchant) -> None:
    endpoint_id, all_ = await told(merchant, 5)
    path = f"{ENDPOINTS}/{endpoint_id}/deliveries?limit=2"

    pages, cursor = [], ""
    for _ in range(3):
        _, body = await merchant.get(path + cursor)
        described(body, "DeliveryPageBody")
        pages.append([each["id"] for each in body["data"]])
        cursor = f"&cursor={body['next_cursor']}"

    assert [len(page) for page in pages] == [2, 2, 1]
    assert body["next_cursor"] is None
    assert [id_ for page in pages for id_ in page] == [each["id"] for each in all_]
    assert all("history" not in each for each in all_)


async def test_one_receiver_sees_nothing_of_another(merchant: Merchant) -> None:
    one = (await merchant.register())["id"]
    other = (await merchant.register(event_types=["payment.settled"]))["id"]
    await merchant.api.create()

    assert [each["endpoint_id"] for each in await merchant.sent(one)] == [one]
    assert await merchant.sent(other) == []


async def test_they_are_filtered_by_state(merchant: Merchant) -> None:
    endpoint_id, [newest, middle, oldest] = await told(merchant, 3)
    await merchant.tried(oldest["id"])
    await merchant.given_up(middle["id"])

    for state, expected in (
        ("waiting", [newest]),
        ("failed", [middle]),
        ("delivered", [oldest]),
        ("dropped", []),
    ):
        found = await merchant.sent(endpoint_id, f"?state={state}")
        assert [each["id"] for each in found] == [each["id"] for each in expected]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=paid", "state"),
        ("state=", "state"),
        ("cursor=7", "cursor"),
        ("cursor=dlv_0", "cursor"),
        ("cursor=dlv_" + "9" * 19, "cursor"),
        ("cursor=dlv_%D9%A1", "cursor"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=1&limit=2", "limit"),
        ("endpoint=x", "endpoint"),
    ],
)
async def test_a_bad_filter_is_refused_by_name(merchant: Merchant, query: str, field: str) -> None:
    endpoint_id = (await merchant.register())["id"]

    status, problem = await merchant.get(f"{ENDPOINTS}/{endpoint_id}/deliveries?{query}")

    assert (status, problem["errors"][0]["field"]) == (422, field)


def test_every_filter_is_described() -> None:
    [call] = [call for call in CALLS if call.name == "listDeliveries"]

    assert [p.name for p in call.parameters if p.where == "query"] == list(PARSERS)


# ----------------------------------------------------------------------------------- once more


@pytest.mark.parametrize("end", ["delivered", "failed", "waiting"])
async def test_one_is_sent_again_whatever_came_of_it(merchant: Merchant, end: str) -> None:
    _, [delivery] = await told(merchant)
    if end == "failed":
        await merchant.given_up(delivery["id"])
    else:
        await merchant.tried(delivery["id"], status=200 if end == "delivered" else 500)
    merchant.api.clock.now = NOW + 60
    rings = merchant.api.wakeups.count

    status, body = await merchant.post(f"{DELIVERIES}/{delivery['id']}/redeliver")

    assert status == 202
    described(body, "DeliveryBody")
    assert (body["state"], body["attempts"]) == ("waiting", 0)
    assert body["next_try_at"] == "2026-11-22T20:01:00Z"
    assert body["event_id"] == delivery["event_id"]
    assert len(body["history"]) == (0 if end == "failed" else 1)
    assert merchant.api.wakeups.count == rings + 1


async def test_what_a_disabled_receiver_missed_is_made_up_for(merchant: Merchant) -> None:
    endpoint_id, [delivery] = await told(merchant)
    await merchant.tried(delivery["id"])
    path = f"{ENDPOINTS}/{endpoint_id}"
    await merchant.post(f"{path}/disable")
    await merchant.api.create("missed")
    await merchant.post(f"{path}/enable")

    status, body = await merchant.post(f"{path}/redeliver", {"since": SOON})
    repeated = await merchant.post(f"{path}/redeliver", {"since": SOON})

    assert (status, body) == (202, {"count": 1})
    described(body, "RedeliveredBody")
    assert repeated == (202, {"count": 1})
    assert [each["state"] for each in await merchant.sent(endpoint_id)] == ["waiting", "delivered"]


async def test_only_what_it_wants_is_made_up_for(merchant: Merchant) -> None:
    await merchant.api.create()
    endpoint = await merchant.register(event_types=["payment.settled"])

    status, body = await merchant.post(f"{ENDPOINTS}/{endpoint['id']}/redeliver", {"since": SOON})

    assert (status, body) == (202, {"count": 0})


async def test_what_came_before_is_left_alone(merchant: Merchant) -> None:
    await merchant.api.create()
    merchant.api.clock.now = NOW + 60
    endpoint = await merchant.register()

    _, body = await merchant.post(
        f"{ENDPOINTS}/{endpoint['id']}/redeliver", {"since": "2026-11-22T20:00:01Z"}
    )

    assert body == {"count": 0}


@pytest.mark.parametrize(
    "since",
    [
        "yesterday",
        "2026-11-22",
        "2026-11-22T20:00:01Z",
        "2026-08-24T19:59:59Z",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        7,
        None,
    ],
)
async def test_since_is_a_time_of_which_deliveries_are_known(
    merchant: Merchant, since: object
) -> None:
    endpoint_id = (await merchant.register())["id"]

    status, problem = await merchant.post(f"{ENDPOINTS}/{endpoint_id}/redeliver", {"since": since})

    assert (status, problem["errors"][0]["field"]) == (422, "since")


async def test_the_oldest_time_that_is_known_may_be_asked_for(merchant: Merchant) -> None:
    """90 days before, to the second."""
    assert Settings().webhook_retention_days == 90
    endpoint_id = (await merchant.register())["id"]

    status, _ = await merchant.post(
        f"{ENDPOINTS}/{endpoint_id}/redeliver", {"since": "2026-08-24T20:00:00Z"}
    )

    assert status == 202


async def test_the_example_works(merchant: Merchant) -> None:
    endpoint_id = (await merchant.register())["id"]
    for example in _EXAMPLES[RedeliveryBody].values():
        path = f"{ENDPOINTS}/{endpoint_id}/redeliver"
        assert (await merchant.post(path, example["value"]))[0] == 202


async def test_a_disabled_receiver_is_sent_nothing_again(merchant: Merchant) -> None:
    endpoint_id, [delivery] = await told(merchant)
    await merchant.api.database.write(disable(endpoint_id, "gone", NOW))
    rings = merchant.api.wakeups.count

    one = await merchant.post(f"{DELIVERIES}/{delivery['id']}/redeliver")
    all_ = await merchant.post(f"{ENDPOINTS}/{endpoint_id}/redeliver", {"since": SOON})

    for status, problem in (one, all_):
        assert (status, problem["code"]) == (409, "endpoint_disabled")
    assert [each["state"] for each in await merchant.sent(endpoint_id)] == ["dropped"]
    assert merchant.api.wakeups.count == rings
