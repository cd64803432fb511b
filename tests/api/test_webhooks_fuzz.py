"""Whatever comes to a door, genuine or not: a clear answer, and no payment changes."""

import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from store.database import Statement
from tests.api.knocking import (
    BODY,
    JSON,
    PAYMOB_SECRETS,
    by_browser,
    from_helius,
    from_paymob,
    guarded,
    knock,
    paymob_hmac,
    quicknode_headers,
    redirect_query,
    rows_of,
    token,
    transaction,
)
from tests.api.running import NOW, Api


FUZZED: Final = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
REFUSALS: Final = {400, 401, 403, 413, 415, 422}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**30, max_value=10**40)
    | st.floats(allow_nan=True)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
#: Bytes that are JSON, nearly JSON, or something else.
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    json_values.map(lambda value: json.dumps(value).encode("utf-16")),
    st.integers(1, 100_000).map(lambda depth: b"[" * depth),
    st.integers(1, 2_000).map(lambda depth: b"[" * depth + b"]" * depth),
    st.integers(1, 50_000).map(lambda digits: b"[" + b"9" * digits + b"]"),
    st.integers(0, len(BODY)).map(lambda end: BODY[:end]),
    st.just(b'{"signature":1,"signature":2}'),
)


@pytest.fixture
async def fuzzed(tmp_path: Path) -> AsyncIterator[Api]:
    """An API with a payment, which is the same in the end."""
    async with guarded(tmp_path) as api:
        await api.create()
        before = [await rows_of(api, table) for table in ("payments", "events", "charges")]
        yield api
        after = [await rows_of(api, table) for table in ("payments", "events", "charges")]
        assert after == before


async def stored_bodies(api: Api) -> set[bytes]:
    statement = Statement("SELECT body FROM webhook_events WHERE verdict <> 'unauthenticated'")
    [rows] = await api.database.read([statement])
    return {bytes(body) for (body,) in rows}


# ----------------------------------------------------------------------------- Helius, QuickNode


@FUZZED
@given(body=bodies)
async def test_authentic_garbage_at_the_doors_of_doorbells(fuzzed: Api, body: bytes) -> None:
    packed = gzip.compress(body)
    headers = quicknode_headers(body, nonce=hashlib.sha256(body).hexdigest())
    statuses = {
        (await from_helius(fuzzed, body))[0],
        (await knock(fuzzed, "quicknode", body, headers))[0],
        (await knock(fuzzed, "quicknode", packed, headers | {"Content-Encoding": "gzip"}))[0],
    }

    assert len(statuses) == 1
    assert statuses <= {200, 422}
    assert (body in await stored_bodies(fuzzed)) == (statuses == {200})


@FUZZED
@given(
    body=bodies,
    names=st.lists(
        st.sampled_from(["authorization", "x-qn-nonce", "x-qn-timestamp", "x-qn-signature"])
    ),
    value=st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"),
                  max_size=80) | st.just(str(NOW)) | st.just("0" * 64),
    coding=st.sampled_from(["identity", "gzip", "deflate", ""]),
)  # fmt: skip
async def test_strangers_with_any_header_and_body_leave_nothing(
    fuzzed: Api, body: bytes, names: list[str], value: str, coding: str
) -> None:
    headers = JSON | dict.fromkeys(names, value) | {"Content-Encoding": coding}
    for path in ("helius", "quicknode", "paymob", f"paymob?hmac={'0' * 128}"):
        status, _ = await knock(fuzzed, path, body, headers)
        assert status in REFUSALS, path

    assert await stored_bodies(fuzzed) == set()


@FUZZED
@given(
    packed=st.binary(max_size=200) | st.binary(max_size=50).map(gzip.compress),
    cut=st.integers(0, 30),
)
async def test_any_gzip_is_unpacked_or_refused(fuzzed: Api, packed: bytes, cut: int) -> None:
    headers = quicknode_headers(BODY) | {"Content-Encoding": "gzip"}

    status, _ = await knock(fuzzed, "quicknode", packed[: len(packed) - cut], headers)

    assert status in {400, 401}


# --------------------------------------------------------------------------------------- Paymob


