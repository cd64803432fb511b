"""Receivers over HTTP: registered, looked at, given new secrets, let be."""

import asyncio
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator, validate as validate_value

from api.limits import BODY_BYTES_MAX
from api.openapi import _EXAMPLES
from api.routes import CALLS
from api.webhook_schema import NewEndpointBody, RotationBody
from indexer.core import ids, standard_webhooks
from indexer.core.receiver import (
    ENDPOINTS_MAX,
    OVERLAP_S_DEFAULT,
    OVERLAP_S_MAX,
)
from store import webhook_endpoints
from store.database import Statement
from tests.api.merchant import DELIVERIES, ENDPOINTS, URL, Merchant
from tests.api.running import NOW, SIGNING_KEYS, Api, make_key, running
from tests.api.test_openapi import schema_of


NOBODY = "we_" + "0" * 26


@pytest.fixture
async def merchant(api: Api) -> Merchant:
    return Merchant(api, await make_key(api.database, "shop", "webhooks"))


@pytest.fixture
async def other(api: Api) -> Merchant:
    return Merchant(api, await make_key(api.database, "other", "webhooks"))


def secret_of(endpoint_id: str, generation: int) -> str:
    return standard_webhooks.secret_of(SIGNING_KEYS[0], endpoint_id, generation)


def described(body: dict[str, Any], name: str) -> None:
    validate_value(body, schema_of(name), cls=OAS31Validator)


async def everything_stored(api: Api) -> str:
    """Every value of every table, as one text."""
    names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    [tables] = await api.database.read([Statement(names)])
    rows = await api.database.read([Statement(f"SELECT * FROM {name}") for (name,) in tables])  # noqa: S608 - names of our own tables
    return repr(rows)


# ---------------------------------------------------------------------------------- registering


async def test_a_receiver_is_registered_and_its_secret_is_shown(merchant: Merchant) -> None:
    asked = {
        "url": URL,
        "event_types": ["payment.settled", "payment.created"],
        "description": "the shop",
    }

    status, body, headers = await merchant.ask("POST", ENDPOINTS, asked)

    assert status == 201
    described(body, "SecretEndpointBody")
    assert headers["Location"] == f"{ENDPOINTS}/{body['id']}"
    assert body == {
        "id": body["id"],
        "url": URL,
        "event_types": ["payment.created", "payment.settled"],
        "description": "the shop",
        "state": "enabled",
        "state_reason": None,
        "waiting": 0,
        "failed": 0,
        "last_attempt": None,
        "old_secret_until": None,
        "created_at": "2026-11-22T20:00:00Z",
        "updated_at": "2026-11-22T20:00:00Z",
        "secret": secret_of(body["id"], 1),
    }


async def test_a_secret_is_nowhere_but_in_that_answer(merchant: Merchant) -> None:
    body = await merchant.register()
    key = {"Idempotency-Key": "once"}
    _, again, _ = await merchant.ask("POST", ENDPOINTS, {"url": URL}, key)
    secrets = {body["secret"], again["secret"], secret_of(body["id"], 2)}
    status, rotated = await merchant.post(f"{ENDPOINTS}/{body['id']}/rotate", {})

    shown = [
        await merchant.get(path)
        for path in (ENDPOINTS, f"{ENDPOINTS}/{body['id']}", f"{ENDPOINTS}/{again['id']}")
    ]
    told = repr(shown) + await everything_stored(merchant.api)

    assert status == 200
    assert rotated["secret"] in secrets
    assert "secret'" not in repr(shown)
    for secret in secrets:
        assert secret.removeprefix("whsec_") not in told


