"""Payments by card, from what Paymob says to where they stand.

    callback ──► stored by the door ──► handle ─┐
                                                ├─► learned ──► fold_card ──► ONE write:
    card_checks, when due ──► inquiry ──────────┘               charges, payment, events

A callback is authentic when it comes here, and is believed as far as it is signed: what it says
of a charge of its order, and nothing of which payment that is. A payment is found by the signed
number of the order alone. What is not signed (refunds, voids of an earlier transaction, our
reference) is a reason to ask, and what Paymob answers then counts.

How often callbacks are sent again is told nowhere, and none is sent for a page that was closed:
so Paymob is asked about every payment on a schedule (see `card_schedule`), when a callback gives
a reason, and when somebody wants to know. A payment expires only by an answer that came after
its deadline.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence, Set as AbstractSet
from typing import Final, NoReturn, Protocol

import structlog

from indexer.charging import Charging
from indexer.core import paymob
from indexer.core.charge import ChargeNews
from indexer.core.paymob import CallbackKind, Pins
from indexer.core.types import ChargeState, WebhookVerdict
from indexer.errors import (
    AxiomError,
    Conflict,
    InvalidInput,
    SourceError,
    SourceUnavailable,
    StoreUnavailable,
)
from indexer.sources.retry import backoff
from store import cards
from store.cards import CardRecord, Check
from store.database import Database, Statement
from store.webhook_events import Outcome, WebhookEvent


log = structlog.get_logger(__name__)

#: Seconds between two looks for payments that are due, and after a failure of the store.
INTERVAL_S: Final = 1.0
PAUSE_S: Final = 2.0
#: Seconds without a question after nobody answered any: the longest pause.
AWAY_PAUSE_S_MAX: Final = 300.0
#: Payments that are asked about in one round, and how many of them at once.
CHECKS_PER_ROUND: Final = 50
CHECKS_AT_ONCE: Final = 4
#: Seconds until a payment about which nobody answered is asked about again.
FAILED_PAUSE_S: Final = 60
#: Payments that are remembered as such; with as many as that, something is wrong with all. And
#: for how many seconds: longer than any pause.
FAILING_MAX: Final = 1_000
FAILING_KEPT_S: Final = 2 * AWAY_PAUSE_S_MAX
#: Charges of one payment that are asked about by themselves: an inquiry tells only of the latest.
CHARGES_ASKED_MAX: Final = 20
#: Times that a callback is looked at whose order nobody knows: it may come before the write that
#: makes the payment.
UNKNOWN_TRIES: Final = 3

#: Of these there may be news that no inquiry about the order tells.
_MAY_CHANGE: Final = frozenset({ChargeState.PENDING, ChargeState.AUTHORIZED, ChargeState.PAID})


class Acquirer(Protocol):
    """Who is asked about charges. Raises SourceError when nothing can be said."""

    async def inquire(
        self, *, order_id: int | None = None, special_reference: str | None = None
    ) -> Sequence[ChargeNews] | None:
        """The latest charge of an order, by its number or our name of it; None: nothing known."""
        ...

    async def transaction(self, id: int) -> ChargeNews | None:
        """What was charged, by the number of it, or of what was done to it; None: not known."""
        ...


class Cards:
    """Everything that moves a payment by card.

    Attributes:
        problem: why Paymob does not answer, in words for ops; None while it does.
        checks: how many payments were asked about and told of, since the start.
        failed_checks: how often nobody answered, or nothing that can be used.
    """

    def __init__(
        self,
        database: Database,
        acquirer: Acquirer,
        *,
        pins: Pins,
        clock: Callable[[], float],
        wake: Callable[[], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is asked before `run` or `handle`.

        Args:
            database: migrated.
            acquirer: open.
            pins: what callbacks must be about.
            clock: unix seconds.
            wake: called after each commit.
            draw: 0 … 1, at random.
        """
        self._database = database
        self._acquirer = acquirer
        self._draw = draw
        self._pins = pins
        self._clock = clock
        self._charging = Charging(database, clock=clock, wake=wake)
        self._failing: dict[str, tuple[float, str]] = {}
        self.problem: str | None = None
        self.checks = 0
        self.failed_checks = 0

    # ------------------------------------------------------------------------------ callbacks

    async def handle(self, event: WebhookEvent) -> Outcome:
        """What a callback leads to. The same one again leads to nothing more.

        Raises:
            SourceError: Paymob had to be asked, and did not answer.
            StoreUnavailable, Conflict: nothing was written; the order may not be stored yet.
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
                raise Conflict(f"no payment has the order {news.order_id}, or not yet")
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
        ours = _of_orders(told, {order.order_id for order in record.orders})
        if not ours:
            raise SourceUnavailable(f"Paymob tells nothing of transaction {news.id} yet")
        return ours

    # -------------------------------------------------------------------------------- inquiry

    async def run(self) -> NoReturn:
        """Asks about what is due, for ever."""
        pauses = self._pauses()
        while True:
            try:
                is_answered, is_more = await self.check_due()
            except StoreUnavailable as error:
                self._complain(str(error))
                await asyncio.sleep(PAUSE_S)
                continue
            if not is_answered:
                await asyncio.sleep(PAUSE_S + next(pauses))
                continue
            pauses = self._pauses()
            if not is_more:
                await asyncio.sleep(INTERVAL_S)

    async def check_due(self) -> tuple[bool, bool]:
        """Asks about each payment that is due, up to a bound.

        Returns whether anybody answers, as far as can be told, and whether more are waiting.

        Raises:
            StoreUnavailable: what was answered could not be stored.
        """
        due = await cards.due(self._database, int(self._clock()), CHECKS_PER_ROUND)
        answers, failures = 0, 0
        turn = asyncio.Semaphore(CHECKS_AT_ONCE)

        async def check(each: Check) -> None:
            nonlocal answers, failures
            async with turn:
                if failures >= CHECKS_AT_ONCE and not answers:
                    return  # nobody answers: the others stay due
                try:
                    await self.check(each.payment_id)
                except (SourceError, Conflict) as error:
                    failures += 1
                    self.failed_checks += 1
                    await self._failed(each.payment_id, error)
                else:
                    answers += 1
                    self._failing.pop(each.payment_id, None)

        try:
            async with asyncio.TaskGroup() as group:
                for each in due:
                    group.create_task(check(each), name="check-card")
        except* StoreUnavailable as errors:
            raise errors.exceptions[0] from errors
        self._tell()
        return answers > 0 or failures == 0, len(due) == CHECKS_PER_ROUND

    async def check(self, payment_id: str) -> None:
        """Asks about one payment, and stores what is answered together with the next time.

        Raises:
            SourceError: there was no complete answer; nothing was stored.
            StoreUnavailable, Conflict: it could not be stored.
        """
        record = await cards.get(self._database, payment_id)
        if record is None:
            await self._database.write([cards.answered(payment_id, None)])
            return
        # Before: what was charged while the answer was on its way may be missing in it.
        asked_at = int(self._clock())
        told: list[ChargeNews] = []
        learnt: list[Statement] = []
        order_ids = {order.order_id for order in record.orders}
        for order in record.orders:
            if order.order_id is not None:
                answer = await self._acquirer.inquire(order_id=order.order_id)
            else:
                answer = await self._acquirer.inquire(special_reference=order.special_reference)
            told += answer or ()
            if answer and order.order_id is None:
                order_ids.add(answer[0].order_id)
                learnt.append(cards.learn_order(order.special_reference, answer[0].order_id))
        told += await self._singly(record, {news.id for news in told})
        ours = _of_orders(told, order_ids)
        try:
            await self._charging.learn(
                payment_id, ours, asked_at, complete_to=asked_at, also=learnt
            )
        except InvalidInput as error:
            # What was known of a charge, and what is told now, cannot both be true.
            raise SourceUnavailable(f"Paymob contradicts itself: {error}") from error
        self.checks += 1

    async def _singly(self, record: CardRecord, known: set[int]) -> list[ChargeNews]:
        """What became of charges that the orders' inquiries do not tell of."""
        ids = [each.id for each in record.charges if each.state in _MAY_CHANGE]
        wanted = [id_ for id_ in ids if id_ not in known][:CHARGES_ASKED_MAX]
        return [news for id_ in wanted if (news := await self._acquirer.transaction(id_))]

    # -------------------------------------------------------------------------------- failures

    async def _failed(self, payment_id: str, error: AxiomError) -> None:
        """Puts a payment off, so that it holds up no other."""
        if len(self._failing) < FAILING_MAX or payment_id in self._failing:
            self._failing[payment_id] = (asyncio.get_running_loop().time(), str(error))
        next_at = int(self._clock()) + FAILED_PAUSE_S
        await self._database.write([cards.not_answered(payment_id, next_at)])

    def _tell(self) -> None:
        since = asyncio.get_running_loop().time() - FAILING_KEPT_S
        self._failing = {id_: each for id_, each in self._failing.items() if each[0] > since}
        if not self._failing:
            self.problem = None
            return
        _, last = max(self._failing.values())
        self._complain(f"Paymob does not say what became of {len(self._failing)} payments: {last}")

    def _pauses(self) -> Iterator[float]:
        return backoff(self._draw, first_s=1.0, longest_s=AWAY_PAUSE_S_MAX)

    def _complain(self, problem: str) -> None:
        if self.problem != problem:
            log.warning("cards.failed", error=problem)
        self.problem = problem


def _of_orders(told: Sequence[ChargeNews], order_ids: AbstractSet[int | None]) -> list[ChargeNews]:
    """What was told of these orders: an answer about another one is none."""
    return [news for news in told if news.order_id in order_ids]
