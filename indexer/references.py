"""The net under the watch key: asks for every payment by its own reference, now and then.

Some wallets leave out the second reference of a URL, and then neither the subscription to the
watch key nor its sweep sees the transfer. The payment's own reference finds it: soon after its
creation, then less and less often, at once when somebody asks for the payment, and once more,
completely, before it may expire. `reference_checks` in the store says who is due; a payment has
a row there as long as money for it may count.

A check is a complete look at one reference, with a frontier of its own, which the expiry of the
payment waits for (see `expiry`).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import structlog

from indexer.batches import in_batches
from indexer.errors import Conflict, SourceError, StoreUnavailable
from indexer.pipeline import Found, Pipeline
from indexer.sources.priority import Priority, at
from indexer.sources.rpc import Rpc, SignatureRow
from indexer.survey import Surveyor
from indexer.tenure import Everything, Share
from store import coverage, cursors, dead_letters, reference_checks, watching
from store.database import Database, Statement
from store.reference_checks import Due


log = structlog.get_logger(__name__)

#: Seconds between two looks for payments that are due, and after a failure of the store or of
#: all endpoints.
INTERVAL_S: Final = 1.0
PAUSE_S: Final = 2.0
#: Payments that are checked in one round, and how many of them at once.
CHECKS_PER_ROUND: Final = 200
CHECKS_AT_ONCE: Final = 8
#: Seconds until a payment whose check failed is tried again; the others go on meanwhile.
FAILED_PAUSE_S: Final = 20.0
#: Payments that wait so at once; with as many as that, something is wrong with all of them.
FAILED_MAX: Final = 1_000

#: Seconds between two checks of a payment: an eighth of its age, within these bounds.
CHECK_EVERY_S_MIN: Final = 10
CHECK_EVERY_S_MAX: Final = 3_600
AGE_SHARE: Final = 8


def next_check_at(created_at: int, now: int) -> int:
    """When a payment that was checked now is due again. All are unix seconds."""
    pause_s = (now - created_at) // AGE_SHARE
    return now + min(max(pause_s, CHECK_EVERY_S_MIN), CHECK_EVERY_S_MAX)


class References:
    """The checks of all payments' own references.

    Attributes:
        problem: which checks fail, in words for ops; None while none does.
        checks: how many were complete since the start.
        found_alone: how many transactions only a check found: the watch key's frontier had
            passed them, and they were not stored.
    """

    def __init__(
        self,
        database: Database,
        rpc: Rpc,
        pipeline: Pipeline,
        *,
        clock: Callable[[], float],
        surveyor: Surveyor | None = None,
        share: Share | None = None,
    ) -> None:
        self._database = database
        self._share = share or Everything()
        self._rpc = rpc
        self._pipeline = pipeline
        self._clock = clock
        self._surveyor = surveyor or Surveyor(rpc, clock=clock)
        self._resting: dict[str, float] = {}
        self.problem: str | None = None
        self.checks = 0
        self.found_alone = 0

    async def run(self) -> NoReturn:
        """Checks what is due, for ever."""
        with at(Priority.SWEEP):
            while True:
                try:
                    is_more = await self.check_due()
                except (SourceError, StoreUnavailable, Conflict) as error:
                    self._failed(str(error))
                    await asyncio.sleep(PAUSE_S)
                    continue
                if not is_more:
                    await asyncio.sleep(INTERVAL_S)

    async def check_due(self) -> bool:
        """One check of each payment that is due, up to a bound; whether more are waiting.

        Raises:
            StoreUnavailable: nobody can be checked.
            SourceError: no endpoint can be asked now.
        """
        due = await self._due()
        failures: list[Exception] = []
        turn = asyncio.Semaphore(CHECKS_AT_ONCE)

        async def check(each: Due) -> None:
            async with turn:
                if failures and self._rpc.problem is not None:
                    return  # nobody can be asked: the round is over
                try:
                    await self.check(each)
                except (SourceError, StoreUnavailable, Conflict) as error:
                    failures.append(error)
                    self._rest(each.payment_id)

        async with asyncio.TaskGroup() as group:
            for each in due:
                group.create_task(check(each), name="check-reference")
        for error in failures:
            if self._rpc.problem is not None or isinstance(error, StoreUnavailable):
                # It is not their fault: none of them has to wait for it.
                self._resting = {}
                raise error
        if failures:
            self._failed(f"{len(failures)} of {len(due)} references: {failures[0]}")
        elif not self._resting:
            self.problem = None
        return len(due) == CHECKS_PER_ROUND

    async def check(self, due: Due) -> None:
        """Examines everything finalized that carries one payment's reference.

        Raises:
            SourceError: there was no complete answer; the reference's frontier has not moved.
        """
        key = due.reference
        known = await cursors.get(self._database, key)
        finalized = await self._surveyor.finalized_after(known)
        if known is not None and finalized <= known.slot:
            await self._database.write([self._next(due, known.block_time)])
            return

        async def examine(rows: Sequence[SignatureRow]) -> None:
            await self._examine(due, rows)

        survey = await self._surveyor.look(
            key, known, finalized, examine, created_at=due.created_at, is_reference=True
        )
        await self._database.write(
            [
                cursors.advance(survey.frontier),
                *coverage.add(key, survey.covered, int(self._clock())),
                self._next(due, survey.frontier.block_time),
            ]
        )
        self.checks += 1

    def _next(self, due: Due, complete_to: int) -> Statement:
        """No more once the grace time is over, by the block time that this one is complete to.

        And a little longer, for what is listed late.
        """
        if complete_to > due.expires_at + due.grace_s + watching.LISTED_LATE_S:
            return reference_checks.end(due.payment_id)
        now = int(self._clock())
        return reference_checks.again_at(due.payment_id, next_check_at(due.created_at, now))

    async def _examine(self, due: Due, rows: Sequence[SignatureRow]) -> None:
        """What is not stored yet: neither judged for this payment, nor parked and tried anyway.

        For this payment nothing could change. Another one that the same transaction pays has a
        reference, and checks, of its own.
        """
        # In this order: what the frontier had passed and is not stored then, it has missed.
        passed = await cursors.get(self._database, due.watch_key)
        judged = await watching.judged(self._database, due.payment_id)
        new = [row for row in rows if not row.failed and row.signature not in judged]
        if not new:
            return
        parked = await dead_letters.reasons(self._database, {row.signature for row in new})
        wanted = [row for row in new if row.signature not in parked]

        async def settle(batch: Sequence[SignatureRow]) -> None:
            found = [Found.listed(row, due.reference) for row in batch]
            unread = {each.found.signature for each in await self._pipeline.settle(found)}
            for row in batch:
                if passed is None or row.slot > passed.slot or row.signature in unread:
                    continue
                self.found_alone += 1
                log.info(
                    "reference.found_alone", payment_id=due.payment_id, signature=row.signature
                )

        await in_batches(wanted, settle)

    # ------------------------------------------------------------------------------- failures

    async def _due(self) -> list[Due]:
        """Who is due, without those that failed a moment ago."""
        time = asyncio.get_running_loop().time()
        self._resting = {id_: until for id_, until in self._resting.items() if until > time}
        limit = CHECKS_PER_ROUND + len(self._resting)
        shards = self._share.shards()
        due = await reference_checks.due(self._database, int(self._clock()), limit, shards)
        return [each for each in due if each.payment_id not in self._resting][:CHECKS_PER_ROUND]

    def _rest(self, payment_id: str) -> None:
        if len(self._resting) < FAILED_MAX:
            until = asyncio.get_running_loop().time() + FAILED_PAUSE_S
            self._resting[payment_id] = until

    def _failed(self, problem: str) -> None:
        if self.problem != problem:
            log.warning("references.failed", error=problem)
        self.problem = problem
