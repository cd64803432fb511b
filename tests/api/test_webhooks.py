"""What comes to the doors: stored once when it is authentic, and otherwise of no effect at all."""

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api import tally as tally_module, webhooks
from api.limits import CALLBACK_BYTES_MAX, WEBHOOK_BYTES_MAX
from api.tally import DoorOutcome
from indexer.core import paymob
from indexer.core.types import WebhookSource, WebhookVerdict
from tests import vectors
from tests.api.knocking import (
    BODY,
    HELIUS_SECRETS,
    JSON,
    PAYMOB_SECRETS,
    QUICKNODE_SECRETS,
    RECEIVED,
    by_browser,
    counted,
    events,
    everything,
    from_helius,
    from_paymob,
    from_quicknode,
    guarded,
    knock,
    paymob_hmac,
    quicknode_headers,
    redirect_query,
    rows_of,
    the_event,
    token,
    transaction,
)
from tests.api.running import NOW, Api


HELIUS, QUICKNODE, PAYMOB = WebhookSource


@pytest.fixture
async def guarded_api(tmp_path: Path) -> AsyncIterator[Api]:
    async with guarded(tmp_path) as api:
        yield api


# --------------------------------------------------------------------------- what is authentic


@pytest.mark.parametrize("secret", HELIUS_SECRETS)
async def test_what_helius_sends_waits_as_it_came(guarded_api: Api, secret: str) -> None:
    woken = guarded_api.wakeups.count
    assert await from_helius(guarded_api, secret=secret) == RECEIVED

    event = await the_event(guarded_api)
    assert (event.source, event.kind, event.verdict) == (
        HELIUS,
        "transactions",
        WebhookVerdict.WAITING,
    )
    assert (event.body, event.received_at, event.nonce) == (BODY, NOW, None)
    assert event.address == "127.0.0.1"
    assert guarded_api.wakeups.count == woken + 1
    assert counted(guarded_api) == {("helius", "accepted"): 1}


@pytest.mark.parametrize("secret", QUICKNODE_SECRETS)
@pytest.mark.parametrize("packs", [False, True])
async def test_what_quicknode_signs_waits_as_it_was_before_it_was_packed(
    guarded_api: Api, secret: str, packs: bool
) -> None:
    headers = quicknode_headers(BODY, secret=secret, nonce="n-1")
    sent = gzip.compress(BODY) if packs else BODY
    headers |= {"Content-Encoding": "gzip"} if packs else {}

    assert await knock(guarded_api, "quicknode", sent, headers) == RECEIVED

    event = await the_event(guarded_api)
    assert (event.source, event.body, event.nonce) == (QUICKNODE, BODY, "n-1")


@pytest.mark.parametrize("secret", PAYMOB_SECRETS)
@pytest.mark.parametrize("callback", [transaction(), token()])
async def test_what_paymob_signs_waits(
    guarded_api: Api, callback: dict[str, Any], secret: str
) -> None:
    signature = paymob_hmac(callback, secret)

    assert await from_paymob(guarded_api, callback, hmac_hex=signature) == RECEIVED

    event = await the_event(guarded_api)
    assert (event.source, event.kind) == (PAYMOB, callback["type"])
    assert event.verdict is WebhookVerdict.WAITING


async def test_a_customer_who_comes_back_brings_the_same_as_the_callback(guarded_api: Api) -> None:
    callback = transaction()
    query = redirect_query(callback, merchant_order_id="pay_" + "0" * 26, data="unsigned")

    assert await by_browser(guarded_api, query) == RECEIVED
    assert await from_paymob(guarded_api, callback) == RECEIVED

    event = await the_event(guarded_api)
    assert (event.kind, event.repeats) == ("REDIRECT", 1)
    assert b"hmac" not in event.body
    assert paymob.parse_redirect(event.body.decode()) == paymob.parse_redirect(query)


