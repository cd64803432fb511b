"""Callbacks of Paymob, from the stored row to what follows from it.

    stored by the door ──► handle ──► what it says of a charge ────────────┐
                              │                                            ├──► `charging`
                              └─ what is not signed: Paymob is asked ──────┘

A callback is authentic when it comes here, and is believed as far as it is signed: what it says
of a charge of its order, and nothing of which payment that is. A payment is found by the signed
number of the order alone. What is not signed (refunds, voids of an earlier transaction, our
reference) is a reason to ask, and what Paymob answers then counts.
"""

from collections.abc import Callable
from typing import Final

import structlog

from indexer.charging import Acquirer, Charging, of_orders
from indexer.core import paymob
from indexer.core.charge import ChargeNews
from indexer.core.paymob import CallbackKind, Pins
from indexer.core.types import WebhookVerdict
from indexer.errors import InvalidInput, SourceUnavailable
from indexer.inbox import Later
from store import cards
from store.cards import CardRecord
from store.database import Database
from store.webhook_events import Outcome, WebhookEvent


log = structlog.get_logger(__name__)

#: Times that a callback is looked at whose order nobody knows: it may come before the write that
#: makes the payment.
UNKNOWN_TRIES: Final = 3


class Callbacks:
    """The handler of webhooks that speak of charges."""

    def __init__(
        self,
        database: Database,
        acquirer: Acquirer,
        charging: Charging,
        *,
        pins: Pins,
        clock: Callable[[], float],
    ) -> None:
        """Nothing is asked before `handle`.

        Args:
            database: migrated.
            acquirer: open.
            charging: stores what is learned.
            pins: what callbacks must be about.
            clock: unix seconds.
        """
        self._database = database
        self._acquirer = acquirer
        self._charging = charging
        self._pins = pins
        self._clock = clock

    async def handle(self, event: WebhookEvent) -> Outcome:
        """What a callback leads to. The same one again leads to nothing more.

        Raises:
            Later: nobody knows the order; it may not be stored yet.
            SourceError: Paymob had to be asked, and did not answer.
            StoreUnavailable, Conflict: nothing was written.
        """
        if event.kind == CallbackKind.TOKEN:
            return Outcome(verdict=WebhookVerdict.DONE, detail="a saved card: not kept")
        try:
            news = self._news(event)
        except InvalidInput as error:
            return Outcome(verdict=WebhookVerdict.REFUSED, detail=str(error))
        record = await cards.by_order(self._database, news.order_id)
        if record is None:
            if event.attempts < UNKNOWN_TRIES:
                raise Later(f"no payment has the order {news.order_id}, or not yet")
            detail = f"no payment has the order {news.order_id}"
            return Outcome(verdict=WebhookVerdict.REFUSED, detail=detail)
        id_ = record.payment.terms.id
        try:
            await self._check(record, news)
            if news.needs_inquiry:
                told = await self._what_happened(record, news)
                after = await self._charging.learn(id_, told, int(self._clock()))
            else:
                after = await self._charging.learn(id_, [news], event.received_at)
        except InvalidInput as error:
            # Whoever sent it may have sent it in place of a true one: an inquiry will tell.
            await self._database.write([cards.ask(id_, int(self._clock()))])
            log.warning("card.callback_refused", payment_id=id_, event_id=event.id, why=str(error))
            verdict, detail = WebhookVerdict.REFUSED, str(error)
        else:
            verdict, detail = WebhookVerdict.DONE, f"{id_} is {after.payment.state.status}"
        return Outcome(verdict=verdict, detail=detail, payment_ids=(id_,))

    def _news(self, event: WebhookEvent) -> ChargeNews:
        """What the stored body says, read once more.

        Raises:
            InvalidInput: it is no callback about a charge, or not about this deployment.
        """
        if event.kind == CallbackKind.REDIRECT:
            callback = paymob.parse_redirect(event.body.decode("ascii", "replace"))
        else:
            callback = paymob.parse_callback(event.body)
        news = paymob.charge_news(callback, self._pins)
        if news is None:
            raise InvalidInput("type", "is not that of a charge")
        return news

    async def _check(self, record: CardRecord, news: ChargeNews) -> None:
        """Accepts news that fits what is known of the payment that its order belongs to.

        Raises:
            InvalidInput: it does not; names the field.
        """
        symbol = record.payment.terms.asset.symbol
        if news.currency != symbol:
            raise InvalidInput("currency", f"{news.currency}: the payment is in {symbol}")
        [order] = [each for each in record.orders if each.order_id == news.order_id]
        if news.reference not in (None, order.special_reference):
            raise InvalidInput("order.merchant_order_id", f"is not that of order {news.order_id}")
        owner = await cards.owner_of(self._database, news.id)
        if owner not in (None, record.payment.terms.id):
            raise InvalidInput("id", f"transaction {news.id} is one of {owner}")

    async def _what_happened(self, record: CardRecord, news: ChargeNews) -> list[ChargeNews]:
        """What Paymob says of the charge that something was done to."""
        found = await self._acquirer.transaction(news.id)
        told = [found] if found else await self._acquirer.inquire(order_id=news.order_id) or ()
        ours = of_orders(told, {order.order_id for order in record.orders})
        if not ours:
            raise SourceUnavailable(f"Paymob tells nothing of transaction {news.id} yet")
        return ours