def with_value(callback: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """The callback with another value in one place."""
    changed: dict[str, Any] = json.loads(json.dumps(callback))
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return changed


PLACES: Final = [
    ["type"],
    ["obj"],
    *(["obj", name] for name in transaction()["obj"]),
    *(["obj", "order", name] for name in transaction()["obj"]["order"]),
    *(["obj", "source_data", name] for name in transaction()["obj"]["source_data"]),
]
#: Nobody signs these.
UNSIGNED: Final = [["obj", "order", "merchant_order_id"]]


@FUZZED
@given(path=st.sampled_from(PLACES), value=json_values)
async def test_a_callback_with_another_value_is_no_callback(
    fuzzed: Api, path: list[str], value: Any
) -> None:
    genuine = transaction()
    changed = with_value(genuine, path, value)
    status, _ = await from_paymob(fuzzed, changed, hmac_hex=paymob_hmac(genuine))

    if changed == genuine or path in UNSIGNED:
        assert status in {200, 422}
    else:
        assert status in REFUSALS


@FUZZED
@given(
    path=st.sampled_from(PLACES),
    value=json_values,
    callback=st.sampled_from([transaction(), token()]),
)
async def test_a_callback_that_is_signed_with_any_value_is_answered(
    fuzzed: Api, path: list[str], value: Any, callback: dict[str, Any]
) -> None:
    """As if the sender had the secret: what is signed may be of any type."""
    if callback["type"] == "TOKEN" and (len(path) > 2 or path[-1] not in callback["obj"]):
        return
    changed = with_value(callback, path, value)
    try:
        signature = paymob_hmac(changed)
    except (KeyError, TypeError, UnicodeEncodeError):
        signature = paymob_hmac(callback)

    assert (await from_paymob(fuzzed, changed, hmac_hex=signature))[0] in REFUSALS | {200}


@FUZZED
@given(data=st.data())
async def test_a_callback_that_is_cut_doubled_or_written_otherwise(
    fuzzed: Api, data: st.DataObject
) -> None:
    genuine = transaction()
    raw, signature = json.dumps(genuine).encode(), paymob_hmac(genuine)
    obj = json.dumps(genuine["obj"])
    shuffled = dict(data.draw(st.permutations(list(genuine["obj"].items()))))
    name = data.draw(st.sampled_from(sorted(genuine["obj"])))
    doubled = f'{obj[:-1]}, "{name}": {json.dumps(genuine["obj"][name])}}}'
    variants = {
        raw[: data.draw(st.integers(0, len(raw) - 1))]: REFUSALS,
        raw.decode().encode("utf-16"): REFUSALS,
        raw.decode().encode("utf-32"): REFUSALS,
        b"\xef\xbb\xbf" + raw: REFUSALS,
        raw + data.draw(st.sampled_from([b"x", b"{}", b"\0", b","])): REFUSALS,
        f'{{"type": "TRANSACTION", "obj": {doubled}}}'.encode(): REFUSALS,
        json.dumps({"obj": shuffled, "type": "TRANSACTION"}, indent=2).encode(): {200},
        json.dumps({"x": [[]], "obj": shuffled, "type": "TRANSACTION"}).encode(): {200},
    }
    for body, expected in variants.items():
        status, _ = await knock(fuzzed, f"paymob?hmac={signature}", body)
        assert status in expected, body


@FUZZED
@given(query=st.text(max_size=100) | st.text("hmacorid=&%+;20_", max_size=100))
async def test_any_query_at_the_door_of_paymob(fuzzed: Api, query: str) -> None:
    written = "".join(c if c in "=&%+;" else f"%{ord(c) & 0xFF:02x}" for c in query)
    raw = json.dumps(transaction()).encode()

    assert (await by_browser(fuzzed, written))[0] in REFUSALS
    assert (await knock(fuzzed, f"paymob?{written}", raw))[0] in REFUSALS


@FUZZED
@given(
    name=st.sampled_from(["amount_cents", "order", "owner", "success", "pending", "created_at"]),
    value=st.text(max_size=30),
    adds=st.booleans(),
)
async def test_a_redirect_with_another_value_is_no_redirect(
    fuzzed: Api, name: str, value: str, adds: bool
) -> None:
    pairs = parse_qsl(redirect_query(transaction()))
    changed = (
        [*pairs, (name, value)] if adds else [(n, value if n == name else v) for n, v in pairs]
    )
    status, _ = await by_browser(fuzzed, urlencode(changed, errors="replace"))

    assert status in REFUSALS or changed == pairs


@FUZZED
@given(
    cuts=st.lists(st.integers(0, 170), min_size=19, max_size=19),
)
async def test_a_signature_that_is_split_at_will_is_refused_and_stored_once(
    fuzzed: Api, cuts: list[int]
) -> None:
    """Whoever has a genuine redirect can write what was signed into the fields as he likes."""
    pairs = dict(parse_qsl(redirect_query(transaction())))
    signature = pairs.pop("hmac")
    message = "".join(pairs.values())
    assert hmac.new(PAYMOB_SECRETS[0].encode(), message.encode(), "sha512").hexdigest() == signature
    edges = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    values = [message[a:b] for a, b in pairwise(edges)]
    query = urlencode(dict(zip(pairs, values, strict=True)) | {"hmac": signature})

    status, _ = await by_browser(fuzzed, query)

    assert status == (200 if values == list(pairs.values()) else 403)
    assert len(await stored_bodies(fuzzed)) <= 2
