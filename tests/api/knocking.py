"""Webhooks as their senders make them, signed: what the tests of the doors knock with."""

import hashlib
import hmac
import io
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from indexer.core.paymob import Pins
from indexer.core.types import Currency, WebhookVerdict
from store import webhook_events
from store.database import Statement
from store.webhook_events import WebhookEvent
from tests.api.running import NOW, Api, running


HELIUS_SECRETS: Final = ("helius-old-secret", "Bearer helius-new-secret")
QUICKNODE_SECRETS: Final = ("qnsec_old_secret", "qnsec_new_secret")
PAYMOB_SECRETS: Final = ("04DC1A9490B8CC2094C011FC055ADCDB", "97A5B79200124C9E94E9D73763265D20")

#: Owner and integration of the callback that Paymob documents.
OWNER: Final = 302_852
INTEGRATION_ID: Final = 4_097_558
PINS: Final = Pins(integration_ids=frozenset({INTEGRATION_ID}), owner=OWNER, currency=Currency.EGP)

SETTINGS: Final[dict[str, Any]] = {
    "helius_webhook_secrets": HELIUS_SECRETS,
    "quicknode_webhook_secrets": QUICKNODE_SECRETS,
    "paymob_secret_key": "egy_sk_test_0123456789",
    "paymob_public_key": "egy_pk_test_0123456789",
    "paymob_api_key": "ZXlKaGJHY2lPaUpJVXpVeE1pSjk",
    "paymob_hmac_secret": PAYMOB_SECRETS,
    "paymob_integration_ids": (INTEGRATION_ID,),
    "paymob_owner": OWNER,
}

RECEIVED: Final = (200, {"status": "received"})

BODY: Final = json.dumps([{"signature": "5" * 88, "slot": 1, "transaction": {}}]).encode()
JSON: Final = {"Content-Type": "application/json"}

#: What Paymob signs of a transaction: path in `obj`, and the name in a redirect.
_SIGNED: Final = (
    ("amount_cents", "amount_cents"), ("created_at", "created_at"), ("currency", "currency"),
    ("error_occured", "error_occured"), ("has_parent_transaction", "has_parent_transaction"),
    ("id", "id"), ("integration_id", "integration_id"), ("is_3d_secure", "is_3d_secure"),
    ("is_auth", "is_auth"), ("is_capture", "is_capture"), ("is_refunded", "is_refunded"),
    ("is_standalone_payment", "is_standalone_payment"), ("is_voided", "is_voided"),
    ("order.id", "order"), ("owner", "owner"), ("pending", "pending"),
    ("source_data.pan", "source_data_pan"), ("source_data.sub_type", "source_data_sub_type"),
    ("source_data.type", "source_data_type"), ("success", "success"),
)  # fmt: skip
_TOKEN_SIGNED: Final = (
    "card_subtype", "created_at", "email", "id", "masked_pan", "merchant_id", "order_id", "token",
)  # fmt: skip

CARD_TOKEN: Final = "f6305b97f7c40f3fffffb699f5452b50881b36b1"


def guarded(path: Path, **settings: Any) -> AbstractAsyncContextManager[Api]:
    """An API whose doors all have secrets."""
    return running(path, **(SETTINGS | settings))


# ------------------------------------------------------------------------------------ QuickNode


def quicknode_headers(
    body: bytes,
    *,
    nonce: str = "8b1f0a6e-nonce",
    timestamp: int | str = NOW,
    secret: str = QUICKNODE_SECRETS[0],
) -> dict[str, str]:
    """The headers of a delivery; `body` is what it was before it was compressed."""
    message = f"{nonce}{timestamp}".encode() + body
    signature = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    return {
        **JSON,
        "x-qn-nonce": nonce,
        "x-qn-timestamp": str(timestamp),
        "x-qn-signature": signature,
    }


# --------------------------------------------------------------------------------------- Paymob


def transaction(**changes: Any) -> dict[str, Any]:
    """The callback that Paymob documents; `order=…` changes the order's id."""
    order = changes.pop("order", 217_503_754)
    source = changes.pop("source_data", {"pan": "2346", "sub_type": "MasterCard", "type": "card"})
    obj = {
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
        "order": {"id": order, "merchant_order_id": "pay_" + "0" * 26},
        "created_at": "2024-06-13T11:33:44.592345",
        "currency": "EGP",
        "error_occured": False,
        "owner": OWNER,
        "source_data": source,
    }
    return {"type": "TRANSACTION", "obj": obj | changes}


