"""Paymob: orders, what is charged on them, and two ways in which it tells of that.

What is true is in `orders` and `charges`. Callbacks are lost, doubled, late and out of order, and
some come back with what is not signed in them changed. Inquiries are slow, fail, and know of a
new charge only after a while; they tell of the latest charge of an order only.
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from indexer.core import paymob
from indexer.core.card_secrets import without_secrets
from indexer.core.charge import ChargeNews
from indexer.core.intention import Intention, NewIntention
from indexer.core.paymob import Callback, Pins
from indexer.core.types import Currency, WebhookSource
from indexer.errors import OutcomeUnknown, SourceUnavailable, StoreUnavailable
from store import webhook_events
from store.database import Database
from store.webhook_events import Arrived
from tests.simulation.calendar import Calendar
from tests.simulation.life import Life
from tests.simulation.outcome import Order, TrueCharge


PINS: Final = Pins(integration_ids=frozenset({4_097_558}), owner=302_852, currency=Currency.EGP)
#: How long a client waits for an answer, in virtual seconds.
TIMEOUT_S: Final = 15.0
#: How often a callback is sent to a door that does not take it, and the longest pause between.
TRIES_MAX: Final = 3
PAUSE_S: Final = 8.0
#: Seconds after which every inquiry knows of a charge; the last one of a payment is asked later.
UNSEEN_S_MAX: Final = 25.0

_CARD: Final = {"pan": "2346", "type": "card", "sub_type": "MasterCard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moods:
    """What is wrong with Paymob. Chances from 0 to 1, times in seconds.

    Attributes:
        latency_s: the longest that an answer takes, mostly much less.
        fails, hangs: of an answer: a refusal for now, or none at all.
        loses_orders: that the answer to the making of an order is lost.
        is_late: that a charge is not told of for a while by inquiries.
        away: (from, how long) in seconds since the beginning, in which nobody is there.
        loses, doubles, delays, forges: of a callback.
    """

    latency_s: float = 0.3
    fails: float = 0.0
    hangs: float = 0.0
    loses_orders: float = 0.0
    is_late: float = 0.0
    away: tuple[float, float] = (0.0, 0.0)
    loses: float = 0.0
    doubles: float = 0.0
    delays: float = 0.0
    forges: float = 0.0


class Paymob:
    """The account of one merchant.

    Attributes:
        orders: by number.
        charges: by number.
        taken_in: numbers of charges of which a door took in a true callback that says by itself
            where they stand.
        answered: (number of an order, unix seconds of the question) of each answered inquiry.
        is_calm: nothing goes wrong any more.
    """

    def __init__(
        self,
        rng: random.Random,
        calendar: Calendar,
        moods: Moods,
        database: Database,
        *,
        wake: Callable[[], bool],
        note: Callable[[str, str], None],
    ) -> None:
        self.orders: dict[int, Order] = {}
        self.charges: dict[int, TrueCharge] = {}
        self.taken_in: set[int] = set()
        self.answered: list[tuple[int, float]] = []
        self.is_calm = False
        self._rng = rng
        self._calendar = calendar
        self._moods = moods
        self._database = database
        self._wake = wake
        self._note = note
        self._began_at = calendar.now()
        self._order_ids = itertools.count(217_503_754)
        self._charge_ids = itertools.count(192_036_465)
        self._parents: dict[int, int] = {}
        self._forged: set[str] = set()
        self._callbacks: asyncio.Queue[tuple[TrueCharge, bytes, float]] = asyncio.Queue()
        self._under_way = 0

    @property
    def is_done(self) -> bool:
        """Every callback was taken in or given up."""
        return not self._under_way

    def latest(self, order: Order) -> TrueCharge | None:
        """The charge that an inquiry about the order tells of in the end."""
        return self.charges[order.charges[-1]] if order.charges else None

    async def run(self) -> None:
        """Sends callbacks for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                charge, body, delay_s = await self._callbacks.get()
                group.create_task(self._bring(charge, body, delay_s), name="callback")

    # ---------------------------------------------------------------------------- the truth

    def charge(self, order_id: int) -> TrueCharge:
        """A customer tries to pay: it is pending."""
        order, now = self.orders[order_id], self._calendar.now()
        hidden_s = UNSEEN_S_MAX * self._rng.random() if self._chance(self._moods.is_late) else 0.0
        charge = TrueCharge(
            id=next(self._charge_ids),
            order_id=order_id,
            amount=order.amount,
            made_at=f"2026-09-21T{len(self.charges) % 24:02}:13:44.592345",
            visible_at=now + hidden_s,
        )
        self.charges[charge.id] = charge
        order.charges.append(charge.id)
        self._changed(charge)
        return charge

    def decide(self, charge: TrueCharge, *, is_good: bool) -> None:
        """The bank says yes or no."""
        charge.state = "paid" if is_good else "declined"
        charge.paid_at = self._calendar.now() if is_good else None
        self._changed(charge)

    def give_back(self, charge: TrueCharge, amount: int) -> None:
        """The merchant refunds a part, or all of it: a transaction of its own."""
        charge.refunded += amount
        self._done_to(charge, amount, "is_refund")

    def void(self, charge: TrueCharge) -> None:
        """The merchant takes a charge back on the same day."""
        charge.is_voided = True
        self._done_to(charge, charge.amount, "is_void")

    def _done_to(self, charge: TrueCharge, amount: int, what: str) -> None:
        number = next(self._charge_ids)
        self._parents[number] = charge.id
        self._note("paymob", f"{what} of {amount} of {charge.id}")
        self._send(
            charge, id=number, amount_cents=amount, has_parent_transaction=True, **{what: True}
        )
        if self._rng.random() < 0.5:
            self._changed(charge)

    def _changed(self, charge: TrueCharge) -> None:
        self._note("paymob", f"{charge.id} of {charge.order_id} is {charge.shown_state}")
        self._send(charge)

    # ----------------------------------------------------------------------------- callbacks

    def _send(self, charge: TrueCharge, **changes: Any) -> None:
        order, moods = self.orders[charge.order_id], self._moods
        if self._chance(moods.forges):
            others = [each.reference for each in self.orders.values() if each is not order]
            reference = self._rng.choice(others) if others else "pay_nobodys"
            forged = _callback(charge, reference, **changes)
            self._forged.add(_key(forged))
            self._put(charge, forged, is_quick=True)
        if self._chance(moods.loses):
            return
        body = _callback(charge, order.reference, **changes)
        for _ in range(2 if self._chance(moods.doubles) else 1):
            self._put(charge, body)

    def _put(self, charge: TrueCharge, body: bytes, *, is_quick: bool = False) -> None:
        is_late = not is_quick and self._chance(self._moods.delays)
        delay_s = self._rng.choice((5.0, 60.0, 3_600.0)) if is_late else 0.5
        self._callbacks.put_nowait((charge, body, delay_s * self._rng.random()))
        self._under_way += 1

    async def _bring(self, charge: TrueCharge, body: bytes, delay_s: float) -> None:
        """One callback to the door, as the door puts it into the store."""
        await self._calendar.sleep(delay_s)
        callback, key = paymob.parse_callback(body), _key(body)
        arrived = Arrived(
            source=WebhookSource.PAYMOB,
            kind=callback.kind,
            dedupe_key=key,
            nonce=None,
            body=without_secrets(body),
            headers={"content-type": "application/json"},
            address="192.0.2.2",
        )
        for _ in range(TRIES_MAX):
            if self._wake():
                now = int(self._calendar.now())
                try:
                    await self._database.write([webhook_events.receive(arrived, now)])
                except StoreUnavailable:
                    pass  # a 503: it tries again
                else:
                    if key not in self._forged and not _only_asks(callback):
                        self.taken_in.add(charge.id)
                    self._wake()
                    break
            await asyncio.sleep(PAUSE_S * self._rng.random())
        self._under_way -= 1

    # ------------------------------------------------------------------------------ answers

    def desk(self, life: Life | None = None) -> "Desk":
        """The API of this account, as one process sees it; None: nobody's whose end matters."""
        return Desk(self, life)

    def order_of(self, reference: str) -> Order | None:
        """The order that we named so."""
        return next((order for order in self.orders.values() if order.reference == reference), None)

    def open_order(self, new: NewIntention) -> Order:
        """What the making of an intention makes."""
        order = Order(id=next(self._order_ids), reference=new.reference, amount=new.amount)
        self.orders[order.id] = order
        return order

    def visible(self, charge_id: int) -> ChargeNews | None:
        """What is told of a charge now, or of the one that something was done to."""
        charge = self.charges.get(self._parents.get(charge_id, charge_id))
        if charge is None or charge.visible_at > self._calendar.now():
            return None
        return ChargeNews(
            id=charge.id,
            order_id=charge.order_id,
            amount=charge.amount,
            currency=PINS.currency,
            made_at=charge.made_at,
            state=charge.shown_state,
            was_paid=charge.paid_at is not None,
            refunded=charge.refunded,
            reference=self.orders[charge.order_id].reference,
        )

    async def answer(self) -> bool:
        """Waits as long as an answer takes; False when it is none."""
        await asyncio.sleep(self._moods.latency_s * self._rng.random() ** 2)
        since_s = self._calendar.now() - self._began_at
        start, length = self._moods.away
        if start <= since_s < start + length or self._chance(self._moods.fails):
            return False
        if self._chance(self._moods.hangs):
            await asyncio.sleep(TIMEOUT_S)
            return False
        return True

    def loses_order(self) -> bool:
        """Whether the answer to the making of an order is lost."""
        return self._chance(self._moods.loses_orders)

    def now(self) -> float:
        """Unix seconds."""
        return self._calendar.now()

    def _chance(self, of: float) -> bool:
        return of > 0 and not self.is_calm and self._rng.random() < of


