import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from api.limits import BODY_BYTES_MAX
from indexer.core.solana_pay import parse
from indexer.core.types import Status
from indexer.errors import SourceUnavailable, StoreUnavailable
from store import events, everything
from tests.api.running import (
    MERCHANT,
    NOW,
    SOLD,
    USDC,
    WATCH_KEY,
    Api,
    make_key,
    running,
)
from tests.instructions import key, signature


FIELDS = [
    "id", "provider", "status", "paid", "late", "review", "amount", "amount_base_units", "token",
    "received", "received_base_units", "recipient", "reference", "url", "checkout_url", "order_id",
    "memo", "label", "message", "metadata", "transfers", "created_at", "expires_at", "settled_at",
    "version",
]  # fmt: skip


async def post(
    api: Api, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any], aiohttp.ClientResponse]:
    """Sends a raw body as a request to create a payment."""
    defaults = {"Idempotency-Key": "k-1", "Content-Type": "application/json"}
    async with api.session.post(
        "/api/pay", data=body, headers={**api.writer, **defaults, **(headers or {})}
    ) as response:
        return response.status, await response.json(content_type=None), response


async def stored(api: Api) -> list[everything.AnyRecord]:
    return await everything.page(api.database, limit=1_000)


# -------------------------------------------------------------------------------------- create


async def test_a_created_payment_is_shown_whole(api: Api) -> None:
    status, body, response = await post(api, json.dumps(SOLD).encode())

    assert status == 201
    assert list(body) == FIELDS
    assert response.headers["Location"] == f"/api/pay/{body['id']}"
    assert response.headers["Cache-Control"] == "no-store"
    request = parse(body["url"])
    assert (request.recipient, request.amount, request.spl_token) == (MERCHANT, "12.5", USDC)
    assert request.references == (body["reference"], WATCH_KEY)
    assert body == {
        "id": body["id"],
        "provider": "solana",
        "status": "pending",
        "paid": "none",
        "late": False,
        "review": [],
        "amount": "12.5",
        "amount_base_units": "12500000",
        "token": {"symbol": "USDC", "mint": USDC, "decimals": 6},
        "received": "0",
        "received_base_units": "0",
        "recipient": MERCHANT,
        "reference": body["reference"],
        "url": body["url"],
        "checkout_url": None,
        "order_id": "1042",
        "memo": None,
        "label": None,
        "message": None,
        "metadata": {"table": "7"},
        "transfers": [],
        "created_at": "2026-11-22T20:00:00Z",
        "expires_at": "2026-11-22T20:15:00Z",
        "settled_at": None,
        "version": 1,
    }


async def test_a_payment_is_durable_with_its_event_and_wakes_who_waits(api: Api) -> None:
    woken = api.wakeups.count

    payment = await api.create()

    [record] = await stored(api)
    [event] = await events.after(api.database, 0, limit=10)
    assert record.payment.terms.id == event.payment_id == payment["id"]
    assert event.type == "payment.created"
    assert api.wakeups.count > woken


async def test_a_reference_from_elsewhere_is_taken_without_the_watch_key(api: Api) -> None:
    payment = await api.create(reference=key("of a till"))

    assert payment["reference"] == key("of a till")
    assert parse(payment["url"]).references == (key("of a till"),)


async def test_a_reference_is_used_once(api: Api) -> None:
    await api.create(reference=key("of a till"))

    body = json.dumps({**SOLD, "reference": key("of a till"), "order_id": "other"}).encode()
    status, problem, _ = await post(api, body)

    assert (status, problem["code"]) == (409, "reference_taken")
    assert problem["errors"][0]["field"] == "reference"