@pytest.mark.parametrize(
    "name",
    vectors.names("stream", "helius_webhook_*.json") or ["stream/none"],
)
async def test_collected_webhooks_of_helius_are_taken(guarded_api: Api, name: str) -> None:
    body = json.dumps(vectors.load(name)).encode()

    assert await from_helius(guarded_api, body) == RECEIVED
    assert (await the_event(guarded_api)).body == body


@pytest.mark.parametrize("body", [b"[]", b"{}", b" [ ] \n", b'{"data":[],"metadata":{}}'])
async def test_what_says_nothing_is_taken_too(guarded_api: Api, body: bytes) -> None:
    assert await from_helius(guarded_api, body) == RECEIVED
    assert await from_quicknode(guarded_api, body) == RECEIVED


async def test_only_headers_that_are_known_are_stored_and_none_of_a_secret(
    guarded_api: Api,
) -> None:
    headers = quicknode_headers(BODY) | {
        "User-Agent": "Quick" + "x" * 1_000,
        "Authorization": "Bearer axk_secret",
        "Cookie": "secret",
        "X-Forwarded-For": "198.51.100.9",
        "Stream-Id": "s-1",
    }
    await knock(guarded_api, "quicknode", BODY, headers)

    stored = (await the_event(guarded_api)).headers
    assert stored == {
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "user-agent": ("Quick" + "x" * 1_000)[:256],
        "x-forwarded-for": "198.51.100.9",
        "x-qn-timestamp": str(NOW),
        "stream-id": "s-1",
    }


# ---------------------------------------------------------------------------------------- again


async def test_the_same_event_again_is_counted_and_answered_the_same(guarded_api: Api) -> None:
    for _ in range(3):
        assert await from_helius(guarded_api) == RECEIVED
        assert await from_quicknode(guarded_api) == RECEIVED
        assert await from_paymob(guarded_api, transaction()) == RECEIVED
    woken = guarded_api.wakeups.count
    await from_quicknode(guarded_api, nonce="another", timestamp=NOW + 1)

    stored = await events(guarded_api)
    assert [(event.source, event.repeats) for event in stored] == [
        (HELIUS, 2),
        (QUICKNODE, 3),
        (PAYMOB, 2),
    ]
    assert guarded_api.wakeups.count == woken
    assert counted(guarded_api) == {
        ("helius", "accepted"): 1,
        ("helius", "duplicate"): 2,
        ("quicknode", "accepted"): 1,
        ("quicknode", "duplicate"): 3,
        ("paymob", "accepted"): 1,
        ("paymob", "duplicate"): 2,
    }


async def test_many_at_once_are_one(guarded_api: Api) -> None:
    answers = await asyncio.gather(*(from_paymob(guarded_api, transaction()) for _ in range(20)))

    assert set(map(str, answers)) == {str(RECEIVED)}
    assert (await the_event(guarded_api)).repeats == 19


async def test_a_nonce_is_good_for_one_event(guarded_api: Api) -> None:
    assert await from_quicknode(guarded_api, nonce="n") == RECEIVED

    status, _ = await from_quicknode(guarded_api, b'[{"other":1}]', nonce="n")

    assert status == 401
    assert (await the_event(guarded_api)).repeats == 0
    assert counted(guarded_api)["quicknode", "unauthenticated"] == 1


# ------------------------------------------------------------------------------- not authentic