class Desk:
    """Stands where the client of Paymob's API stands."""

    def __init__(self, account: Paymob, life: Life | None) -> None:
        self._account = account
        self._life = life

    async def create_intention(self, new: NewIntention) -> Intention:
        """Makes an order, and may lose the answer, before or after."""
        is_made = await self._account.answer()
        if self._account.loses_order():
            if is_made:
                self._account.open_order(new)
            raise OutcomeUnknown("no answer (simulated)")
        if not is_made:
            raise SourceUnavailable("no connection (simulated)")
        order = self._account.open_order(new)
        return Intention(
            order_id=order.id,
            intention_id=f"pi_{order.id}",
            checkout_url=f"https://p.test/{order.id}",
        )

    async def inquire(
        self, *, order_id: int | None = None, special_reference: str | None = None
    ) -> list[ChargeNews] | None:
        """Of the latest charge of the order that is visible."""
        account, asked_at = self._account, self._account.now()
        await self._answered()
        if special_reference is not None:
            order = account.order_of(special_reference)
        else:
            order = account.orders.get(order_id or 0)
        if order is None:
            return None
        account.answered.append((order.id, asked_at))
        seen = [news for id_ in order.charges if (news := account.visible(id_)) is not None]
        return seen[-1:] or None

    async def transaction(self, id: int) -> ChargeNews | None:
        """Of one charge."""
        await self._answered()
        return self._account.visible(id)

    async def _answered(self) -> None:
        is_good = await self._account.answer()
        if self._life is not None:
            await self._life.answered()
        if not is_good:
            raise SourceUnavailable("HTTP 503 (simulated)")


