"""Callbacks of Paymob: what they say, whether Paymob said it, and whether it is about us. Pure.

Order of use: `parse_callback` (or `parse_redirect`), `is_signed`, `check_pins`, and only then
`dedupe_key` and `charge_news`.

The signature is an HMAC-SHA512 over the values of 20 fields (8 for a card token), put one after
the other without anything between. Three things follow:

- Digits may be moved from one field to its neighbour without breaking the signature: the order
  21750375 of owner 4302852 reads the same as the order 217503754 of owner 302852. So the fields
  that this could concern are pinned: with the owner, the currency and the integrations of this
  deployment, and with a strict form of everything else, only one way to split is left.
- All other fields are unsigned, and the customer, whose browser carries a genuine signature, can
  write into them what he likes: our reference of the order, whether it was a refund, how much was
  refunded. They decide nothing. A payment is found by the signed `order.id`; that something was
  refunded or voided is a reason to ask Paymob.
- There is no time and no number in it, so it may be sent again for ever (see `charge`).

Source: Paymob, "HMAC calculation" and "Transaction callbacks".
"""

import hashlib
import hmac
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from indexer.core.charge import ChargeNews
from indexer.core.lexemes import Number, decode_object, decode_query
from indexer.core.types import ChargeState, Currency
from indexer.errors import ConfigError, InvalidInput, InvariantError


#: No signed value is longer.
VALUE_CHARS_MAX: Final = 256

_Check = Callable[[str], bool]


def _matches(pattern: str) -> _Check:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


_is_id: Final = _matches("[1-9][0-9]{0,17}")
_is_amount: Final = _matches("[1-9][0-9]{0,12}")
_is_count: Final = _matches("0|[1-9][0-9]{0,12}")
_is_flag: Final = _matches("true|false")
#: Egypt writes local time without a zone, the others with one.
_is_time: Final = _matches(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
    r"(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
)
_is_currency: Final = _matches("[A-Z]{3}")
_is_line: Final = _matches(r"[^\x00-\x1f\x7f]{0,256}")
_is_digest: Final = _matches("[0-9a-fA-F]{128}")

#: What is signed of a transaction, in the order of signing, and the form of each.
_TRANSACTION: Final[Mapping[str, _Check]] = {
    "amount_cents": _is_amount,
    "created_at": _is_time,
    "currency": _is_currency,
    "error_occured": _is_flag,
    "has_parent_transaction": _is_flag,
    "id": _is_id,
    "integration_id": _is_id,
    "is_3d_secure": _is_flag,
    "is_auth": _is_flag,
    "is_capture": _is_flag,
    "is_refunded": _is_flag,
    "is_standalone_payment": _is_flag,
    "is_voided": _is_flag,
    "order.id": _is_id,
    "owner": _is_id,
    "pending": _is_flag,
    "source_data.pan": _is_line,
    "source_data.sub_type": _is_line,
    "source_data.type": _is_line,
    "success": _is_flag,
}

#: What is signed of a saved card.
_TOKEN: Final[Mapping[str, _Check]] = {
    "card_subtype": _is_line,
    "created_at": _is_time,
    "email": _is_line,
    "id": _is_id,
    "masked_pan": _matches("[0-9xX*-]{4,32}"),
    "merchant_id": _is_id,
    "order_id": _is_id,
    "token": _is_line,
}

#: How the query of a redirect spells what a body nests; one spelling at a time.
_SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "order.id": ("order", "order_id"),
    "source_data.pan": ("source_data_pan", "source_data.pan"),
    "source_data.sub_type": ("source_data_sub_type", "source_data.sub_type"),
    "source_data.type": ("source_data_type", "source_data.type"),
}
#: Both spellings may be there when they say the same.
_MAY_AGREE: Final = "order.id"


class CallbackKind(StrEnum):
    """What a callback is; its value is what a body says in `type`."""

    TRANSACTION = "TRANSACTION"
    TOKEN = "TOKEN"
    #: A transaction too, in the query of the URL to which the customer is sent back.
    REDIRECT = "REDIRECT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A callback as it was written, before anybody believes it.

    Attributes:
        signed: the values that are signed, by name, in the order of signing: numbers as they were
            written, booleans as `true` and `false`, empty where there was null or nothing.
        reference: our special reference of the order, as it says; None when it says none.
            Unsigned.
        refunded: how much was refunded, as it says, in digits; empty when it does not. Unsigned.
    """

    kind: CallbackKind
    signed: Mapping[str, str]
    reference: str | None = None
    refunded: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What callbacks must be about to be about this deployment.

    Attributes:
        integration_ids: of the payment methods that are offered.
        owner: the account's number.
        currency: in which cards are charged.
    """

    integration_ids: frozenset[int]
    owner: int
    currency: Currency

    def __post_init__(self) -> None:
        if not self.integration_ids:
            raise ConfigError(("no Paymob integration: nothing could be paid",))
        for one, other in itertools.permutations(self.integration_ids, 2):
            if str(one).endswith(str(other)):
                problem = f"Paymob integrations {one} and {other}: one ends as the other is"
                raise ConfigError((f"{problem}, so callbacks could be read in two ways",))


