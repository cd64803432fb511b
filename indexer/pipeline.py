"""The one road that every signature takes, whoever mentioned it.

    doorbell, sweep, retry ──► fetch ──► match ──► verify ──► settle ──► ONE atomic write ──► wake

A signature is a rumour; what `fetch` brings back is the only truth. At `finalized` it becomes a
verdict for each payment that it mentions, and the payment's state is folded anew from all its
verdicts. At `confirmed` it becomes a sighting, which people may see and nobody may rely on.

Everything here may be repeated at any time: a verdict that is stored already changes nothing,
and a writer that finds a payment newer than it read it starts over.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from indexer.core import events
from indexer.core.match import mentioned
from indexer.core.settle import advance, fold
from indexer.core.transaction import Transaction, Undecided
from indexer.core.types import Commitment, Status
from indexer.core.verdict import Sighting, Verdict
from indexer.core.verify import verify
from indexer.errors import Conflict, DecodeError, InvariantError, SourceError
from indexer.sources.rpc import Rpc
from indexer.sources.truth import Absent, read_transaction
from store import cursors, dead_letters, payments
from store.database import Database, Statement
from store.dead_letters import DeadLetter
from store.payments import Record


log = structlog.get_logger(__name__)

#: How often a write is decided anew because a payment changed in between, before it is a bug.
WRITE_ATTEMPTS_MAX: Final = 10

#: Seconds until a parked signature is tried again: doubling from the first to the last.
RETRY_DELAY_S_MIN: Final = 1
RETRY_DELAY_S_MAX: Final = 600

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


@dataclass(frozen=True, slots=True)
class Read:
    """A transaction as the chain has it, and its block's time."""

    transaction: Transaction
    block_time: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A signature of which nothing is known now. It never means "not paid"."""

    found: Found
    reason: str
    detail: str
    payload: bytes | None = None
    hopeless: bool = False


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
        outcomes = await self._fetch(found, Commitment.FINALIZED)
        await self._store([outcome for outcome in outcomes if isinstance(outcome, Read)])
        unread = [outcome for outcome in outcomes if isinstance(outcome, Unread)]
        if park and unread:
            await self._park(unread)
        return unread

    async def sight(self, found: Sequence[Found]) -> list[Unread]:
        """Shows payments as detected whose transaction is at `confirmed`; settles nothing."""
        outcomes = await self._fetch(found, Commitment.CONFIRMED)
        reads = [outcome for outcome in outcomes if isinstance(outcome, Read)]
        if reads:
            await self._write(reads, self._sighting)
        return [outcome for outcome in outcomes if isinstance(outcome, Unread)]

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
            log.error("transaction.unreadable", signature=found.signature, error=str(error))
            return Unread(
                found=found,
                reason="malformed",
                detail=str(error),
                payload=error.payload,
                hopeless=True,
            )
        except SourceError as error:
            return Unread(found=found, reason="unavailable", detail=str(error))

    async def _block_time(
        self, found: Found, transaction: Transaction, commitment: Commitment
    ) -> int | None:
        """When the block was made, as a list of signatures or getBlockTime says it.

        getTransaction's own field is not used: it is filled in later on some nodes and has
        another unit on others. A sighting decides nothing, so the time of day will do.
        """
        if commitment is not Commitment.FINALIZED:
            return int(self._clock())
        if found.block_time is not None and found.slot == transaction.slot:
            return found.block_time
        return await self._rpc.block_time(transaction.slot)

    # ----------------------------------------------------------- match, verify, settle, write

    async def _store(self, reads: Sequence[Read]) -> None:
        if reads:
            await self._write(reads, self._settlement)

    async def _write(
        self,
        reads: Sequence[Read],
        decide: "Callable[[Record, Sequence[Verdict], int | None], list[Statement]]",
    ) -> None:
        """Reads what is stored, decides, and writes it all or nothing; again if it was stale."""
        keys = {key for read in reads for key in read.transaction.keys}
        for _ in range(WRITE_ATTEMPTS_MAX):
            records = await payments.by_references(self._database, keys)
            if not records:
                return
            frontiers = {f.key: f.block_time for f in await cursors.all_of(self._database)}
            verdicts = _verdicts(records, reads)
            batch: list[Statement] = []
            for record in records:
                terms = record.payment.terms
                frontier_time = frontiers.get(terms.watch_key or terms.reference)
                batch += decide(record, verdicts.get(terms.id, ()), frontier_time)
            if not batch:
                return
            try:
                await self._database.write(batch)
            except Conflict as conflict:
                log.info("pipeline.write_repeated", error=str(conflict))
                continue
            self._wake()
            return
        raise InvariantError(f"{WRITE_ATTEMPTS_MAX} writes in a row found their payments changed")

    def _settlement(
        self, record: Record, verdicts: Sequence[Verdict], frontier_time: int | None
    ) -> list[Statement]:
        """What new verdicts make of a payment."""
        known = {verdict.signature for verdict in record.verdicts}
        new = [verdict for verdict in verdicts if verdict.signature not in known]
        if not new:
            return []
        return settlement(record, new, frontier_time=frontier_time, now=int(self._clock()))

    def _sighting(
        self, record: Record, verdicts: Sequence[Verdict], frontier_time: int | None
    ) -> list[Statement]:
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
        return settlement(
            record,
            (),
            sightings=sightings,
            frontier_time=frontier_time,
            now=int(self._clock()),
        )

    # ------------------------------------------------------------------------------ parking

    async def _park(self, unread: Iterable[Unread]) -> None:
        now = int(self._clock())
        letters = [_letter(each, now) for each in unread]
        await self._database.write([dead_letters.park(letter) for letter in letters])
        for letter in letters:
            log.warning(
                "transaction.parked",
                signature=letter.signature,
                reason=letter.reason,
                detail=letter.detail,
                attempts=letter.attempts,
            )


def settlement(
    record: Record,
    verdicts: Sequence[Verdict],
    *,
    frontier_time: int | None,
    now: int,
    sightings: Sequence[Sighting] = (),
    unsighted: Sequence[str] = (),
) -> list[Statement]:
    """The statements that take a payment from what is stored to what the facts now say.

    Args:
        record: the payment as it is stored, with its verdicts and sightings.
        verdicts: new ones.
        frontier_time: block time up to which the payment's key was swept; None: never.
        now: unix seconds, the time of the events.
        sightings: new ones.
        unsighted: signatures that were sighted and are no more.
    """
    before = record.payment
    gone = {*unsighted, *(verdict.signature for verdict in verdicts)}
    left = [s for s in (*record.sightings, *sightings) if s.signature not in gone]
    state = fold(
        before.terms,
        (*record.verdicts, *verdicts),
        frontier_time=frontier_time,
        sighted=bool(left),
        canceled_at=before.state.canceled_at,
    )
    after = advance(before, state)
    cause = max(verdicts, key=lambda v: v.order).signature if verdicts else None
    if cause is None and sightings:
        cause = sightings[-1].signature
    return payments.save(
        before,
        after,
        verdicts=verdicts,
        sightings=sightings,
        unsighted=tuple(gone),
        events=events.of_change(before, after, now, signature=cause),
        now=now,
    )


def _verdicts(records: Sequence[Record], reads: Sequence[Read]) -> dict[str, list[Verdict]]:
    """The verdicts of all transactions, by payment, each transaction judged once."""
    by_reference = {record.payment.terms.reference: record.payment.terms for record in records}
    found: dict[str, list[Verdict]] = {}
    seen: set[str] = set()
    for read in reads:
        transaction = read.transaction
        if transaction.signature in seen:
            continue
        seen.add(transaction.signature)
        named = [by_reference[key] for key in transaction.keys if key in by_reference]
        for verdict in verify(
            mentioned(named, transaction), transaction, block_time=read.block_time
        ):
            found.setdefault(verdict.payment_id, []).append(verdict)
    return found


def _letter(unread: Unread, now: int) -> DeadLetter:
    found, attempts = unread.found, unread.found.attempts + 1
    delay_s = min(RETRY_DELAY_S_MAX, RETRY_DELAY_S_MIN * 2 ** min(attempts - 1, 30))
    return DeadLetter(
        signature=found.signature,
        key=found.key,
        slot=found.slot,
        reason=unread.reason,
        detail=unread.detail,
        payload=None if unread.payload is None else unread.payload[:PAYLOAD_BYTES_MAX],
        attempts=attempts,
        next_try_at=None if unread.hopeless else now + delay_s,
        created_at=now,
        updated_at=now,
    )