def _callback(charge: TrueCharge, reference: str, **changes: Any) -> bytes:
    """What Paymob posts of a charge, or of something that was done to it."""
    obj = {
        "id": charge.id,
        "pending": charge.state == "pending",
        "amount_cents": charge.amount,
        "success": charge.state == "paid",
        "is_auth": False,
        "is_capture": False,
        "is_standalone_payment": True,
        "is_voided": charge.is_voided,
        "is_refunded": charge.refunded > 0,
        "is_3d_secure": True,
        "integration_id": 4_097_558,
        "has_parent_transaction": False,
        "order": {"id": charge.order_id, "merchant_order_id": reference},
        "created_at": charge.made_at,
        "currency": PINS.currency,
        "error_occured": False,
        "refunded_amount_cents": charge.refunded,
        "owner": PINS.owner,
        "source_data": _CARD,
    }
    if changes:
        obj |= {"is_voided": False, "is_refunded": False, "refunded_amount_cents": 0, **changes}
    return msgspec.json.encode({"type": "TRANSACTION", "obj": obj})


def _key(body: bytes) -> str:
    return paymob.dedupe_key(paymob.parse_callback(body))


def _only_asks(callback: Callback) -> bool:
    """It tells that something was done to a charge, and does not sign what."""
    return "true" in (callback.signed["has_parent_transaction"], callback.signed["is_refunded"])
