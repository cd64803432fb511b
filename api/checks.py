"""Asks the indexer to look for a payment's money now, because somebody wants to know."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from api.limits import CHECK_ASK_TIMEOUT_S, CHECK_EVERY_S, CHECKS_REMEMBERED_MAX
from indexer.core.payment import Payment
from indexer.core.types import Status
from indexer.errors import StoreError
from indexer.log import get_logger
from store import reference_checks
from store.database import Database


log = get_logger(__name__)

_OPEN = (Status.PENDING, Status.PROCESSING)


class Checks:
    """Remembers who was asked about a moment ago, so that polling costs one write in a while."""

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._monotonic = monotonic
        self._asked: OrderedDict[str, float] = OrderedDict()  # the oldest first

    async def ask(self, payment: Payment, now: int) -> None:
        """Makes the check of an open payment due now (unix seconds); never fails.

        One without watch key is looked at all the time anyway.
        """
        is_open = payment.state.status in _OPEN
        if not is_open or payment.terms.watch_key is None or not self._may_ask(payment.terms.id):
            return
        try:
            async with asyncio.timeout(CHECK_ASK_TIMEOUT_S):
                await self._database.write([reference_checks.ask(payment.terms.id, now)])
        except (StoreError, TimeoutError) as error:
            # The schedule will come to it; whoever asked gets what is stored.
            log.warning("check.not_asked", payment_id=payment.terms.id, error=str(error))

    def _may_ask(self, payment_id: str) -> bool:
        time = self._monotonic()
        while self._asked and time - next(iter(self._asked.values())) >= CHECK_EVERY_S:
            self._asked.popitem(last=False)
        if payment_id in self._asked or len(self._asked) >= CHECKS_REMEMBERED_MAX:
            return False
        self._asked[payment_id] = time
        return True
