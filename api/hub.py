"""One reader of the event log for all streams of a process.

The hub reads what is new after its last sequence number, on a wake-up or when it is time, and
offers each event to the clients that follow its payment. An offer never waits: it is written
into the client's connection at once or not at all. A client that cannot take it (its buffer is
full, or it is still reading the past) is marked as behind; its own task then reads from the
database after the last event that it did send. So nothing is queued per client, however slow it
is, and nothing is lost or sent twice:

- an event the hub has offered was sent, or has marked the client as behind;
- an event the hub has not seen yet will be offered later;
- an event with a number that the client has already sent is passed over.

Sequence numbers order events as they were committed: SQLite lets one writer in at a time.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import msgspec
from starlette.types import Send

from api.limits import (
    STREAM_BURST,
    STREAM_CLIENTS_MAX,
    STREAM_ORDER_IDS_MAX,
    STREAM_PAGE_SIZE,
    STREAM_POLL_S,
)
from api.wakeups import Wakeups
from indexer.core.types import EventType, Status
from indexer.errors import StoreError
from indexer.log import get_logger
from store import events, everything
from store.database import Database
from store.events import StoredEvent


log = get_logger(__name__)

#: Nothing follows these that a customer who waits would want to know.
FINAL_STATUSES: Final = frozenset({Status.SETTLED, Status.CANCELED, Status.REFUNDED})
_FINAL_TYPES: Final = frozenset({EventType.SETTLED, EventType.CANCELED, EventType.REFUNDED})
#: These are final once the grace time is over: until then late money settles, and so does
#: another card after one that was declined.
LAPSED_STATUSES: Final = frozenset({Status.EXPIRED, Status.FAILED})
_LAPSED_TYPES: Final = frozenset({EventType.EXPIRED, EventType.FAILED})


class Follower:
    """One client of a stream, as the hub sees it.

    Attributes:
        payment_id: the payment that it follows; None for a merchant, who follows all.
        address: where it follows from.
        last_seq: the last event that was sent to it.
        final: the payment is final, by what was sent.
        lapsed: the payment expired or failed, by what was sent.
        live: the hub may write to it: everything before is sent.
        behind: an event was passed over; cleared by its own task before it reads.
        alarm: ends its task's wait; None while the task does not wait.
    """

    __slots__ = (
        "address",
        "alarm",
        "behind",
        "final",
        "lapsed",
        "last_seq",
        "live",
        "payment_id",
        "send",
    )

    def __init__(
        self,
        send: Send,
        payment_id: str | None,
        last_seq: int,
        status: Status,
        address: str = "",
    ) -> None:
        self.send = send
        self.address = address
        self.payment_id = payment_id
        self.last_seq = last_seq
        self.final = status in FINAL_STATUSES
        self.lapsed = status in LAPSED_STATUSES
        self.live = False
        self.behind = True
        self.alarm: asyncio.Timeout | None = None

    def offer(self, event: StoredEvent, frame: bytes) -> None:
        """Sends the event now, or marks the follower as behind. Never waits."""
        if event.seq <= self.last_seq:
            return
        if not self.live or not _send_at_once(self.send, frame):
            self.fall_behind()
            return
        self.note(event)
        if self.final:
            self.fall_behind()  # its task looks whether that was all, and closes

    def note(self, event: StoredEvent) -> None:
        """Remembers that the event was sent."""
        self.last_seq = event.seq
        if self.payment_id is not None:
            self.final = self.final or event.type in _FINAL_TYPES
            self.lapsed = self.lapsed or event.type in _LAPSED_TYPES

    def fall_behind(self) -> None:
        """Has the follower's own task read on, or see that the end has come."""
        self.live = False
        self.behind = True
        self.ring()

    def ring(self) -> None:
        """Ends the wait of the follower's task, if it waits."""
        if self.alarm is not None and not self.alarm.expired():
            self.alarm.reschedule(asyncio.get_running_loop().time())


