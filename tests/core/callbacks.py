"""Callbacks of Paymob, made by hand: a test names only what it is about."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from indexer.core.paymob import Pins
from indexer.core.types import Currency
from tests.servers.fake_paymob import HMAC_SECRET, SIGNED, sign


INTEGRATION_ID: Final = 4_097_558
OWNER: Final = 302_852
PINS: Final = Pins(
    integration_ids=frozenset({INTEGRATION_ID, 51_102}), owner=OWNER, currency=Currency.EGP
)


def transaction(**changes: Any) -> dict[str, Any]:
    """`obj` of a card payment that succeeded; the sample of Paymob's documentation."""
    obj: dict[str, Any] = {
        "id": 192_036_465,
        "pending": False,
        "amount_cents": 100_000,
        "success": True,
        "is_auth": False,
        "is_capture": False,
        "is_standalone_payment": True,
        "is_voided": False,
        "is_refunded": False,
        "is_3d_secure": True,
        "integration_id": INTEGRATION_ID,
        "has_parent_transaction": False,
        "order": {"id": 217_503_754, "merchant_order_id": "pay_1", "items": []},
        "created_at": "2024-06-13T11:33:44.592345",
        "currency": "EGP",
        "source_data": {"pan": "2346", "type": "card", "sub_type": "MasterCard"},
        "error_occured": False,
        "refunded_amount_cents": 0,
        "owner": OWNER,
        "parent_transaction": None,
    }
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        if inner:
            obj[outer] = {**obj[outer], inner: value}
        else:
            obj[outer] = value
    return obj


def token(**changes: Any) -> dict[str, Any]:
    """`obj` of a card that was saved."""
    return {
        "id": 111_231,
        "token": "ast1f6305b97f7c40f3fffffb699f5452b50881b36b1",
        "masked_pan": "xxxx-xxxx-xxxx-1234",
        "merchant_id": 1_122,
        "card_subtype": "Visa",
        "created_at": "2021-08-04T22:57:48.155912",
        "email": "somebody@example.com",
        "order_id": "3511",
        **changes,
    }


def body(obj: Any, *, type: Any = "TRANSACTION") -> bytes:
    return json.dumps({"type": type, "obj": obj}).encode()


def signature(obj: Mapping[str, Any], secret: str = HMAC_SECRET) -> str:
    return sign(obj, SIGNED, secret)


def redirect(obj: Mapping[str, Any], **more: str) -> str:
    """The query with which a customer comes back, without a signature."""
    flat = {name: value for name, value in obj.items() if not isinstance(value, dict)}
    flat |= {f"source_data_{name}": value for name, value in obj["source_data"].items()}
    flat |= {"order": obj["order"]["id"], "merchant_order_id": obj["order"]["merchant_order_id"]}
    texts = {
        name: str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
        for name, value in flat.items()
    }
    return urlencode({**texts, **more})