#: What is sent, and which status and field it is refused with.
BAD_BODIES = [
    (b"", 400, ""),
    (b"{", 400, ""),
    (b"\xff{}", 400, ""),
    (b"[1]", 422, ""),
    (b'"text"', 422, ""),
    (b"null", 422, ""),
    (b'{"amount": NaN}', 400, ""),
    (b'{"amount": "1", "amount": "2", "token": "SOL"}', 400, "amount"),
    (b"[" * 60_000, 400, ""),
    (b'{"token": "USDC"}', 422, "amount"),
    (b'{"amount": 1, "token": "USDC"}', 422, "amount"),
    (b'{"amount": 1.5, "token": "USDC"}', 422, "amount"),
    (b'{"amount": null, "token": "USDC"}', 422, "amount"),
    (b'{"amount": "1e3", "token": "USDC"}', 422, "amount"),
    (b'{"amount": "-1", "token": "USDC"}', 422, "amount"),
    (b'{"amount": "0", "token": "USDC"}', 422, "amount"),
    (b'{"amount": "1.1234567", "token": "USDC"}', 422, "amount"),
    (b'{"amount": "18446744073710", "token": "USDC"}', 422, "amount"),
    (b'{"amount": "1", "token": "DOGE"}', 422, "token"),
    (b'{"amount": "1", "token": "\\u0000"}', 422, "token"),
    (b'{"amount": "1", "token": "USDC", "label": "\\ud800"}', 422, "label"),
    (b'{"amount": "1", "token": "USDC", "memo": "a\\nb"}', 422, "memo"),
    (b'{"amount": "1", "token": "USDC", "colour": "red"}', 422, "colour"),
    (b'{"amount": "1", "token": "USDC", "provider": "paymob"}', 422, "provider"),
    (b'{"amount": "1", "token": "USDC", "expires_in_s": 900.5}', 422, "expires_in_s"),
    (b'{"amount": "1", "token": "USDC", "expires_in_s": "900"}', 422, "expires_in_s"),
    (b'{"amount": "1", "token": "USDC", "expires_in_s": true}', 422, "expires_in_s"),
    (b'{"amount": "1", "token": "USDC", "expires_in_s": 0}', 422, "expires_in_s"),
    (b'{"amount": "1", "token": "USDC", "expires_in_s": 1%s}' % (b"0" * 5_000), 422,
     "expires_in_s"),
    (b'{"amount": "1", "token": "USDC", "metadata": {"a": 1}}', 422, "metadata"),
    (b'{"amount": "1", "token": "USDC", "metadata": {"a": {"b": "c"}}}', 422, "metadata"),
    (b'{"amount": "1", "token": "USDC", "metadata": {"\\udc00": "a"}}', 422, "metadata"),
    (b'{"amount": "1", "token": "USDC", "metadata": []}', 422, "metadata"),
    (b'{"amount": "1", "token": "USDC", "recipient": "me"}', 422, "recipient"),
    (b'{"amount": "1", "token": "USDC", "reference": "me"}', 422, "reference"),
    (b'{"amount": "1", "token": "USDC", "order_id": ""}', 422, "order_id"),
]  # fmt: skip


async def test_a_bad_body_is_refused_by_field(api: Api) -> None:
    for body, expected, field in BAD_BODIES:
        status, problem, response = await post(api, body)
        assert (status, problem["errors"][0]["field"]) == (expected, field), body[:80]
        assert response.content_type == "application/problem+json"

    assert await stored(api) == []


async def test_every_faulty_field_is_named_at_once(api: Api) -> None:
    _, problem, _ = await post(api, b'{"amount": 1, "label": 2, "colour": 3}')

    fields = {error["field"] for error in problem["errors"]}
    assert fields == {"amount", "token", "label", "colour"}


async def test_only_plain_json_in_utf8_is_read(api: Api) -> None:
    for headers, expected in (
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Type": 'application/json; charset="UTF-8"'}, 201),
    ):
        status, _, _ = await post(api, json.dumps(SOLD).encode(), headers)
        assert status == expected, headers


async def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    status, problem, _ = await post(api, b" " * (BODY_BYTES_MAX + 1))

    assert (status, problem["code"]) == (413, "body_too_large")


