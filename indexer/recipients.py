"""The net under everything: looks at the recipients themselves for money that names nobody.

A wallet that knows no references, an exchange above all, pays the recipient and says nothing of
the payment. No doorbell rings for that, and no sweep of a key in a URL lists it. So the wallets
(for SOL) and the token accounts that payments wait for are swept too, slowly. What is found goes
down the road like everything else: a transfer that carries a reference, and only lost the watch
key, is settled by it. What names no payment at all may be meant for one, and is put before a
person as a suggestion (see `core.suggest`), never credited by itself.

A merchant's wallet may be busy with other things. Each transaction is fetched once: what has a
verdict needs no second look, and what was looked at is remembered. A turn looks at so many and no
more, the oldest first, and the key's cursor moves over what was looked at. Before a key's first
turn nothing older than the oldest payment that waits for it is listed, so its cursor is no proof
that everything before it is known: nothing expires by it.

A transaction that no node could give is parked like any other. It settles what it pays once it is
read, but suggests nothing any more.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from indexer.core.judge import Read
from indexer.core.ranges import Slots
from indexer.core.suggest import CREATED_MARGIN_S, Suggestion, clues, suggestions
from indexer.errors import Conflict, SourceError, SourceUnavailable, StoreUnavailable
from indexer.pipeline import Found, Pipeline
from indexer.sources.history import history
from indexer.sources.priority import Priority, at
from indexer.sources.rpc import Rpc, SignatureRow
from indexer.survey import OVERLAP_SLOTS, Surveyor
from store import cursors, suggestions as suggestion_book, watching
from store.cursors import Frontier
from store.database import Database


log = structlog.get_logger(__name__)

#: Seconds between two rounds. Nothing waits for them but a suggestion.
INTERVAL_S: Final = 60.0
#: Keys that are looked at in one round, one after another; the others have their turn later.
KEYS_PER_ROUND: Final = 50
#: Transactions that are fetched in one turn of a key, and in one round of all of them.
FETCHED_PER_TURN: Final = 500
FETCHED_PER_ROUND: Final = 1_000
#: Transactions that are fetched and written together.
BATCH_SIZE: Final = 100
#: Signatures that are listed in one turn of a key. A wallet that receives more while one payment
#: waits is no merchant's; nothing is suggested for it then, and a line of the log says so.
LISTED_MAX: Final = 100_000
#: Looked-at transactions that are remembered, so that the overlap is not fetched again.
REMEMBERED_MAX: Final = 100_000
#: Payments that are compared with one batch, for each amount and each memo in it.
CANDIDATES_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class _Listed:
    """The oldest of what is new under a key.

    Attributes:
        rows: oldest first.
        complete_to: slot up to which there is nothing new but them.
    """

    rows: Sequence[SignatureRow]
    complete_to: int


class Recipients:
    """The slow sweep of wallets and token accounts.

    Attributes:
        problem: why the last round was not complete, in words for ops; None when it was.
    """

    def __init__(
        self,
        database: Database,
        rpc: Rpc,
        pipeline: Pipeline,
        *,
        clock: Callable[[], float],
        surveyor: Surveyor | None = None,
    ) -> None:
        self._database = database
        self._rpc = rpc
        self._pipeline = pipeline
        self._clock = clock
        self._surveyor = surveyor or Surveyor(rpc, clock=clock)
        self._last_key = ""
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.problem: str | None = None

    async def run(self) -> None:
        """Sweeps for ever; begins a while after the start, when all else has had its turn."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                with at(Priority.SWEEP):
                    await self.round()
            except (SourceError, StoreUnavailable, Conflict) as error:
                self._failed(error)
            else:
                self.problem = None

    async def round(self) -> None:
        """One turn of each of the next keys, as long as there is something left to fetch.

        Raises:
            SourceError, Conflict: what went wrong with the last of them that had no complete
                turn; the others had theirs.
        """
        now = int(self._clock())
        keys = await watching.destinations(
            self._database, now=now, after=self._last_key, limit=KEYS_PER_ROUND
        )
        left, failure = FETCHED_PER_ROUND, None
        for key, created_at in keys:
            if left <= 0:
                return
            self._last_key = key
            try:
                left -= await self.sweep(key, created_at, limit=min(left, FETCHED_PER_TURN))
            except (SourceError, Conflict) as error:
                if self._rpc.problem is not None:
                    raise
                # It may be only this key's list that no node can give: the others get their turn.
                self._failed(error)
                failure = error
        if len(keys) < KEYS_PER_ROUND:
            self._last_key = ""
        if failure is not None:
            raise failure

    def _failed(self, error: Exception) -> None:
        if self.problem != str(error):
            log.warning("recipients.failed", error=str(error))
        self.problem = str(error)

    async def sweep(self, key: str, created_at: int, *, limit: int = FETCHED_PER_TURN) -> int:
        """Looks at what is new under one key, up to a limit; returns how many were fetched.

        Args:
            key: a wallet or a token account.
            created_at: unix seconds; no payment that waits for the key is older.
            limit: of transactions; a few more where many share a slot.

        Raises:
            SourceError: the chain side gave no complete list; the cursor has not moved beyond
                what was looked at.
        """
        known = await cursors.get(self._database, key)
        finalized = await self._surveyor.finalized_after(known)
        if known is not None and finalized <= known.slot:
            return 0
        block_time = await self._rpc.block_time(finalized)
        first_slot = 0 if known is None else max(0, known.slot - OVERLAP_SLOTS)
        since = created_at - CREATED_MARGIN_S
        listed = await self._list(key, Slots(first_slot, finalized), since, limit)
        rows, done = listed.rows, 0
        while done < len(rows) or not done:
            batch = rows[done : done + BATCH_SIZE]
            done += BATCH_SIZE
            slot = rows[done].slot - 1 if done < len(rows) else listed.complete_to
            # One endpoint's list is not enough to tell the time where several must agree.
            rows_tell = self._rpc.quorum == 1
            times = [row.block_time or 0 for row in batch if row.slot <= slot and rows_tell]
            if slot == finalized:
                times.append(block_time or 0)
            await self._examine(key, batch, slot, max(times, default=0))
        return len(rows)

    # ------------------------------------------------------------------------------- listing

    async def _list(self, key: str, slots: Slots, since: int, limit: int) -> _Listed:
        """The oldest successful transactions that were not looked at yet.

        All of one slot or none: a cursor knows slots only.
        """
        rows: dict[str, SignatureRow] = {}
        listed, complete_to = 0, slots.last
        async for chunk in history(
            self._rpc, key, first_slot=slots.first, last_slot=slots.last, since=since
        ):
            listed += len(chunk)
            if listed > LISTED_MAX:
                raise SourceUnavailable(
                    f"{key} has more than {LISTED_MAX} new transactions: too many to look at"
                )
            rows |= {row.signature: row for row in await self._unseen(key, chunk, since)}
            if len(rows) > limit:
                rows, complete_to = _oldest(rows, limit, complete_to)
        return _Listed(sorted(rows.values(), key=_position), complete_to)

    async def _unseen(
        self, key: str, chunk: Sequence[SignatureRow], since: int
    ) -> list[SignatureRow]:
        wanted = [
            row
            for row in chunk
            if not row.failed
            and (row.block_time is None or row.block_time >= since)
            and (key, row.signature) not in self._seen
        ]
        # What has a verdict names a payment, and its whole transaction was judged.
        known = await watching.with_verdict(self._database, [row.signature for row in wanted])
        return [row for row in wanted if row.signature not in known]

    # ----------------------------------------------------------------------------- examining

    async def _examine(
        self, key: str, rows: Sequence[SignatureRow], slot: int, block_time: int
    ) -> None:
        """Sends transactions down the road, and stores what they suggest with the new cursor."""
        reads, _ = await self._pipeline.examine([Found.listed(row, key) for row in rows])
        made = await self._suggest(key, reads)
        frontier = Frontier(
            key=key, slot=slot, block_time=block_time, updated_at=int(self._clock())
        )
        await self._database.write([*map(suggestion_book.insert, made), cursors.advance(frontier)])
        for each in made:
            log.info("payment.suggested", signature=each.signature, payment_id=each.payment_id)
        self._remember(key, rows)

    def _remember(self, key: str, rows: Sequence[SignatureRow]) -> None:
        for row in rows:
            self._seen[key, row.signature] = None
        while len(self._seen) > REMEMBERED_MAX:
            self._seen.popitem(last=False)

    async def _suggest(self, key: str, reads: Sequence[Read]) -> list[Suggestion]:
        """What the transactions that name no payment may be meant for."""
        arrived = {
            read: found
            for read in reads
            if read.block_time is not None and (found := clues(read.transaction, key)) is not None
        }
        named = await watching.known_references(
            self._database, {each for read in arrived for each in read.transaction.keys}
        )
        nameless = [read for read in arrived if named.isdisjoint(read.transaction.keys)]
        times = [read.block_time for read in nameless if read.block_time is not None]
        if not times:
            return []
        told = [arrived[read] for read in nameless]
        records = await watching.awaiting(
            self._database,
            key,
            amounts={amount for each in told for amount in each.amounts},
            memos={line for each in told for line in each.lines},
            names={word for each in told for word in each.words},
            times=(min(times), max(times) + CREATED_MARGIN_S),
            limit=CANDIDATES_MAX,
        )
        candidates, now = [record.payment for record in records], int(self._clock())
        return [
            suggestion
            for read in nameless
            for suggestion in suggestions(
                candidates, read.transaction, block_time=read.block_time, now=now
            )
        ]


def _oldest(
    rows: Mapping[str, SignatureRow], limit: int, complete_to: int
) -> tuple[dict[str, SignatureRow], int]:
    """The first rows, whole slots of them, and the slot up to which they are all there is."""
    ordered = sorted(rows.values(), key=_position)
    end = limit
    while end < len(ordered) and ordered[end].slot == ordered[end - 1].slot:
        end += 1
    if end < len(ordered):
        complete_to = min(complete_to, ordered[end].slot - 1)
    return {row.signature: row for row in ordered[:end]}, complete_to


def _position(row: SignatureRow) -> tuple[int, int, str]:
    return row.slot, -1 if row.index is None else row.index, row.signature
