"""Sweeps: asks the chain for everything that ever carried a key, so that nothing is lost.

Doorbells are fast and may be missed. A sweep is slow and complete: it reads the finalized
signatures of a key from the newest back to a little before where the last complete sweep ended,
sends each down the road, and only then moves the key's frontier. A crash in between moves
nothing: the next sweep reads the same again, and finds most of it stored.

The finalized slot is read *before* the first page, and the node is told to answer from a state
no older than that. What is finalized while paging belongs to the next sweep.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import structlog

from indexer.core.types import Commitment
from indexer.errors import Conflict, SourceError, SourceUnavailable, StoreUnavailable
from indexer.pipeline import Found, Pipeline, settlement
from indexer.sources.rpc import Rpc, SignatureRow
from indexer.watch import Watched
from store import cursors, dead_letters, payments
from store.cursors import Frontier
from store.database import Database


log = structlog.get_logger(__name__)

#: Seconds between two sweeps when nobody asks for one.
SWEEP_INTERVAL_S: Final = 5.0
#: Seconds until the next look, while what a fresh subscription may have missed is not final.
SWEEP_SOON_S: Final = 1.0
#: Seconds of pause after a sweep that failed.
SWEEP_PAUSE_S: Final = 2.0
#: Slots before the frontier that are read again each time: nodes behind one address differ, and
#: some list a transaction a little after it was finalized. About two minutes.
OVERLAP_SLOTS: Final = 512
#: Signatures of one page, the most that nodes give.
PAGE_SIZE: Final = 1_000
#: Pages that are gathered before their signatures are examined, oldest first.
CHUNK_PAGES_MAX: Final = 20
#: Signatures that are fetched, judged and written together, and how many such batches at once.
BATCH_SIZE: Final = 100
BATCHES_AT_ONCE: Final = 3
#: Signatures that are remembered as stored, so that the overlap costs one page and no more.
REMEMBERED_MAX: Final = 100_000
#: Payments that expire in one write.
EXPIRY_BATCH: Final = 200


class Sweeper:
    """Keeps the frontier of every watched key moving."""

    def __init__(
        self,
        database: Database,
        rpc: Rpc,
        pipeline: Pipeline,
        watched: Watched,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._rpc = rpc
        self._pipeline = pipeline
        self._watched = watched
        self._clock = clock
        self._wake = wake
        self._asked = asyncio.Event()
        self._live_slot = 0
        self._stored: OrderedDict[str, None] = OrderedDict()
        self.problem: str | None = "no sweep is complete yet"

    def ask(self) -> None:
        """Asks for a sweep now, rather than when its turn comes."""
        self._asked.set()

    def subscribed(self, slot: int) -> None:
        """A subscription went live at `slot`: sweep now, and again once that slot is final.

        A fresh subscription does not see what was executed before it, and that may be final
        only later.
        """
        self._live_slot = max(self._live_slot, slot)
        self.ask()

    async def run(self) -> None:
        """Sweeps for ever. A failure is shown, waited out, and the sweep begun again."""
        while True:
            self._asked.clear()
            try:
                reached = await self._round()
            except (SourceError, StoreUnavailable, Conflict) as error:
                if self.problem is None or self.problem != str(error):
                    log.warning("sweep.failed", error=str(error))
                self.problem = str(error)
                await asyncio.sleep(SWEEP_PAUSE_S)
                continue
            self.problem = None
            pause_s = SWEEP_SOON_S if reached < self._live_slot else SWEEP_INTERVAL_S
            try:
                await asyncio.wait_for(self._asked.wait(), pause_s)
            except TimeoutError:
                continue

    async def _round(self) -> int:
        """One sweep of each key whose turn it is; the lowest slot that all of them reached."""
        reached = [await self.sweep(key) for key in self._watched.next_to_sweep()]
        return min(reached, default=0)

    async def sweep(self, key: str) -> int:
        """Stores everything finalized that carries the key; returns the slot it is complete to.

        Raises:
            SourceError: the chain side gave no complete answer; the frontier has not moved.
        """
        finalized = await self._rpc.slot(Commitment.FINALIZED)
        block_time = await self._rpc.block_time(finalized)
        known = await cursors.get(self._database, key)
        if known is not None and finalized < known.slot:
            raise SourceUnavailable(
                f"the node's finalized slot {finalized} is behind our frontier {known.slot}"
            )
        floor = 0 if known is None else max(0, known.slot - OVERLAP_SLOTS)
        async for rows in self._chunks(key, floor, finalized):
            await self._examine(key, rows)
        frontier = Frontier(
            key=key,
            slot=finalized,
            block_time=max(block_time or 0, known.block_time if known else 0),
            updated_at=int(self._clock()),
        )
        await self._database.write([cursors.advance(frontier)])
        await self._expire(frontier)
        return finalized

    # --------------------------------------------------------------------- listing signatures

    async def _chunks(
        self, key: str, floor: int, finalized: int
    ) -> AsyncIterator[list[SignatureRow]]:
        """Signatures from the newest back to `floor`; each chunk oldest first."""
        chunk: list[SignatureRow] = []
        previous: list[SignatureRow] = []
        before: str | None = None
        pages = 0
        while True:
            page = await self._rpc.signatures_for_address(
                key, before=before, limit=PAGE_SIZE, min_context_slot=finalized
            )
            if not page and len(previous) == PAGE_SIZE:
                await self._check_end(key, previous, finalized)
            chunk += [row for row in page if floor <= row.slot <= finalized]
            pages += 1
            # A short page proves nothing (nodes cut them as they like): only an empty one, or
            # one that reaches back to what is known, is the end.
            is_last = not page or page[-1].slot < floor
            if is_last or pages % CHUNK_PAGES_MAX == 0:
                yield self._new_ones(chunk)
                chunk = []
            if is_last:
                return
            before, previous = page[-1].signature, page

    async def _check_end(self, key: str, previous: Sequence[SignatureRow], finalized: int) -> None:
        """Tells the end of history from a node that does not know `before`.

        Older nodes answer an unknown `before` with an empty page. One that knows the page's
        last but one signature also knows the last.
        """
        again = await self._rpc.signatures_for_address(
            key, before=previous[-2].signature, limit=1, min_context_slot=finalized
        )
        if [row.signature for row in again] != [previous[-1].signature]:
            raise SourceUnavailable("the node lost its place in the list of signatures")

    def _new_ones(self, rows: Sequence[SignatureRow]) -> list[SignatureRow]:
        """Those worth fetching, oldest first: a failed transaction moved nothing."""
        wanted = [row for row in rows if not row.failed and row.signature not in self._stored]
        # Within a slot, nodes that say no position list the newest first as well.
        wanted.reverse()
        wanted.sort(key=lambda row: (row.slot, -1 if row.index is None else row.index))
        return wanted

    # -------------------------------------------------------------------- examining and expiry

    async def _examine(self, key: str, rows: Sequence[SignatureRow]) -> None:
        turn = asyncio.Semaphore(BATCHES_AT_ONCE)

        async def examine(batch: Sequence[SignatureRow]) -> None:
            async with turn:
                await self._pipeline.settle([_found(key, row) for row in batch])
                self._remember(batch)

        try:
            async with asyncio.TaskGroup() as group:
                for start in range(0, len(rows), BATCH_SIZE):
                    group.create_task(examine(rows[start : start + BATCH_SIZE]), name="examine")
        except* (SourceError, StoreUnavailable, Conflict) as failures:
            # One of them is enough to say why; the sweep is begun again as a whole.
            raise failures.exceptions[0] from failures

    def _remember(self, rows: Sequence[SignatureRow]) -> None:
        for row in rows:
            self._stored[row.signature] = None
        while len(self._stored) > REMEMBERED_MAX:
            self._stored.popitem(last=False)

    async def _expire(self, frontier: Frontier) -> None:
        """Expires what the frontier has passed, unless something that may pay is still parked."""
        if await dead_letters.holding(self._database):
            return
        while True:
            records = await payments.expirable(
                self._database, key=frontier.key, block_time=frontier.block_time, limit=EXPIRY_BATCH
            )
            if not records:
                return
            now = int(self._clock())
            batch = [
                statement
                for record in records
                for statement in settlement(record, (), frontier_time=frontier.block_time, now=now)
            ]
            if not batch:  # all of them are held for review
                return
            await self._database.write(batch)
            self._wake()


def _found(key: str, row: SignatureRow) -> Found:
    return Found(signature=row.signature, slot=row.slot, block_time=row.block_time, key=key)
