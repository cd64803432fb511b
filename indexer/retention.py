"""Forgets what is only kept for a while: webhooks that came in, and deliveries that have ended.

Payments, events and charges stay for ever. So does whatever still waits, however old it is. It is
deleted in small batches with pauses between them, so that those who write meanwhile never wait for
long; what a round leaves, because the process ends or the store is busy, the next one finds.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from indexer.errors import StoreUnavailable
from store import deliveries, webhook_events
from store.database import Database, Statement


log = structlog.get_logger(__name__)

DAY_S: Final = 86_400

#: Seconds between two rounds.
INTERVAL_S: Final = 3_600.0
#: Seconds until the next try of a round that failed.
FAILED_PAUSE_S: Final = 60.0

#: Rows of one kind that one batch deletes: a few milliseconds of the writer's time.
BATCH_SIZE: Final = webhook_events.PRUNED_MAX
#: Seconds between two batches.
BATCH_PAUSE_S: Final = 0.05
#: Batches of one kind in one round. More than are written in the time between two rounds.
BATCHES_MAX: Final = 10_000


class Retention:
    """The pruning of what is old.

    Attributes:
        problem: why the last round was not finished; None when it was.
    """

    def __init__(self, database: Database, *, days: int, clock: Callable[[], float]) -> None:
        """Keeps what is younger than so many days."""
        self.problem: str | None = None
        self._database = database
        self._days = days
        self._clock = clock

    async def run(self) -> NoReturn:
        """Prunes at the start, and then every hour."""
        while True:
            try:
                await self.prune()
            except StoreUnavailable as error:
                self.problem = f"what is old cannot be deleted: {error}"
                log.warning("retention.failed", error=str(error))
                await asyncio.sleep(FAILED_PAUSE_S)
            else:
                self.problem = None
                await asyncio.sleep(INTERVAL_S)

    async def prune(self) -> tuple[int, int]:
        """Deletes what is too old; returns how many webhooks and how many deliveries it was.

        Raises:
            StoreUnavailable: some may have been deleted, the rest was not.
        """
        before = int(self._clock()) - self._days * DAY_S
        webhooks = await self._all(webhook_events.prune(before))
        sent = await self._all(deliveries.prune(before, BATCH_SIZE))
        if webhooks or sent:
            log.info("retention.pruned", webhooks=webhooks, deliveries=sent, days=self._days)
        return webhooks, sent

    async def _all(self, statement: Statement) -> int:
        """Repeats a statement that deletes some until it finds fewer than it might."""
        deleted = 0
        for _ in range(BATCHES_MAX):
            [rows] = await self._database.write([statement])
            deleted += len(rows)
            if len(rows) < BATCH_SIZE:
                break
            await asyncio.sleep(BATCH_PAUSE_S)
        return deleted
