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
from store import dead_letters
from store.database import Database


log = structlog.get_logger(__name__)

#: Seconds between two looks for letters that are due.
INTERVAL_S: Final = 1.0
#: Letters that are tried in one round.
BATCH_SIZE: Final = 50


class Parked:
    """The retry of dead letters."""

    def __init__(
        self, database: Database, pipeline: Pipeline, *, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._pipeline = pipeline
        self._clock = clock

    async def run(self) -> None:
        """Retries what is due, for ever."""
        while True:
            try:
                await self.retry_due()
            except (SourceError, StoreUnavailable, Conflict) as error:
                log.warning("dead_letter.retry_failed", error=str(error))
            await asyncio.sleep(INTERVAL_S)

    async def retry_due(self) -> None:
        """One try of each letter that is due."""
        due = await dead_letters.due(self._database, int(self._clock()), BATCH_SIZE)
        if not due:
            return
        found = [
            Found(
                signature=letter.signature,
                slot=letter.slot,
                key=letter.key,
                attempts=letter.attempts,
            )
            for letter in due
        ]
        unread = {each.found.signature for each in await self._pipeline.settle(found)}
        read = [each.signature for each in found if each.signature not in unread]
        if read:
            log.info("dead_letter.resolved", signatures=read)
