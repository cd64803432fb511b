"""Tries again what could not be read: dead letters that may still come to life.

A finalized signature whose transaction no node could give is parked in the store, so that the
frontier may pass it without forgetting it. Here each is tried again, less and less often, until
it is read; while one waits, nothing expires. One that stays unreadable (`next_try_at` is empty)
waits for a person instead. The letter itself is taken away by the pipeline, with what it brought.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from indexer.errors import Conflict, SourceError, StoreUnavailable
from indexer.pipeline import Found, Pipeline
from indexer.sources.priority import Priority, at
from store import dead_letters
from store.database import Database
from store.dead_letters import DeadLetter


log = structlog.get_logger(__name__)

#: Seconds between two looks for letters that are due.
INTERVAL_S: Final = 1.0
#: Letters that are tried at once. Each goes its own way: one that hangs keeps one place.
BATCH_SIZE: Final = 50


class Parked:
    """The retry of dead letters."""

    def __init__(
        self, database: Database, pipeline: Pipeline, *, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._pipeline = pipeline
        self._clock = clock
        self._under_way: set[str] = set()

    async def run(self) -> None:
        """Retries what is due, for ever."""
        with at(Priority.SWEEP):
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(self._round(), name="retry")
                    await asyncio.sleep(INTERVAL_S)

    async def _round(self) -> None:
        try:
            await self.retry_due()
        except StoreUnavailable as error:
            log.warning("dead_letter.retry_failed", error=str(error))

    async def retry_due(self) -> None:
        """One try of each letter that is due and not under way already."""
        under_way, now = self._under_way, int(self._clock())
        due = await dead_letters.due(self._database, now, BATCH_SIZE + len(under_way))
        due = [letter for letter in due if letter.signature not in under_way]
        due = due[: BATCH_SIZE - len(under_way)]
        if not due:
            return
        under_way |= {letter.signature for letter in due}
        await asyncio.gather(*(self._retry(letter) for letter in due))

    async def _retry(self, letter: DeadLetter) -> None:
        try:
            unread = await self._pipeline.settle([Found.parked(letter)])
        except (SourceError, StoreUnavailable, Conflict) as error:
            log.warning("dead_letter.retry_failed", error=str(error))
        else:
            if not unread:
                log.info("dead_letter.resolved", signature=letter.signature)
        finally:
            self._under_way.discard(letter.signature)
