"""Sweeps: asks the chain for everything that ever carried a key, so that nothing is lost.

Doorbells are fast and may be missed. A sweep is slow and complete: it reads the finalized
signatures of a key from the newest back to a little before where the last complete sweep ended,
sends each down the road, and only then moves the key's frontier. A crash in between moves
nothing: the next sweep reads the same again, and finds most of it stored.

The finalized slot is read *before* the first page, and the node is told to answer from a state
no older than that. What is finalized while paging belongs to the next sweep. Where several
endpoints must agree, as many must list the key: the frontier says that there is nothing more,
and a list is no more to be believed than a transaction.

Only here do payments expire, and only when nothing that may pay them is unknown.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from indexer.errors import Conflict, SourceError, SourceUnavailable, StoreUnavailable
from indexer.pipeline import Found, Pipeline, settlement
from indexer.sources.endpoint import Endpoint
from indexer.sources.rpc import Rpc, SignatureRow
from store import cursors, dead_letters, payments
from store.cursors import Frontier
from store.database import Database, Statement
from store.payments import Record


log = structlog.get_logger(__name__)

#: Seconds between two sweeps when nobody asks for one.
SWEEP_INTERVAL_S: Final = 5.0
#: Seconds until the next look, while what a fresh subscription may have missed is not final.
SWEEP_SOON_S: Final = 1.0
#: Seconds of pause after a sweep that failed.
SWEEP_PAUSE_S: Final = 2.0
#: Slots before the frontier that are read again each time: nodes behind one address differ, and
#: some list a transaction a little after it was finalized. About two minutes. A node that is
#: further behind than this is in trouble.
OVERLAP_SLOTS: Final = 512
#: Signatures of one page, the most that nodes give.
PAGE_SIZE: Final = 1_000
#: Pages of one sweep. Ten million signatures are more than any key should have.
PAGES_MAX: Final = 10_000
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
        keys: Callable[[], Iterable[str]],
        *,
        clock: Callable[[], float],
    ) -> None:
        """Nothing is asked before `run`.

        Args:
            database: keeps the frontiers.
            rpc: lists what carries a key.
            pipeline: examines it.
            keys: whose turn it is; called at the beginning of each round.
            clock: unix seconds.
        """
        self._database = database
        self._rpc = rpc
        self._pipeline = pipeline
        self._keys = keys
        self._clock = clock
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
                self._failed(error)
                await asyncio.sleep(SWEEP_PAUSE_S)
                continue
            self.problem = None
            pause_s = SWEEP_SOON_S if reached < self._live_slot else SWEEP_INTERVAL_S
            # Not `wait_for`: it forgets that it was cancelled when it is asked at the same moment.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._asked.wait()

    async def _round(self) -> int:
        """One sweep of each key whose turn it is; the lowest slot that all of them reached."""
        reached: list[int] = []
        failure: SourceError | Conflict | None = None
        for key in self._keys():
            try:
                reached.append(await self.sweep(key))
            except (SourceError, Conflict) as error:
                if self._rpc.problem is not None:
                    raise
                # It may be only this key's list that no node can give: the others get their turn.
                self._failed(error)
                failure = error
        if failure is not None:
            raise failure
        return min(reached, default=0)

    def _failed(self, error: Exception) -> None:
        if self.problem != str(error):
            log.warning("sweep.failed", error=str(error))
        self.problem = str(error)

    async def sweep(self, key: str) -> int:
        """Stores everything finalized that carries the key; returns the slot it is complete to.

        Raises:
            SourceError: the chain side gave no complete answer; the frontier has not moved.
        """
        known = await cursors.get(self._database, key)
        finalized = await self._rpc.finalized_slot(at_least=known.slot + 1 if known else 0)
        if known is not None and finalized <= known.slot:
            return await self._nothing_new(known, finalized)
        block_time = await self._rpc.block_time(finalized)
        floor = 0 if known is None else max(0, known.slot - OVERLAP_SLOTS)
        await self._examine_all(key, floor, finalized)
        frontier = Frontier(
            key=key,
            slot=finalized,
            block_time=max(block_time or 0, known.block_time if known else 0),
            updated_at=int(self._clock()),
        )
        await self._database.write([cursors.advance(frontier)])
        await self._expire(frontier)
        return finalized

    async def _nothing_new(self, known: Frontier, finalized: int) -> int:
        """The frontier stays, and grows old: that is how a chain that stands still is seen.

        What it has passed may expire all the same, where something was parked until now.
        """
        if finalized < known.slot - OVERLAP_SLOTS:
            raise SourceUnavailable(
                f"the finalized slot {finalized} is far behind our frontier {known.slot}"
            )
        await self._expire(known)
        return known.slot

    # --------------------------------------------------------------------- listing signatures

    async def _examine_all(self, key: str, floor: int, finalized: int) -> None:
        """Examines what `quorum` endpoints list; with a quorum of one, any of them may answer."""
        if self._rpc.quorum == 1:
            async for rows in self._chunks(key, floor, finalized, None):
                await self._examine(key, rows)
            return
        complete, problem = 0, None
        for endpoint in await self._rpc.awake():
            try:
                async for rows in self._chunks(key, floor, finalized, endpoint):
                    await self._examine(key, rows)
            except SourceError as error:
                problem = error
                continue
            complete += 1
            if complete == self._rpc.quorum:
                return
        raise SourceUnavailable(
            f"{complete} of {self._rpc.quorum} endpoints listed all signatures: {problem}"
        ) from problem

    async def _chunks(
        self, key: str, floor: int, finalized: int, endpoint: Endpoint | None
    ) -> AsyncIterator[list[SignatureRow]]:
        """Signatures from the newest back to `floor`; each chunk oldest first."""

        async def list_before(signature: str | None) -> list[SignatureRow]:
            return await self._rpc.signatures_for_address(
                key,
                before=signature,
                limit=PAGE_SIZE,
                min_context_slot=finalized,
                endpoint=endpoint,
            )

        chunk: list[SignatureRow] = []
        last_two: list[SignatureRow] = []
        for pages in range(1, PAGES_MAX + 1):
            page = await self._page_after(last_two, list_before)
            chunk += [row for row in page if floor <= row.slot <= finalized]
            # A short page proves nothing (nodes cut them as they like): only one that reaches
            # back to what is known, or none at all, is the end.
            is_last = not page or page[-1].slot < floor
            if is_last or pages % CHUNK_PAGES_MAX == 0:
                yield self._new_ones(chunk)
                chunk = []
            if is_last:
                return
            last_two = [*last_two, *page][-2:]
        raise SourceUnavailable(f"the list of signatures has no end after {PAGES_MAX} pages")

    async def _page_after(
        self,
        last_two: Sequence[SignatureRow],
        list_before: Callable[[str | None], Awaitable[list[SignatureRow]]],
    ) -> list[SignatureRow]:
        """The next page; empty only at the end of history.

        Older nodes answer an unknown `before` with an empty page as well. One that knows it
        lists it, and nothing more, before the row above it.
        """
        if not last_two:
            return await list_before(None)
        last = last_two[-1]
        page = await list_before(last.signature)
        if not page:
            rows = await list_before(last_two[0].signature if len(last_two) == 2 else None)
            names = [row.signature for row in rows]
            if last.signature not in names:
                raise SourceUnavailable("the node lost its place in the list of signatures")
            page = rows[names.index(last.signature) + 1 :]
        if page and (page[0].slot > last.slot or last.signature in {r.signature for r in page}):
            raise SourceUnavailable("the list of signatures does not go on where it stopped")
        return page

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

        async def select() -> Sequence[Record]:
            if await dead_letters.holding(self._database):
                return ()
            return await payments.expirable(
                self._database, key=frontier.key, block_time=frontier.block_time, limit=EXPIRY_BATCH
            )

        def expire(records: Sequence[Record]) -> list[Statement]:
            now = int(self._clock())
            return [
                statement
                for record in records
                if not _is_in_doubt(record, frontier)
                for statement in settlement(record, now=now, complete_to=frontier.block_time)
            ]

        while await self._pipeline.change(select, expire):
            pass


def _is_in_doubt(record: Record, frontier: Frontier) -> bool:
    """Something was sighted in a slot that is final now, and is not judged or taken back yet."""
    return any(sighting.slot <= frontier.slot for sighting in record.sightings)


def _found(key: str, row: SignatureRow) -> Found:
    return Found(signature=row.signature, slot=row.slot, block_time=row.block_time, key=key)