async def test_without_types_it_is_told_of_everything(merchant: Merchant) -> None:
    given: tuple[dict[str, Any], ...] = ({}, {"event_types": None}, {"event_types": []})
    for fields in given:
        assert (await merchant.register(**fields))["event_types"] == []


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "url"),
        ({"url": None}, "url"),
        ({"url": 7}, "url"),
        ({"url": ""}, "url"),
        ({"url": "http://shop.example/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://localhost/"}, "url"),
        ({"url": "https://10.0.0.7/"}, "url"),
        ({"url": "https://169.254.169.254/latest"}, "url"),
        ({"url": "https://[::ffff:127.0.0.1]/"}, "url"),
        ({"url": "https://u:p@shop.example/"}, "url"),
        ({"url": "https://shop.example/#x"}, "url"),
        ({"url": "https://shop.example/" + "x" * 2048}, "url"),
        ({"url": URL, "event_types": ["payment.paid"]}, "event_types"),
        ({"url": URL, "event_types": "payment.settled"}, "event_types"),
        ({"url": URL, "event_types": [7]}, "event_types"),
        ({"url": URL, "description": ""}, "description"),
        ({"url": URL, "description": "a\nb"}, "description"),
        ({"url": URL, "description": "x" * 201}, "description"),
        ({"url": URL, "secret": "whsec_mine"}, "secret"),
        ({"url": URL, "state": "enabled"}, "state"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_stored(
    merchant: Merchant, asked: dict[str, Any], field: str
) -> None:
    status, problem = await merchant.post(ENDPOINTS, asked)

    assert (status, problem["code"]) == (422, "invalid_input")
    assert [error["field"] for error in problem["errors"]] == [field]
    assert await webhook_endpoints.listing(merchant.api.database) == []


async def test_a_listed_network_may_be_registered(tmp_path: Path) -> None:
    networks = (IPv4Network("127.0.0.0/8"),)
    async with running(tmp_path, webhook_private_networks=networks) as api:
        merchant = Merchant(api, await make_key(api.database, "shop", "webhooks"))

        await merchant.register("http://127.0.0.1:9000/hooks")
        status, _ = await merchant.post(ENDPOINTS, {"url": "http://10.0.0.1/"})

        assert status == 422


async def fill(api: Api, count: int) -> None:
    """That many receivers of others."""
    batch = [
        webhook_endpoints.create(
            id=ids.endpoint_id(number.to_bytes(16, "big")),
            url=URL,
            event_types=(),
            description=None,
            key_id=SIGNING_KEYS[0].id,
            now=NOW,
            at_most=ENDPOINTS_MAX,
        )
        for number in range(count)
    ]
    await api.database.write(batch)


async def test_there_is_a_bound(merchant: Merchant) -> None:
    await fill(merchant.api, ENDPOINTS_MAX)
    key = {"Idempotency-Key": "later"}

    refused = await merchant.post(ENDPOINTS, {"url": URL})
    refused_once = await merchant.ask("POST", ENDPOINTS, {"url": URL}, key)
    await merchant.ask("DELETE", f"{ENDPOINTS}/{NOBODY}")
    made = await merchant.ask("POST", ENDPOINTS, {"url": URL}, key)

    assert (refused[0], refused[1]["code"]) == (409, "too_many_endpoints")
    assert refused_once[0] == 409
    assert made[0] == 201


async def test_many_at_once_do_not_break_the_bound(merchant: Merchant) -> None:
    await fill(merchant.api, ENDPOINTS_MAX - 2)

    answers = await asyncio.gather(*(merchant.post(ENDPOINTS, {"url": URL}) for _ in range(8)))

    assert sorted(status for status, _ in answers) == [201] * 2 + [409] * 6


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"url": "a", "url": "b"}', 400),
        (b"[]", 422),
        (b"x" * (BODY_BYTES_MAX + 1), 413),
    ],
)
async def test_what_is_no_body_is_refused(merchant: Merchant, raw: bytes, status: int) -> None:
    headers = {**merchant.headers, "Content-Type": "application/json"}
    async with merchant.api.session.post(ENDPOINTS, data=raw, headers=headers) as response:
        assert response.status == status


async def test_a_server_without_a_key_registers_nobody(merchant: Merchant) -> None:
    context = merchant.api.app.state.context
    object.__setattr__(context, "signing_keys", ())

    status, problem = await merchant.post(ENDPOINTS, {"url": URL})

    assert (status, problem["code"]) == (503, "no_signing_key")


# ------------------------------------------------------------------------------------ once only


async def test_a_repetition_answers_with_the_same_receiver_and_secret(merchant: Merchant) -> None:
    key = {"Idempotency-Key": "one"}

    first = await merchant.ask("POST", ENDPOINTS, {"url": URL}, key)
    rings = merchant.api.wakeups.count
    again = await merchant.ask("POST", ENDPOINTS, {"url": URL}, key)

    assert first[:2] == again[:2]
    assert merchant.api.wakeups.count == rings
    assert "Idempotent-Replayed" not in first[2]
    assert again[2]["Idempotent-Replayed"] == "true"
    assert again[2]["Location"] == first[2]["Location"]
    assert len(await webhook_endpoints.listing(merchant.api.database)) == 1


