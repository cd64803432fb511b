"""What a merchant asks to be paid by card becomes a payment here, or a sentence that says why not.

Nothing is read for it: who is paid is the merchant's account at the acquirer, and what cards are
charged in is a setting. What only makes sense on the chain is refused, not left out in silence.
"""

from dataclasses import dataclass
from typing import Final

from indexer.core.amounts import format_amount, parse_amount
from indexer.core.creation import NewPayment, Policy, check_words, expires_in
from indexer.core.payment import Asset, CardPayment, Offer
from indexer.core.texts import check_line
from indexer.core.types import CURRENCY_DECIMALS, Provider
from indexer.errors import InvalidInput


#: Minor units of one payment, at most: a callback says its amount in 13 digits.
CARD_AMOUNT_MAX: Final = 10**13 - 1

#: Of each of a customer's fields. Source: the intention API's billing data, with room to spare.
CUSTOMER_CHARS_MAX: Final = 100

_SHOWN_CHARS_MAX: Final = 60

#: Fields that only mean something on the chain, and why they mean nothing here.
_ONLY_ON_THE_CHAIN: Final = {
    "recipient": "a payment by card goes to the merchant's account at Paymob: leave it out",
    "memo": "nothing is written to a chain when somebody pays by card: use `message`",
    "reference": "belongs to a Solana Pay URL, and a payment by card has none: leave it out",
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Customer:
    """Who will pay, for the acquirer's eyes only: never stored, and never printed.

    Every field may be None: not known.
    """

    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    phone_number: str | None = None

    def __repr__(self) -> str:
        return "Customer(…)"


def check_customer(customer: Customer) -> None:
    """Accepts what an acquirer can print on a receipt.

    Raises:
        InvalidInput: names the field.
    """
    for name in ("first_name", "last_name", "email", "phone_number"):
        field = f"customer.{name}"
        text: str | None = getattr(customer, name)
        check_line(field, text, chars_max=CUSTOMER_CHARS_MAX)
        if text is not None and not text.strip():
            raise InvalidInput(field, "is blank: leave it out instead")
    if customer.email is not None and not _is_address(customer.email):
        raise InvalidInput("customer.email", "is no e-mail address: name@host")


def create(request: NewPayment, policy: Policy, *, id: str, now: int) -> CardPayment:
    """The payment that was asked for.

    Args:
        request: what the merchant asks for.
        policy: what the deployment allows.
        id: a new one, of `ids.payment_id`.
        now: unix seconds.

    Raises:
        InvalidInput: names the field.
    """
    currency = policy.currency
    if currency is None:
        raise InvalidInput(
            "provider",
            f"{Provider.PAYMOB.value!r} is not set up here: AXIOM_PAYMOB_… name the account",
        )
    for name, why in _ONLY_ON_THE_CHAIN.items():
        if getattr(request, name) is not None:
            raise InvalidInput(name, why)
    check_words(request)
    if request.token != currency:
        shown = request.token[:_SHOWN_CHARS_MAX]
        raise InvalidInput("token", f"is {shown!r}, must be {currency.value!r}: cards pay in it")
    decimals = CURRENCY_DECIMALS[currency]
    amount = parse_amount(request.amount, decimals)
    if amount > CARD_AMOUNT_MAX:
        most = format_amount(CARD_AMOUNT_MAX, decimals)
        raise InvalidInput("amount", f"is more than the {most} {currency} of one payment by card")
    return CardPayment(
        terms=Offer(
            id=id,
            asset=Asset(symbol=currency.value, mint=None, decimals=decimals, token_program=None),
            amount=amount,
            created_at=now,
            expires_at=now + expires_in(request, policy),
            grace_s=policy.grace_s,
        ),
        order_id=request.order_id,
        label=request.label,
        message=request.message,
        metadata=dict(request.metadata),
    )


def _is_address(text: str) -> bool:
    """Looks like one. Whether anybody reads it, only a message could tell."""
    name, at, host = text.rpartition("@")
    return bool(name and at and host) and not any(character.isspace() for character in text)