async def unauthentic(api: Api) -> list[tuple[int, dict[str, Any]]]:
    """The answers to one request of each kind that proves nothing."""
    callback = transaction()
    late = quicknode_headers(BODY, timestamp=NOW - 301)
    forged = quicknode_headers(BODY, secret="guess")
    return [
        await knock(api, "helius"),
        await knock(api, "helius", BODY, {**JSON, "Authorization": "Bearer axk_x"}),
        await knock(api, "helius", b"\xff" * 100, {**JSON, "Authorization": "x"}),
        await knock(api, "quicknode"),
        await knock(api, "quicknode", b"no json", forged),
        await knock(api, "quicknode", BODY, late),
        await knock(api, "quicknode", BODY + b" ", quicknode_headers(BODY)),
        await knock(api, "paymob", json.dumps(callback).encode()),
        await from_paymob(api, callback, hmac_hex=paymob_hmac(callback, "guess")),
        await from_paymob(api, callback, hmac_hex="0" * 128),
        await from_paymob(api, callback, hmac_hex="%C3%A9" * 64),
        await from_paymob(api, callback | {"obj": callback["obj"] | {"success": False}},
                          hmac_hex=paymob_hmac(callback)),
        await by_browser(api, redirect_query(callback, hmac="0" * 128)),
        await by_browser(api, redirect_query(callback, amount_cents="1")),
        await by_browser(api, redirect_query(callback, hmac="")),
    ]  # fmt: skip


async def test_who_proves_nothing_is_told_nothing(guarded_api: Api) -> None:
    answers = await unauthentic(guarded_api)

    assert {status for status, _ in answers} == {401}
    assert len({json.dumps(body) for _, body in answers}) == 1


async def test_of_what_proves_nothing_only_a_number_is_kept(guarded_api: Api) -> None:
    payment = await guarded_api.create()
    before = await guarded_api.record(payment["id"])

    answers = await unauthentic(guarded_api)
    assert await events(guarded_api) == []
    await guarded_api.app.state.context.tally.write()

    stored = await everything(guarded_api)
    assert {event.source for event in stored} == set(WebhookSource)
    assert sum(event.repeats for event in stored) == len(answers)
    assert {event.verdict for event in stored} == {WebhookVerdict.UNAUTHENTICATED}
    assert {event.body for event in stored} == {b""}
    assert await guarded_api.record(payment["id"]) == before


async def test_a_flood_fills_neither_the_disk_nor_changes_a_payment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally_module, "WEBHOOK_SAMPLE_EVERY_S", 0.05)
    async with guarded(tmp_path) as api:
        payment = await api.create()
        before = [await rows_of(api, table) for table in ("payments", "events")]
        forged = quicknode_headers(BODY, secret="guess")
        callback = transaction()
        wrong = paymob_hmac(callback, "guess")

        async def one(number: int) -> int:
            match number % 4:
                case 0:
                    return (await knock(api, "helius"))[0]
                case 1:
                    return (await knock(api, "quicknode", BODY, forged))[0]
                case 2:
                    return (await from_paymob(api, callback, hmac_hex=wrong))[0]
                case _:
                    return (await by_browser(api, redirect_query(callback, hmac=wrong)))[0]

        for first in range(0, 2_000, 50):
            found = await asyncio.gather(*(one(first + number) for number in range(50)))
            assert set(found) == {401}

        stored = await everything(api)
        async with asyncio.timeout(60):
            while sum(event.repeats for event in stored) < 2_000:
                await asyncio.sleep(0.05)
                stored = await everything(api)
        assert {event.source: event.repeats for event in stored} == {
            HELIUS: 500,
            QUICKNODE: 500,
            PAYMOB: 1_000,
        }
        assert len(stored) == 3
        assert [await rows_of(api, table) for table in ("payments", "events")] == before
        assert (await api.record(payment["id"])).payment.version == 1


async def test_what_was_turned_away_is_written_down_before_the_server_ends(tmp_path: Path) -> None:
    async with guarded(tmp_path) as api:
        for _ in range(2):
            await knock(api, "helius")
        await api.session.close()
        api.stop.set()
        await api.served

        [sample] = await everything(api)
        assert sample.repeats == 2


async def test_a_strangers_body_is_not_read_at_the_door_of_helius(guarded_api: Api) -> None:
    reading, writing = await asyncio.open_connection("127.0.0.1", guarded_api.port)
    writing.write(
        b"POST /api/webhooks/helius HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nAuthorization: guess\r\n"
        b"Content-Length: 1000000\r\n\r\n["
    )

    async with asyncio.timeout(30):
        assert (await reading.readline()).startswith(b"HTTP/1.1 401 ")
    writing.close()


