"""Callbacks that are signed and not genuine, and those that are nothing at all, are refused."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from indexer.core import lexemes
from indexer.core.paymob import (
    Callback,
    Pins,
    charge_news,
    check_pins,
    dedupe_key,
    is_signed,
    parse_callback,
    parse_redirect,
)
from indexer.core.types import Currency
from indexer.errors import ConfigError, InvalidInput
from tests.core.callbacks import (
    INTEGRATION_ID,
    OWNER,
    PINS,
    body,
    redirect,
    signature,
    token,
    transaction,
)
from tests.servers.fake_paymob import HMAC_SECRET, SIGNED_OF_TOKEN, sign


SECRETS = (HMAC_SECRET,)


def signed_text(callback: Callback) -> str:
    return "".join(callback.signed.values())


# --------------------------------------------------------------------------- how it can be split


def splits(left: str, right: str) -> Iterator[tuple[str, str]]:
    whole = left + right
    for cut in range(len(whole) + 1):
        if cut != len(left):
            yield whole[:cut], whole[cut:]


def passes(callback: Callback) -> bool:
    try:
        check_pins(callback, PINS)
    except InvalidInput:
        return False
    return True


IDS = st.integers(1, 10**18 - 1)
TIMES = st.sampled_from(
    [
        "2024-06-13T11:33:44.592345",
        "2024-06-13T11:33:44",
        "2026-01-02T03:04:05.6+03:00",
        "2026-01-02T03:04:05.600000Z",
    ]
)
GENUINE = st.builds(
    transaction,
    id=IDS,
    order__id=IDS,
    amount_cents=st.integers(1, 10**13 - 1),
    created_at=TIMES,
    integration_id=st.sampled_from(sorted(PINS.integration_ids)),
    success=st.booleans(),
    pending=st.booleans(),
    is_3d_secure=st.booleans(),
    source_data__pan=st.sampled_from(["2346", "", None, "01010101010", "2346false"]),
)


@given(GENUINE)
def test_no_two_neighbours_can_be_split_in_another_way(obj: dict[str, Any]) -> None:
    genuine = parse_callback(body(obj))
    assert passes(genuine)

    names = list(genuine.signed)
    for left, right in itertools.pairwise(names):
        for one, two in splits(genuine.signed[left], genuine.signed[right]):
            forged = replace(genuine, signed={**genuine.signed, left: one, right: two})
            assert is_signed(forged, signature(obj), SECRETS)
            if left.startswith("source_data.") and right.startswith("source_data."):
                # Nothing is concluded from these three: split at will, it is the same event.
                assert dedupe_key(forged) == dedupe_key(genuine)
                assert charge_news(forged, PINS) == charge_news(genuine, PINS)
            else:
                assert not passes(forged), (left, one, right, two)
                assert dedupe_key(forged) != dedupe_key(genuine)


@given(GENUINE, st.data())
def test_no_three_neighbours_can_be_split_in_another_way(
    obj: dict[str, Any], data: st.DataObject
) -> None:
    genuine = parse_callback(body(obj))
    names = [name for name in genuine.signed if not name.startswith("source_data.")]
    at = data.draw(st.integers(0, len(names) - 3))
    chosen = names[at : at + 3]
    if names[at + 2] == "success":  # not a neighbour: the card stands between
        return
    whole = "".join(genuine.signed[name] for name in chosen)
    first = data.draw(st.integers(0, len(whole)))
    second = data.draw(st.integers(first, len(whole)))
    parts = (whole[:first], whole[first:second], whole[second:])
    forged = replace(genuine, signed={**genuine.signed, **dict(zip(chosen, parts, strict=True))})

    assert not passes(forged) or forged == genuine


def test_integrations_that_could_be_taken_for_each_other_are_refused() -> None:
    """1920364654097558 is 192036465 of 4097558, and 19203646540 of 97558."""
    with pytest.raises(ConfigError, match="4097558 and 97558"):
        Pins(
            integration_ids=frozenset({INTEGRATION_ID, 97_558}), owner=OWNER, currency=Currency.EGP
        )
    with pytest.raises(ConfigError, match="no Paymob integration"):
        Pins(integration_ids=frozenset(), owner=OWNER, currency=Currency.EGP)


# ------------------------------------------------------------------------------------- its form


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount_cents": 0}, "amount_cents"),
        ({"amount_cents": -100}, "amount_cents"),
        ({"amount_cents": 10**13}, "amount_cents"),
        ({"amount_cents": 1.5}, "amount_cents"),
        ({"amount_cents": None}, "amount_cents"),
        ({"id": 0}, "id"),
        ({"id": 10**18}, "id"),
        ({"id": 10**40}, "id"),
        ({"order__id": None}, "order.id"),
        ({"order": None}, "order.id"),
        ({"owner": OWNER + 1}, "owner"),
        ({"integration_id": INTEGRATION_ID + 1}, "integration_id"),
        ({"currency": "SAR"}, "currency"),
        ({"currency": "egp"}, "currency"),
        ({"currency": ""}, "currency"),
        ({"created_at": ""}, "created_at"),
        ({"created_at": "2024-06-13"}, "created_at"),
        ({"created_at": "2024-06-13T11:33:44.592345\n"}, "created_at"),
        ({"created_at": "2024-06-13T11:33:44 03:00"}, "created_at"),
        ({"created_at": "\u0662024-06-13T11:33:44"}, "created_at"),
        ({"success": None}, "success"),
        ({"pending": None}, "pending"),
        ({"source_data__pan": "a\x00b"}, "source_data.pan"),
    ],
)
def test_what_has_not_the_form_of_it_is_refused(changes: dict[str, Any], field: str) -> None:
    callback = parse_callback(body(transaction(**changes)))

    with pytest.raises(InvalidInput) as refused:
        check_pins(callback, PINS)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"success": "true"}, "success"),
        ({"success": 1}, "success"),
        ({"pending": "false"}, "pending"),
        ({"is_3d_secure": {}}, "is_3d_secure"),
        ({"id": "192036465"}, "id"),
        ({"id": True}, "id"),
        ({"amount_cents": "100000"}, "amount_cents"),
        ({"amount_cents": [100_000]}, "amount_cents"),
        ({"order": 217_503_754}, "order"),
        ({"order": [217_503_754]}, "order"),
        ({"order__id": {"id": 1}}, "order.id"),
        ({"source_data": "card"}, "source_data"),
        ({"source_data__pan": ["2346"]}, "source_data.pan"),
        ({"source_data__type": "x" * 257}, "source_data.type"),
        ({"source_data__type": "\ud800"}, "source_data.type"),
        ({"source_data__sub_type": "\udfff"}, "source_data.sub_type"),
        ({"created_at": {}}, "created_at"),
    ],
)
def test_a_value_of_another_type_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_callback(body(transaction(**changes)))

    assert refused.value.field == field


@pytest.mark.parametrize(
    "type",
    [None, "", "transaction", "TRANSACTION ", "DELIVERY_STATUS", "REDIRECT", 1, ["TOKEN"], {}],
)
def test_a_type_that_is_not_known_is_refused(type: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_callback(body(transaction(), type=type))

    assert refused.value.field == "type"


def test_a_body_without_a_type_is_no_transaction() -> None:
    for raw in ({"obj": transaction()}, transaction(), {}):
        with pytest.raises(InvalidInput) as refused:
            parse_callback(json.dumps(raw).encode())
        assert refused.value.field == "type"


@pytest.mark.parametrize("obj", [None, [], "obj", 1, True])
def test_a_body_without_an_object_is_refused(obj: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_callback(body(obj))

    assert refused.value.field == "obj"


def test_each_type_is_signed_by_its_own_fields() -> None:
    """What is signed as one says nothing as the other."""
    both = {**transaction(), **token(id=192_036_465, created_at=transaction()["created_at"])}

    assert not is_signed(parse_callback(body(both, type="TOKEN")), signature(both), SECRETS)
    assert not is_signed(parse_callback(body(both)), sign(both, SIGNED_OF_TOKEN), SECRETS)


def test_a_key_that_stands_twice_is_refused_wherever_it_stands() -> None:
    for old, new in (
        (b'"success": true', b'"success": true, "success": false'),
        (b'"order": {', b'"order": {"id": 1, '),
        (b'"obj": {', b'"obj": {}, "obj": {'),
        (b'"items": []', b'"items": [{"a": 1, "a": 2}]'),
    ):
        raw = body(transaction()).replace(old, new)
        assert raw != body(transaction())
        with pytest.raises(InvalidInput, match="stands twice"):
            parse_callback(raw)


# ------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("&order_id=1", "order and order_id"),
        ("&source_data.pan=2346", "source_data_pan and source_data.pan"),
        ("&source_data.type=card", "source_data_type and source_data.type"),
        ("&success=false", "success: stands twice"),
        ("&hmac=1&hmac=2", "hmac: stands twice"),
        ("&x", "name=value"),
    ],
)
def test_a_redirect_that_can_be_read_in_two_ways_is_refused(more: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        parse_redirect(redirect(transaction()) + more)


def test_a_redirect_may_name_the_order_in_either_way_or_in_both() -> None:
    query = redirect(transaction())
    expected = parse_redirect(query)

    for other_spelling in (
        f"{query}&order_id=217503754",
        query.replace("order=217503754&", "order_id=217503754&"),
        query.replace("source_data_", "source_data."),
    ):
        assert other_spelling != query
        assert parse_redirect(other_spelling) == expected


def test_a_value_may_be_as_long_as_the_longest() -> None:
    check_pins(parse_callback(body(transaction(source_data__type="x" * 256))), PINS)


@pytest.mark.parametrize("value", ["True", "TRUE", "1", "yes", ""])
def test_a_boolean_of_a_redirect_is_true_or_false(value: str) -> None:
    query = redirect(transaction()).replace("success=true", f"success={value}")

    with pytest.raises(InvalidInput) as refused:
        check_pins(parse_redirect(query), PINS)
    assert refused.value.field == "success"


def test_a_zone_survives_a_redirect_only_when_it_is_escaped() -> None:
    obj = transaction(created_at="2026-01-02T03:04:05.123456+03:00")
    escaped = redirect(obj)

    assert is_signed(parse_redirect(escaped), signature(obj), SECRETS)
    assert not is_signed(parse_redirect(escaped.replace("%2B", "+")), signature(obj), SECRETS)


# ------------------------------------------------------------------------------------- any bytes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


def is_handled(raw: bytes) -> bool:
    """Read and believed, or refused in words: nothing else ever happens."""
    try:
        callback = parse_callback(raw)
        is_signed(callback, "0" * 128, SECRETS)
        dedupe_key(callback)
        charge_news(callback, PINS)
    except InvalidInput as error:
        return len(str(error)) < 500
    return True


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(transaction())), JSON, st.booleans())
def test_any_value_in_any_field_is_read_or_refused(name: str, value: Any, nested: bool) -> None:
    changed = transaction()
    if nested and isinstance(changed[name], dict):
        changed[name] = dict.fromkeys(changed[name], value)
    else:
        changed[name] = value
    assert is_handled(body(changed))


@given(st.integers(0, 2_000), st.binary(max_size=8), st.integers(0, 8))
def test_a_spoiled_body_is_read_or_refused(at: int, insert: bytes, drop: int) -> None:
    raw = body(transaction())
    at %= len(raw)
    assert is_handled(raw[:at] + insert + raw[at + drop :])


@given(st.dictionaries(st.sampled_from([*transaction(), "order_id", "hmac"]), st.text(max_size=30)))
def test_any_redirect_is_read_or_refused(given_values: Mapping[str, str]) -> None:
    query = "&".join(f"{name}={value}" for name, value in given_values.items())
    with contextlib.suppress(InvalidInput):
        check_pins(parse_redirect(query), PINS)
        assert given_values["success"] in {"true", "false"}


def test_a_body_has_bounds() -> None:
    with pytest.raises(InvalidInput, match="more than"):
        parse_callback(body(transaction(data="x" * lexemes.BODY_BYTES_MAX)))
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(InvalidInput, match="nested"):
        parse_callback(body(transaction(data=deep)))