class Hub:
    """Hands new events to all followers of this process.

    Attributes:
        closing: the server goes down: every stream ends.
    """

    def __init__(
        self,
        database: Database,
        wakeups: Wakeups,
        *,
        clients_max: int = STREAM_CLIENTS_MAX,
        per_address_max: int = STREAM_CLIENTS_MAX,
    ) -> None:
        """Prepares a hub.

        Args:
            database: what it reads.
            wakeups: woken when there is something to read.
            clients_max: followers at once.
            per_address_max: of these from one address.
        """
        self._database = database
        self._wakeups = wakeups
        self._clients_max = clients_max
        self._per_address_max = per_address_max
        self._of_address: Counter[str] = Counter()
        self._of_payment: dict[str, set[Follower]] = {}
        self._of_all: set[Follower] = set()
        self._count = 0
        self._order_ids: dict[str, str | None] = {}
        self.closing = False

    @property
    def count(self) -> int:
        """How many follow something now."""
        return self._count

    @property
    def full(self) -> bool:
        """There is no place for another follower."""
        return self._count >= self._clients_max

    def full_for(self, address: str) -> bool:
        """There is no place for another follower from there."""
        return self.full or self._of_address[address] >= self._per_address_max

    @contextmanager
    def following(self, follower: Follower) -> Iterator[None]:
        """Offers events to the follower until the block ends."""
        group = self._group(follower.payment_id)
        group.add(follower)
        self._count += 1
        self._of_address[follower.address] += 1
        try:
            yield
        finally:
            follower.live = False
            self._count -= 1
            self._of_address[follower.address] -= 1
            if not self._of_address[follower.address]:
                del self._of_address[follower.address]
            group.discard(follower)
            if not group and follower.payment_id is not None:
                self._of_payment.pop(follower.payment_id, None)

    def _group(self, payment_id: str | None) -> set[Follower]:
        return (
            self._of_all if payment_id is None else self._of_payment.setdefault(payment_id, set())
        )

    def close(self) -> None:
        """Ends every stream, now and to come."""
        self.closing = True
        for group in (self._of_all, *self._of_payment.values()):
            for follower in group:
                follower.ring()

    async def run(self) -> None:
        """Reads and offers until it is canceled. The database being away only delays it."""
        last_seq: int | None = None
        well = True
        while True:
            seen = self._wakeups.count
            try:
                last_seq, full = await self._step(last_seq)
                well = True
            except StoreError as error:
                if well:
                    log.warning("stream.database_unavailable", error=str(error))
                well, full = False, False
            if not full:
                await self._wakeups.wait(STREAM_POLL_S, since=seen if well else None)

    async def _step(self, last_seq: int | None) -> tuple[int, bool]:
        """Reads one page and offers it. Also says whether there may be more."""
        if last_seq is None:
            last_seq = await events.last_seq(self._database)
            # Whoever came before that number was known must read for itself.
            for group in (self._of_all, *self._of_payment.values()):
                for follower in group:
                    follower.fall_behind()
            return last_seq, True
        page = await events.after(self._database, last_seq, limit=STREAM_PAGE_SIZE)
        if page:
            await self._offer(page)
            last_seq = page[-1].seq
        return last_seq, len(page) == STREAM_PAGE_SIZE

    async def _offer(self, page: Sequence[StoredEvent]) -> None:
        offered = 0
        for event, public, private in await self._frames(page, private=bool(self._of_all)):
            # A copy: followers come and go whenever the loop gets its turn below.
            for follower in (*self._of_payment.get(event.payment_id, ()), *self._of_all):
                follower.offer(event, public if follower.payment_id is not None else private)
                offered += 1
                if offered % STREAM_BURST == 0:
                    await asyncio.sleep(0)

    async def read(self, follower: Follower) -> tuple[list[tuple[StoredEvent, bytes]], bool]:
        """A page of what follows the last event that was sent, and whether it is the last."""
        page = await events.after(
            self._database,
            follower.last_seq,
            payment_id=follower.payment_id,
            limit=STREAM_PAGE_SIZE,
        )
        wants_private = follower.payment_id is None
        frames = await self._frames(page, private=wants_private)
        sent = [(event, private if wants_private else public) for event, public, private in frames]
        return sent, len(page) < STREAM_PAGE_SIZE

    async def _frames(
        self, page: Sequence[StoredEvent], *, private: bool
    ) -> list[tuple[StoredEvent, bytes, bytes]]:
        """Each event as everyone may see it, and (with `private`) as its merchant does."""
        order_ids = await self._order_ids_of(page) if private else {}
        return [
            (
                event,
                frame(event.seq, event.type, event.data),
                _private_frame(event, order_ids[event.payment_id]) if private else b"",
            )
            for event in page
        ]

    async def _order_ids_of(self, page: Sequence[StoredEvent]) -> dict[str, str | None]:
        """The merchant's numbers of the payments of a page. They never change."""
        ids = {event.payment_id for event in page}
        unknown = ids - self._order_ids.keys()
        for record in await everything.by_ids(self._database, unknown):
            self._order_ids[record.payment.terms.id] = record.payment.order_id
        result = {payment_id: self._order_ids[payment_id] for payment_id in ids}
        while len(self._order_ids) > STREAM_ORDER_IDS_MAX:
            self._order_ids.pop(next(iter(self._order_ids)))
        return result


def frame(seq: int, event: str, data: str | bytes) -> bytes:
    """One message of a stream.

    JSON that our encoder wrote has no line break in it: one would end the field.
    """
    text = data.encode() if isinstance(data, str) else data
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, event.encode(), text)


def _private_frame(event: StoredEvent, order_id: str | None) -> bytes:
    """The stored object with one more member at its front."""
    data = b'{"order_id":%b,%b' % (msgspec.json.encode(order_id), event.data[1:].encode())
    return frame(event.seq, event.type, data)


def _send_at_once(send: Send, frame: bytes) -> bool:
    """Writes to a connection that has room; False when its buffer is full.

    A server's `send` waits before it writes, and only when the client does not keep up. So one
    step of the coroutine either did everything or nothing, and can be thrown away.
    """
    sending = cast(
        "Coroutine[Any, Any, None]",
        send({"type": "http.response.body", "body": frame, "more_body": True}),
    )
    try:
        sending.send(None)
    except StopIteration:
        return True
    sending.close()
    return False