# ----------------------------------------------------------------------------- closed, not stored


@pytest.mark.parametrize("path", ["helius", "quicknode", "paymob"])
async def test_a_door_without_a_secret_is_closed(api: Api, path: str) -> None:
    headers = quicknode_headers(BODY, secret="") | {"Authorization": ""}
    status, body = await knock(api, path, BODY, headers)

    assert (status, body["code"]) == (503, "door_closed")
    assert counted(api) == {(path, "unconfigured"): 1}


async def test_a_customer_comes_back_to_a_closed_door(api: Api) -> None:
    status, _ = await by_browser(api, redirect_query(transaction()))

    assert status == 503


async def test_what_could_not_be_stored_is_not_acknowledged(guarded_api: Api) -> None:
    await guarded_api.database.close()

    for answer in (
        await from_helius(guarded_api),
        await from_quicknode(guarded_api),
        await from_paymob(guarded_api, transaction()),
    ):
        assert answer[0] == 503
        assert answer[1]["code"] == "store_unavailable"
    assert set(counted(guarded_api).values()) == {1}
    assert {outcome for _, outcome in counted(guarded_api)} == {"unavailable"}


async def test_too_much_at_once_is_put_off(
    guarded_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally_module, "WEBHOOK_BYTES_AT_ONCE_MAX", len(BODY) - 1)
    assert (await from_helius(guarded_api))[0] == 503

    monkeypatch.setattr(tally_module, "WEBHOOK_BYTES_AT_ONCE_MAX", len(BODY))
    assert await from_helius(guarded_api) == RECEIVED
    assert counted(guarded_api) == {("helius", "unavailable"): 1, ("helius", "accepted"): 1}


async def test_what_is_unpacked_counts_as_well(
    guarded_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"[" + b" " * 10_000 + b"]"
    monkeypatch.setattr(tally_module, "WEBHOOK_BYTES_AT_ONCE_MAX", len(body) - 1)
    headers = quicknode_headers(body) | {"Content-Encoding": "gzip"}

    status, found = await knock(guarded_api, "quicknode", gzip.compress(body), headers)

    assert (status, found["code"]) == (503, "busy")


# ------------------------------------------------------------------------------------- its form


async def refused_form(api: Api) -> None:
    assert await events(api) == []
    assert all(outcome != "accepted" for _, outcome in counted(api))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "gzip, gzip"}, 415),
        ({"Content-Encoding": "gzip"}, 400),
    ],
)
async def test_another_type_or_coding_is_refused(
    guarded_api: Api, change: dict[str, str], status: int
) -> None:
    found, _ = await knock(guarded_api, "quicknode", BODY, quicknode_headers(BODY) | change)

    assert found == status
    await refused_form(guarded_api)


async def test_only_quicknode_may_compress(guarded_api: Api) -> None:
    packed = gzip.compress(BODY)
    headers = {**JSON, "Authorization": HELIUS_SECRETS[0], "Content-Encoding": "gzip"}

    assert (await knock(guarded_api, "helius", packed, headers))[0] == 415


