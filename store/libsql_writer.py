"""The one writer of a process to a libSQL server: what waits is sent as one group.

There is never more than one write under way: parallel writers slow such a server down and can
bring it to a standstill, and one group of many batches is faster than any number of them.

An answer may be lost on the way back. The batches were applied then, or not, or will be in a
moment, when the request arrives late. So each batch brings a row of `writes` with a number of its
own. Where an answer is lost, the writer takes away the numbers that are not there:

    row there, `applied`     the batch was applied; what it returned is lost
    row missing              put there as `abandoned`: from now on the batch is refused by its
                             key whenever it arrives, and may be sent once more, as another
    no answer to that either   the batch is unknown to its caller, and taken away before the next
"""

import asyncio
import re
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from indexer.errors import InvariantError, StoreError, StoreUnavailable
from store.connection import Rows, Statement
from store.hrana import Outcome, Unreadable, WriteRequest, refuse_unsendable
from store.lane import CLOSE_WAIT_S, ROOM_WAIT_S, Job
from store.libsql import Lost, NotSent, Server
from store.queries import QUERIES


log = structlog.get_logger(__name__)

#: Batches that may wait or be under way.
WAITING_MAX: Final = 2_000
#: What one group takes at most: it keeps all others from writing as long as it runs.
GROUP_BATCHES_MAX: Final = 100
GROUP_STATEMENTS_MAX: Final = 2_000
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024

#: How often a group is sent to a server that says that it is busy, and the seconds in between.
BUSY_TRIES: Final = 5
BUSY_PAUSE_S: Final = 0.05

#: Seconds for one request.
WRITE_TIMEOUT_S: Final = 5.0
#: Seconds in all after which nobody tries any more to learn what became of a group.
RESOLVE_S: Final = 5.0
#: Seconds between two tries.
RESOLVE_PAUSE_S: Final = 0.2
#: Seconds between two times that old rows of `writes` are deleted, whoever left them.
TIDY_INTERVAL_S: Final = 600.0

#: Numbers that are kept because nobody knows what became of them.
UNRESOLVED_MAX: Final = 1_000

_RETURNS: Final = re.compile(r"\bRETURNING\b|\A\s*(SELECT|WITH)\b", re.IGNORECASE)
#: Before the migration that makes them.
_NO_TABLE: Final = re.compile("no such table: (writes|revision)")


