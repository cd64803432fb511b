"""Callbacks of Paymob are read as they were signed, and understood as Paymob means them."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from indexer.core.charge import ChargeNews
from indexer.core.paymob import (
    Callback,
    CallbackKind,
    Flags,
    charge_news,
    check_pins,
    dedupe_key,
    hmac_of,
    is_signed,
    parse_callback,
    parse_redirect,
    state_of,
)
from indexer.core.types import ChargeState
from indexer.errors import InvalidInput
from tests import vectors
from tests.core.callbacks import (
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


# ------------------------------------------------------------------------------ what is published


def published(name: str) -> tuple[str, str, str]:
    vector = vectors.load("hmac.json")[name]
    return vector["secret"], vector["concat"], vector["hmac"]


def xdot() -> dict[str, Any]:
    return transaction(
        amount_cents=50_000,
        created_at="2021-08-02T15:45:26.988117",
        id=11_113_222,
        integration_id=1_111,
        order__id=11_112_345,
        owner=1_188,
        source_data__pan="1234",
    )


@pytest.mark.parametrize(
    ("name", "obj"), [("paymob_docs_2024", transaction()), ("paymob_xdot_tx", xdot())]
)
def test_published_transactions_are_signed(name: str, obj: dict[str, Any]) -> None:
    secret, concat, digest = published(name)
    callback = parse_callback(body(obj))

    assert signed_text(callback) == concat
    assert is_signed(callback, digest, [secret])
    assert is_signed(callback, digest.upper(), ["another secret", secret])
    assert not is_signed(parse_callback(body({**obj, "amount_cents": 90_000})), digest, [secret])


def test_a_published_token_is_signed() -> None:
    secret, concat, digest = published("paymob_xdot_token")
    obj = token(
        email="mahmoud@xshaheen.com",
        id=111_999,
        masked_pan="xxxx-xxxx-xxxx-1234",
        merchant_id=111_223,
        order_id=51_111_123,
        token="112ast1f6305b97f7c40f3fffffb699f5452b50881b36b1",
    )
    callback = parse_callback(body(obj, type="TOKEN"))

    assert signed_text(callback) == concat
    assert is_signed(callback, digest, [secret])
    check_pins(callback, PINS)
    assert charge_news(callback, PINS) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"order__id": 21_750_375, "owner": 4_302_852}, "owner"),
        ({"id": 19_203_646, "integration_id": 54_097_558}, "integration_id"),
    ],
)
def test_the_published_boundary_shift_is_signed_and_refused(
    changes: dict[str, Any], field: str
) -> None:
    secret, _, digest = published("paymob_docs_2024")
    genuine, forged = (
        parse_callback(body(transaction())),
        parse_callback(body(transaction(**changes))),
    )

    assert is_signed(forged, digest, [secret])
    with pytest.raises(InvalidInput) as refused:
        check_pins(forged, PINS)
    assert refused.value.field == field
    assert dedupe_key(forged) != dedupe_key(genuine)


def test_a_redirect_says_what_the_callback_says() -> None:
    secret, concat, digest = published("paymob_docs_2024")
    callback = parse_redirect(redirect(transaction(), hmac=digest))

    assert callback.kind is CallbackKind.REDIRECT
    assert signed_text(callback) == concat
    assert is_signed(callback, digest, [secret])
    assert hmac_of(redirect(transaction(), hmac=digest)) == digest
    assert (callback.reference, callback.refunded) == ("pay_1", "0")
    assert replace(callback, kind=CallbackKind.TRANSACTION) == parse_callback(body(transaction()))


# ----------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "0" * 128,
        "0" * 127,
        "0" * 129,
        "g" * 128,
        "é" * 128,
        "\0" * 128,
        "0" * 127 + "\n",
        "\u0660" * 128,  # digits of another script
    ],
)
def test_what_is_no_signature_is_none(digest: str) -> None:
    assert not is_signed(parse_callback(body(transaction())), digest, SECRETS)


def test_a_signature_with_blanks_around_it_is_none() -> None:
    obj = transaction()
    good = signature(obj)

    assert is_signed(parse_callback(body(obj)), good, SECRETS)
    for bad in (f" {good}", f"{good}\n", f"{good} ", good[:-1], f"0x{good}"):
        assert not is_signed(parse_callback(body(obj)), bad, SECRETS)


def test_nothing_is_signed_without_a_secret() -> None:
    obj = transaction()
    callback = parse_callback(body(obj))

    assert not is_signed(callback, signature(obj), ())
    assert not is_signed(callback, signature(obj, ""), ("",))
    assert is_signed(callback, signature(obj), ("", *SECRETS))


@pytest.mark.parametrize(
    "secrets", [("first secret", "second secret"), ("second secret", "first secret")]
)
def test_either_of_two_secrets_is_good(secrets: tuple[str, ...]) -> None:
    obj = transaction()

    assert is_signed(parse_callback(body(obj)), signature(obj, "second secret"), secrets)


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else f"{value}0"


@pytest.mark.parametrize(
    "name",
    [
        "amount_cents", "created_at", "currency", "error_occured", "has_parent_transaction", "id",
        "integration_id", "is_3d_secure", "is_auth", "is_capture", "is_refunded",
        "is_standalone_payment", "is_voided", "order__id", "owner", "pending", "source_data__pan",
        "source_data__sub_type", "source_data__type", "success",
    ],
)  # fmt: skip
def test_each_of_the_20_fields_is_signed(name: str) -> None:
    obj = transaction()
    outer, _, inner = name.partition("__")
    changed = transaction(**{name: other(obj[outer][inner] if inner else obj[outer])})

    assert not is_signed(parse_callback(body(changed)), signature(obj), SECRETS)


@pytest.mark.parametrize("name", SIGNED_OF_TOKEN)
def test_each_of_the_8_fields_of_a_token_is_signed(name: str) -> None:
    obj = token()
    digest = sign(obj, SIGNED_OF_TOKEN)

    assert is_signed(parse_callback(body(obj, type="TOKEN")), digest, SECRETS)
    changed = {**obj, name: other(obj[name])}
    assert not is_signed(parse_callback(body(changed, type="TOKEN")), digest, SECRETS)


@pytest.mark.parametrize("pan", [None, ""])
def test_null_missing_and_empty_are_signed_alike(pan: str | None) -> None:
    """As of a kiosk, which has no card."""
    obj = transaction(source_data__pan=pan)
    missing = transaction()
    del missing["source_data"]["pan"]

    assert signature(obj) == signature(missing)
    for each in (obj, missing):
        callback = parse_callback(body(each))
        assert is_signed(callback, signature(obj), SECRETS)
        check_pins(callback, PINS)


@pytest.mark.parametrize("lexeme", ["100000.0", "1e5", "1E5", "100000.00", "0100000"])
def test_a_number_is_signed_as_it_is_written(lexeme: str) -> None:
    raw = body(transaction()).replace(
        b'"amount_cents": 100000', f'"amount_cents": {lexeme}'.encode()
    )
    try:
        callback = parse_callback(raw)
    except InvalidInput:
        assert lexeme.startswith("0"), "only a leading zero is no JSON"
        return

    assert callback.signed["amount_cents"] == lexeme
    assert not is_signed(callback, signature(transaction()), SECRETS)
    with pytest.raises(InvalidInput, match="amount_cents"):
        check_pins(callback, PINS)


# --------------------------------------------------------------------------------------- the key


def test_the_same_event_has_the_same_key_however_it_comes() -> None:
    obj = transaction()
    key = dedupe_key(parse_callback(body(obj)))

    assert len(key) == 64
    assert dedupe_key(parse_callback(json.dumps(json.loads(body(obj)), indent=3).encode())) == key
    assert dedupe_key(parse_redirect(redirect(obj))) == key
    unsigned = transaction(order__merchant_order_id="pay_2", refunded_amount_cents=7)
    assert dedupe_key(parse_callback(body(unsigned))) == key


def test_each_refund_of_a_transaction_is_an_event_of_its_own() -> None:
    """They sign the same: `is_refunded` was true before."""
    keys = {
        dedupe_key(
            parse_callback(body(transaction(is_refunded=True, refunded_amount_cents=amount)))
        )
        for amount in (0, 100, 200)
    }

    assert len(keys) == 3


@pytest.mark.parametrize("amount", ["7", -1, 10**13, 1.5, {"a": 1}, [], True, None])
def test_an_unsigned_amount_that_is_none_makes_no_key(amount: Any) -> None:
    obj = transaction(is_refunded=True, refunded_amount_cents=amount)
    callback = parse_callback(body(obj))

    assert callback.refunded in ("", "7")
    assert charge_news(callback, PINS) == news(is_refunded=True)


# --------------------------------------------------------------------------------- what it means


def news(**changes: Any) -> ChargeNews:
    found = charge_news(parse_callback(body(transaction(**changes))), PINS)
    assert found is not None
    return found


def test_a_payment_is_understood() -> None:
    assert news() == ChargeNews(
        id=192_036_465,
        order_id=217_503_754,
        amount=100_000,
        currency="EGP",
        made_at="2024-06-13T11:33:44.592345",
        state=ChargeState.PAID,
        was_paid=True,
        reference="pay_1",
    )


DECLINED: dict[str, Any] = {"success": False}
AUTH: dict[str, Any] = {"is_auth": True, "is_standalone_payment": False}


@pytest.mark.parametrize(
    ("changes", "state", "was_paid"),
    [
        ({}, ChargeState.PAID, True),
        ({"pending": True, "success": False}, ChargeState.PENDING, False),
        ({"pending": True}, ChargeState.PENDING, False),
        (DECLINED, ChargeState.DECLINED, False),
        ({**DECLINED, "error_occured": True}, ChargeState.DECLINED, False),
        (AUTH, ChargeState.AUTHORIZED, False),
        ({"is_auth": True}, ChargeState.AUTHORIZED, False),
        ({"is_capture": True, "is_standalone_payment": False}, ChargeState.PAID, True),
        ({"is_voided": True}, ChargeState.VOIDED, True),
        ({**AUTH, "is_voided": True}, ChargeState.VOIDED, False),
        ({**DECLINED, "is_voided": True}, ChargeState.VOIDED, False),
        ({"error_occured": True}, ChargeState.PENDING, False),
        ({"is_standalone_payment": False}, ChargeState.PENDING, False),
    ],
)
def test_the_signed_flags_say_where_it_stands(
    changes: dict[str, Any], state: ChargeState, was_paid: bool
) -> None:
    found = news(**changes)

    assert (found.state, found.was_paid) == (state, was_paid)
    assert not found.needs_inquiry


@given(st.builds(Flags, **dict.fromkeys(Flags.__dataclass_fields__, st.booleans())))
def test_only_a_success_without_doubt_was_ever_paid(flags: Flags) -> None:
    """As Paymob's own plugin tells it."""
    state, was_paid = state_of(flags)

    assert not was_paid or (flags.success and not flags.pending and not flags.error_occured)
    assert (state is ChargeState.PAID) <= was_paid
    assert (state is ChargeState.PAID) <= (not flags.is_voided)


@pytest.mark.parametrize(
    "changes",
    [
        {"has_parent_transaction": True},
        {"is_refunded": True},
        {"has_parent_transaction": True, "is_refund": True, "amount_cents": 100},
        {"has_parent_transaction": True, "is_void": True},
    ],
)
def test_what_is_done_to_a_transaction_is_only_a_reason_to_ask(changes: dict[str, Any]) -> None:
    assert news(**changes).needs_inquiry


def test_unsigned_fields_decide_nothing() -> None:
    lies = {
        "is_refund": True,
        "is_void": True,
        "refunded_amount_cents": 100_000,
        "is_captured": True,
        "captured_amount": 1,
        "parent_transaction": 12,
        "is_live": False,
        "data": {"message": "Declined"},
        "payment_key_claims": {"extra": {"payment": "pay_9"}},
    }

    assert news(**lies) == news()
    assert replace(news(order__merchant_order_id="pay_9"), reference="pay_1") == news()