def token(**changes: Any) -> dict[str, Any]:
    """A saved card."""
    obj = {
        "card_subtype": "Visa",
        "created_at": "2021-08-04T22:57:48.155912",
        "email": "someone@example.com",
        "id": 111_999,
        "masked_pan": "xxxx-xxxx-xxxx-1234",
        "merchant_id": 11_122,
        "order_id": 351_111,
        "token": CARD_TOKEN,
    }
    return {"type": "TOKEN", "obj": obj | changes}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _at(obj: Mapping[str, Any], path: str) -> Any:
    outer, _, inner = path.rpartition(".")
    return (obj[outer] if outer else obj)[inner]


def paymob_hmac(callback: Mapping[str, Any], secret: str = PAYMOB_SECRETS[0]) -> str:
    """The signature of a callback, as Paymob makes it."""
    obj = callback["obj"]
    is_token = callback["type"] == "TOKEN"
    paths = _TOKEN_SIGNED if is_token else tuple(path for path, _ in _SIGNED)
    message = "".join(_text(_at(obj, path)) for path in paths)
    return hmac.new(secret.encode(), message.encode(), hashlib.sha512).hexdigest()


def redirect_query(callback: Mapping[str, Any], **changes: str) -> str:
    """The query with which a browser comes back after that transaction."""
    values = {name: _text(_at(callback["obj"], path)) for path, name in _SIGNED}
    return urlencode(values | {"hmac": paymob_hmac(callback)} | changes)


# -------------------------------------------------------------------------------------- knocking


async def knock(
    api: Api, path: str, body: bytes = BODY, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the answer to a webhook."""
    given = JSON if headers is None else headers
    # As a file: aiohttp warns of large bodies that are sent in one piece.
    sent = io.BytesIO(body)
    async with api.session.post(f"/api/webhooks/{path}", data=sent, headers=given) as response:
        return response.status, await response.json(content_type=None)


async def from_helius(
    api: Api, body: bytes = BODY, *, secret: str = HELIUS_SECRETS[0]
) -> tuple[int, dict[str, Any]]:
    return await knock(api, "helius", body, {**JSON, "Authorization": secret})


async def from_quicknode(api: Api, body: bytes = BODY, **signed: Any) -> tuple[int, dict[str, Any]]:
    return await knock(api, "quicknode", body, quicknode_headers(body, **signed))


async def from_paymob(
    api: Api, callback: Mapping[str, Any], *, hmac_hex: str | None = None
) -> tuple[int, dict[str, Any]]:
    signature = paymob_hmac(callback) if hmac_hex is None else hmac_hex
    body = json.dumps(callback).encode()
    return await knock(api, f"paymob?hmac={signature}", body)


async def by_browser(api: Api, query: str) -> tuple[int, dict[str, Any]]:
    return await api.get(f"/api/webhooks/paymob?{query}")


async def rows_of(api: Api, table: str) -> list[Any]:
    """Everything that a table holds."""
    [rows] = await api.database.read([Statement(f"SELECT * FROM {table}")])  # noqa: S608 - a name of the test's
    return list(rows)


# ------------------------------------------------------------------------------ what came of it


async def everything(api: Api) -> list[WebhookEvent]:
    """All that is stored, the oldest first."""
    entries = await webhook_events.page(api.database, limit=1_000)
    found = [await webhook_events.get(api.database, entry.id) for entry in reversed(entries)]
    return [event for event in found if event is not None]


async def events(api: Api) -> list[WebhookEvent]:
    """The same without samples of what was turned away, which are written now and then."""
    return [
        event
        for event in await everything(api)
        if event.verdict is not WebhookVerdict.UNAUTHENTICATED
    ]


async def the_event(api: Api) -> WebhookEvent:
    [event] = await events(api)
    return event


def counted(api: Api) -> dict[tuple[str, str], int]:
    """What the doors counted, without the zeros."""
    counts = api.app.state.context.tally.counts
    return {(str(source), str(outcome)): n for (source, outcome), n in counts.items() if n}