async def test_a_key_is_its_callers_own_and_for_one_body(
    merchant: Merchant, other: Merchant
) -> None:
    key = {"Idempotency-Key": "one"}
    _, first, _ = await merchant.ask("POST", ENDPOINTS, {"url": URL}, key)

    another_body = await merchant.ask("POST", ENDPOINTS, {"url": URL + "/2"}, key)
    another_caller = await other.ask("POST", ENDPOINTS, {"url": URL}, key)
    malformed = await merchant.ask("POST", ENDPOINTS, {"url": URL}, {"Idempotency-Key": "a b"})

    assert (another_body[0], another_body[1]["code"]) == (422, "idempotency_key_reused")
    assert another_caller[0] == 201
    assert another_caller[1]["id"] != first["id"]
    assert malformed[0] == 400


async def test_without_a_key_a_repetition_is_another_request(merchant: Merchant) -> None:
    assert (await merchant.register())["id"] != (await merchant.register())["id"]


@pytest.mark.parametrize("gone", ["rotated", "deleted"])
async def test_a_secret_that_is_gone_is_not_shown_again(merchant: Merchant, gone: str) -> None:
    key = {"Idempotency-Key": "one"}
    _, first, _ = await merchant.ask("POST", ENDPOINTS, {"url": URL}, key)
    path = f"{ENDPOINTS}/{first['id']}"
    if gone == "rotated":
        await merchant.post(f"{path}/rotate", {})
    else:
        await merchant.ask("DELETE", path)

    status, problem, _ = await merchant.ask("POST", ENDPOINTS, {"url": URL}, key)

    assert (status, problem["code"]) == (409, "secret_gone")
    assert "secret" not in problem


async def test_a_key_is_for_one_call_about_one_receiver(merchant: Merchant) -> None:
    key = {"Idempotency-Key": "one"}
    endpoints = [await merchant.register() for _ in range(2)]

    answers = [
        await merchant.ask("POST", f"{ENDPOINTS}/{endpoint['id']}/rotate", {}, key)
        for endpoint in endpoints
    ]

    assert [body["id"] for _, body, _ in answers] == [endpoint["id"] for endpoint in endpoints]


async def test_a_rotation_whose_answer_was_lost_is_not_a_second_one(merchant: Merchant) -> None:
    """A second one would end the secret that the receiver still has."""
    path = f"{ENDPOINTS}/{(await merchant.register())['id']}/rotate"
    key = {"Idempotency-Key": "one"}

    first = await merchant.ask("POST", path, {}, key)
    again = await merchant.ask("POST", path, {}, key)
    another = await merchant.ask("POST", path, {"overlap_s": 0}, key)

    assert first[:2] == again[:2]
    assert again[2]["Idempotent-Replayed"] == "true"
    assert another[0] == 422


# ------------------------------------------------------------------------------------- rotating


async def test_the_secret_before_signs_too_for_a_while(merchant: Merchant) -> None:
    endpoint = await merchant.register()
    path = f"{ENDPOINTS}/{endpoint['id']}"

    status, body = await merchant.post(f"{path}/rotate", {})
    merchant.api.clock.now += OVERLAP_S_DEFAULT
    _, later = await merchant.get(path)

    assert status == 200
    described(body, "SecretEndpointBody")
    assert body["secret"] == secret_of(endpoint["id"], 2) != endpoint["secret"]
    assert body["old_secret_until"] == "2026-11-23T20:00:00Z"
    assert later["old_secret_until"] is None


async def test_a_leaked_secret_ends_at_once(merchant: Merchant) -> None:
    endpoint = await merchant.register()

    _, body = await merchant.post(f"{ENDPOINTS}/{endpoint['id']}/rotate", {"overlap_s": 0})

    stored = await webhook_endpoints.get(merchant.api.database, endpoint["id"])
    assert stored is not None
    assert body["old_secret_until"] is None
    assert [signer.generation for signer in stored.signers(NOW)] == [2]


async def test_a_new_secret_is_made_with_the_newest_key(merchant: Merchant) -> None:
    endpoint = await merchant.register()
    context = merchant.api.app.state.context
    object.__setattr__(context, "signing_keys", SIGNING_KEYS[::-1])

    _, body = await merchant.post(f"{ENDPOINTS}/{endpoint['id']}/rotate", {})

    newest = standard_webhooks.secret_of(SIGNING_KEYS[1], endpoint["id"], 2)
    assert body["secret"] == newest


