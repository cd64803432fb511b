"""What is said to Paymob and what it answers, as JSON; and what is made of it. Pure.

Sources: Paymob, "Create intention", "Retrieve transaction", "Transaction callbacks".
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Self, TypeVar

import msgspec

from indexer.core.card_creation import Customer
from indexer.core.charge import ChargeNews
from indexer.core.intention import NewIntention
from indexer.core.paymob import Flags, Pins, state_of
from indexer.errors import InvariantError, SourceUnavailable
from indexer.redact import redact
from indexer.settings import Settings
from indexer.sources import wire


#: Source: the intention API, `items`.
ITEM_NAME_CHARS_MAX: Final = 50
#: What Paymob reads as "not known", in fields that it does not let be empty.
NOT_KNOWN: Final = "NA"

#: Where callbacks come in, and where the customer comes back to.
CALLBACK_PATH: Final = "/api/webhooks/paymob"

_WORDS_CHARS_MAX: Final = 200
_SENTENCES_MAX: Final = 8
#: What is shorter tells nothing, and would be found in every word.
_HIDDEN_CHARS_MIN: Final = 3
_DEPTH_MAX: Final = 4

_T = TypeVar("_T")

_Id = Annotated[int, msgspec.Meta(ge=1, le=10**18 - 1)]
_Amount = Annotated[int, msgspec.Meta(ge=1, le=10**13 - 1)]
_Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._\-]{1,256}\Z")]
_Line = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,64}\Z")]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Account:
    """The account at Paymob, and who we are to it.

    Attributes:
        base_url: without a slash at its end.
        public_url: of ourselves: callbacks are sent there.
        pins: what is offered, and in which currency.
    """

    base_url: str
    secret_key: str
    public_key: str
    api_key: str
    public_url: str
    pins: Pins

    def __repr__(self) -> str:
        return f"Account({wire.logged_url(self.base_url)})"

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The account that is configured; only when `settings.takes_cards`."""
        keys = (settings.paymob_secret_key, settings.paymob_public_key, settings.paymob_api_key)
        secret_key, public_key, api_key = keys
        pins, public_url = settings.paymob_pins, settings.public_url
        if not (secret_key and public_key and api_key and pins and public_url):
            raise InvariantError("payments by card are not configured")
        return cls(
            base_url=settings.paymob_base_url.rstrip("/"),
            secret_key=secret_key,
            public_key=public_key,
            api_key=api_key,
            public_url=public_url.rstrip("/"),
            pins=pins,
        )


class IntentionAnswer(msgspec.Struct):
    """What can be paid now, and the secret that opens its page."""

    id: _Word
    intention_order_id: _Id
    client_secret: _Word
    special_reference: str | None = None


class TokenAnswer(msgspec.Struct):
    """What opens the reading half of the API, for an hour."""

    token: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,4096}\Z")]


class _Order(msgspec.Struct):
    id: _Id
    merchant_order_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class Transaction(msgspec.Struct):
    """A charge, or something that was done to one."""

    id: _Id
    amount_cents: _Amount
    currency: _Line
    created_at: _Line
    order: _Order
    success: bool
    pending: bool
    error_occured: bool
    is_auth: bool
    is_capture: bool
    is_standalone_payment: bool
    is_voided: bool
    is_refunded: bool
    has_parent_transaction: bool
    refunded_amount_cents: Annotated[int, msgspec.Meta(ge=0)] | None = None
    captured_amount: Annotated[int, msgspec.Meta(ge=0)] | None = None
    parent_transaction: Any = None


def intention_body(new: NewIntention, account: Account) -> Mapping[str, Any]:
    """The request that makes an intention."""
    customer = new.customer
    callback_url = f"{account.public_url}{CALLBACK_PATH}"
    name = (new.label or "Payment")[:ITEM_NAME_CHARS_MAX]
    return {
        "amount": new.amount,
        "currency": account.pins.currency,
        "payment_methods": sorted(account.pins.integration_ids),
        # Their sum must be the amount, or Paymob refuses it (406).
        "items": [{"name": name, "amount": new.amount, "description": name, "quantity": 1}],
        "billing_data": {
            each.name: getattr(customer, each.name) or NOT_KNOWN for each in fields(Customer)
        },
        "special_reference": new.reference,
        "expiration": new.expires_in_s,
        "notification_url": callback_url,
        "redirection_url": callback_url,
    }


def said_of(customer: Customer) -> tuple[str, ...]:
    """What is known of a customer, and must not be repeated."""
    known = (getattr(customer, each.name) for each in fields(Customer))
    return tuple(text for text in known if text and len(text) >= _HIDDEN_CHARS_MIN)


def news_of(found: Transaction) -> ChargeNews:
    """What a transaction that has no parent says of a charge."""
    refunded, captured = found.refunded_amount_cents or 0, found.captured_amount or 0
    if found.is_refunded and refunded == 0:
        refunded = found.amount_cents
    state, was_paid = state_of(
        Flags(
            success=found.success,
            pending=found.pending,
            error_occured=found.error_occured,
            is_auth=found.is_auth,
            # An authorization counts as paid once all of it was captured.
            is_capture=found.is_capture or captured >= found.amount_cents,
            is_standalone_payment=found.is_standalone_payment,
            is_voided=found.is_voided,
            is_refunded=found.is_refunded,
        )
    )
    return ChargeNews(
        id=found.id,
        order_id=found.order.id,
        amount=found.amount_cents,
        currency=found.currency,
        made_at=found.created_at,
        state=state,
        was_paid=was_paid,
        refunded=min(refunded, found.amount_cents) if was_paid else 0,
        reference=found.order.merchant_order_id,
    )


def parent(found: Transaction) -> int | None:
    """The transaction that this one was done to: by its number, or with it in an object."""
    told = found.parent_transaction
    if isinstance(told, dict):
        told = told.get("id")
    try:
        return msgspec.convert(told, _Id, strict=False)
    except msgspec.ValidationError:
        return None


def decode(body: bytes, type_: type[_T], asked: str, unreadable: type[SourceUnavailable]) -> _T:
    """An answer in its proper shape, or `unreadable`."""
    try:
        # Paymob writes some booleans and numbers as text, depending on what it is asked.
        return msgspec.json.decode(body, type=type_, strict=False)
    except wire.UNREADABLE as error:
        # The library's message names the field, not its value.
        raise unreadable(f"Paymob, {asked}: unexpected answer: {error}") from error


def words(body: bytes, secrets: Sequence[str]) -> str:
    """What Paymob says is wrong, in one line, without what must not be repeated."""
    try:
        said = msgspec.json.decode(body)
    except wire.UNREADABLE:
        return ""
    text = "; ".join(itertools.islice(_sentences("", said, depth=_DEPTH_MAX), _SENTENCES_MAX))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    text = " ".join(redact("".join(c if c.isprintable() else " " for c in text)).split())
    return text if len(text) <= _WORDS_CHARS_MAX else f"{text[:_WORDS_CHARS_MAX]}…"


def _sentences(field: str, said: Any, *, depth: int) -> list[str]:
    """`{"amount": ["too small"]}` as `amount: too small`."""
    if depth == 0:
        return []
    if isinstance(said, str):
        return [said if field in {"", "detail", "message"} else f"{field}: {said}"]
    inner: list[tuple[str, Any]] = []
    if isinstance(said, dict):
        inner = [(f"{field}.{name}" if field else name, value) for name, value in said.items()]
    elif isinstance(said, list):
        inner = [(field, value) for value in said]
    return [text for name, value in inner for text in _sentences(name, value, depth=depth - 1)]
