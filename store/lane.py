"""A bounded queue between the event loop and the threads that do the blocking work.

A batch goes to a thread and comes back in one hop, whatever the number of its statements. Who
waits for a batch and is cancelled leaves; the batch goes on and is done wholly or not at all.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from indexer.errors import StoreUnavailable
from store.connection import Rows, Statement


#: Seconds that a batch waits for a place in the queue.
ROOM_WAIT_S: Final = 10.0
#: Seconds that closing waits for the threads to finish what is queued.
CLOSE_WAIT_S: Final = 30.0

#: What became of a batch: its rows, or why not.
Outcome = list[Rows] | Exception


@dataclass(slots=True)
class Job:
    """A batch on its way, and who waits for it."""

    batch: Sequence[Statement]
    future: asyncio.Future[list[Rows]]


class Lane:
    """Carries batches from the loop it was made in to its threads, and outcomes back."""

    def __init__(self, *, waiting_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(waiting_max)
        self._waiting_max = waiting_max
        self._queue: SimpleQueue[Job | None] = SimpleQueue()  # None: no more will come
        self._threads: list[Thread] = []
        self._closing = False

    # ---------------------------------------------------------------------- called in the loop

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Starts a thread that takes from this lane until there is no more."""
        # A daemon thread does not keep alive a process that failed before it could close.
        thread = Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    async def submit(self, batch: Sequence[Statement]) -> list[Rows]:
        """What the batch brought, once it is done.

        Raises:
            StoreUnavailable: closed, no room for `ROOM_WAIT_S` seconds, or see `wrapped`.
        """
        self._refuse_if_closing()
        if self._room.locked():
            await self._wait_for_room()
        else:
            await self._room.acquire()
        future: asyncio.Future[list[Rows]] = self._loop.create_future()
        self._queue.put(Job(tuple(batch), future))
        return await future

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(ROOM_WAIT_S):
                await self._room.acquire()
        except TimeoutError:
            message = f"{self._waiting_max} batches have waited for {ROOM_WAIT_S:g} s"
            raise StoreUnavailable(message) from None
        try:
            self._refuse_if_closing()
        except StoreUnavailable:
            self._room.release()
            raise

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise StoreUnavailable("the database is closed")

    async def close(self) -> None:
        """Lets the threads finish what is queued, and waits for them."""
        if not self._closing:
            self._closing = True
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, CLOSE_WAIT_S)

    # ------------------------------------------------------------------- called in the threads

    def take(self, *, batches_max: int = 1, statements_max: int = 1) -> list[Job]:
        """Everything that waits, up to the limits; waits for the first. Empty: no more comes."""
        job = self._queue.get()
        jobs: list[Job] = []
        statements = 0
        while job is not None:
            jobs.append(job)
            statements += len(job.batch)
            if len(jobs) >= batches_max or statements >= statements_max:
                return jobs
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs
        if jobs:
            self._queue.put(None)  # seen too early: work first, then see it again
        return jobs

    def deliver(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """Hands the outcomes to those who wait, all in one visit to the loop."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, jobs, outcomes)

    def _settle(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._room.release()
            if job.future.done():  # cancelled
                continue
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)
