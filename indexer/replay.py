"""Replays: examines slots, a reference or a signature again, down the same road as ever.

A replay may run beside the daemon, alone, twice, or be killed anywhere: what is stored already
changes nothing, and how far it came is written with what it stored. Two ways lead through a range
of slots:

    signatures  lists what names each watched key, as a sweep does: few requests
    blocks      reads every block, proves that none is missing, and matches all references that
                were alive then: an independent proof, for a gigabyte an hour and more

When all of it is stored, the range is covered for each key; a frontier that it reaches moves on,
and one that never was begins, if no payment is older. Blocks also prove that a reference was named
nowhere, so a payment whose whole life lies in the range is complete, and may expire.

A dry run judges and writes nothing.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import structlog

from indexer.batches import in_batches
from indexer.blocks import Blocks
from indexer.claims import CLOCKS_DIFFER_S, Claims, Times
from indexer.core.outcome import Outcome
from indexer.core.ranges import Slots
from indexer.errors import AxiomError, InvariantError
from indexer.expiry import Expiry
from indexer.pipeline import Found, Pipeline
from indexer.preview import previews
from indexer.sources.history import history
from indexer.sources.priority import Priority, at
from indexer.sources.reach import Reach
from indexer.sources.rpc import Rpc, SignatureRow
from indexer.survey import Surveyor
from indexer.undertaking import Plan, Report, Strategy, Tally, Work
from store import coverage, cursors, payments, replays, watching
from store.database import Database, Statement
from store.replays import Run


log = structlog.get_logger(__name__)

#: Slots whose blocks are read, settled and recorded together.
CHUNK_SLOTS: Final = 128
#: References that are matched at once, about 130 bytes each, and how many are read at a time.
REFERENCES_MAX: Final = 2_000_000
REFERENCES_PAGE: Final = 10_000
#: References whose URLs were made elsewhere and that are listed one by one.
FOREIGN_MAX: Final = 10_000
#: Seconds after its transaction that a payment may still be made whose URL was made elsewhere.
REGISTERED_LATER_S: Final = 86_400


class ReplayRefused(AxiomError):
    """What was asked for cannot be replayed as things are; the message says why."""


class Replay:
    """Runs replays, one at a time.

    Attributes:
        report: of the one that runs, or ran last; None before the first.
    """

    def __init__(
        self,
        database: Database,
        rpc: Rpc,
        pipeline: Pipeline,
        *,
        clock: Callable[[], float],
        concurrency: int,
        on_plan: Callable[[Plan], None] = lambda _: None,
        on_progress: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        """Nothing is asked before one of the methods.

        Args:
            database: migrated, and filled from the same cluster.
            rpc: open.
            pipeline: examines what is found.
            clock: unix seconds.
            concurrency: blocks that are fetched at once.
            on_plan: told once, before the first of the work.
            on_progress: told whenever some more is done.
        """
        self._database = database
        self._rpc = rpc
        self._pipeline = pipeline
        self._clock = clock
        self._expiry = Expiry(database, pipeline, clock=clock)
        self._concurrency = concurrency
        self._on_plan = on_plan
        self._on_progress = on_progress
        self._reach = Reach(rpc)
        self._claims = Claims(database, rpc, clock=clock)
        self.report: Report | None = None

    # ------------------------------------------------------------------- what may be asked for

    async def slots(
        self,
        slots: Slots,
        strategy: Strategy,
        *,
        dry_run: bool,
        resume: bool,
    ) -> Report:
        """Everything of a range of slots.

        Args:
            slots: final, and kept by the endpoints.
            strategy: see above.
            dry_run: judge and write nothing.
            resume: go on with the last run of the same range that did not finish, if there is one.

        Raises:
            ReplayRefused: the range is not final, or kept by nobody.
            SourceError, StoreUnavailable, Conflict: it ended early; what is recorded is stored.
        """
        with at(Priority.REPLAY):
            await self._check(slots)
            found = await self._resumed(strategy, slots) if resume else None
            foreign = await self._foreign()
            keys = found.keys if found else await self._keys(foreign)
            work = Work(
                report=Report(
                    run=found.id if found else None,
                    strategy=strategy,
                    slots=slots,
                    keys=keys,
                    dry_run=dry_run,
                    resumed=found is not None,
                ),
                started_at=found.started_at if found else int(self._clock()),
                foreign=foreign,
            )
            self.report = work.report
            if found is not None:
                work.go_on(found)
            elif not dry_run:
                begun = replays.begin(
                    self._database, strategy, keys, slots, work.noted(), work.started_at
                )
                work.report.run = await begun
            if strategy is Strategy.BLOCKS:
                await self._by_blocks(work)
            else:
                await self._by_signatures(work)
            return work.report

    async def reference(self, reference: str, *, dry_run: bool) -> Report:
        """Everything that carries the reference of one payment, from its making until now.

        Raises:
            ReplayRefused: no payment has it; nobody keeps all of its history.
            SourceError, StoreUnavailable, Conflict: it ended early; asking again does no harm.
        """
        with at(Priority.REPLAY):
            records = await payments.by_references(self._database, [reference])
            if not records:
                raise ReplayRefused(f"no payment has the reference {reference}")
            terms = records[0].payment.terms
            finalized = await self._rpc.finalized_slot()
            work = Work(
                report=Report(
                    run=None,
                    strategy=Strategy.SIGNATURES,
                    slots=Slots(0, finalized),
                    keys=(reference,),
                    dry_run=dry_run,
                ),
                started_at=int(self._clock()),
            )
            self.report = work.report
            self._plan(work, calls=1)

            async def examine(rows: Sequence[SignatureRow]) -> None:
                await self._examine(work, _found(reference, rows))

            survey = await Surveyor(self._rpc, clock=self._clock).look(
                reference,
                None,
                finalized,
                examine,
                created_at=terms.created_at,
                is_reference=terms.watch_key is not None,
            )
            work.report.slots = survey.covered
            if survey.hole is not None:
                raise ReplayRefused(
                    f"what was kept is examined, but no endpoint keeps slots before "
                    f"{survey.covered.first}, and the payment is older"
                )
            if not dry_run:
                now = int(self._clock())
                moved = cursors.advance(survey.frontier)
                await self._database.write([moved, *coverage.add(reference, survey.covered, now)])
                await self._covered(work, reference, survey.covered)
            return work.report

    async def signature(self, signature: str, *, dry_run: bool) -> Report:
        """One transaction.

        Raises:
            ReplayRefused: it is not on the chain, not final, or cannot be read.
        """
        with at(Priority.REPLAY):
            [read] = await self._pipeline.read([Found(signature=signature)])
            [preview] = await previews(self._database, [read])
            if preview.outcome is Outcome.UNREADABLE:
                raise ReplayRefused(f"{signature}: {preview.detail} ({preview.reasons[0]})")
            if preview.slot is None:
                raise InvariantError(f"{signature} was read, in no slot")
            if not dry_run:
                await self._pipeline.keep([read], park=False)
            report = Report(
                run=None,
                strategy=Strategy.SIGNATURES,
                slots=Slots(preview.slot, preview.slot),
                keys=(),
                dry_run=dry_run,
                named=[preview],
            )
            report.tally.note([preview])
            self.report = report
            return report

    # ----------------------------------------------------------------------- before it begins

    async def _check(self, slots: Slots) -> None:
        """Refuses what is not final yet, and what nobody keeps any more."""
        finalized = await self._rpc.finalized_slot(at_least=slots.last)
        if slots.last > finalized:
            raise ReplayRefused(
                f"slot {slots.last} is not final: the last final slot is {finalized} now"
            )
        choice = await self._reach.choose(slot=slots.first)
        if not choice.reaches:
            raise ReplayRefused(
                f"slot {slots.first} is pruned: the endpoints keep nothing before slot "
                f"{choice.first_slot}; begin there, or add an endpoint that keeps more"
            )

    async def _resumed(self, strategy: Strategy, slots: Slots) -> Run | None:
        unfinished = await replays.unfinished(self._database, strategy, slots)
        return next(iter(unfinished), None)

    async def _foreign(self) -> list[str]:
        now = int(self._clock())
        foreign = await watching.foreign(self._database, now=now, limit=FOREIGN_MAX + 1)
        if len(foreign) > FOREIGN_MAX:
            raise ReplayRefused(
                f"more than {FOREIGN_MAX} open payments have references that were made elsewhere"
            )
        return foreign

    async def _keys(self, foreign: Sequence[str]) -> tuple[str, ...]:
        watched = await watching.watch_keys(self._database, now=int(self._clock()))
        return tuple(sorted({*watched, *foreign}))

    def _plan(self, work: Work, *, calls: int, references: int = 0) -> None:
        report = work.report
        self._on_plan(
            Plan(
                run=report.run,
                strategy=report.strategy,
                slots=report.slots,
                from_slot=work.from_slot,
                keys=report.keys,
                references=references,
                calls=calls,
            )
        )

    # -------------------------------------------------------------------------- by signatures

    async def _by_signatures(self, work: Work) -> None:
        report = work.report
        slots, width = report.slots, len(report.slots)
        self._plan(work, calls=len(report.keys))
        times = await self._claims.times(slots)
        for index, key in enumerate(report.keys):
            if index < work.keys_done:
                continue
            async for rows in self._listed(key, slots.first, work.left_to):
                await self._examine(work, _found(key, rows))
                if rows and self._rpc.quorum == 1:
                    # Older rows of the oldest slot may come with the next chunk.
                    work.left_to = min(work.left_to, rows[0].slot)
                    await self._record(work, [], None)
                done = index * width + slots.last - work.left_to
                report.tally.slots = done // len(report.keys)
                self._on_progress(report.tally)
            work.keys_done, work.left_to = index + 1, slots.last
            batch = await self._claims.of(
                key, slots, times, foreign=work.foreign, looked_for_before=None
            )
            await self._record(work, batch, None)
        report.tally.slots = width
        await self._finish(work)

    async def _listed(
        self, key: str, first_slot: int, last_slot: int
    ) -> AsyncIterator[list[SignatureRow]]:
        choice = await self._reach.choose(slot=first_slot)
        rows = history(
            self._rpc,
            key,
            first_slot=first_slot,
            last_slot=last_slot,
            endpoints=choice.endpoints,
        )
        async for chunk in rows:
            yield chunk
        await self._check(Slots(first_slot, last_slot))  # nodes forget while they are read

    # ------------------------------------------------------------------------------ by blocks

    async def _by_blocks(self, work: Work) -> None:
        report = work.report
        slots, tally = report.slots, report.tally
        times = await self._claims.times(slots)
        watched = await self._watched(work, times)
        chunks = list(range(work.from_slot, slots.last + 1, CHUNK_SLOTS))
        left = slots.last - work.from_slot + 1
        self._plan(work, calls=left + len(chunks), references=len(watched) - len(report.keys))
        reader = Blocks(self._rpc, watched, concurrency=self._concurrency)
        for first in chunks:
            chunk = Slots(first, min(first + CHUNK_SLOTS - 1, slots.last))
            blocks = await reader.read(chunk)
            found = [Found(signature=s, slot=block.slot) for block in blocks for s in block.named]
            await self._examine(work, found)
            tally.slots += len(chunk)
            tally.blocks += len(blocks)
            tally.transactions += sum(block.transactions for block in blocks)
            await self._record(work, [], chunk.last)
            self._on_progress(tally)
        batch = []
        for key in report.keys:
            batch += await self._claims.of(
                key, slots, times, foreign=work.foreign, looked_for_before=work.started_at
            )
        await self._finish(work, batch)

    async def _watched(self, work: Work, times: Times) -> frozenset[str]:
        """The keys, and every reference for which money may have come in these slots.

        Also those of payments that are settled or canceled by now: what is stored must not
        decide what is found.
        """
        watched = set(work.report.keys)
        is_all = work.report.slots.first == 0 or times.first is None
        later = REGISTERED_LATER_S
        pages = watching.references_alive(
            self._database,
            created_to=2**53 if times.last is None else times.last + later,
            grace_from=0 if is_all or times.first is None else times.first - CLOCKS_DIFFER_S,
            page_size=REFERENCES_PAGE,
        )
        async for page in pages:
            watched.update(page)
            if len(watched) > REFERENCES_MAX:
                raise ReplayRefused(
                    f"more than {REFERENCES_MAX} payments may have been paid in these slots: "
                    "replay fewer slots at a time"
                )
        return frozenset(watched)

    # ------------------------------------------------------------------ examining and recording

    async def _examine(self, work: Work, found: Sequence[Found]) -> None:
        """Judges, and unless it is a dry run stores, what was not examined before."""

        async def examine(batch: Sequence[Found]) -> None:
            outcomes = await self._pipeline.read(batch)
            seen = await previews(self._database, outcomes)
            if not work.report.dry_run:
                await self._pipeline.keep(outcomes)
            work.note(seen)

        await in_batches([each for each in found if work.is_new(each.signature)], examine)

    async def _record(self, work: Work, batch: Sequence[Statement], done_to: int | None) -> None:
        """Writes how far the run is, with what follows from it."""
        run = work.report.run
        if run is not None:
            now = int(self._clock())
            await self._database.write([*batch, replays.progress(run, done_to, work.noted(), now)])
            work.report.done_to = done_to

    async def _finish(self, work: Work, batch: Sequence[Statement] = ()) -> None:
        """Records that all is done, and lets expire what is complete by it."""
        report = work.report
        work.order()
        if report.run is None:
            return
        now = int(self._clock())
        end = replays.finish(report.run, report.slots.last, work.noted(), now)
        await self._database.write([*batch, end])
        report.done_to = report.slots.last
        for key in report.keys:
            await self._covered(work, key, report.slots)
            await self._expiry.expire(key)
        log.info("replay.finished", run=report.run, examined=report.tally.examined)

    async def _covered(self, work: Work, key: str, slots: Slots) -> None:
        """Says what is covered now, and where the frontier stands."""
        work.report.coverage[key] = slots
        if (frontier := await cursors.get(self._database, key)) is not None:
            work.report.frontiers[key] = frontier.slot


def _found(key: str, rows: Sequence[SignatureRow]) -> list[Found]:
    """What succeeded; a failed transaction moved nothing."""
    return [Found.listed(row, key) for row in rows if not row.failed]
