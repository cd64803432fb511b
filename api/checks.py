"""Asks the indexer to look for a payment's money now, because somebody wants to know.

On the chain, or at the acquirer, whichever moves it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from api.limits import (
    CARD_CHECK_EVERY_S,
    CHECK_ASK_TIMEOUT_S,
    CHECK_EVERY_S,
    CHECKS_REMEMBERED_MAX,
)
from indexer.core.payment import AnyPayment, CardPayment, Payment
from indexer.core.types import Status
from indexer.errors import StoreError
from indexer.log import get_logger
from store import cards, reference_checks
from store.database import Database, Statement


log = get_logger(__name__)

_OPEN = (Status.PENDING, Status.PROCESSING)
#: Another card may still settle what failed.
_OPEN_BY_CARD = (*_OPEN, Status.FAILED)


class Checks:
    """Has open payments looked for, and remembers which ones a moment ago.

    So polling costs one write in a while.
    """

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._on_chain = _Recently(CHECK_EVERY_S, monotonic)
        self._by_card = _Recently(CARD_CHECK_EVERY_S, monotonic)

    async def ask(self, payment: AnyPayment, now: int) -> None:
        """Makes the check of an open payment due now (unix seconds); never fails."""
        statement = self._statement(payment, now)
        if statement is None:
            return
        try:
            async with asyncio.timeout(CHECK_ASK_TIMEOUT_S):
                await self._database.write([statement])
        except (StoreError, TimeoutError) as error:
            # The schedule will come to it; whoever asked gets what is stored.
            log.warning("check.not_asked", payment_id=payment.terms.id, error=str(error))

    def _statement(self, payment: AnyPayment, now: int) -> Statement | None:
        id_, status = payment.terms.id, payment.state.status
        if isinstance(payment, Payment):
            # One without watch key is looked at all the time anyway.
            is_wanted = status in _OPEN and payment.terms.watch_key is not None
            return reference_checks.ask(id_, now) if is_wanted and self._on_chain.ask(id_) else None
        if isinstance(payment, CardPayment) and status in _OPEN_BY_CARD and self._by_card.ask(id_):
            return cards.ask(id_, now)
        return None


class _Recently:
    """Which payments were asked about in the last so many seconds."""

    def __init__(self, every_s: float, monotonic: Callable[[], float]) -> None:
        self._every_s = every_s
        self._monotonic = monotonic
        self._asked: OrderedDict[str, float] = OrderedDict()  # the oldest first

    def ask(self, payment_id: str) -> bool:
        """Whether it may be asked about now, which then is remembered."""
        time = self._monotonic()
        while self._asked and time - next(iter(self._asked.values())) >= self._every_s:
            self._asked.popitem(last=False)
        if payment_id in self._asked or len(self._asked) >= CHECKS_REMEMBERED_MAX:
            return False
        self._asked[payment_id] = time
        return True
