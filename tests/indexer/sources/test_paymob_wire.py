"""What is said to Paymob, and what is made of its answers."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from indexer.core.types import ChargeState, Currency
from indexer.errors import InvariantError, SourceUnavailable
from indexer.settings import Settings
from indexer.sources.paymob_wire import Account, Transaction, decode, news_of, words
from tests.core.callbacks import transaction
from tests.servers.fake_paymob import FakePaymob


def test_the_account_is_the_one_of_the_settings() -> None:
    settings = Settings.from_env(
        {
            **FakePaymob().environment(),
            "AXIOM_PAYMOB_BASE_URL": "https://ksa.paymob.com/",
            "AXIOM_PAYMOB_CURRENCY": "sar",
            "AXIOM_PUBLIC_URL": "https://shop.example/",
            "AXIOM_RPC_URLS": "http://127.0.0.1:8899",
        },
        None,
    )
    account = Account.of(settings)

    assert settings.takes_cards
    assert (account.base_url, account.public_url) == (
        "https://ksa.paymob.com",
        "https://shop.example",
    )
    assert account.pins.currency is Currency.SAR


def test_without_settings_there_is_no_account() -> None:
    with pytest.raises(InvariantError, match="not configured"):
        Account.of(Settings(rpc_urls=("http://127.0.0.1:8899",)))


def answered(**changes: Any) -> Transaction:
    body = json.dumps(transaction(**changes)).encode()
    return decode(body, Transaction, "transaction", SourceUnavailable)


@pytest.mark.parametrize(
    ("changes", "state", "refunded"),
    [
        ({}, ChargeState.PAID, 0),
        ({"refunded_amount_cents": 40}, ChargeState.PAID, 40),
        ({"refunded_amount_cents": 40, "is_refunded": True}, ChargeState.PAID, 40),
        # That it is refunded and nothing was: then all of it.
        ({"refunded_amount_cents": 0, "is_refunded": True}, ChargeState.PAID, 100_000),
        ({"refunded_amount_cents": None, "is_refunded": True}, ChargeState.PAID, 100_000),
        ({"refunded_amount_cents": 100_001}, ChargeState.PAID, 100_000),
        ({"refunded_amount_cents": 40, "success": False}, ChargeState.DECLINED, 0),
    ],
)
def test_what_was_refunded_is_read(
    changes: dict[str, Any], state: ChargeState, refunded: int
) -> None:
    news = news_of(answered(**changes))

    assert (news.state, news.refunded, news.needs_inquiry) == (state, refunded, False)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"detail": "No such key."}, "No such key."),
        ({"message": "No"}, "No"),
        (
            {"billing_data": {"email": ["No address."], "phone": ["Gone.", "Bad."]}},
            "billing_data.email: No address.; billing_data.phone: Gone.; billing_data.phone: Bad.",
        ),
        (["One", "Two"], "One; Two"),
        ("plain", "plain"),
        ({"code": 7, "detail": None}, ""),
        ({"detail": "two\r\nlines\x00\u2028 \u202eand more"}, "two lines and more"),
        ({"detail": "at https://accept.paymob.com/x?clientSecret=abc"},
         "at https://accept.paymob.com/***"),
        ({"detail": "x" * 300}, "x" * 200 + "…"),
        ({"a": {"b": {"c": {"d": {"e": "too deep"}}}}}, ""),
    ],
)  # fmt: skip
def test_the_words_of_paymob_become_one_line(said: Any, text: str) -> None:
    assert words(json.dumps(said).encode(), ()) == text


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[" * 5_000, b"{", b"NaN"])
def test_what_is_no_json_has_no_words(body: bytes) -> None:
    assert words(body, ()) == ""


def test_the_longest_secret_is_hidden_whole() -> None:
    body = json.dumps({"detail": "key-1-and-more and key-1"}).encode()

    assert words(body, ("key-1", "key-1-and-more")) == "… and …"


@given(st.binary(max_size=200))
def test_any_answer_has_words_or_none(body: bytes) -> None:
    assert len(words(body, ())) <= 201


@given(st.binary(max_size=200))
def test_any_answer_is_read_or_unusable(body: bytes) -> None:
    with pytest.raises(SourceUnavailable):
        decode(body, Transaction, "transaction", SourceUnavailable)
