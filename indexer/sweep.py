"""Sweeps: asks the chain for everything that ever carried a key, so that nothing is lost.

Doorbells are fast and may be missed. A sweep is slow and complete: it reads the finalized
signatures of a key from the newest back to a little before where the last complete sweep ended,
sends each down the road, and only then moves the key's frontier. A crash in between moves
nothing: the next sweep reads the same again, and finds most of it stored.

The finalized slot is read *before* the first page, and the node is told to answer from a state
no older than that. What is finalized while paging belongs to the next sweep. Where several
endpoints must agree, as many must list the key: the frontier says that there is nothing more,
and a list is no more to be believed than a transaction.

The frontier, the slots that were covered and the gaps that this closed are one write. Where the
nodes have forgotten a part of what a sweep should have listed, that part is noted as a gap of its
own, and never passed over in silence.

Whenever a frontier has moved, the payments that it has passed may expire (see `expiry`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from indexer.batches import in_batches
from indexer.core.ranges import Slots
from indexer.core.types import Commitment
from indexer.errors import Conflict, SourceError, StoreUnavailable
from indexer.expiry import Expiry
from indexer.pipeline import Found, Pipeline
from indexer.sources.history import history
from indexer.sources.rpc import Rpc, SignatureRow
from indexer.survey import Surveyor
from store import coverage, cursors, gaps, reference_checks, watching
from store.database import Database, Statement
from store.gaps import GapReason


log = structlog.get_logger(__name__)

#: Seconds between two sweeps when nobody asks for one.
SWEEP_INTERVAL_S: Final = 5.0
#: Seconds until the next look, while what a fresh subscription may have missed is not final.
SWEEP_SOON_S: Final = 1.0
#: Seconds of pause after a sweep that failed.
SWEEP_PAUSE_S: Final = 2.0
#: Signatures that are remembered as stored, so that the overlap costs one page and no more.
REMEMBERED_MAX: Final = 100_000
#: Gaps of one key that are tried to be mended in one round, because an endpoint may keep them now.
MENDED_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class _Missed:
    """Slots in which notifications may be missing.

    Attributes:
        first: 0 stands for "from the frontier on".
        last: None until it is known how far the chain has come.
    """

    first: int
    last: int | None

    def or_more(self, other: "_Missed | None") -> "_Missed":
        if other is None:
            return self
        is_open = self.last is None or other.last is None
        last = None if is_open else max(self.last or 0, other.last or 0)
        return _Missed(min(self.first, other.first), last)


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
        shared: Callable[[], Iterable[str]] | None = None,
        surveyor: Surveyor | None = None,
    ) -> None:
        """Nothing is asked before `run`.

        Args:
            database: keeps the frontiers.
            rpc: lists what carries a key.
            pipeline: examines it.
            keys: whose turn it is; called at the beginning of each round.
            clock: unix seconds.
            shared: the keys that many payments carry, whose gaps are noted; `keys` when None.
            surveyor: looks at a key; its own when None.
        """
        self._database = database
        self._rpc = rpc
        self._pipeline = pipeline
        self._keys = keys
        self._shared = shared or keys
        self._clock = clock
        self._surveyor = surveyor or Surveyor(rpc, clock=clock)
        self._expiry = Expiry(database, pipeline, clock=clock)
        self._asked = asyncio.Event()
        self._live_slot = 0
        self._is_live = False
        self._lost: dict[str, int] = {}
        self._missed: dict[tuple[GapReason, str], _Missed] = {}
        self._stored: OrderedDict[str, None] = OrderedDict()
        self.problem: str | None = "no sweep is complete yet"

    # ------------------------------------------------------------------ told by notifications

    def ask(self) -> None:
        """Asks for a sweep now, rather than when its turn comes."""
        self._asked.set()

    def subscribed(self, slot: int, source: str = "") -> None:
        """A subscription went live at `slot`: sweep now, and again once that slot is final.

        A fresh subscription does not see what was executed before it, and that may be final
        only later. Between the frontier and the first one after a start nobody listened;
        between a connection that was lost and the next one, this endpoint did not.

        Args:
            slot: the first one from which it rings.
            source: the endpoint's name.
        """
        self._live_slot = max(self._live_slot, slot)
        lost = self._lost.pop(source, None)
        if not self._is_live:
            self._is_live = True
            self.missed(0, slot, GapReason.START)
        elif lost is not None:
            self.missed(lost, slot, GapReason.RECONNECT, source)
        self.ask()

    def lost(self, slot: int, source: str = "") -> None:
        """A live subscription ended; `slot` was the last that was heard on it."""
        self._lost.setdefault(source, slot)

    def missed(
        self, first_slot: int, last_slot: int | None, reason: GapReason, source: str = ""
    ) -> None:
        """Notifications of these slots may be missing; noted before anything is swept.

        Args:
            first_slot: 0 when nobody knows: then from the frontier on.
            last_slot: None stands for wherever the chain is when it is noted.
            reason: why.
            source: whose notifications; empty when it is nobody's in particular.
        """
        now = _Missed(first_slot, last_slot)
        self._missed[reason, source] = now.or_more(self._missed.get((reason, source)))
        self.ask()

    # ------------------------------------------------------------------------------ for ever

    async def run(self) -> None:
        """Sweeps for ever. A failure is shown, waited out, and the sweep begun again."""
        if not self._is_live:
            # The first sweep may be done before anybody listens: by then the frontier has moved,
            # and could not tell any more since when nobody did.
            self.missed(0, None, GapReason.START)
        while True:
            self._asked.clear()
            try:
                await self._note_missed()
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

    async def _note_missed(self) -> None:
        """Stores what notifications missed since the last round, or fails with all of it kept."""
        missed, self._missed = self._missed, {}
        try:
            if missed and (batch := await self._gaps(missed)):
                await self._database.write(batch)
        except BaseException:
            for name, each in missed.items():
                self._missed[name] = each.or_more(self._missed.get(name))
            raise

    async def _gaps(self, missed: dict[tuple[GapReason, str], _Missed]) -> list[Statement]:
        tip = 0
        if any(each.last is None for each in missed.values()):
            tip = await self._rpc.slot(Commitment.CONFIRMED)
        now, batch = int(self._clock()), []
        for key in self._shared():
            known = await cursors.get(self._database, key)
            if known is None:
                continue  # its first sweep begins with the first slot there is
            for (reason, source), each in missed.items():
                first = max(each.first, known.slot + 1)
                last = max(each.first, tip) if each.last is None else each.last
                if first <= last:
                    slots = Slots(first, last)
                    batch.append(gaps.note(key, slots, reason, now, source=source))
        return batch

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

    # -------------------------------------------------------------------------- one complete look

    async def sweep(self, key: str) -> int:
        """Stores everything finalized that carries the key; returns the slot it is complete to.

        Raises:
            SourceError: the chain side gave no complete answer; the frontier has not moved.
        """
        known = await cursors.get(self._database, key)
        finalized = await self._surveyor.finalized_after(known)
        if known is not None and finalized <= known.slot:
            # The frontier stays, and grows old: that is how a chain that stands still is seen.
            # What it has passed may expire all the same, where something was parked until now.
            await self._expiry.expire_before(known)
            return known.slot
        now, oldest = int(self._clock()), None
        if known is None:
            oldest = await watching.oldest_payable(self._database, key, now=now)
        survey = await self._surveyor.look(
            key, known, finalized, partial(self._examine_new, key), created_at=oldest
        )
        frontier, now = survey.frontier, int(self._clock())
        batch = [
            cursors.advance(frontier),
            *coverage.add(key, survey.covered, now),
            gaps.close_up_to(key, finalized, now),
        ]
        if survey.hole is not None:
            log.error("sweep.pruned", key=key, first=survey.hole.first, last=survey.hole.last)
            since = survey.kept_since
            pruned = GapReason.PRUNED
            batch.append(gaps.note(key, survey.hole, pruned, now, created_before=since))
        batch.append(gaps.close_pruned(key, now))
        batch.append(reference_checks.hasten(key, frontier.block_time, now))
        await self._database.write(batch)
        await self._mend(key)
        await self._expiry.expire_before(frontier)
        return finalized

    async def _mend(self, key: str) -> None:
        """Examines what nobody kept when it was passed over, should somebody have it now."""
        for slots in await gaps.pruned(self._database, key, MENDED_MAX):
            try:
                choice = await self._surveyor.reach.choose(slot=slots.first)
                if not choice.reaches:
                    continue
                async for rows in history(
                    self._rpc,
                    key,
                    first_slot=slots.first,
                    last_slot=slots.last,
                    endpoints=choice.endpoints,
                ):
                    await self._examine_new(key, rows)
            except SourceError as error:
                # Whoever may have it can wait; the sweep that just ended is complete without.
                log.info("sweep.not_mended", key=key, error=str(error))
                return
            now = int(self._clock())
            batch = [*coverage.add(key, slots, now), gaps.close_pruned(key, now)]
            await self._database.write(batch)
            log.info("sweep.mended", key=key, first=slots.first, last=slots.last)

    # ------------------------------------------------------------------------------ examining

    async def _examine_new(self, key: str, rows: Sequence[SignatureRow]) -> None:
        """What is not known to be stored; a failed transaction moved nothing."""
        wanted = [row for row in rows if not row.failed and row.signature not in self._stored]

        async def settle(batch: Sequence[SignatureRow]) -> None:
            await self._pipeline.settle([Found.listed(row, key) for row in batch])
            self._remember(batch)

        await in_batches(wanted, settle)

    def _remember(self, rows: Sequence[SignatureRow]) -> None:
        for row in rows:
            self._stored[row.signature] = None
        while len(self._stored) > REMEMBERED_MAX:
            self._stored.popitem(last=False)
