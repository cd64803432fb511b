"""What may be asked to be paid by card, and what is refused with a sentence."""

from dataclasses import replace
from typing import Any, Final

import pytest

from indexer.core.card_creation import (
    CARD_AMOUNT_MAX,
    CUSTOMER_CHARS_MAX,
    Customer,
    check_customer,
    create,
)
from indexer.core.creation import EXPIRES_IN_S_MAX, NewPayment, Policy
from indexer.core.payment import Asset, CardPayment, Offer
from indexer.core.types import Currency, Provider
from indexer.errors import InvalidInput
from tests.builders import NOW
from tests.instructions import key


POLICY: Final = Policy(
    recipient=key("shop"),
    tokens={"SOL": None},
    expires_in_s=900,
    grace_s=3_600,
    watch_key=key("watch"),
    currency=Currency.EGP,
)
ID: Final = f"pay_{1:026d}"


def made(policy: Policy = POLICY, **fields: Any) -> CardPayment:
    return create(NewPayment(**({"amount": "50", "token": "EGP"} | fields)), policy, id=ID, now=NOW)


def test_a_payment_is_what_was_asked_for_and_what_the_deployment_fills_in() -> None:
    words: dict[str, Any] = {
        "order_id": "1042",
        "label": "Shop",
        "message": "Tea",
        "metadata": {"table": "7"},
    }

    payment = made(amount="50.25", **words)

    egp = Asset(symbol="EGP", mint=None, decimals=2, token_program=None)
    offer = Offer(
        id=ID, asset=egp, amount=5_025, created_at=NOW, expires_at=NOW + 900, grace_s=3_600
    )
    assert payment == CardPayment(terms=offer, **words)
    assert payment.provider is Provider.PAYMOB
    assert type(payment.terms.asset.symbol) is str


@pytest.mark.parametrize(
    ("currency", "amount", "minor"),
    [
        (Currency.EGP, "0.01", 1),
        (Currency.EGP, "99999999999.99", CARD_AMOUNT_MAX),
        (Currency.OMR, "0.001", 1),
        (Currency.OMR, "1.5", 1_500),
        (Currency.SAR, "1", 100),
    ],
)
def test_an_amount_has_the_digits_of_its_currency(
    currency: Currency, amount: str, minor: int
) -> None:
    payment = made(replace(POLICY, currency=currency), token=currency.value, amount=amount)

    assert payment.terms.amount == minor


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", "0"),
        ("amount", "0.00"),
        ("amount", "0.001"),
        ("amount", "-1"),
        ("amount", "1e3"),
        ("amount", ""),
        ("amount", "\u0665"),
        ("amount", "50 "),
        ("amount", "100000000000"),
        ("amount", "9" * 400),
        ("token", "USD"),
        ("token", "egp"),
        ("token", ""),
        ("token", "SOL"),
        ("token", "x" * 10_000),
        ("recipient", key("shop")),
        ("memo", "for tea"),
        ("memo", ""),
        ("reference", key("reference")),
        ("label", ""),
        ("label", "two\nlines"),
        ("message", "x" * 501),
        ("order_id", "x" * 129),
        ("metadata", {"": "x"}),
        ("expires_in_s", 0),
        ("expires_in_s", EXPIRES_IN_S_MAX + 1),
    ],
)
def test_what_cannot_be_paid_is_refused_by_its_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        made(**{field: value})

    assert refused.value.field == field
    assert len(refused.value.message) < 250


def test_without_an_account_nobody_pays_by_card() -> None:
    with pytest.raises(InvalidInput) as refused:
        made(replace(POLICY, currency=None))

    assert refused.value.field == "provider"


def test_a_customer_may_be_unknown() -> None:
    check_customer(Customer())
    check_customer(
        Customer(first_name="أمل", last_name="O'Brien", email="a+b@x.eg", phone_number="+2010")
    )


@pytest.mark.parametrize("field", ["first_name", "last_name", "email", "phone_number"])
@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "x" * (CUSTOMER_CHARS_MAX + 1), "\0"])
def test_a_customer_has_words_that_fit_on_a_receipt(field: str, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_customer(Customer(**{field: text}))

    assert refused.value.field == f"customer.{field}"


@pytest.mark.parametrize("email", ["amal", "@x", "x@", "a b@x", "a@x y"])
def test_an_address_has_a_name_and_a_host(email: str) -> None:
    with pytest.raises(InvalidInput, match=r"customer\.email"):
        check_customer(Customer(email=email))


def test_a_customer_never_prints() -> None:
    shown = f"{Customer(first_name='Amal', email='amal@example.com')!r}"

    assert "mal" not in shown
