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
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, Protocol

import structlog

from indexer.core import card, events, paymob
from indexer.core.card_schedule import next_check_at
from indexer.core.charge import Charge, ChargeNews, learned
from indexer.core.paymob import CallbackKind, Pins
from indexer.core.types import ChargeState, WebhookVerdict
from indexer.errors import Conflict, InvalidInput, SourceError, StoreUnavailable
from indexer.sources.retry import backoff
from store import cards
from store.cards import CardOrder, CardRecord, Check
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
#: Payments that are remembered as such; with as many as that, something is wrong with all.
FAILING_MAX: Final = 1_000
#: Charges of one payment that are asked about by themselves: an inquiry tells only of the latest.
CHARGES_ASKED_MAX: Final = 20
#: Times that a write is tried which another writer was faster than.
TRIES_MAX: Final = 8
#: Times that a callback is looked at whose order nobody knows: it may come before the write that
#: makes the payment.
UNKNOWN_TRIES: Final = 3

#: Of these there may be news that no inquiry about the order tells.
_MAY_CHANGE: Final = frozenset({ChargeState.PENDING, ChargeState.AUTHORIZED, ChargeState.PAID})


class Acquirer(Protocol):
    """Who is asked about charges. Raises SourceError when nothing can be said."""

    async def inquire(self, asked: str | int) -> Sequence[ChargeNews] | None:
        """The latest charge of an order, by our reference or its number; None: nothing known."""
        ...

    async def transaction(self, id: int) -> ChargeNews | None:
        """What was charged, by the number of it, or of what was done to it; None: not known."""
        ...