# ------------------------------------------------------------------------------------- reading


def parse_callback(raw: bytes) -> Callback:
    """The callback that a body is.

    Raises:
        InvalidInput: it is none; names the field.
    """
    body = decode_object(raw)
    kind = body.get("type")
    if not isinstance(kind, str) or kind not in {CallbackKind.TRANSACTION, CallbackKind.TOKEN}:
        raise InvalidInput("type", f"must be {CallbackKind.TRANSACTION} or {CallbackKind.TOKEN}")
    obj = body.get("obj")
    if not isinstance(obj, dict):
        raise InvalidInput("obj", "must be an object")
    if kind == CallbackKind.TOKEN:
        signed = {name: _rendered(name, obj.get(name)) for name in _TOKEN}
        return Callback(kind=CallbackKind.TOKEN, signed=signed)
    signed = {name: _value(obj, name, form) for name, form in _TRANSACTION.items()}
    reference, refunded = _inner(obj, "order").get("merchant_order_id"), "refunded_amount_cents"
    return Callback(
        kind=CallbackKind.TRANSACTION,
        signed=signed,
        reference=_hint(reference, _is_line) or None,
        refunded=_hint(obj.get(refunded), _is_count),
    )


def parse_redirect(query: str) -> Callback:
    """The callback that the query of a URL is, such as `amount_cents=100&…&hmac=…`.

    Raises:
        InvalidInput: it is none; names the field.
    """
    given = decode_query(query)
    signed = {name: _spelled(given, name) for name in _TRANSACTION}
    return Callback(
        kind=CallbackKind.REDIRECT,
        signed=signed,
        reference=_hint(given.get("merchant_order_id"), _is_line) or None,
        refunded=_hint(given.get("refunded_amount_cents"), _is_count),
    )


def hmac_of(query: str) -> str:
    """The signature in the query of a callback's URL; empty when there is none.

    Raises:
        InvalidInput: it is no query, or has a name twice.
    """
    return decode_query(query).get("hmac", "")


def _value(obj: dict[str, Any], name: str, form: _Check) -> str:
    outer, _, inner = name.rpartition(".")
    value = (_inner(obj, outer) if outer else obj).get(inner)
    if form is _is_flag and not (value is None or isinstance(value, bool)):
        raise InvalidInput(name, "must be a boolean")
    if form in {_is_id, _is_amount} and not (value is None or isinstance(value, Number)):
        raise InvalidInput(name, "must be a number")
    return _rendered(name, value)


def _inner(obj: dict[str, Any], name: str) -> dict[str, Any]:
    value = obj.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(name, "must be an object")
    return value


