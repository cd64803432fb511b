"""From a doorbell to a settled payment: look at once, then wait until it is final.

A doorbell rings at `confirmed`. What it points at is fetched and shown as detected; then its
slot is awaited, and once the cluster's finalized slot has passed it the transaction is fetched
again, proven final, and settled. A sweep would find it too, a few seconds later: everything here
is about being fast, nothing about being right, and all of it may be lost at any moment.

A fork may drop what was sighted. One missing answer proves nothing, so a sighting is only taken
back when its transaction was missed several times although its slot is final, when so many blocks
have become final since that its blockhash is too old to land again, and when no endpoint knows
the signature (or fewer than must agree on one). None of this counts seconds, or slots: both have
changed before. Should it land after all (a durable nonce never grows old), a sweep will find it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from indexer.core.types import Commitment
from indexer.core.verdict import Sighting
from indexer.errors import Conflict, SourceError, SourceRejected, StoreUnavailable
from indexer.pipeline import Found, Pipeline, Unread
from indexer.settlement import settlement
from indexer.sources.doorbells import Doorbell, Doorbells
from indexer.sources.priority import Priority, at
from indexer.sources.rpc import Rpc
from indexer.sources.truth import is_forgotten
from store import payments, watching
from store.database import Database, Statement
from store.payments import Record


log = structlog.get_logger(__name__)

#: Doorbells that are answered together, and how many such batches at once: one that must be
#: looked for again does not keep the next one waiting.
BATCH_SIZE: Final = 100
SIGHTS_AT_ONCE: Final = 8
#: Signatures that are awaited at once; what is beyond is left to the sweep.
AWAITED_MAX: Final = 10_000
#: Seconds between two looks at the finalized slot, while something is awaited.
POLL_INTERVAL_S: Final = 0.4
#: Seconds of pause after a failure of the chain side or the store.
PAUSE_S: Final = 1.0
#: How often a doorbell's transaction is looked for at `confirmed`, and the first pause between.
#: Nodes notify a little before they can be asked.
SIGHT_ATTEMPTS_MAX: Final = 5
SIGHT_PAUSE_S: Final = 0.3
#: How often a transaction must be found missing before its sighting is taken back.
MISSES_MIN: Final = 3
#: How many blocks after its own slot must be final: a blockhash is good for 150, and some more.
DROPPED_AFTER_BLOCKS: Final = 150 + 50
#: Slots in which that many blocks are looked for, in multiples of it: many slots have none.
BLOCKS_LOOKED_FOR: Final = 4
#: How often a transaction that is there and cannot be read is tried, before it is left to the
#: sweep, which parks it. What is shown as detected is tried for ever.
MISSES_MAX: Final = 30
#: Seconds between two looks for one transaction that should be final and is not found.
MISS_PAUSE_S: Final = 1.0


@dataclass(slots=True)
class _Awaited:
    """A signature on its way to being final."""

    slot: int
    misses: int = 0
    not_before: float = 0.0  # the loop's time


class Live:
    """Answers doorbells and awaits finality."""

    def __init__(
        self,
        database: Database,
        rpc: Rpc,
        pipeline: Pipeline,
        doorbells: Doorbells,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._rpc = rpc
        self._pipeline = pipeline
        self._doorbells = doorbells
        self._clock = clock
        self._awaited: dict[str, _Awaited] = {}
        self._filled = asyncio.Event()
        self._is_restored = False

    # ---------------------------------------------------------------------------- doorbells

    async def answer(self) -> None:
        """Answers doorbells for ever."""
        turns = asyncio.Semaphore(SIGHTS_AT_ONCE)

        async def sight(bells: Sequence[Doorbell]) -> None:
            try:
                with at(Priority.DOORBELL):
                    await self._sight(bells)
            finally:
                turns.release()

        async with asyncio.TaskGroup() as group:
            while True:
                bells = await self._doorbells.take(BATCH_SIZE)
                for bell in bells:
                    self._await(bell.signature, bell.slot)
                await turns.acquire()
                group.create_task(sight(bells), name="sight")

    async def _sight(self, bells: Sequence[Doorbell]) -> None:
        found = [Found(signature=bell.signature, slot=bell.slot) for bell in bells]
        for attempt in range(SIGHT_ATTEMPTS_MAX):
            if attempt:
                await asyncio.sleep(SIGHT_PAUSE_S * 2 ** (attempt - 1))
            try:
                found = [each.found for each in await self._pipeline.sight(found)]
            except (StoreUnavailable, Conflict) as error:
                log.warning("doorbell.unanswered", error=str(error), count=len(found))
                continue
            if not found:
                return
        log.info("doorbell.given_up", count=len(found))

    async def look(self, bells: Sequence[Doorbell]) -> list[Unread]:
        """Answers doorbells now; returns those of which nothing could be learned yet.

        Of all others everything that this look brought is stored: a sighting, which is settled
        once it is final, or a verdict. What leaves neither, because the payment is closed or
        the transaction pays nothing, is looked at again as final, or returned until it is.

        The slots are not used: where a transaction is, the chain says.

        Raises:
            StoreUnavailable: look again.
            Conflict: look again.
        """
        found = [Found(signature=bell.signature) for bell in bells]
        with at(Priority.DOORBELL):
            unread = await self._sight_again(found)
            missed = {each.found.signature for each in unread}
            seen = [each for each in found if each.signature not in missed]
            traceless = await self._without_trace(seen)
            return unread + await self._pipeline.settle(traceless, park=False)

    async def _sight_again(self, found: Sequence[Found]) -> list[Unread]:
        """Several looks, as for any doorbell; what is left after the last one."""
        unread = await self._pipeline.sight(found)
        for attempt in range(SIGHT_ATTEMPTS_MAX - 1):
            if not unread:
                break
            await asyncio.sleep(SIGHT_PAUSE_S * 2**attempt)
            unread = await self._pipeline.sight([each.found for each in unread])
        return unread

    async def _without_trace(self, seen: Sequence[Found]) -> list[Found]:
        """Awaits the finality of what was sighted; returns what left nothing in the store."""
        signatures = {each.signature for each in seen}
        sighted = await watching.sightings_of(self._database, signatures)
        for sighting in sighted:
            self._await(sighting.signature, sighting.slot)
        traced = {sighting.signature for sighting in sighted}
        traced |= await watching.with_verdict(self._database, signatures - traced)
        return [each for each in seen if each.signature not in traced]

    # ----------------------------------------------------------------------------- finality

    async def settle(self) -> None:
        """Settles what has become final, for ever; begins with what was sighted before."""
        while True:
            try:
                await self._restore()
                await self._filled.wait()
                with at(Priority.FINALITY):
                    await self._settle_final(await self._rpc.slot(Commitment.FINALIZED))
            except (SourceError, StoreUnavailable, Conflict) as error:
                log.warning("finality.unknown", error=str(error))
                await asyncio.sleep(PAUSE_S)
            if not self._awaited and self._is_restored:
                self._filled.clear()
                continue
            await asyncio.sleep(POLL_INTERVAL_S)

    def restore(self) -> None:
        """Has what was sighted by anybody awaited here: who did so before may be gone."""
        self._is_restored = False
        self._filled.set()

    async def _restore(self) -> None:
        if self._is_restored:
            return
        self._is_restored = True
        try:
            sighted = await self._sighted()
        except BaseException:
            self._is_restored = False
            raise
        for sighting in sighted:
            self._await(sighting.signature, sighting.slot)

    def _await(self, signature: str, slot: int) -> None:
        if len(self._awaited) < AWAITED_MAX:
            self._awaited.setdefault(signature, _Awaited(slot))
            self._filled.set()

    async def _settle_final(self, finalized: int) -> None:
        now = asyncio.get_running_loop().time()
        ready = [
            Found(signature=signature, slot=awaited.slot)
            for signature, awaited in self._awaited.items()
            if awaited.slot <= finalized and awaited.not_before <= now
        ]
        for start in range(0, len(ready), BATCH_SIZE):
            batch = ready[start : start + BATCH_SIZE]
            unread = {
                each.found.signature: each
                for each in await self._pipeline.settle(batch, park=False)
            }
            for found in batch:
                if found.signature not in unread:
                    self._awaited.pop(found.signature, None)
                else:
                    await self._missed(unread[found.signature], finalized)

    async def _missed(self, unread: Unread, finalized: int) -> None:
        """Looks again later, or takes the sighting back, or leaves it to the sweep."""
        signature = unread.found.signature
        awaited = self._awaited[signature]
        awaited.misses += 1
        awaited.not_before = asyncio.get_running_loop().time() + MISS_PAUSE_S
        if not awaited.slot:
            awaited.slot = finalized  # nobody said where it is: not before it was missed first
        if awaited.misses < MISSES_MIN:
            return
        if unread.reason != "not_found":
            # What is shown as detected must be settled or taken back, and nobody else would.
            if awaited.misses >= MISSES_MAX and not await self._sightings_of(signature):
                del self._awaited[signature]
            return
        if finalized - awaited.slot < DROPPED_AFTER_BLOCKS:
            return  # there are no more blocks than slots
        sightings = await self._sightings_of(signature)
        slot = max([awaited.slot, *(sighting.slot for sighting in sightings)])
        try:
            is_dropped = await self._is_too_old_to_land(slot, finalized) and (
                await self._is_forgotten(signature, slot)
            )
        except SourceError as error:
            log.info("finality.not_said", signature=signature, error=str(error))
            return
        if is_dropped:
            await self._revert(signature, [sighting.payment_id for sighting in sightings])
            del self._awaited[signature]

    async def _is_too_old_to_land(self, slot: int, finalized: int) -> bool:
        """Whether so many blocks are final since that slot that its blockhash is not valid now."""
        many_slots = BLOCKS_LOOKED_FOR * DROPPED_AFTER_BLOCKS
        first = max(slot, finalized - many_slots) + 1
        if finalized - first + 1 < DROPPED_AFTER_BLOCKS:
            return False
        listed, refusals = [], 0
        endpoints = await self._rpc.awake()
        for endpoint in endpoints:
            try:
                # Nodes leave out in silence what they have cleaned up: the longest list counts.
                blocks = await self._rpc.blocks(first, finalized, endpoint=endpoint)
            except SourceRejected:
                refusals += 1
            except SourceError as error:
                log.info("finality.not_said", endpoint=endpoint.name, error=str(error))
            else:
                listed.append(len(blocks))
        if refusals == len(endpoints):
            # Nobody lists them: so many slots have so many blocks, also when most are empty.
            return finalized - slot >= many_slots
        return max(listed, default=0) >= DROPPED_AFTER_BLOCKS

    async def _is_forgotten(self, signature: str, slot: int) -> bool:
        return await is_forgotten(self._rpc, signature, slot)

    async def _sighted(self) -> list[Sighting]:
        return await payments.sighted(self._database, limit=AWAITED_MAX)

    async def _sightings_of(self, signature: str) -> list[Sighting]:
        return [each for each in await self._sighted() if each.signature == signature]

    async def _revert(self, signature: str, ids: Sequence[str]) -> None:
        """Takes a dropped sighting back: its payments stand where they would without it."""

        async def select() -> Sequence[Record]:
            return await payments.by_ids(self._database, ids)

        def revert(records: Sequence[Record]) -> list[Statement]:
            now = int(self._clock())
            return [
                statement
                for record in records
                for statement in settlement(record, unsighted=(signature,), now=now)
            ]

        if await self._pipeline.change(select, revert):
            log.warning("transaction.dropped_by_fork", signature=signature, payments=ids)
