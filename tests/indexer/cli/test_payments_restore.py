"""What others kept of a payment makes it again, or a sentence that says why not."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.chain import Accounts
from indexer.cli import payments_restore
from indexer.core.account import Account
from indexer.core.creation import Policy, solana_pay_url
from indexer.core.events import public_state
from indexer.errors import InvalidInput
from store import payments, restoring, watch_keys
from store.database import open_database
from store.migrate import migrate
from tests.builders import GRACE_S, NOW, WATCH_KEY, make_payment
from tests.instructions import key


LOST = make_payment(amount=5_000_000, order_id="order 7", metadata={"n": "1"}, memo="thanks")
POLICY = Policy(
    recipient=None, tokens={"SOL": None}, expires_in_s=60, grace_s=GRACE_S, watch_key=key("now")
)


class Chain:
    """On which no address has an account."""

    async def account(self, key: str) -> Account | None:
        return None

    async def rent_exempt_minimum(self) -> int:
        return 890_880


def kept(**changes: Any) -> dict[str, Any]:
    """What the API answered when it was created."""
    body = public_state(LOST) | {"url": solana_pay_url(LOST), "transfers": [], "checkout_url": None}
    return body | {"order_id": LOST.order_id, "metadata": dict(LOST.metadata)} | changes


async def read(body: object) -> Any:
    accounts = Accounts(Chain(), (), lambda: 0.0)
    text = body if isinstance(body, str) else json.dumps(body)
    return await payments_restore.read(text, POLICY, accounts, now=NOW + 10)


async def test_it_is_the_same_payment_to_the_letter() -> None:
    assert await read(kept()) == LOST


async def test_a_webhook_that_a_receiver_kept_has_all_but_the_merchants_own_notes() -> None:
    state = public_state(LOST)
    hook = {"type": "payment.created", "timestamp": "t", "data": {"payment": state}}
    for body in (hook, {"type": "payment.created", "data": state}):
        payment = await read(body)
        assert payment.terms.reference == LOST.terms.reference
        assert (payment.terms.watch_key, payment.order_id) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "pay_1"},
        {"id": None},
        {"id": "pay_" + "A" * 26},
        {"provider": "paymob"},
        {"status": "canceled"},
        {"amount": "-1"},
        {"amount": "0.1"},
        {"amount": 0.005},
        {"amount_base_units": "5000001"},
        {"token": {"symbol": "USDC", "mint": key("usdc"), "decimals": 6}},
        {"recipient": None},
        {"recipient": "me"},
        {"reference": None},
        {"reference": LOST.terms.recipient},
        {"reference": key("another")},
        {"created_at": "2026-11-22"},
        {"created_at": "2026-11-22T20:00:00"},
        {"created_at": "2030-01-01T00:00:00Z"},
        {"expires_at": "2026-11-22T19:00:00Z"},
        {"expires_at": "2036-11-22T19:00:00Z"},
        {"url": "solana:x?reference=y"},
        {"url": solana_pay_url(LOST) + f"&reference={key('third')}"},
        {"url": solana_pay_url(LOST).replace(WATCH_KEY, LOST.terms.recipient)},
        {"url": "http://[::1"},
        {"metadata": {"n": 1}},
        {"label": "x" * 10_000},
    ],
    ids=lambda changes: " ".join(f"{k}={v}"[:30] for k, v in changes.items()),
)
async def test_what_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await read(kept(**changes))


@pytest.mark.parametrize("text", ["", "x", "[]", "null", "{}", '{"data": 1}', "[" * 9_000])
async def test_what_is_no_payment_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        await read(text)


async def test_it_is_put_back_once_and_its_watch_key_is_watched(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    payment = await read(kept())
    assert await restoring.look(database, payment) == restoring.Known()

    await restoring.put_back(database, [payment], now=NOW)

    assert await restoring.look(database, payment) == restoring.Known(is_there=True)
    [known] = await watch_keys.listing(database)
    assert (known.key, known.retired_at) == (WATCH_KEY, NOW)
    record = await payments.get(database, payment.terms.id)
    assert record is not None
    assert record.payment == payment
    other = make_payment(2, amount=5_000_000)
    twin = make_payment(1, amount=6_000_000)
    assert await restoring.look(database, other) == restoring.Known()
    assert "another amount" in str((await restoring.look(database, twin)).contradiction)
    await database.close()
