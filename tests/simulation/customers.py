"""Merchants who ask to be paid by card, and customers who pay: at once, never, twice, late."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from api import cards as card_orders
from indexer.core import events, ids, settle
from indexer.core.card_creation import Customer
from indexer.core.payment import Asset, CardPayment, Offer
from indexer.core.types import Status
from indexer.errors import Conflict, SourceError, StoreUnavailable
from store import cards
from store.cards import CardRecord
from store.database import Database
from tests.simulation.calendar import Calendar
from tests.simulation.outcome import TrueCharge
from tests.simulation.paymob import Paymob


EGP: Final = Asset(symbol="EGP", mint=None, decimals=2, token_program=None)

MINUTE_S: Final = 60.0
HOUR_S: Final = 3_600.0


class Customers:
    """Everybody who buys, and the merchant that they buy from.

    Attributes:
        asked: terms of the payments that are stored, in the order of their creation.
        page: payment id -> number of the order that its customer can pay.
    """

    def __init__(
        self,
        rng: random.Random,
        calendar: Calendar,
        paymob: Paymob,
        database: Database,
        *,
        busy_s: float,
        note: Callable[[str, str], None],
    ) -> None:
        self.asked: list[Offer] = []
        self.page: dict[str, int] = {}
        self._rng = rng
        self._calendar = calendar
        self._paymob = paymob
        self._database = database
        self._busy_s = busy_s
        self._note = note

    async def live_through(self, number: int) -> None:
        """One payment from the wish to the last that is done about it."""
        rng = random.Random(f"{self._rng.random()} {number}")
        await self._calendar.sleep(rng.random() * self._busy_s)
        terms = await self._ask(number, rng)
        if terms is None:
            return
        plan = rng.choices(list(PLANS), list(PLANS.values()))[0]
        self._note("customers", f"{terms.id[:8]} {plan.__name__[1:]}")
        async with asyncio.TaskGroup() as group:
            if rng.random() < 0.1:
                group.create_task(self._cancel(terms, rng.random() * 60), name="cancel")
            if rng.random() < 0.3:
                group.create_task(self._look(terms, rng.random() * 300), name="look")
            await plan(self, terms, rng)

    # ---------------------------------------------------------------------------- merchants

    async def _ask(self, number: int, rng: random.Random) -> Offer | None:
        """As the API does it, with a client who gives up only when no order is to be had."""
        now = int(self._calendar.now())
        terms = Offer(
            id=ids.payment_id(rng.randbytes(16)),
            asset=EGP,
            amount=rng.randint(100, 1_000_000),
            created_at=now,
            expires_at=now + rng.choice((40, 200, 2_000)),
            grace_s=rng.choice((0, 60, 600)),
        )
        payment = CardPayment(terms=terms, order_id=f"order {number}")
        try:
            orders = await card_orders.orders_for(self._paymob.desk(), payment, Customer())
        except SourceError as error:
            self._note("customers", f"{terms.id[:8]} was not asked for: {error}")
            return None
        batch = card_orders.statements(CardRecord(payment, orders), now)
        await self._surely(lambda: self._database.write(batch))
        self.asked.append(terms)
        [order_id] = [order.order_id for order in orders if order.checkout_url is not None]
        assert order_id is not None
        self.page[terms.id] = order_id
        return terms

    async def _surely(self, write: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await write()
            except StoreUnavailable:
                await asyncio.sleep(0.5)
            except Conflict:
                return  # the last try was stored after all
            else:
                return

    async def _cancel(self, terms: Offer, after_s: float) -> None:
        """The merchant takes the offer back, if it is still pending."""
        await self._calendar.sleep(after_s)
        for _ in range(20):
            try:
                record = await cards.get(self._database, terms.id)
                if record is None or record.payment.state.status is not Status.PENDING:
                    break
                before, now = record.payment, int(self._calendar.now())
                after = settle.cancel(before, now)
                change = events.of_change(before, after, now)
                await self._database.write(cards.save(record, after, events=change))
            except (StoreUnavailable, Conflict):
                await asyncio.sleep(0.2)

    async def _look(self, terms: Offer, after_s: float) -> None:
        """Somebody wants to know how it stands, which has Paymob asked."""
        await self._calendar.sleep(after_s)
        ask = cards.ask(terms.id, int(self._calendar.now()))
        await self._surely(lambda: self._database.write([ask]))

    # ------------------------------------------------------------------------------- plans

    async def _try(self, terms: Offer, rng: random.Random, *, is_good: bool = True) -> TrueCharge:
        """One try at the page: sometimes the bank asks the customer first."""
        charge = self._paymob.charge(self.page[terms.id])
        await self._calendar.sleep(rng.choice((0.0, 1.0, 40.0)) * rng.random())
        self._paymob.decide(charge, is_good=is_good)
        return charge

    async def _soon(self, terms: Offer, rng: random.Random) -> None:
        left_s = terms.expires_at - self._calendar.now()
        await self._calendar.sleep(max(0.0, left_s) * rng.random() ** 2)

    async def _pay(self, terms: Offer, rng: random.Random) -> TrueCharge:
        await self._soon(terms, rng)
        return await self._try(terms, rng)

    async def _decline_first(self, terms: Offer, rng: random.Random) -> None:
        await self._soon(terms, rng)
        for _ in range(rng.randint(1, 2)):
            await self._try(terms, rng, is_good=False)
            await self._calendar.sleep(rng.choice((1.0, 30.0)))
        await self._try(terms, rng)

    async def _decline(self, terms: Offer, rng: random.Random) -> None:
        await self._soon(terms, rng)
        await self._try(terms, rng, is_good=False)

    async def _leave_it(self, terms: Offer, rng: random.Random) -> None:
        """In the middle of the bank's page."""
        await self._soon(terms, rng)
        self._paymob.charge(self.page[terms.id])

    async def _never(self, terms: Offer, rng: random.Random) -> None:
        pass

    async def _pay_twice(self, terms: Offer, rng: random.Random) -> None:
        first = await self._pay(terms, rng)
        await self._calendar.sleep(rng.choice((1.0, 100.0, HOUR_S)) * rng.random())
        second = await self._try(terms, rng)
        if rng.random() < 0.5:
            await self._calendar.sleep(rng.choice((MINUTE_S, 20 * HOUR_S)) * rng.random())
            self._paymob.give_back(rng.choice((first, second)), terms.amount)

    async def _pay_late(self, terms: Offer, rng: random.Random) -> None:
        await self._calendar.until(terms.expires_at + rng.random() * (terms.grace_s + 100))
        await self._try(terms, rng)

    async def _refund(self, terms: Offer, rng: random.Random) -> None:
        charge = await self._pay(terms, rng)
        await self._calendar.sleep(rng.choice((2.0, MINUTE_S, 30 * HOUR_S)) * rng.random())
        self._paymob.give_back(charge, terms.amount)

    async def _refund_in_parts(self, terms: Offer, rng: random.Random) -> None:
        charge = await self._pay(terms, rng)
        for _ in range(rng.randint(1, 2)):
            await self._calendar.sleep(rng.choice((2.0, 10 * HOUR_S)) * rng.random())
            self._paymob.give_back(charge, terms.amount // 3)
        if rng.random() < 0.5:
            await self._calendar.sleep(rng.choice((2.0, 10 * HOUR_S)) * rng.random())
            self._paymob.give_back(charge, terms.amount - charge.refunded)

    async def _void(self, terms: Offer, rng: random.Random) -> None:
        charge = await self._pay(terms, rng)
        await self._calendar.sleep(rng.choice((2.0, HOUR_S)) * rng.random())
        self._paymob.void(charge)


Plan = Callable[[Customers, Offer, random.Random], Awaitable[object]]

#: What a customer does, and how often.
PLANS: Final[dict[Plan, int]] = {
    Customers._pay: 6,
    Customers._decline_first: 3,
    Customers._decline: 2,
    Customers._leave_it: 2,
    Customers._never: 1,
    Customers._pay_twice: 2,
    Customers._pay_late: 3,
    Customers._refund: 3,
    Customers._refund_in_parts: 2,
    Customers._void: 2,
}