async def test_of_rotations_at_once_one_wins(merchant: Merchant) -> None:
    endpoint = await merchant.register()
    path = f"{ENDPOINTS}/{endpoint['id']}/rotate"

    answers = await asyncio.gather(
        *(merchant.ask("POST", path, {}, {"Idempotency-Key": str(n)}) for n in range(4)),
        *(merchant.ask("POST", path, {}) for _ in range(4)),
    )

    stored = await webhook_endpoints.get(merchant.api.database, endpoint["id"])
    assert stored is not None
    done = [body["secret"] for status, body, _ in answers if status == 200]
    assert {status for status, _, _ in answers} <= {200, 409}
    assert len(set(done)) == len(done)
    assert set(done) <= {secret_of(endpoint["id"], n) for n in range(2, 10)}
    assert secret_of(endpoint["id"], stored.signer.generation) in done


@pytest.mark.parametrize(
    "asked",
    [{"overlap_s": -1}, {"overlap_s": OVERLAP_S_MAX + 1}, {"overlap_s": "60"}, {"overlap_s": 1.5}],
)
async def test_an_overlap_is_a_bounded_number(merchant: Merchant, asked: dict[str, Any]) -> None:
    endpoint = await merchant.register()

    status, problem = await merchant.post(f"{ENDPOINTS}/{endpoint['id']}/rotate", asked)

    assert (status, problem["errors"][0]["field"]) == (422, "overlap_s")


async def test_a_rotation_has_a_body(merchant: Merchant) -> None:
    endpoint = await merchant.register()

    status, _ = await merchant.post(f"{ENDPOINTS}/{endpoint['id']}/rotate")

    assert status == 415


# ----------------------------------------------------------------------------------- as they are


async def test_all_are_listed_the_oldest_first(merchant: Merchant) -> None:
    made = []
    for number in range(3):
        merchant.api.clock.now = NOW + number
        made.append(await merchant.register(f"{URL}/{number}"))

    status, body = await merchant.get(ENDPOINTS)

    assert status == 200
    described(body, "EndpointPageBody")
    assert [each["id"] for each in body["data"]] == [each["id"] for each in made]
    assert [each["url"] for each in body["data"]] == [f"{URL}/{number}" for number in range(3)]


async def test_a_list_has_no_filters(merchant: Merchant) -> None:
    status, problem = await merchant.get(f"{ENDPOINTS}?state=enabled")

    assert (status, problem["errors"][0]["field"]) == (422, "state")


async def test_it_shows_what_waits_what_failed_and_the_last_attempt(merchant: Merchant) -> None:
    endpoint = await merchant.register()
    for number in range(3):
        await merchant.api.create(order_id=str(number))
    newest, middle, oldest = await merchant.sent(endpoint["id"])
    await merchant.tried(oldest["id"], status=200)
    await merchant.given_up(middle["id"])
    await merchant.tried(newest["id"], status=500, at=NOW + 7, response="<b>down</b>")

    _, body = await merchant.get(f"{ENDPOINTS}/{endpoint['id']}")
    _, listed = await merchant.get(ENDPOINTS)

    described(body, "EndpointBody")
    assert (body["waiting"], body["failed"]) == (1, 1)
    assert body["last_attempt"] == {
        "at": "2026-11-22T20:00:07Z",
        "duration_ms": 12,
        "status": 500,
        "problem": "answered 500",
        "response": "<b>down</b>",
    }
    assert listed["data"] == [body]


async def test_a_disabled_one_is_sent_nothing(merchant: Merchant) -> None:
    endpoint = await merchant.register()
    path = f"{ENDPOINTS}/{endpoint['id']}"
    await merchant.api.create()

    status, body = await merchant.post(f"{path}/disable")
    repeated = await merchant.post(f"{path}/disable")
    await merchant.api.create("another")

    assert (status, body["state"], body["state_reason"]) == (
        200,
        "disabled",
        "disabled over the API",
    )
    assert repeated == (200, body)
    described(body, "EndpointBody")
    assert [each["state"] for each in await merchant.sent(endpoint["id"])] == ["dropped"]


