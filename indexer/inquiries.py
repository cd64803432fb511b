"""Asks Paymob about payments by card: on a schedule, and when somebody has a reason.

    card_checks, when due ──► inquiry ──► `charging`: charges, payment, events and the next time

How often callbacks are sent again is told nowhere, and none is sent for a page that was closed:
so Paymob is asked about every payment on a schedule (see `card_schedule`), when a callback gives
a reason, and when somebody wants to know. A payment expires only by an answer that came after
its deadline.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

import structlog

from indexer.charging import Acquirer, Charging, of_orders
from indexer.core.charge import ChargeNews
from indexer.core.types import ChargeState
from indexer.errors import (
    Conflict,
    InvalidInput,
    SourceError,
    SourceUnavailable,
    StoreError,
    StoreUnavailable,
)
from indexer.sources.retry import backoff
from indexer.together import together
from store import cards
from store.cards import CardRecord, Check
from store.database import Database, Statement


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

#: Of these there may be news that no inquiry about the order tells.
_MAY_CHANGE: Final = frozenset({ChargeState.PENDING, ChargeState.AUTHORIZED, ChargeState.PAID})


@dataclass(slots=True)
class _Round:
    """How the questions of one round were answered."""

    answers: int = 0
    failures: int = 0

    @property
    def is_hopeless(self) -> bool:
        """Nobody answers: whoever was not asked about yet stays due."""
        return self.failures >= CHECKS_AT_ONCE and not self.answers


class Inquiries:
    """Asks about every payment that is due.

    Attributes:
        problem: why Paymob does not answer, in words for ops; None while it does.
        checks: how many payments were asked about and told of, since the start.
        failed_checks: how often nobody answered, or nothing that can be used.
    """

    def __init__(
        self,
        database: Database,
        acquirer: Acquirer,
        charging: Charging,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is asked before `run`.

        Args:
            database: migrated.
            acquirer: open.
            charging: stores what is learned.
            clock: unix seconds.
            draw: 0 … 1, at random.
        """
        self._database = database
        self._acquirer = acquirer
        self._charging = charging
        self._clock = clock
        self._draw = draw
        self._failing: dict[str, tuple[float, str]] = {}
        self.problem: str | None = None
        self.checks = 0
        self.failed_checks = 0

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
        now, turn = _Round(), asyncio.Semaphore(CHECKS_AT_ONCE)

        async def ask(each: Check) -> None:
            async with turn:
                if not now.is_hopeless:
                    await self._ask(each.payment_id, now)

        await together(due, ask, expected=(StoreUnavailable,), name="check-card")
        self._tell()
        return now.answers > 0 or now.failures == 0, len(due) == CHECKS_PER_ROUND

    async def _ask(self, payment_id: str, now: _Round) -> None:
        try:
            await self.check(payment_id)
        except (SourceError, Conflict) as error:
            now.failures += 1
            await self._failed(payment_id, str(error))
        except StoreError:
            raise
        except Exception as error:
            # Put off and told of like any other: one payment that meets a fault of ours must not
            # end the daemon, now and at each start.
            log.exception("card.fault", payment_id=payment_id)
            await self._failed(payment_id, f"a fault of ours: {type(error).__name__}")
        else:
            now.answers += 1
            self._failing.pop(payment_id, None)

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
        ours = of_orders(told, order_ids)
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

    async def _failed(self, payment_id: str, detail: str) -> None:
        """Puts a payment off, so that it holds up no other."""
        self.failed_checks += 1
        if len(self._failing) < FAILING_MAX or payment_id in self._failing:
            self._failing[payment_id] = (asyncio.get_running_loop().time(), detail)
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
