"""A payment by card at a fake Paymob, its callbacks in hand, and those who act on them.

async with acquiring(tmp_path) as it:
    payment = await it.expect()
    await it.fake.pay(payment.terms.id)     # charged; the callback waits in `fake.held`
    await it.told()                         # callbacks are stored and handled
    await it.check(payment)                 # Paymob is asked
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api import cards as creation
from api.wakeups import Wakeups
from indexer.callbacks import Callbacks
from indexer.charging import Charging
from indexer.core import paymob
from indexer.core.card_creation import Customer
from indexer.core.payment import CardPayment
from indexer.core.paymob import CallbackKind
from indexer.core.types import WebhookSource
from indexer.inquiries import Inquiries
from indexer.sources.paymob import Paymob
from store import events, migrate, webhook_events
from store.cards import CardRecord
from store.database import Database, open_database
from store.webhook_events import Arrived, Outcome, WebhookEvent
from tests.api.running import Clock
from tests.cards import card, due_at, make_card_payment
from tests.servers.fake_paymob import FakeCallback, FakePaymob, pins


@dataclass
class Acquiring:
    """The parts, and the clock that all of them have."""

    database: Database
    fake: FakePaymob
    client: Paymob
    callbacks: Callbacks
    inquiries: Inquiries
    clock: Clock
    wakeups: Wakeups
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def expect(self, **terms: Any) -> CardPayment:
        """A payment, created as the API does it."""
        payment = make_card_payment(next(self._numbers), **terms)
        orders = await creation.orders_for(self.client, payment, Customer())
        record = CardRecord(payment, orders)
        await self.database.write(creation.statements(record, payment.terms.created_at))
        return payment

    async def stored(self, callback: FakeCallback, *, attempts: int = 0) -> WebhookEvent:
        """A callback as the door stores it: authentic, and not believed."""
        parsed = paymob.parse_callback(callback.body)
        return await self.event(parsed.kind, callback.body, attempts=attempts)

    async def event(self, kind: CallbackKind, body: bytes, *, attempts: int = 0) -> WebhookEvent:
        """An event of the inbox with that body."""
        arrived = Arrived(
            source=WebhookSource.PAYMOB,
            kind=kind,
            dedupe_key=f"{next(self._numbers)}",
            nonce=None,
            body=body,
            headers={},
            address="192.0.2.1",
        )
        now = int(self.clock())
        [[(id_, _, _)]] = await self.database.write([webhook_events.receive(arrived, now)])
        await self.database.write(
            [webhook_events.again(id_, attempts=attempts, next_try_at=now, detail=None, now=now)]
        )
        event = await webhook_events.get(self.database, id_)
        assert event is not None
        return event

    async def told(self) -> list[Outcome]:
        """What all callbacks that are held lead to, in their order; they are held no more."""
        held, self.fake.held = self.fake.held, []
        return [await self.callbacks.handle(await self.stored(each)) for each in held]

    async def check(self, payment: CardPayment) -> CardRecord:
        """Asks Paymob now, whether or not it is due."""
        await self.inquiries.check(payment.terms.id)
        return await card(self.database, payment)

    async def record(self, payment: CardPayment) -> CardRecord:
        return await card(self.database, payment)

    async def status(self, payment: CardPayment) -> str:
        return (await card(self.database, payment)).payment.state.status

    async def due_at(self, payment: CardPayment) -> int | None:
        return await due_at(self.database, payment.terms.id)

    async def events(self, payment: CardPayment) -> list[str]:
        """The types of its events, without the word that all begin with."""
        found = await events.after(self.database, 0, payment_id=payment.terms.id, limit=100)
        return [event.type.removeprefix("payment.") for event in found]


@asynccontextmanager
async def acquiring(folder: Path) -> AsyncIterator[Acquiring]:
    """A database, a fake that holds its callbacks, and a client of it."""
    async with AsyncExitStack() as stack:
        database = await open_database(f"sqlite:///{folder}/axiom.db")
        stack.push_async_callback(database.close)
        await migrate.migrate(database)
        fake = await stack.enter_async_context(FakePaymob())
        fake.holds = True
        client = await stack.enter_async_context(Paymob(fake.account()))
        clock, wakeups = Clock(), Wakeups()
        charging = Charging(database, clock=clock, wake=wakeups.wake)
        callbacks = Callbacks(database, client, charging, pins=pins(), clock=clock)
        inquiries = Inquiries(database, client, charging, clock=clock)
        yield Acquiring(database, fake, client, callbacks, inquiries, clock, wakeups)
