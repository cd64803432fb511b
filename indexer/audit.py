"""The audit: every payment reckoned anew from the chain alone, and compared with the store.

For each payment everything finalized that names its reference is listed, fetched, proven and
judged as ever, and folded (see `hearing`). Then verdicts, legs, state, events and the sums of
money are compared.

It runs beside a daemon that goes on writing. So a difference is one only when the store says the
same again after a pause, and what the store has not come to yet is told apart from what it
passed over. Where the chain side does not answer, nothing is concluded, and that is said.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from indexer.core.books import Books
from indexer.core.chronicle import differing_log
from indexer.core.ranges import Slots
from indexer.core.reckoning import Difference, Said, differing_state, differing_verdicts, expected
from indexer.core.settle import fold
from indexer.core.types import Reason, Status
from indexer.core.verdict import Verdict
from indexer.hearing import Heard, Hearing, Moved
from indexer.pipeline import Pipeline
from indexer.sources.priority import Priority, at
from indexer.sources.rpc import Rpc
from store import audit
from store.audit import Snapshot
from store.database import Database


#: Payments that are reckoned together.
PAYMENTS_AT_ONCE: Final = 50
#: How often a difference must be seen before it is one, and seconds between two looks.
LOOKS: Final = 3
LOOK_PAUSE_S: Final = 1.0

#: Called with how many payments are done, and how many there are.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something that is no difference and that one should know.

    Attributes:
        where: signature, or empty.
    """

    payment_id: str
    where: str = ""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A credit that no machine settles on: it waits for a person, or a person decided it."""

    payment_id: str
    symbol: str
    decimals: int
    verdict: Verdict


@dataclass(slots=True, kw_only=True)
class Report:
    """What an audit came to.

    Attributes:
        since: payments created from then on were looked at, unix seconds.
        finalized_slot: the chain was read up to there, at least.
        payments: how many were compared.
        transactions: how many transactions concern them.
        differences: the drift. Empty: there is none.
        behind: what the store has not come to yet.
        unproven: of what nothing could be said.
        doubtful: credits with a doubt, in no sum of the books.
        books: the sums of all others.
    """

    since: int
    finalized_slot: int = 0
    payments: int = 0
    transactions: int = 0
    differences: list[Difference] = field(default_factory=list)
    behind: list[Remark] = field(default_factory=list)
    unproven: list[Remark] = field(default_factory=list)
    doubtful: list[Doubt] = field(default_factory=list)
    books: Books = field(default_factory=Books)

    @property
    def is_clean(self) -> bool:
        """Everything was compared, and nothing differs."""
        return not self.differences and not self.unproven


@dataclass(slots=True)
class _Opinion:
    """What one look at one payment came to."""

    differences: list[Difference] = field(default_factory=list)
    behind: list[Remark] = field(default_factory=list)
    unproven: list[Remark] = field(default_factory=list)
    doubtful: list[Doubt] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)


class Audit:
    """One run over the payments of a store."""

    def __init__(
        self,
        database: Database,
        rpc: Rpc,
        report: Report,
        *,
        clock: Callable[[], float],
        progress: Progress = lambda _done, _all: None,
    ) -> None:
        """Nothing is read before `run`.

        Args:
            database: is only read.
            rpc: open.
            report: names the period, and is filled; also where `run` raises.
            clock: unix seconds.
            progress: told after every few payments.
        """
        self._database = database
        self._rpc = rpc
        self._report = report
        self._clock = clock
        self._progress = progress
        pipeline = Pipeline(database, rpc, clock=clock, wake=lambda: None)
        self._hearing = Hearing(database, rpc, pipeline, since=report.since)

    async def run(self) -> None:
        """Looks at every payment of the period.

        Raises:
            SourceError: the chain side does not answer: nothing more can be said.
            StoreUnavailable: the store does not.
        """
        report, until = self._report, int(self._clock())
        with at(Priority.REPLAY):
            total = await audit.count(self._database, report.since, until)
            self._progress(0, total)
            after = audit.OLDEST
            while page := await audit.page(
                self._database, report.since, until, after=after, limit=PAYMENTS_AT_ONCE
            ):
                await self._compare([id_ for _, id_ in page])
                report.payments += len(page)
                after = page[-1]
                self._progress(report.payments, max(total, report.payments))
        report.differences += await self._log()

    async def _compare(self, ids: Sequence[str]) -> None:
        """Looks at some payments, and again at those that differ, until it is sure."""
        for looks_left in reversed(range(LOOKS)):
            opinions = await self._look(ids)
            again = [id_ for id_ in ids if opinions[id_].differences and looks_left]
            for id_ in ids:
                if id_ not in again:
                    self._enter(opinions[id_])
            if not again:
                return
            ids = again
            await asyncio.sleep(LOOK_PAUSE_S)

    async def _look(self, ids: Collection[str]) -> dict[str, _Opinion]:
        # The store first: what it knows by then, the chain knew before.
        snapshot = await audit.snapshot(self._database, ids)
        finalized = await self._rpc.finalized_slot()
        time = await self._rpc.block_time(finalized)
        heard, moved = await self._hearing.hear(snapshot, finalized)
        self._report.finalized_slot = max(self._report.finalized_slot, finalized)
        opinions = {id_: _opinion(each, snapshot, time) for id_, each in heard.items()}
        for each in moved:
            opinions[each.owner].moved.append(each)
            opinions[each.owner].differences += Books().enter(each.transaction, each.credits)
        return opinions

    def _enter(self, opinion: _Opinion) -> None:
        report = self._report
        report.differences += opinion.differences
        report.behind += opinion.behind
        report.unproven += opinion.unproven
        report.doubtful += opinion.doubtful
        report.transactions += len(opinion.moved)
        for each in opinion.moved:
            report.books.enter(each.transaction, each.credits)  # what differs was said already

    async def _log(self) -> list[Difference]:
        """The numbers of the event log: none is missing, in the middle or at the end."""
        return [
            Difference(payment_id="", what="event", where=_in_a_row(numbers), chain="an event")
            for numbers in await audit.missing_events(self._database)
        ]


def _in_a_row(numbers: Slots) -> str:
    return f"{numbers.first}" if len(numbers) == 1 else f"{numbers.first} to {numbers.last}"


def _opinion(heard: Heard, snapshot: Snapshot, time: int | None) -> _Opinion:
    """Everything about one payment, compared."""
    record, terms, said = heard.record, heard.terms, heard.said(time)
    opinion = _Opinion()
    opinion.differences += differing_verdicts(terms.id, heard.stored, said)
    entries = snapshot.entries.get(terms.id, ())
    decided = bool(record.decisions)
    opinion.differences += differing_log(record.payment, entries, decided=decided)
    opinion.behind += [
        Remark(payment_id=terms.id, where=signature, why=why)
        for signature, why in sorted(said.excused.items())
        if Reason.FAILED_TRANSACTION not in said.verdicts[signature].reasons
    ]
    opinion.unproven += [
        Remark(payment_id=terms.id, where=signature, why=why)
        for signature, why in sorted(said.unread.items())
    ]
    if heard.unproven is not None:
        opinion.unproven.append(Remark(payment_id=terms.id, why=heard.unproven))
    if not opinion.unproven:
        _compare_state(heard, said, opinion)
    opinion.doubtful += [
        Doubt(
            payment_id=terms.id,
            symbol=terms.asset.symbol,
            decimals=terms.asset.decimals,
            verdict=verdict,
        )
        for verdict in record.verdicts
        if verdict.credit and (not verdict.clean or Reason.MATCHED in verdict.reasons)
    ]
    return opinion


def _compare_state(heard: Heard, said: Said, opinion: _Opinion) -> None:
    """The state that the chain's verdicts add up to, beside the one that is stored."""
    record, terms, state = heard.record, heard.terms, heard.record.payment.state
    verdicts = [each for name, each in said.verdicts.items() if name not in said.excused]
    fold_to = partial(
        fold,
        terms,
        verdicts,
        sighted=bool(record.sightings),
        canceled_at=state.canceled_at,
        accepted=record.accepted,
        refused=record.refused,
    )
    complete_to = None
    if state.status is Status.EXPIRED:
        # It could expire if the chain has come so far; what was complete once stays complete.
        complete_to = terms.expires_at + 1 if said.time is None else said.time
    true = expected(state.status, fold_to(frontier_time=complete_to))
    differences = list(differing_state(terms.id, state, true))
    opinion.differences += differences
    if differences or state.status is Status.EXPIRED:
        return
    if fold_to(frontier_time=said.time).status is Status.EXPIRED:
        opinion.behind.append(Remark(payment_id=terms.id, why="it has not been expired yet"))