class LibsqlWriter:
    """Writes batches, each all or nothing, many to a request.

    Attributes:
        group_size: of the last group, in batches.
        groups: that were sent, since the start.
        batches: what was in them.
        answers_lost: requests that were sent and not answered, since the start.
        revision: of the database after the last write; None before it.
    """

    def __init__(self, server: Server) -> None:
        self.group_size = self.groups = self.batches = 0
        self.answers_lost = 0
        self.revision: int | None = None
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._name = secrets.token_hex(8)
        self._number = 0
        self._unresolved: list[int] = []
        self._tidied_at = self._loop.time()
        self._room = asyncio.Semaphore(WAITING_MAX)
        self._queue: asyncio.Queue[Job | None] = asyncio.Queue()  # None: no more will come
        self._put_back: Job | None = None
        self._closing = False
        self._task = asyncio.create_task(self._work(), name="store-writer")

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        """The rows that each statement returned, once the server has committed it.

        Raises:
            Conflict: a constraint did not hold; nothing of the batch was written.
            StoreUnavailable: busy, out of reach, closed; whether it was written is unknown.
            StoreBroken: the database is damaged.
            InvariantError: a statement or a parameter is none that there can be.
        """
        self._refuse_if_closing()
        refuse_unsendable(batch)
        try:
            async with asyncio.timeout(ROOM_WAIT_S):
                await self._room.acquire()
        except TimeoutError:
            message = f"{WAITING_MAX} batches have waited for {ROOM_WAIT_S:g} s"
            raise StoreUnavailable(message) from None
        future: asyncio.Future[list[Rows]] = self._loop.create_future()
        try:
            self._refuse_if_closing()
            self._queue.put_nowait(Job(tuple(batch), future))
        except BaseException:
            self._room.release()
            raise
        return await future

    async def close(self) -> None:
        """Writes what waits, for a while, and closes the connections."""
        if not self._closing:
            self._closing = True
            self._queue.put_nowait(None)
        await asyncio.wait({self._task}, timeout=CLOSE_WAIT_S)
        self._task.cancel()
        await asyncio.wait({self._task})
        left = [self._put_back]
        while not self._queue.empty():
            left.append(self._queue.get_nowait())
        for job in filter(None, left):
            self._settle([job], [StoreUnavailable("the database is closed")])
        await self._server.close()

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise StoreUnavailable("the database is closed")

    # ------------------------------------------------------------------------------- the groups

    async def _work(self) -> None:
        while jobs := await self._take():
            self.group_size = len(jobs)
            self.groups += 1
            self.batches += len(jobs)
            try:
                outcomes = await self._commit(jobs)
            except asyncio.CancelledError:
                closed = StoreUnavailable("the database was closed before an answer came")
                self._settle(jobs, [_of_group(closed) for _ in jobs])
                raise
            except Exception as error:  # noqa: BLE001 - the top of a task: it goes to all who wait
                outcomes = [_of_group(error) for _ in jobs]
            self._settle(jobs, outcomes)

    async def _take(self) -> list[Job]:
        """Everything that waits, up to the limits; waits for the first. Empty: no more comes."""
        job = self._put_back or await self._queue.get()
        self._put_back = None
        jobs: list[Job] = []
        statements = size = 0
        while job is not None:
            statements += len(job.batch)
            size += _bytes(job.batch)
            if jobs and (statements > GROUP_STATEMENTS_MAX or size > GROUP_BYTES_MAX):
                self._put_back = job
                return jobs
            jobs.append(job)
            if len(jobs) >= GROUP_BATCHES_MAX or self._queue.empty():
                return jobs
            job = self._queue.get_nowait()
        if jobs:
            self._queue.put_nowait(None)  # seen too early: work first, then see it again
        return jobs

    def _settle(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._room.release()
            if job.future.done():  # cancelled
                continue
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    async def _commit(
        self, jobs: Sequence[Job], *, again: bool = True, tries: int = BUSY_TRIES
    ) -> list[Outcome]:
        batches = [job.batch for job in jobs]
        numbers = [self._next_number() for _ in jobs]
        request = WriteRequest(
            [(self._mark(n), *batch) for n, batch in zip(numbers, batches, strict=True)],
            before=self._tidying(numbers[0]),
        )
        try:
            outcomes = await self._send(request)
        except Lost as error:
            self.answers_lost += 1
            log.warning("store.answer_lost", error=str(error), batches=len(jobs))
            return await self._resolved(jobs, numbers, error, again=again)
        except NotSent:
            raise
        except StoreUnavailable:
            # The server says so itself: nothing was applied. Another process has its turn.
            if tries <= 1:
                raise
            await asyncio.sleep(BUSY_PAUSE_S)
            return await self._commit(jobs, again=again, tries=tries - 1)
        except InvariantError as error:
            if not _NO_TABLE.search(str(error)):
                raise
            # Nothing of the group was applied.
            return await self._send(WriteRequest(batches))
        self._unresolved.clear()  # taken away before the group
        return [each if isinstance(each, Exception) else each[1:] for each in outcomes]

    async def _send(self, request: WriteRequest) -> list[Outcome]:
        raw = await self._server.post(request.body(), timeout_s=WRITE_TIMEOUT_S)
        try:
            outcomes, before = request.outcomes(raw)
        except Unreadable as error:
            raise Lost(f"{self._server.name} answered, but {error}") from error
        if before:
            [[self.revision]] = before[0]
        return outcomes

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _mark(self, number: int) -> Statement:
        return Statement(QUERIES["write_mark"], (self._name, number))

    def _tidying(self, next_number: int) -> list[Statement]:
        """What goes before a group: rows that have served, and numbers that are taken away."""
        statements = [Statement(QUERIES["revision_count"])]
        statements.append(Statement(QUERIES["writes_forget"], (self._name, next_number)))
        if self._unresolved:
            statements.append(self._abandon(self._unresolved))
        if self._loop.time() - self._tidied_at > TIDY_INTERVAL_S:
            self._tidied_at = self._loop.time()
            statements.append(Statement(QUERIES["writes_prune"]))
        return statements

    def _abandon(self, numbers: Sequence[int]) -> Statement:
        values = (self._name, msgspec.json.encode(numbers).decode())
        return Statement(QUERIES["writes_abandon"], values)

    # -------------------------------------------------------------------------- lost answers

    async def _resolved(
        self, jobs: Sequence[Job], numbers: Sequence[int], lost: Lost, *, again: bool
    ) -> list[Outcome]:
        """What became of a group whose answer was lost."""
        applied = await self._applied(numbers)
        if applied is None:
            self._unresolved = [*self._unresolved, *numbers][-UNRESOLVED_MAX:]
            return [_of_group(lost) for _ in jobs]
        log.info("store.answer_resolved", batches=len(jobs), applied=len(applied))
        outcomes: dict[int, Outcome] = {}
        left = []
        for job, number in zip(jobs, numbers, strict=True):
            if number in applied:
                outcomes[number] = _of_applied(job)
            else:
                left.append((job, number))
        if left:
            found = await self._once_more([job for job, _ in left], again=again)
            outcomes |= dict(zip([number for _, number in left], found, strict=True))
        return [outcomes[number] for number in numbers]

    async def _once_more(self, jobs: Sequence[Job], *, again: bool) -> list[Outcome]:
        """Sends what is known not to have been applied, once."""
        if again:
            try:
                return await self._commit(jobs, again=False)
            except StoreError as error:
                return [_of_group(error) for _ in jobs]
        return [StoreUnavailable("the server does not answer; it was not written") for _ in jobs]

    async def _applied(self, numbers: Sequence[int]) -> frozenset[int] | None:
        """Which of them were applied, when the others cannot be any more; None: nobody can tell."""
        values = (self._name, msgspec.json.encode(numbers).decode())
        request = WriteRequest(
            [(self._abandon(numbers), Statement(QUERIES["writes_applied"], values))]
        )
        try:
            async with asyncio.timeout(RESOLVE_S):
                while True:
                    try:
                        [outcome] = await self._send(request)
                    except StoreUnavailable:
                        await asyncio.sleep(RESOLVE_PAUSE_S)
                        continue
                    if isinstance(outcome, Exception):
                        return None
                    return frozenset(number for (number,) in outcome[1])
        except TimeoutError:
            return None


def _bytes(batch: Sequence[Statement]) -> int:
    return sum(
        len(sql) + sum(len(each) if isinstance(each, str | bytes) else 8 for each in parameters)
        for sql, parameters in batch
    )


def _of_applied(job: Job) -> Outcome:
    if any(_RETURNS.search(sql) for sql, _ in job.batch):
        return StoreUnavailable("it was written, but what it returned was lost on the way: read it")
    return [[] for _ in job.batch]


def _of_group(error: Exception) -> Exception:
    """One error for each caller: none shares its traceback with another."""
    if isinstance(error, StoreUnavailable):
        wrapper: Exception = StoreUnavailable(str(error))
    elif isinstance(error, StoreError):
        wrapper = type(error)(str(error))
    else:
        wrapper = InvariantError(f"{type(error).__name__}: {error}")
    wrapper.__cause__ = error
    return wrapper