class Cards:
    """Everything that moves a payment by card.

    Attributes:
        problem: why Paymob does not answer, in words for ops; None while it does.
        checks: how many payments were asked about, since the start.
    """

    def __init__(
        self,
        database: Database,
        acquirer: Acquirer,
        *,
        pins: Pins,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        """Nothing is asked before `run` or `handle`.

        Args:
            database: migrated.
            acquirer: open.
            pins: what callbacks must be about.
            clock: unix seconds.
            wake: called after each commit.
        """
        self._database = database
        self._acquirer = acquirer
        self._pins = pins
        self._clock = clock
        self._wake = wake
        self._failing: dict[str, str] = {}
        self.problem: str | None = None
        self.checks = 0

    # ------------------------------------------------------------------------------ callbacks

    async def handle(self, event: WebhookEvent) -> Outcome:
        """What a callback leads to. The same one again leads to nothing more.

        Raises:
            SourceError: Paymob had to be asked, and did not answer.
            StoreUnavailable, Conflict: nothing was written; the order may not be stored yet.
        """
        try:
            news = self._news(event)
        except InvalidInput as error:
            return Outcome(verdict=WebhookVerdict.REFUSED, detail=str(error))
        if news is None:
            return Outcome(verdict=WebhookVerdict.DONE, detail="a saved card: not kept")
        record = await cards.by_order(self._database, news.order_id)
        if record is None:
            if event.attempts < UNKNOWN_TRIES:
                raise Conflict(f"no payment has the order {news.order_id}, or not yet")
            detail = f"no payment has the order {news.order_id}"
            return Outcome(verdict=WebhookVerdict.REFUSED, detail=detail)
        id_ = record.payment.terms.id
        problem = await self._contradiction(record, news)
        if problem is not None:
            # Whoever sent it may have sent it in place of a true one: that will be told.
            await self._database.write([cards.ask(id_, int(self._clock()))])
            log.warning("card.callback_refused", payment_id=id_, event_id=event.id, error=problem)
            return Outcome(verdict=WebhookVerdict.REFUSED, detail=problem, payment_ids=(id_,))
        told: Sequence[ChargeNews] = [news]
        told_at = event.received_at
        if news.needs_inquiry:
            told_at = int(self._clock())
            told = await self._what_happened(record, news)
        try:
            after = await self._learn(id_, told, told_at)
        except InvalidInput as error:
            detail = str(error)
            return Outcome(verdict=WebhookVerdict.REFUSED, detail=detail, payment_ids=(id_,))
        detail = f"{id_} is {after.payment.state.status}"
        return Outcome(verdict=WebhookVerdict.DONE, detail=detail, payment_ids=(id_,))

    def _news(self, event: WebhookEvent) -> ChargeNews | None:
        """What the stored body says, read once more; None when it is not about a charge.

        Raises:
            InvalidInput: it is none of Paymob's, or not about this deployment.
        """
        if event.kind == CallbackKind.REDIRECT:
            callback = paymob.parse_redirect(event.body.decode("ascii", "replace"))
        else:
            callback = paymob.parse_callback(event.body)
        return paymob.charge_news(callback, self._pins)

    async def _contradiction(self, record: CardRecord, news: ChargeNews) -> str | None:
        """What in the news is not so, in words; None: nothing."""
        symbol = record.payment.terms.asset.symbol
        if news.currency != symbol:
            return f"transaction {news.id} is in {news.currency}, the payment in {symbol}"
        [order] = [each for each in record.orders if each.order_id == news.order_id]
        if news.reference not in (None, order.special_reference):
            return f"order {news.order_id} is not the one that it says: {news.reference[:64]!a}"
        owner = await cards.owner_of(self._database, news.id)
        if owner not in (None, record.payment.terms.id):
            return f"transaction {news.id} is one of {owner}"
        return None

    async def _what_happened(self, record: CardRecord, news: ChargeNews) -> list[ChargeNews]:
        """What Paymob says of the charge that something was done to."""
        found = await self._acquirer.transaction(news.id)
        told = [found] if found else list(await self._acquirer.inquire(news.order_id) or ())
        return _of_its_orders(record, told)

    # -------------------------------------------------------------------------------- inquiry

    async def run(self) -> NoReturn:
        """Asks about what is due, for ever."""
        failures = 0
        while True:
            try:
                answered, is_more = await self.check_due()
            except (StoreUnavailable, Conflict) as error:
                self._complain(str(error))
                await asyncio.sleep(PAUSE_S)
                continue
            failures = 0 if answered else failures + 1
            if not answered:
                await asyncio.sleep(backoff(failures, longest_s=AWAY_PAUSE_S_MAX))
            elif not is_more:
                await asyncio.sleep(INTERVAL_S)

    async def check_due(self) -> tuple[bool, bool]:
        """Asks about each payment that is due, up to a bound.

        Returns whether anybody answers, as far as can be told, and whether more are waiting.

        Raises:
            StoreUnavailable, Conflict: what was answered could not be stored.
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
                except SourceError as error:
                    failures += 1
                    await self._failed(each.payment_id, str(error))
                else:
                    answers += 1
                    self._failing.pop(each.payment_id, None)

        try:
            async with asyncio.TaskGroup() as group:
                for each in due:
                    group.create_task(check(each), name="check-card")
        except* (StoreUnavailable, Conflict) as errors:
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
        for order in record.orders:
            answer = await self._acquirer.inquire(order.order_id or order.special_reference)
            told += answer or ()
            if answer and order.order_id is None:
                learnt.append(cards.learn_order(order.special_reference, answer[0].order_id))
                order_id = answer[0].order_id
                record = _with_order(record, order, order_id)
        told += await self._singly(record, {news.id for news in told})
        told = _of_its_orders(record, told)
        try:
            await self._learn(payment_id, told, asked_at, complete_to=asked_at, also=learnt)
        except InvalidInput as error:
            # What was known of a charge, and what is told now, cannot both be true.
            raise SourceUnavailable(f"Paymob contradicts itself: {error}") from error
        self.checks += 1

    async def _singly(self, record: CardRecord, known: set[int]) -> list[ChargeNews]:
        """What became of charges that the orders' inquiries do not tell of."""
        open_ = [each for each in record.charges if each.state in _MAY_CHANGE]
        found = []
        for charge in open_[:CHARGES_ASKED_MAX]:
            if charge.id not in known and (news := await self._acquirer.transaction(charge.id)):
                found.append(news)
        return found

    # ------------------------------------------------------------------------------- the write

    async def _learn(
        self,
        payment_id: str,
        told: Sequence[ChargeNews],
        told_at: int,
        *,
        complete_to: int | None = None,
        also: Sequence[Statement] = (),
    ) -> CardRecord:
        """Stores what was told of a payment's charges, with all that follows from it.

        Args:
            payment_id: of a payment by card.
            told: of charges of its orders, each once.
            told_at: unix seconds.
            complete_to: of `fold_card`. Not None: Paymob was asked, as it was to be.
            also: belongs into the same write.

        Raises:
            InvalidInput: what is told contradicts what is known.
            Conflict: others were faster, too often.
            StoreUnavailable: whether it was written is not known.
        """
        for _ in range(TRIES_MAX):
            record = await cards.get(self._database, payment_id)
            if record is None:
                raise Conflict(f"{payment_id} is not there any more")
            charges, after = _with_news(record, told, told_at, complete_to)
            now = int(self._clock())
            changes = events.of_change(record.payment, after.payment, now)
            batch = cards.save(record, after.payment, charges=charges, events=changes)
            if complete_to is not None:
                terms, status = after.payment.terms, after.payment.state.status
                next_at = next_check_at(terms, status, now)
                batch += [*also, cards.answered(payment_id, next_at)]
            try:
                await self._database.write(batch)
            except Conflict:
                continue  # somebody else has learned something: decide anew
            if batch:
                self._wake()
            if after.payment != record.payment:
                _log(after)
            return after
        raise Conflict(f"{payment_id} kept changing")

    # -------------------------------------------------------------------------------- failures

    async def _failed(self, payment_id: str, error: str) -> None:
        """Puts a payment off, so that it holds up no other."""
        if len(self._failing) < FAILING_MAX or payment_id in self._failing:
            self._failing[payment_id] = error
        next_at = int(self._clock()) + FAILED_PAUSE_S
        await self._database.write([cards.not_answered(payment_id, next_at)])

    def _tell(self) -> None:
        if not self._failing:
            self.problem = None
            return
        first = next(iter(self._failing.values()))
        self._complain(f"{len(self._failing)} payments cannot be asked about: {first}")

    def _complain(self, problem: str) -> None:
        if self.problem != problem:
            log.warning("cards.failed", error=problem)
        self.problem = problem
