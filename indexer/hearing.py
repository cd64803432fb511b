"""What the chain says of some payments, gathered for an audit: listed, fetched, judged anew.

The store is on trial here, so nothing is taken from it but what the chain cannot know: the
terms, whose a leg already was, and what a person decided. What is stored and not listed is asked
for by its signature: a list may be wrong, and a forged verdict is found in no other way.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from indexer.core.books import Credit
from indexer.core.judge import Read
from indexer.core.payment import Terms
from indexer.core.reckoning import Said, recomputed
from indexer.core.transaction import Transaction
from indexer.core.types import DecisionKind
from indexer.core.verdict import Verdict
from indexer.errors import SourceError, SourceUnavailable
from indexer.pipeline import Found, Pipeline, Unread
from indexer.sources.history import history
from indexer.sources.reach import Reach
from indexer.sources.rpc import Rpc
from indexer.survey import CREATED_MARGIN_S
from store import dead_letters, payments
from store.audit import Snapshot
from store.database import Database
from store.payments import Record


#: Transactions that are held at once.
TRANSACTIONS_AT_ONCE: Final = 100
#: Signatures of one payment that are examined; of one with more, nothing is said.
SIGNATURES_MAX: Final = 100_000
#: Seconds by which two ways to ask a node for the time of one block may differ.
ROUNDED_S: Final = 1


@dataclass(slots=True)
class Heard:
    """What was gathered for one payment.

    Attributes:
        listed: signatures that name its reference, with what the list says of them.
        unproven: why not everything could be listed; None when it was.
        is_silent: nobody gave a list.
    """

    record: Record
    listed: dict[str, Found] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    excused: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    unproven: str | None = None
    is_silent: bool = False

    @property
    def terms(self) -> Terms:
        """What was asked for."""
        return self.record.payment.terms

    @property
    def stored(self) -> Mapping[str, Verdict]:
        """What is stored, by signature."""
        return {verdict.signature: verdict for verdict in self.record.verdicts}

    def said(self, time: int | None) -> Said:
        """All of it, as it is compared."""
        return Said(verdicts=self.verdicts, excused=self.excused, unread=self.unread, time=time)


@dataclass(frozen=True, slots=True)
class Moved:
    """A transaction that pays, and every stored credit that it gave.

    Attributes:
        owner: id of the oldest payment that it concerns; who enters it in the books does so
            where that payment is looked at, and so once.
    """

    transaction: Transaction
    credits: Sequence[Credit]
    owner: str


class Hearing:
    """Asks the chain."""

    def __init__(self, database: Database, rpc: Rpc, pipeline: Pipeline, *, since: int) -> None:
        """Nothing is asked before `hear`.

        Args:
            database: knows which payments a transaction names.
            rpc: open.
            pipeline: reads transactions; nothing is written.
            since: payments created from then on (unix seconds) are looked at, older ones never.
        """
        self._database = database
        self._rpc = rpc
        self._pipeline = pipeline
        self._since = since
        self._reach = Reach(rpc)

    async def hear(
        self, snapshot: Snapshot, finalized: int
    ) -> tuple[dict[str, Heard], list[Moved]]:
        """What the chain says of these payments, up to a finalized slot, and what moved money.

        Raises:
            SourceUnavailable: nobody answers.
            StoreUnavailable: see `Database.read`.
        """
        heard = {record.payment.terms.id: Heard(record) for record in snapshot.records}
        await asyncio.gather(*(self._list(each, finalized) for each in heard.values()))
        silent = [each for each in heard.values() if each.is_silent]
        if silent and len(silent) == len(heard):
            raise SourceUnavailable(silent[0].unproven or "")
        found: dict[str, Found] = {}
        for each in heard.values():
            alone = (each.stored.keys() | _matched(each.record)) - each.listed.keys()
            for signature in alone:
                found.setdefault(signature, Found(signature=signature))
            found |= each.listed
        moved: list[Moved] = []
        signatures = sorted(found)
        for start in range(0, len(signatures), TRANSACTIONS_AT_ONCE):
            batch = [found[name] for name in signatures[start : start + TRANSACTIONS_AT_ONCE]]
            moved += await self._judge(batch, heard, snapshot)
        return heard, moved

    async def _list(self, heard: Heard, finalized: int) -> None:
        terms = heard.terms
        try:
            choice = await self._reach.choose(time=terms.created_at)
            if not choice.reaches:
                heard.unproven = f"no endpoint keeps anything before slot {choice.first_slot}"
            async for rows in history(
                self._rpc,
                terms.reference,
                first_slot=0,
                last_slot=finalized,
                since=terms.created_at - CREATED_MARGIN_S,
                endpoints=choice.endpoints,
            ):
                # A failed transaction moved nothing; it matters only where somebody stored it.
                for row in rows:
                    if not row.failed or row.signature in heard.stored:
                        heard.listed[row.signature] = Found.listed(row)
                if len(heard.listed) > SIGNATURES_MAX:
                    heard.unproven = f"more than {SIGNATURES_MAX} transactions name it"
                    heard.listed.clear()
                    return
        except SourceError as error:
            heard.unproven, heard.is_silent = str(error), True

    async def _judge(
        self, found: Sequence[Found], heard: Mapping[str, Heard], snapshot: Snapshot
    ) -> list[Moved]:
        """Fetches transactions, and tells each payment what they mean for it."""
        outcomes = await self._pipeline.read(found)
        for outcome in outcomes:
            if isinstance(outcome, Unread):
                _not_read(outcome, heard)
        reads = [outcome for outcome in outcomes if isinstance(outcome, Read)]
        keys = {key for read in reads for key in read.transaction.keys}
        signatures = [read.transaction.signature for read in reads]
        named = await payments.by_references(self._database, keys, signatures) if reads else []
        parked = await dead_letters.reasons(self._database, signatures)
        moved = []
        for outcome in reads:
            read = await self._as_timed(outcome, heard)
            moved += self._tell(read, named, heard)
            signature = read.transaction.signature
            for each in heard.values():
                if signature in each.verdicts and signature not in each.stored:
                    excuse = _excuse(each.terms, read.transaction, snapshot, parked)
                    each.excused |= {} if excuse is None else {signature: excuse}
        return moved

    async def _as_timed(self, read: Read, heard: Mapping[str, Heard]) -> Read:
        """The transaction with that of its block times which is stored, where there are two.

        Some nodes round the time of a block in one way in a list of signatures, and in another
        when they are asked for it; the pipeline takes what it is given first.
        """
        signature, slot = read.transaction.signature, read.transaction.slot
        for each in heard.values():
            time = each.stored[signature].block_time if signature in each.stored else None
            if time is None or read.block_time is None or time == read.block_time:
                continue
            is_listed = signature in each.listed
            if abs(time - read.block_time) <= ROUNDED_S and not is_listed:
                return replace(read, block_time=time)
            if is_listed and time == await self._rpc.block_time(slot):
                return replace(read, block_time=time)
        return read

    def _tell(self, read: Read, named: Sequence[Record], heard: Mapping[str, Heard]) -> list[Moved]:
        """What one transaction means for each payment that is looked at; its money, if any."""
        signature, keys = read.transaction.signature, set(read.transaction.keys)
        records = {}
        for record in named:
            id_ = record.payment.terms.id
            # Of those that are looked at, as they were read with their events; others as now.
            record = heard[id_].record if id_ in heard else record  # noqa: PLW2901 - the same one
            holds = any(verdict.signature == signature for verdict in record.verdicts)
            if holds or signature in _matched(record) or record.payment.terms.reference in keys:
                records[id_] = record
        stored = {
            id_: verdict
            for id_, record in records.items()
            for verdict in record.verdicts
            if verdict.signature == signature
        }
        terms = [record.payment.terms for record in records.values()]
        matched = [r.payment.terms for r in records.values() if signature in _matched(r)]
        verdicts = recomputed(terms, read, stored, matched=matched)
        for id_ in verdicts.keys() & heard.keys():
            heard[id_].verdicts[signature] = verdicts[id_]
        ages = [(each.created_at, each.id) for each in terms if each.created_at >= self._since]
        owner = min(ages, default=(0, ""))[1]
        if owner not in heard:
            return []
        credits_ = [
            Credit(
                verdict=stored[id_],
                recipient=records[id_].payment.terms.recipient,
                asset=records[id_].payment.terms.asset,
            )
            for id_ in stored
            if stored[id_].credit
        ]
        return [Moved(read.transaction, credits_, owner)]


def _matched(record: Record) -> frozenset[str]:
    """Signatures that a person gave to this payment."""
    return frozenset(d.signature for d in record.decisions if d.kind is DecisionKind.MATCHED)


def _not_read(unread: Unread, heard: Mapping[str, Heard]) -> None:
    """Nothing is known of a transaction: of those that it concerns, nothing more is said.

    Unless nobody lists it and no node has it, where all of history was listed: then it is not.
    """
    signature = unread.found.signature
    for each in heard.values():
        is_listed = signature in each.listed
        if (
            not is_listed
            and signature not in each.stored
            and signature not in _matched(each.record)
        ):
            continue
        if is_listed or each.unproven is not None or unread.reason != "not_found":
            each.unread[signature] = unread.detail


def _excuse(
    terms: Terms, transaction: Transaction, snapshot: Snapshot, parked: Mapping[str, str]
) -> str | None:
    """Why the store need not know the transaction yet; None when it should."""
    if (reason := parked.get(transaction.signature)) is not None:
        return f"set aside: {reason}"
    slot, reached = transaction.slot, -1
    finders = [terms.reference]
    if terms.watch_key is not None and terms.watch_key in transaction.keys:
        finders.append(terms.watch_key)
    for key in finders:
        frontier = snapshot.frontiers.get(key)
        if frontier is None or frontier.slot < slot:
            continue
        reached = frontier.slot
        if not any(slot in slots for slots in snapshot.gaps.get(key, ())):
            return None
    if reached >= 0:
        return f"slot {slot} lies in a gap that is still open"
    return f"the store has not come to slot {slot} yet"