def _rendered(name: str, value: Any) -> str:
    """The value as it goes into the signature."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():  # a number too
            return _checked_text(name, str(value))
        case _:
            raise InvalidInput(name, "must be one value")


def _checked_text(name: str, text: str) -> str:
    if len(text) > VALUE_CHARS_MAX:
        raise InvalidInput(name, f"is longer than {VALUE_CHARS_MAX} characters")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(name, "has half a surrogate pair in it")
    return text


def _hint(value: Any, form: _Check) -> str:
    """An unsigned value, which nobody relies on: what has not its form is left out."""
    text = str(value) if isinstance(value, str) else ""
    return text if form(text) else ""


def _spelled(given: Mapping[str, str], name: str) -> str:
    found = {
        spelling: given[spelling] for spelling in _SPELLINGS.get(name, (name,)) if spelling in given
    }
    if len(found) > 1 and (name != _MAY_AGREE or len(set(found.values())) > 1):
        raise InvalidInput(" and ".join(found), "say the same thing twice")
    return _checked_text(name, next(iter(found.values()), ""))


# ------------------------------------------------------------------------------------ believing


def is_signed(callback: Callback, hmac_hex: str, secrets: Sequence[str]) -> bool:
    """Whether the signature is that of Paymob, with any of the secrets; never without one.

    Args:
        callback: what was signed.
        hmac_hex: 128 hexadecimal digits, as they came in the query.
        secrets: HMAC secrets, used as text; empty ones count for nothing.
    """
    if not _is_digest(hmac_hex):
        return False
    given, message = hmac_hex.lower().encode(), "".join(callback.signed.values()).encode()
    good = False
    for secret in filter(None, secrets):
        digest = hmac.new(secret.encode(), message, hashlib.sha512).hexdigest().encode()
        good |= hmac.compare_digest(digest, given)
    return good


def check_pins(callback: Callback, pins: Pins) -> None:
    """Accepts a callback that has the one form that it can have, and is about this deployment.

    Raises:
        InvalidInput: names the field.
    """
    forms = _TOKEN if callback.kind is CallbackKind.TOKEN else _TRANSACTION
    for name, form in forms.items():
        if not form(callback.signed[name]):
            raise InvalidInput(name, "has not the form that Paymob gives it")
    if callback.kind is CallbackKind.TOKEN:
        return
    if int(callback.signed["integration_id"]) not in pins.integration_ids:
        raise InvalidInput("integration_id", "is none of this deployment's")
    if int(callback.signed["owner"]) != pins.owner:
        raise InvalidInput("owner", "is not the account of this deployment")
    if callback.signed["currency"] != pins.currency:
        raise InvalidInput("currency", f"is not {pins.currency}")


def dedupe_key(callback: Callback) -> str:
    """What makes it the same event when it comes again: SHA-256, hex.

    Made of the signed values one by one, so that what was only split in another way is another
    event, though it has the same signature. A redirect and a callback that say the same are the
    same. The three values about the card may be split at will and mean nothing here: they count
    as one. Where the event is but a reason to ask, the refunded amount counts as well, for a
    second refund of the same transaction signs nothing that the first one did not.
    """
    kind, values = callback.kind, dict(callback.signed)
    if kind is not CallbackKind.TOKEN:
        kind = CallbackKind.TRANSACTION
        card = [values.pop(name) for name in tuple(values) if name.startswith("source_data.")]
        values["source_data"] = "".join(card)
        if _only_asks(callback.signed):
            values["refunded_amount_cents"] = callback.refunded
    text = json.dumps([kind, *values.items()], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------------------------- understanding


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What Paymob says of a transaction, in its own words."""

    success: bool
    pending: bool
    error_occured: bool
    is_auth: bool
    is_capture: bool
    is_standalone_payment: bool
    is_voided: bool
    is_refunded: bool


def state_of(flags: Flags) -> tuple[ChargeState, bool]:
    """Where the transaction stands, and whether it has been paid at some time.

    What contradicts itself (paid, and an error occurred; paid by nothing that pays) is pending:
    nothing is concluded from it.
    """
    pays = flags.is_capture or (flags.is_standalone_payment and not flags.is_auth)
    good = flags.success and not flags.pending and not flags.error_occured
    if flags.is_voided:
        return ChargeState.VOIDED, good and pays
    if flags.pending:
        return ChargeState.PENDING, False
    if not flags.success:
        return ChargeState.DECLINED, False
    if good and pays:
        return ChargeState.PAID, True
    if good and flags.is_auth:
        return ChargeState.AUTHORIZED, False
    return ChargeState.PENDING, False


def charge_news(callback: Callback, pins: Pins) -> ChargeNews | None:
    """What the callback says of a charge; None when it is not about one (a saved card).

    Of what was refunded, and of what was done to an earlier transaction, it says no more than
    that somebody should ask.

    Raises:
        InvalidInput: it is not about this deployment.
    """
    check_pins(callback, pins)
    if callback.kind is CallbackKind.TOKEN:
        return None
    signed = callback.signed
    state, was_paid = state_of(_flags(signed))
    return ChargeNews(
        id=int(signed["id"]),
        order_id=int(signed["order.id"]),
        amount=int(signed["amount_cents"]),
        currency=signed["currency"],
        made_at=signed["created_at"],
        state=state,
        was_paid=was_paid,
        needs_inquiry=_only_asks(signed),
        reference=callback.reference,
    )


def _only_asks(signed: Mapping[str, str]) -> bool:
    return "true" in (signed["has_parent_transaction"], signed["is_refunded"])


def _flags(signed: Mapping[str, str]) -> Flags:
    return Flags(**{name: _boolean(signed[name]) for name in Flags.__dataclass_fields__})


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise InvariantError(f"{text!r} passed for a boolean")
    return text == "true"
