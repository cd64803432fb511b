"""Payments by card for tests, as they are stored: with orders, charges and checks.

record = await stored_card(database, make_card_payment(), order_id=3)
charge = make_charge(id=7)
"""

from typing import Any, Final

from indexer.core import events
from indexer.core.charge import Charge, ChargeNews
from indexer.core.payment import Asset, CardPayment, Offer
from indexer.core.types import ChargeState, Status
from store import cards
from store.cards import CardOrder, CardRecord
from store.database import Database
from tests.builders import NOW, make_state


EGP: Final = Asset(symbol="EGP", mint=None, decimals=2, token_program=None)
CARD_AMOUNT: Final = 5_000
EXPIRES_IN_S: Final = 900
GRACE_S: Final = 3_600
ORDER_ID: Final = 217_503_754

_NEVER_PAID: Final = {ChargeState.PENDING, ChargeState.DECLINED, ChargeState.AUTHORIZED}


def make_card_payment(
    number: int = 1,
    *,
    status: Status = Status.PENDING,
    version: int = 1,
    amount: int = CARD_AMOUNT,
    created_at: int = NOW,
    expires_in_s: int = EXPIRES_IN_S,
    grace_s: int = GRACE_S,
    state: dict[str, Any] | None = None,
    **words: Any,
) -> CardPayment:
    """Payment `number`; `words` are its order id, label, message and metadata."""
    terms = Offer(
        id=f"pay_{number:026d}",
        asset=EGP,
        amount=amount,
        created_at=created_at,
        expires_at=created_at + expires_in_s,
        grace_s=grace_s,
    )
    its_state = make_state(status, terms=terms, **(state or {}))
    return CardPayment(terms=terms, state=its_state, version=version, **words)


def make_order(payment: CardPayment, order_id: int | None = ORDER_ID, **changes: Any) -> CardOrder:
    """The first order of a payment, with a page to pay on."""
    values: dict[str, Any] = {
        "special_reference": payment.terms.id,
        "payment_id": payment.terms.id,
        "order_id": order_id,
        "intention_id": "pi_test_1",
        "checkout_url": f"https://accept.example/unifiedcheckout/?clientSecret=cs_{order_id}",
        "created_at": payment.terms.created_at,
    }
    return CardOrder(**(values | changes))


def make_charge(
    id: int = 1, state: ChargeState = ChargeState.PAID, *, at: int = NOW + 60, **changes: Any
) -> Charge:
    """A charge of the whole amount; `at` is when it was paid, if it ever was."""
    values: dict[str, Any] = {
        "order_id": ORDER_ID,
        "amount": CARD_AMOUNT,
        "made_at": "2026-11-22T22:00:00",
        "seen_at": NOW,
        "paid_at": None if state in _NEVER_PAID else at,
        "updated_at": NOW,
    }
    return Charge(id=id, state=state, **(values | changes))


def make_news(id: int = 1, state: ChargeState = ChargeState.PAID, **changes: Any) -> ChargeNews:
    """What is told of a charge of the whole amount."""
    values: dict[str, Any] = {
        "order_id": ORDER_ID,
        "amount": CARD_AMOUNT,
        "currency": "EGP",
        "made_at": "2026-11-22T22:00:00",
        "was_paid": state not in _NEVER_PAID,
    }
    return ChargeNews(id=id, state=state, **(values | changes))


async def stored_card(
    database: Database,
    payment: CardPayment | None = None,
    *orders: CardOrder,
    order_id: int = ORDER_ID,
    check_at: int = NOW + 60,
) -> CardRecord:
    """A payment, stored as its creation does, with one order unless others are given."""
    payment = payment or make_card_payment()
    its_orders = orders or (make_order(payment, order_id),)
    created = events.created(payment, NOW)
    await database.write(cards.insert(payment, created, its_orders, check_at=check_at))
    return await card(database, payment)


async def card(database: Database, payment: CardPayment | str) -> CardRecord:
    """The payment as it is stored now."""
    id_ = payment if isinstance(payment, str) else payment.terms.id
    record = await cards.get(database, id_)
    assert record is not None
    return record


async def due_at(database: Database, payment_id: str) -> int | None:
    """When the payment is asked about next; None: never."""
    due = {each.payment_id: each.due_at for each in await cards.due(database, 2**62, 1_000)}
    return due.get(payment_id)
