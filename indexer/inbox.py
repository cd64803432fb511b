"""Processes webhooks that were stored: each one until it has an end, whatever happens meanwhile.

    waiting ──► handler of its source ──► done | ignored | refused
       ▲                │ not yet (the chain, the store, or the other side does not answer)
       └── a pause ◄────┴──────────────► failed: tried often enough, a person must look

An event stays `waiting` until its end is written, so a process that dies in between does it
again: a handler must not mind. Events begin in the order in which they came; several of a source
are under way at once, and each source has its own places, so that a slow event holds up neither
those behind it nor those of others. What a fault of ours ends is set aside as failed: nobody but
its sender chose what is in it, so it must not be able to end the daemon, now or at each start.

Wake-ups carry nothing. Another process may have stored the event, so the table is looked at
again soon, woken or not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, NoReturn

import structlog

from indexer.core.types import WebhookSource, WebhookVerdict
from indexer.errors import AxiomError, Conflict, SourceError, StoreError, StoreUnavailable
from indexer.tenure import Everything, Share
from store import webhook_events
from store.database import Database, Statement
from store.webhook_events import Outcome, WebhookEvent


log = structlog.get_logger(__name__)

#: Events of one source that are under way at once: most of the time they wait for the chain. And
#: the bytes of their bodies: one may have several megabytes, and is in memory for all that time.
AT_ONCE: Final = 32
BYTES_AT_ONCE_MAX: Final = 32 * 1024 * 1024
#: Events that are read together, and the bytes of their bodies; one of any size is read.
PAGE_SIZE: Final = 8
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
#: Seconds until the table is looked at again, if nobody wakes us.
POLL_INTERVAL_S: Final = 1.0
#: Seconds between two looks, however often we are woken: every commit does it.
BREATH_S: Final = 0.02
#: Seconds of pause when the store does not answer.
PAUSE_S: Final = 1.0
#: How often an event is tried, and the longest pause between two tries, in seconds: pauses
#: double from one second on, which makes about three minutes in all.
ATTEMPTS_MAX: Final = 9
RETRY_DELAY_S_MAX: Final = 60
#: The same for an event that waits for others (the acquirer, the nodes, the store) to answer at
#: all, which says nothing of the event: about a day in all.
HELD_UP_ATTEMPTS_MAX: Final = 150
HELD_UP_DELAY_S_MAX: Final = 600
#: From which attempt on an event that the chain side or the store holds up is told of; and how
#: many of them are remembered: with as many as that, something is wrong with all.
HELD_UP_ATTEMPTS: Final = 3
HELD_UP_MAX: Final = 1_000
#: Characters that are kept of the reason.
DETAIL_CHARS_MAX: Final = 500


class Later(AxiomError):
    """Nothing can be said of an event yet: try it again.

    Attributes:
        payment_ids: those that it turned out to be about, should it be given up.
    """

    def __init__(self, detail: str, *, payment_ids: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.payment_ids = payment_ids


_NOT_YET: Final = (Later, SourceError, StoreUnavailable, Conflict)

#: Says what became of an event. May be asked twice about the same one. Raises `Later`,
#: SourceError, StoreUnavailable or Conflict when it is to be asked again.
Handler = Callable[[WebhookEvent], Awaitable[Outcome]]
#: Returns after that many seconds, or earlier when something was stored.
Wait = Callable[[float], Awaitable[object]]


class Inbox:
    """Takes events that wait out of the store and has them handled."""

    def __init__(
        self,
        database: Database,
        handlers: Mapping[WebhookSource, Handler],
        *,
        clock: Callable[[], float],
        wait: Wait,
        share: Share | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            database: where events are.
            handlers: by source; events of a source that has none wait until it has one.
            clock: unix seconds.
            wait: `Wakeups.wait`.
            share: which shards are processed here; all when None.
        """
        self._database = database
        self._share = share or Everything()
        self._handlers = handlers
        self._clock = clock
        self._wait = wait
        self._store_problem: str | None = None
        self._held_up: dict[int, str] = {}

    @property
    def problem(self) -> str | None:
        """Why events are not processed now; None while they are.

        An event of which nothing is known yet is no problem: its sender may have made it up.
        """
        if self._store_problem is not None or not self._held_up:
            return self._store_problem
        last = next(reversed(self._held_up.values()))
        return f"webhooks that are held up: {len(self._held_up)}; the last one: {last}"

    async def run(self) -> None:
        """Processes for ever."""
        async with asyncio.TaskGroup() as group:
            for source, handler in self._handlers.items():
                group.create_task(self._serve(source, handler), name=f"inbox of {source}")

    # ---------------------------------------------------------------------------- one source

    async def _serve(self, source: WebhookSource, handler: Handler) -> NoReturn:
        room = _Room()

        async def process(event: WebhookEvent) -> None:
            try:
                await self._process(event, handler)
            finally:
                room.leave(event)

        async with asyncio.TaskGroup() as group:
            while True:
                # The wait begins before the look: what is stored in between ends it.
                stored = group.create_task(self._until_stored(), name="wait")
                due = await self._due(source, room.ids)
                for event in due:
                    await room.enter(event)
                    group.create_task(process(event), name=f"whe_{event.id}")
                if due:
                    stored.cancel()  # there may be more
                    continue
                await stored
                await asyncio.sleep(BREATH_S)

    async def _until_stored(self) -> None:
        await self._wait(POLL_INTERVAL_S)

    async def _due(self, source: WebhookSource, under_way: Collection[int]) -> list[WebhookEvent]:
        try:
            due = await webhook_events.waiting(
                self._database,
                source,
                self._now(),
                PAGE_SIZE,
                bytes_max=PAGE_BYTES_MAX,
                excluding=under_way,
                shards=self._share.shards(),
            )
        except StoreUnavailable as error:
            await self._store_fails(error)
            return []
        self._store_problem = None
        return due

    # ----------------------------------------------------------------------------- one event

    async def _process(self, event: WebhookEvent, handler: Handler) -> None:
        try:
            outcome = await handler(event)
        except _NOT_YET as error:
            await self._put_off(event, error)
        except StoreError:
            raise  # of a database that is damaged, or not ours: nobody goes on with it
        except Exception as error:
            log.exception("webhook.fault", event_id=event.id, source=event.source)
            detail = f"a fault of ours: {type(error).__name__}"
            await self._end(event, Outcome(verdict=WebhookVerdict.FAILED, detail=detail))
            self._hold_up(event, f"whe_{event.id}: {detail}")
        else:
            await self._end(event, outcome)

    async def _put_off(self, event: WebhookEvent, error: AxiomError) -> None:
        """Has the event tried again, or gives it up."""
        attempts, detail, now = event.attempts + 1, str(error)[:DETAIL_CHARS_MAX], self._now()
        most, longest_s = HELD_UP_ATTEMPTS_MAX, HELD_UP_DELAY_S_MAX
        if isinstance(error, Later):
            most, longest_s = ATTEMPTS_MAX, RETRY_DELAY_S_MAX
        if attempts >= most:
            ids = error.payment_ids if isinstance(error, Later) else ()
            words = f"given up after {attempts} attempts: {detail}"
            failed = Outcome(verdict=WebhookVerdict.FAILED, detail=words, payment_ids=ids)
            await self._end(event, failed)
            return
        if isinstance(error, Later):
            self._held_up.pop(event.id, None)
        elif attempts >= HELD_UP_ATTEMPTS:
            self._hold_up(event, detail)
        next_try_at = now + min(longest_s, 2 ** min(attempts - 1, 30))
        log.info("webhook.put_off", event_id=event.id, attempts=attempts, detail=detail)
        statement = webhook_events.again(
            event.id, attempts=attempts, next_try_at=next_try_at, detail=detail, now=now
        )
        await self._write([statement])

    def _hold_up(self, event: WebhookEvent, detail: str) -> None:
        """Has it told that an event is held up, until it comes to another end."""
        self._held_up.pop(event.id, None)
        if len(self._held_up) < HELD_UP_MAX:
            self._held_up[event.id] = detail

    async def _end(self, event: WebhookEvent, outcome: Outcome) -> None:
        self._held_up.pop(event.id, None)
        if await self._write(webhook_events.finish(event.id, outcome, self._now())):
            say = log.warning if outcome.verdict is WebhookVerdict.FAILED else log.info
            say(
                "webhook.processed",
                event_id=event.id,
                source=event.source,
                verdict=outcome.verdict,
                detail=outcome.detail,
                payments=len(outcome.payment_ids),
            )

    async def _write(self, batch: Sequence[Statement]) -> bool:
        """False when it could not be stored: the event is still due, and is done again."""
        try:
            await self._database.write(batch)
        except StoreUnavailable as error:
            await self._store_fails(error)
            return False
        return True

    async def _store_fails(self, error: StoreUnavailable) -> None:
        log.warning("inbox.store_failed", error=str(error))
        self._store_problem = str(error)
        await asyncio.sleep(PAUSE_S)

    def _now(self) -> int:
        return int(self._clock())


class _Room:
    """Where the events of one source are that are under way: only so many, and so many bytes."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self._bytes = 0
        self._has_left = asyncio.Event()

    async def enter(self, event: WebhookEvent) -> None:
        """Waits until there is room. An empty room takes an event of any size."""
        while self.ids and not self._has_room_for(event):
            self._has_left.clear()
            await self._has_left.wait()
        self.ids.add(event.id)
        self._bytes += event.body_bytes

    def leave(self, event: WebhookEvent) -> None:
        """Makes room for the next one."""
        self.ids.discard(event.id)
        self._bytes -= event.body_bytes
        self._has_left.set()

    def _has_room_for(self, event: WebhookEvent) -> bool:
        return len(self.ids) < AT_ONCE and self._bytes + event.body_bytes <= BYTES_AT_ONCE_MAX