async def test_an_enabled_one_is_sent_what_happens_from_now_on(merchant: Merchant) -> None:
    endpoint = await merchant.register()
    path = f"{ENDPOINTS}/{endpoint['id']}"
    await merchant.post(f"{path}/disable")
    await merchant.api.create()

    status, body = await merchant.post(f"{path}/enable")
    repeated = await merchant.post(f"{path}/enable")
    await merchant.api.create("another")

    assert (status, body["state"], body["state_reason"]) == (200, "enabled", None)
    assert repeated == (200, body)
    assert len(await merchant.sent(endpoint["id"])) == 1


async def test_a_deleted_one_is_gone(merchant: Merchant) -> None:
    endpoint = await merchant.register()
    path = f"{ENDPOINTS}/{endpoint['id']}"
    await merchant.api.create()
    [delivery] = await merchant.sent(endpoint["id"])

    status, body, _ = await merchant.ask("DELETE", path)
    _, kept = await merchant.get(f"{DELIVERIES}/{delivery['id']}")

    assert (status, body) == (204, {})
    assert kept["state"] == "dropped"
    assert (await merchant.ask("DELETE", path))[0] == 404
    assert (await merchant.get(path))[0] == 404
    assert (await merchant.get(ENDPOINTS))[1] == {"data": []}


async def test_a_test_is_a_delivery_about_nothing(merchant: Merchant) -> None:
    endpoint = await merchant.register()

    status, body = await merchant.post(f"{ENDPOINTS}/{endpoint['id']}/test")

    assert status == 202
    described(body, "DeliveryBody")
    assert (body["type"], body["payment_id"], body["state"]) == ("webhook.test", None, "waiting")
    assert body["event_id"] == f"test_{body['id'].removeprefix('dlv_')}"
    assert await merchant.sent(endpoint["id"]) == [
        {name: value for name, value in body.items() if name != "history"}
    ]


async def test_a_disabled_one_cannot_be_tested(merchant: Merchant) -> None:
    endpoint = await merchant.register()
    await merchant.post(f"{ENDPOINTS}/{endpoint['id']}/disable")

    status, problem = await merchant.post(f"{ENDPOINTS}/{endpoint['id']}/test")

    assert (status, problem["code"]) == (409, "endpoint_disabled")


# --------------------------------------------------------------------------------- who may do it


OURS = [(call.method, call.path) for call in CALLS if call.path.startswith((ENDPOINTS, DELIVERIES))]


@pytest.mark.parametrize(("method", "path"), OURS)
async def test_only_the_scope_opens_it(api: Api, method: str, path: str) -> None:
    wrong = Merchant(api, await make_key(api.database, "ops", "ops", "payments:write"))
    path = path.replace("{id}", NOBODY)

    no_key, _, _ = await Merchant(api, {}).ask(method, path)
    no_scope, _, _ = await wrong.ask(method, path)

    assert (no_key, no_scope) == (401, 403)


async def test_what_is_not_there_is_not_found(merchant: Merchant) -> None:
    since = {"since": "2026-11-22T20:00:00Z"}
    for method, path in OURS:
        for id_ in (NOBODY, "we_", "dlv_7", "x", "%00", "we_" + "Z" * 26, "dlv_" + "9" * 19):
            if "{id}" not in path:
                continue
            body = since if path.endswith("}/redeliver") else {}
            status, problem, _ = await merchant.ask(method, path.replace("{id}", id_), body)
            assert status == 404, (method, path, id_)
            assert problem["code"] in ("no_such_endpoint", "no_such_delivery")


async def test_what_changes_wakes_the_courier(merchant: Merchant) -> None:
    wakeups = merchant.api.wakeups
    path = f"{ENDPOINTS}/{(await merchant.register())['id']}"
    assert wakeups.count == 1

    for verb in ("rotate", "disable", "enable", "test"):
        before = wakeups.count
        await merchant.post(f"{path}/{verb}", {} if verb == "rotate" else None)
        assert wakeups.count == before + 1, verb
    await merchant.ask("DELETE", path)

    assert wakeups.count == 6


async def test_the_examples_work(merchant: Merchant) -> None:
    for example in _EXAMPLES[NewEndpointBody].values():
        endpoint = await merchant.register(**example["value"])
        for rotation in _EXAMPLES[RotationBody].values():
            path = f"{ENDPOINTS}/{endpoint['id']}/rotate"
            assert (await merchant.post(path, rotation["value"]))[0] == 200