@pytest.mark.parametrize("path", ["helius", "quicknode"])
async def test_other_methods_are_refused(guarded_api: Api, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        async with guarded_api.session.request(method, f"/api/webhooks/{path}") as response:
            assert response.status == 405


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("path", "bytes_max"), [("helius", WEBHOOK_BYTES_MAX), ("paymob", CALLBACK_BYTES_MAX)]
)
async def test_a_body_that_is_too_large_is_refused_while_it_arrives(
    guarded_api: Api, path: str, bytes_max: int, chunked: bool
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(0, bytes_max + 1, 16 * 1024):
            yield b" " * 16 * 1024

    body = pieces() if chunked else io.BytesIO(b" " * (bytes_max + 1))
    headers = {**JSON, "Authorization": HELIUS_SECRETS[0]}
    status = 413
    try:
        async with guarded_api.session.post(
            f"/api/webhooks/{path}?hmac={'0' * 128}", data=body, headers=headers
        ) as response:
            status = response.status
    except aiohttp.ClientError:
        pass  # it answered and hung up while we were still sending

    assert status == 413
    assert counted(guarded_api) == {(path, "too_large"): 1}


async def test_the_largest_body_is_taken(guarded_api: Api) -> None:
    body = b"[" + b" " * (WEBHOOK_BYTES_MAX - 2) + b"]"

    assert await from_helius(guarded_api, body) == RECEIVED
    headers = quicknode_headers(body) | {"Content-Encoding": "gzip"}
    assert await knock(guarded_api, "quicknode", gzip.compress(body), headers) == RECEIVED


async def test_a_bomb_is_refused(guarded_api: Api) -> None:
    bomb = b"[" + b" " * WEBHOOK_BYTES_MAX + b"]"
    headers = quicknode_headers(bomb) | {"Content-Encoding": "gzip"}

    status, body = await knock(guarded_api, "quicknode", gzip.compress(bomb), headers)

    assert (status, body["code"]) == (413, "body_too_large")
    assert counted(guarded_api) == {("quicknode", "too_large"): 1}


@pytest.mark.parametrize("path", ["helius", "quicknode"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"7",
        b'"text"',
        b"[",
        b'[{"signature":',
        b"[1,]",
        b"\xff\xfe[]",
        b'["\xff"]',
        "[]".encode("utf-16"),
        b"\xef\xbb\xbf[]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[NaN]",
    ],
)
async def test_an_authentic_body_that_is_no_list_of_anything_is_refused(
    guarded_api: Api, path: str, body: bytes
) -> None:
    send = from_helius if path == "helius" else from_quicknode

    assert (await send(guarded_api, body))[0] == 422
    await refused_form(guarded_api)
    assert counted(guarded_api) == {(path, "malformed"): 1}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"type":"TRANSACTION"}', 422),
        (b'{"type":"TRANSACTION","obj":[]}', 422),
        (b'{"type":"DELIVERY_STATUS","obj":{}}', 422),
        (b'{"type":"transaction","obj":{}}', 422),
        (b'{"type":"TRANSACTION","type":"TRANSACTION","obj":{}}', 400),
        (b'{"obj":{}}', 422),
        (b"[" * 60_000, 400),
        (b'{"type":"TRANSACTION","obj":{"id":' + b"9" * 50_000 + b"}}", 422),
        (b'{"type":"TRANSACTION","obj":{"id":NaN}}', 400),
        (b'{"type":"TOKEN","obj":{"token":{}}}', 422),
        (b"\xff", 400),
        ("{}".encode("utf-16"), 400),
    ],
)
async def test_what_cannot_be_a_callback_is_refused(
    guarded_api: Api, body: bytes, status: int
) -> None:
    answered, _ = await knock(guarded_api, f"paymob?hmac={'0' * 128}", body)

    assert answered == status
    await refused_form(guarded_api)


async def test_a_callback_has_one_signature(guarded_api: Api) -> None:
    callback = transaction()
    body, good = json.dumps(callback).encode(), paymob_hmac(callback)
    queries = {
        "hmac=": 401,
        "x=1": 401,
        f"HMAC={good}": 401,
        f"hmac={good[:-1]}": 401,
        f"hmac={good}0": 401,
        "": 401,
        f"hmac={good}&hmac={good}": 422,
        f"hmac=0&hmac={good}": 422,
        "hmac=%FF": 422,
    }
    found = {query: (await knock(guarded_api, f"paymob?{query}", body))[0] for query in queries}

    assert found == queries
    assert await events(guarded_api) == []


def test_every_outcome_of_a_problem_is_an_outcome() -> None:
    assert set(webhooks._OUTCOMES.values()) < set(DoorOutcome)
