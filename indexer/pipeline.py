"""The one road that every signature takes, whoever mentioned it.

    doorbell, sweep, retry ──► fetch ──► match ──► verify ──► settle ──► ONE atomic write ──► wake

A signature is a rumour; what `fetch` brings back is the only truth. At `finalized` it becomes a
verdict for each payment that it mentions, and the payment's state is folded anew from all its
verdicts. At `confirmed` it becomes a sighting, which people may see and nobody may rely on.

Everything here may be repeated at any time: a verdict that is stored already changes nothing,
and a writer that finds a payment newer than it read it starts over. Nothing expires here, for a
transaction says nothing of those that are still unknown: see `expiry`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import structlog

from indexer.core.judge import Read, holders_of, verdicts_of
from indexer.core.transaction import Transaction, Undecided
from indexer.core.types import Commitment, Status
from indexer.core.verdict import Sighting, Verdict
from indexer.errors import Conflict, DecodeError, SourceError
from indexer.settlement import settlement
from indexer.sources.rpc import Rpc, SignatureRow
from indexer.sources.truth import Absent, is_forgotten, read_transaction
from store import dead_letters, payments
from store.database import Database, Statement
from store.dead_letters import DeadLetter
from store.payments import Record


log = structlog.get_logger(__name__)

#: How often a write is decided anew because a payment changed in between, before the caller is
#: told to come again later.
WRITE_ATTEMPTS_MAX: Final = 10

#: Seconds until a parked signature is tried again: doubling from the first to the last.
RETRY_DELAY_S_MIN: Final = 1
RETRY_DELAY_S_MAX: Final = 60

#: How often an unreadable answer is asked for, in case it was the node's passing mistake, before
#: it waits for a person.
UNREADABLE_ATTEMPTS_MAX: Final = 5
#: How often what one endpoint lists is not found, about two minutes, before the others are asked
#: whether it ever was: if they deny it, it waits for a person as well.
DENIED_ATTEMPTS_MIN: Final = 8
#: Bytes of an unreadable answer that are kept for a person to look at.
PAYLOAD_BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A signature that somebody mentioned, and what they said of it.

    Attributes:
        slot: where it is said to be; None when nobody said.
        block_time: unix seconds, from an answer about signatures or blocks; None when unknown.
        key: the watched key under which a sweep found it.
        attempts: how often it was parked before.
    """

    signature: str
    slot: int | None = None
    block_time: int | None = None
    key: str | None = None
    attempts: int = 0

    @classmethod
    def listed(cls, row: SignatureRow, key: str | None = None) -> Self:
        """What a node's list of a key says."""
        return cls(signature=row.signature, slot=row.slot, block_time=row.block_time, key=key)

    @classmethod
    def parked(cls, letter: DeadLetter) -> Self:
        """What was known of it when it was set aside."""
        return cls(
            signature=letter.signature,
            slot=letter.slot,
            key=letter.key,
            attempts=letter.attempts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A signature of which nothing is known now. It never means "not paid"."""

    found: Found
    reason: str
    detail: str
    payload: bytes | None = None

    @property
    def is_unreadable(self) -> bool:
        """There was an answer, and it made no sense."""
        return self.reason == "malformed"


class Pipeline:
    """Takes signatures in and leaves stored payments behind."""

    def __init__(
        self,
        database: Database,
        rpc: Rpc,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._rpc = rpc
        self._clock = clock
        self._wake = wake

    # ------------------------------------------------------------------------ the two walks

    async def settle(self, found: Sequence[Found], *, park: bool = True) -> list[Unread]:
        """Examines finalized transactions; returns those of which nothing could be learned.

        When it returns, every one of them is stored: as verdicts, or, with `park`, as a dead
        letter that is tried again by itself. Only then may a cursor move over it.
        """
        _, unread = await self.examine(found, park=park)
        return unread

    async def examine(
        self, found: Sequence[Found], *, park: bool = True
    ) -> tuple[list[Read], list[Unread]]:
        """The same; hands back what it read as well, for whoever wants to know more of it."""
        return await self.keep(await self.read(found), park=park)

    async def keep(
        self, outcomes: Sequence[Read | Unread], *, park: bool = True
    ) -> tuple[list[Read], list[Unread]]:
        """The second half of it, for whoever has read already: judges and stores."""
        reads = [outcome for outcome in outcomes if isinstance(outcome, Read)]
        unread = [outcome for outcome in outcomes if isinstance(outcome, Unread)]
        await self._judge(reads, self._settlement)
        await self._unpark(reads)
        if park and unread:
            await self._park(unread)
        return reads, unread

    async def read(self, found: Sequence[Found]) -> list[Read | Unread]:
        """Finalized transactions as the chain has them, in order; judges and stores nothing."""
        return await self._fetch(found, Commitment.FINALIZED)

    async def sight(self, found: Sequence[Found]) -> list[Unread]:
        """Shows payments as detected whose transaction is at `confirmed`; settles nothing."""
        outcomes = await self._fetch(found, Commitment.CONFIRMED)
        reads = [outcome for outcome in outcomes if isinstance(outcome, Read)]
        await self._judge(reads, self._sighting)
        return [outcome for outcome in outcomes if isinstance(outcome, Unread)]

    async def change(
        self,
        select: Callable[[], Awaitable[Sequence[Record]]],
        decide: Callable[[Sequence[Record]], list[Statement]],
    ) -> bool:
        """Reads payments, decides, and writes it all or nothing; again if it was stale.

        Returns whether there was anything to write.

        Raises:
            Conflict: the payments changed each time in between. Come again later.
        """
        for _ in range(WRITE_ATTEMPTS_MAX):
            batch = decide(await select())
            if not batch:
                return False
            try:
                await self._database.write(batch)
            except Conflict as error:
                conflict = error
                log.info("pipeline.write_repeated", error=str(error))
                continue
            self._wake()
            return True
        raise Conflict(f"{WRITE_ATTEMPTS_MAX} writes in a row were refused: {conflict}")

    # --------------------------------------------------------------------- fetch and decode

    async def _fetch(self, found: Sequence[Found], commitment: Commitment) -> list[Read | Unread]:
        return await asyncio.gather(*(self._fetch_one(each, commitment) for each in found))

    async def _fetch_one(self, found: Found, commitment: Commitment) -> Read | Unread:
        try:
            answer = await read_transaction(
                self._rpc, found.signature, commitment, min_slot=found.slot
            )
            match answer:
                case Transaction():
                    block_time = await self._block_time(found, answer, commitment)
                    if block_time is None and not answer.failed:
                        return Unread(
                            found=found, reason="no_block_time", detail="its block has no time yet"
                        )
                    return Read(answer, block_time)
                case Undecided():
                    return Unread(
                        found=found,
                        reason="undecided",
                        detail=f"the node's answer lacks {answer.missing}",
                    )
                case Absent():
                    return Unread(
                        found=found, reason="not_found", detail=f"no node has it {commitment}"
                    )
        except DecodeError as error:
            return Unread(found=found, reason="malformed", detail=str(error), payload=error.payload)
        except SourceError as error:
            return Unread(found=found, reason="unavailable", detail=str(error))

    async def _block_time(
        self, found: Found, transaction: Transaction, commitment: Commitment
    ) -> int | None:
        """When the block was made, as a list of signatures or getBlockTime says it.

        getTransaction's own field is not used: it is filled in later on some nodes and has
        another unit on others. A sighting decides nothing, so the time of day will do. Where
        several endpoints must agree, the list of one of them is not enough.
        """
        if commitment is not Commitment.FINALIZED:
            return int(self._clock())
        is_enough = self._rpc.quorum == 1 and found.slot == transaction.slot
        if found.block_time is not None and is_enough:
            return found.block_time
        return await self._rpc.block_time(transaction.slot)

    # ----------------------------------------------------------- match, verify, settle, write

    async def _judge(
        self, reads: Sequence[Read], decide: Callable[[Record, Sequence[Verdict]], list[Statement]]
    ) -> None:
        """Gives each payment that is mentioned its verdicts, and writes what follows."""
        keys = {key for read in reads for key in read.transaction.keys}
        signatures = {read.transaction.signature for read in reads}

        def batch(records: Sequence[Record]) -> list[Statement]:
            terms = [record.payment.terms for record in records]
            stored = [verdict for record in records for verdict in record.verdicts]
            verdicts = verdicts_of(terms, reads, holders_of(stored))
            return [
                statement
                for record in records
                for statement in decide(record, verdicts.get(record.payment.terms.id, ()))
            ]

        if keys:
            await self.change(
                lambda: payments.by_references(self._database, keys, signatures), batch
            )

    def _settlement(self, record: Record, verdicts: Sequence[Verdict]) -> list[Statement]:
        """What new verdicts make of a payment."""
        known = {verdict.signature for verdict in record.verdicts}
        new = [verdict for verdict in verdicts if verdict.signature not in known]
        return settlement(record, new, now=int(self._clock())) if new else []

    def _sighting(self, record: Record, verdicts: Sequence[Verdict]) -> list[Statement]:
        """What a sighting makes of a payment that is still open."""
        if record.payment.state.status not in (Status.PENDING, Status.PROCESSING):
            return []
        known = {v.signature for v in record.verdicts} | {s.signature for s in record.sightings}
        sightings = [
            Sighting(
                payment_id=verdict.payment_id,
                signature=verdict.signature,
                slot=verdict.slot,
                credit=verdict.credit,
            )
            for verdict in verdicts
            if verdict.credit > 0 and verdict.signature not in known
        ]
        if not sightings:
            return []
        return settlement(record, sightings=sightings, now=int(self._clock()))

    # ------------------------------------------------------------------------------ parking

    async def _park(self, unread: Sequence[Unread]) -> None:
        now = int(self._clock())
        letters = [_letter(each, now, made_up=await self._is_made_up(each)) for each in unread]
        await self._database.write([dead_letters.park(letter) for letter in letters])
        for each, letter in zip(unread, letters, strict=True):
            say = log.error if each.is_unreadable else log.warning
            say(
                "transaction.parked",
                signature=letter.signature,
                reason=letter.reason,
                detail=letter.detail,
                attempts=letter.attempts,
                next_try_at=letter.next_try_at,
            )

    async def _unpark(self, reads: Sequence[Read]) -> None:
        """Takes away the letters of what was examined, whoever brought it."""
        if reads and await dead_letters.count(self._database):
            resolved = [dead_letters.resolve(read.transaction.signature) for read in reads]
            await self._database.write(resolved)

    async def _is_made_up(self, unread: Unread) -> bool:
        """Whether a node named it that is not believed alone, and the others deny it.

        It must not hold back the expiry of everything for ever. Where one endpoint is enough,
        its word stands.
        """
        found = unread.found
        if self._rpc.quorum == 1 or unread.reason != "not_found" or found.slot is None:
            return False
        if found.attempts + 1 < DENIED_ATTEMPTS_MIN:
            return False
        try:
            return await is_forgotten(self._rpc, found.signature, found.slot)
        except SourceError:
            return False


def _letter(unread: Unread, now: int, *, made_up: bool) -> DeadLetter:
    found, attempts = unread.found, unread.found.attempts + 1
    delay_s = min(RETRY_DELAY_S_MAX, RETRY_DELAY_S_MIN * 2 ** min(attempts - 1, 30))
    is_given_up = made_up or (unread.is_unreadable and attempts >= UNREADABLE_ATTEMPTS_MAX)
    detail = f"{unread.detail}; too few remember it, one may have made it up"
    return DeadLetter(
        signature=found.signature,
        key=found.key,
        slot=found.slot,
        reason=unread.reason,
        detail=detail if made_up else unread.detail,
        payload=None if unread.payload is None else unread.payload[:PAYLOAD_BYTES_MAX],
        attempts=attempts,
        next_try_at=None if is_given_up else now + delay_s,
        created_at=now,
        updated_at=now,
    )