async def test_a_body_without_an_end_is_cut_off(api: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    head = "POST /api/pay HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    head += "Content-Type: application/json\r\nIdempotency-Key: k\r\n"
    head += f"Authorization: {api.writer['Authorization']}\r\n\r\n"
    writer.write(head.encode())
    chunk = b"%x\r\n%b\r\n" % (16_384, b" " * 16_384)
    for _ in range(5):
        writer.write(chunk)
    async with asyncio.timeout(30):
        answer = await reader.readline()
    writer.close()

    assert answer.split()[1] == b"413"


async def test_when_the_chain_is_down_nothing_is_stored_and_the_key_is_not_burnt(api: Api) -> None:
    api.chain.error = SourceUnavailable("http://user:secret@node/ timed out")
    status, problem, response = await post(api, json.dumps(SOLD).encode())
    assert (status, problem["code"]) == (503, "chain_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert "secret" not in json.dumps(problem)
    assert await stored(api) == []

    api.chain.error = None
    status, _, response = await post(api, json.dumps(SOLD).encode())
    assert status == 201
    assert "Idempotent-Replayed" not in response.headers


async def test_when_the_database_is_away_the_same_request_works_later(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_batch: Any) -> Any:
        raise StoreUnavailable("/var/secret/axiom.db is locked")

    with monkeypatch.context() as patch:
        patch.setattr(api.database, "write", fail)
        status, problem, response = await post(api, json.dumps(SOLD).encode())
    assert (status, problem["code"]) == (503, "store_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert "secret" not in json.dumps(problem)

    status, _, _ = await post(api, json.dumps(SOLD).encode())
    assert status == 201
    assert len(await stored(api)) == 1


text = st.text(max_size=60)
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
#: Nearly right: the names of fields, good values and bad ones.
near = st.dictionaries(
    st.sampled_from([*FIELDS, "token", "expires_in_s"]) | text,
    st.sampled_from(["1", "0.000001", "SOL", "USDC", MERCHANT, key("x"), 900, {"a": "b"}]) | value,
    max_size=6,
)
bodies = (
    st.binary(max_size=300)
    | value.map(lambda v: json.dumps(v).encode())
    | near.map(lambda fields: json.dumps({"amount": "1", "token": "SOL", **fields}).encode())
)


async def test_no_body_brings_the_server_down(tmp_path: Path) -> None:
    """Whatever is sent is answered with 201 or a 4xx; what is refused leaves nothing behind."""
    loop = asyncio.get_running_loop()
    async with running(tmp_path) as api:
        statuses: list[int] = []

        @given(body=bodies)
        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        def send(body: bytes) -> None:
            number = str(len(statuses))
            sent = asyncio.run_coroutine_threadsafe(
                post(api, body, {"Idempotency-Key": number}), loop
            )
            status, answer, response = sent.result(timeout=30)
            statuses.append(status)
            assert status == 201 or 400 <= status < 500, (status, answer)
            assert status == 201 or response.content_type == "application/problem+json"

        await asyncio.to_thread(send)

        assert len(await stored(api)) == statuses.count(201)


# ---------------------------------------------------------------------------------- show, list


async def test_without_a_key_what_is_the_merchants_own_is_left_out(api: Api) -> None:
    payment = await api.create()

    status, shown = await api.get(f"/api/pay/{payment['id']}")

    assert status == 200
    assert list(shown) == [field for field in FIELDS if field not in ("order_id", "metadata")]


async def test_with_a_key_everything_is_shown(api: Api) -> None:
    payment = await api.create()

    assert await api.get(f"/api/pay/{payment['id']}", api.reader) == (200, payment)


async def test_a_key_without_the_scope_is_shown_what_everyone_is(api: Api) -> None:
    payment = await api.create()
    ops = await make_key(api.database, "ops", "ops")

    status, shown = await api.get(f"/api/pay/{payment['id']}", ops)

    assert status == 200
    assert "metadata" not in shown


async def test_an_unknown_payment_is_not_found(api: Api) -> None:
    for payment_id in ("pay_" + "0" * 26, "pay_1", "x", "%00", "%2e%2e%2f", "PAY_" + "0" * 26):
        for path in (f"/api/pay/{payment_id}", f"/api/pay/{payment_id}/qr.svg"):
            status, problem = await api.get(path)
            assert (status, problem["status"]) == (404, 404), path


async def test_a_settled_payment_shows_its_transfers_oldest_first(api: Api) -> None:
    payment = await api.create()
    await api.settle(payment["id"], 5_000_000, name="first")
    await api.settle(payment["id"], 7_500_000, name="second")

    _, shown = await api.get(f"/api/pay/{payment['id']}")

    assert (shown["status"], shown["paid"], shown["received"]) == ("settled", "exact", "12.5")
    assert shown["settled_at"] == "2026-11-22T20:00:30Z"
    assert sorted(transfer["amount"] for transfer in shown["transfers"]) == ["5", "7.5"]
    assert shown["transfers"][0] == {
        "signature": shown["transfers"][0]["signature"],
        "slot": 100,
        "block_time": "2026-11-22T20:00:30Z",
        "amount": shown["transfers"][0]["amount"],
        "amount_base_units": shown["transfers"][0]["amount_base_units"],
        "commitment": "finalized",
    }


async def test_pages_follow_each_other_without_a_gap(api: Api) -> None:
    made = []
    for number in range(7):
        api.clock.now = NOW + number // 2  # some share a second
        made.append((api.clock.now, (await api.create(order_id=str(number)))["id"]))
    newest_first = [payment_id for _, payment_id in sorted(made, reverse=True)]

    listed, cursor = [], ""
    while True:
        status, page = await api.get(f"/api/pay?limit=3{cursor}", api.reader)
        assert status == 200
        listed += [payment["id"] for payment in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert listed == newest_first


async def test_a_list_is_filtered(api: Api) -> None:
    first = await api.create(order_id="a")
    api.clock.now += 10
    second = await api.create(order_id="b")
    await api.settle(second["id"], 12_500_000)

    for query, expected in [
        ("", [second, first]),
        ("?order_id=a", [first]),
        (f"?reference={second['reference']}", [second]),
        ("?status=settled", [second]),
        ("?status=expired", []),
        ("?created_after=2026-11-22T20:00:00Z", [second]),
        ("?created_after=2026-11-22T21:59:59%2B02:00", [second, first]),
    ]:
        _, page = await api.get(f"/api/pay{query}", api.reader)
        assert [p["id"] for p in page["data"]] == [p["id"] for p in expected], query


async def test_a_bad_filter_is_refused_by_name(api: Api) -> None:
    status, problem = await api.get("/api/pay?cursor=x&colour=red", api.reader)

    assert status == 422
    assert {error["field"] for error in problem["errors"]} == {"cursor", "colour"}


# -------------------------------------------------------------------------------- cancel, draw


async def test_a_pending_payment_is_canceled_once(api: Api) -> None:
    payment = await api.create()
    woken = api.wakeups.count

    for _ in range(2):
        status, canceled = await api.post(f"/api/pay/{payment['id']}/cancel", api.writer)
        assert (status, canceled["status"], canceled["version"]) == (200, "canceled", 2)

    types = [event.type for event in await events.after(api.database, 0, limit=10)]
    assert types == ["payment.created", "payment.canceled"]
    assert api.wakeups.count == woken + 1


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.SETTLED, Status.EXPIRED])
async def test_what_is_not_pending_cannot_be_canceled(api: Api, status: Status) -> None:
    payment = await api.create()
    match status:
        case Status.PROCESSING:
            await api.sight(payment["id"], 12_500_000)
        case Status.SETTLED:
            await api.settle(payment["id"], 12_500_000)
        case _:
            await api.expire(payment["id"])

    answered, problem = await api.post(f"/api/pay/{payment['id']}/cancel", api.writer)

    assert (answered, problem["code"]) == (409, "not_cancelable")
    assert (await api.record(payment["id"])).payment.state.status is status


async def test_many_cancels_at_once_have_one_effect(api: Api) -> None:
    payment = await api.create()

    answers = await asyncio.gather(
        *(api.post(f"/api/pay/{payment['id']}/cancel", api.writer) for _ in range(20))
    )

    assert {status for status, _ in answers} == {200}
    assert {body["version"] for _, body in answers} == {2}
    assert len(await events.after(api.database, 0, limit=10)) == 2


async def test_the_qr_code_is_a_picture(api: Api) -> None:
    payment = await api.create()

    for _ in range(2):  # drawn, then remembered
        async with api.session.get(f"/api/pay/{payment['id']}/qr.svg") as response:
            picture = await response.text()
            assert response.content_type == "image/svg+xml"
            assert picture.startswith("<svg")


async def test_a_sighting_is_shown_as_confirmed(api: Api) -> None:
    payment = await api.create()
    await api.sight(payment["id"], 12_500_000)

    _, shown = await api.get(f"/api/pay/{payment['id']}")

    assert (shown["status"], shown["received"]) == ("processing", "0")
    assert shown["transfers"] == [
        {
            "signature": signature("seen"),
            "slot": 90,
            "block_time": None,
            "amount": "12.5",
            "amount_base_units": "12500000",
            "commitment": "confirmed",
        }
    ]
