"""Lets payments expire: only here, and only when nothing that may pay them is unknown.

A payment ends by block time, never by our clock: the frontier of its watch key must have passed
its deadline, and so must that of its own reference, because some wallets leave out the watch key
(see `references`). As long as a transaction that could not be read is tried again, nothing
expires at all; nor does a payment for which something was sighted and is not judged yet.
"""

from collections.abc import Callable, Sequence
from typing import Final

from indexer.pipeline import Pipeline
from indexer.settlement import settlement
from store import cursors, dead_letters, payments
from store.cursors import Frontier
from store.database import Database, Statement
from store.payments import Record


#: Payments that expire in one write.
EXPIRY_BATCH: Final = 200


class Expiry:
    """The end of payments that nobody paid."""

    def __init__(
        self, database: Database, pipeline: Pipeline, *, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._pipeline = pipeline
        self._clock = clock

    async def expire(self, key: str) -> None:
        """Ends the payments of a key whose deadline its frontier has passed."""
        if (frontier := await cursors.get(self._database, key)) is not None:
            await self.expire_before(frontier)

    async def expire_before(self, frontier: Frontier) -> None:
        """The same, by a frontier that was read or written already."""
        times: dict[str, int] = {}

        async def select() -> Sequence[Record]:
            if await dead_letters.holding(self._database):
                return ()
            records = await payments.expirable(
                self._database, key=frontier.key, block_time=frontier.block_time, limit=EXPIRY_BATCH
            )
            references = {record.payment.terms.reference for record in records}
            times.update(await cursors.times(self._database, references))
            return records

        def expire(records: Sequence[Record]) -> list[Statement]:
            now = int(self._clock())
            return [
                statement
                for record in records
                if not _is_in_doubt(record, frontier)
                for statement in settlement(
                    record,
                    now=now,
                    complete_to=min(frontier.block_time, times[record.payment.terms.reference]),
                )
            ]

        while await self._pipeline.change(select, expire):
            pass


def _is_in_doubt(record: Record, frontier: Frontier) -> bool:
    """Something was sighted in a slot that is final now, and is not judged or taken back yet."""
    return any(sighting.slot <= frontier.slot for sighting in record.sightings)
