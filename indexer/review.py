"""What a person decides: whose a transfer is, and what becomes of money that is in doubt.

    questions       why a payment is marked for review, transaction by transaction (`settle`)
    suggestions     transfers that name no payment and may be meant for one (`recipients`)

    match    gives a transaction without a reference to a payment. It is fetched again and judged
             by the same rule; what the suggestion said of it is not believed.
    accept   lets doubtful money count as if nothing were in doubt
    refuse   lets it count for nothing; or dismisses what was suggested

A decision is made once and never taken back. It is stored in one write with everything that
follows from it, on the condition that nobody decided before: of two people one wins, and the
other is told.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import base58

from indexer.core import texts
from indexer.core.events import format_time
from indexer.core.judge import Read
from indexer.core.settle import fold, questions
from indexer.core.suggest import Suggestion
from indexer.core.types import DecisionKind, Reason, Status
from indexer.core.verdict import Decision, Verdict
from indexer.core.verify import verify_matched
from indexer.errors import AxiomError, InvalidInput
from indexer.pipeline import Found, Pipeline
from indexer.settlement import settlement
from store import cards, payments, suggestions
from store.cards import CardRecord
from store.database import Database, Statement
from store.payments import Record
from store.suggestions import Fate


#: Characters of the reason that a person gives.
NOTE_CHARS_MAX: Final = 500

#: Decisions about one payment in one write. Whoever has more decides again: it stays in review.
DECISIONS_MAX: Final = 1_000

_SIGNATURE_BYTES: Final = 64
_SIGNATURE_CHARS_MAX: Final = 88

#: Where money can still make a difference.
_MATCHABLE: Final = frozenset({Status.PENDING, Status.PROCESSING, Status.EXPIRED})


class CannotDecide(AxiomError):
    """There is nothing to decide, or not in this way; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """A payment that a person must look at.

    Attributes:
        asked: signature -> why, in the chain's order; transactions that nobody decided on.
    """

    record: Record
    asked: Mapping[str, tuple[Reason, ...]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Everything that waits for a decision, the oldest first.

    Attributes:
        suggested: open suggestions, each with the payment that it is for.
        by_card: payments by card; what is wrong with them is put right at Paymob, not here.
        is_all: False when there is more than was asked for.
    """

    questions: tuple[Question, ...]
    suggested: tuple[tuple[Suggestion, Record], ...]
    by_card: tuple[CardRecord, ...]
    is_all: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """What one refusal did.

    Attributes:
        payments: as they are now; those that it was about.
        refused: how many credits count for nothing any more.
        dismissed: how many suggestions are closed.
    """

    payments: tuple[Record, ...]
    refused: int
    dismissed: int


class Review:
    """Reads what waits for a person, and writes what the person decided."""

    def __init__(
        self, database: Database, pipeline: Pipeline, *, clock: Callable[[], float]
    ) -> None:
        """Only `match` asks the chain.

        Args:
            database: has the payments.
            pipeline: fetches transactions and writes changes.
            clock: unix seconds.
        """
        self._database = database
        self._pipeline = pipeline
        self._clock = clock

    async def waiting(self, limit: int) -> Waiting:
        """What waits for a decision, at most so many of each kind."""
        records = await payments.in_review(self._database, limit=limit + 1)
        by_card = await cards.in_review(self._database, limit=limit + 1)
        found = await suggestions.listing(self._database, limit + 1)
        ids = {each.payment_id for each in found[:limit]}
        of_id = {r.payment.terms.id: r for r in await payments.by_ids(self._database, ids)}
        return Waiting(
            questions=tuple(Question(record, _asked(record)) for record in records[:limit]),
            suggested=tuple((each, of_id[each.payment_id]) for each in found[:limit]),
            by_card=tuple(by_card[:limit]),
            is_all=max(len(records), len(found), len(by_card)) <= limit,
        )

    # -------------------------------------------------------------------------------- match

    async def match(self, signature: str, payment_id: str, *, note: str | None = None) -> Record:
        """Gives a transaction that names no payment to one; returns the payment as it is then.

        Raises:
            InvalidInput: that is no signature, or no note.
            CannotDecide: the payment or the transaction is not one to be matched.
            SourceError: the chain side could not show the transaction, proven final.
        """
        _check(signature, note)
        _check_matchable(await self._get(payment_id), signature)
        read = await self._read(signature)
        keys, open_ = set(read.transaction.keys), list[Suggestion]()

        async def select() -> Sequence[Record]:
            open_[:] = await suggestions.of_signature(self._database, signature)
            others = await payments.by_references(self._database, keys, {signature})
            own = await self._get(payment_id)
            return [own, *(each for each in others if each.payment.terms.id != payment_id)]

        def decide(records: Sequence[Record]) -> list[Statement]:
            record, *others = records
            _check_matchable(record, signature)
            _check_free(record, others, read)
            now = int(self._clock())
            verdict = verify_matched(
                record.payment.terms, read.transaction, block_time=read.block_time
            )
            if verdict.credit == 0:
                raise CannotDecide(_pays_nothing(record, verdict))
            decision = _decision(payment_id, signature, DecisionKind.MATCHED, note, now)
            return [
                *settlement(record, (verdict,), decisions=(decision,), now=now),
                *(suggestions.close(each, _fate(each, payment_id), now) for each in open_),
            ]

        await self._pipeline.change(select, decide)
        return await self._get(payment_id)

    async def _read(self, signature: str) -> Read:
        (outcome,) = await self._pipeline.read([Found(signature=signature)])
        if not isinstance(outcome, Read):
            raise CannotDecide(f"{signature} cannot be examined now: {outcome.detail}")
        if outcome.transaction.failed:
            raise CannotDecide(f"{signature} failed on the chain: it moved nothing")
        return outcome

    # --------------------------------------------------------------------- accept and refuse

    async def accept(
        self, payment_id: str, *, signature: str | None = None, note: str | None = None
    ) -> Record:
        """Accepts the doubtful credits of a payment, or one; returns the payment as it is then.

        Raises:
            InvalidInput: that is no signature, or no note.
            CannotDecide: there is nothing to accept.
        """
        _check(signature, note)

        async def select() -> Sequence[Record]:
            return [await self._get(payment_id)]

        def decide(records: Sequence[Record]) -> list[Statement]:
            (record,) = records
            asked = _asked(record) if signature is None else _asked_about(record, signature)
            paying = {v.signature for v in record.verdicts if v.credit > 0}
            chosen = [each for each in asked if each in paying][:DECISIONS_MAX]
            if not chosen:
                raise CannotDecide(_nothing_to_accept(record, asked))
            return self._decided(record, chosen, DecisionKind.ACCEPTED, note)

        await self._pipeline.change(select, decide)
        return await self._get(payment_id)

    async def refuse(self, subject: str, *, note: str | None = None) -> Refusal:
        """Refuses what waits for a decision about a payment or a transaction.

        Args:
            subject: a payment's id: all its doubtful transactions and suggestions; or a
                signature: that transaction, whatever payments it is in doubt or suggested for.
            note: why.

        Raises:
            InvalidInput: that is neither, or no note.
            CannotDecide: there is nothing to refuse.
        """
        is_payment = subject.startswith("pay_")
        _check(None if is_payment else subject, note)
        open_, done = list[Suggestion](), dict[str, int]()

        async def select() -> Sequence[Record]:
            if is_payment:
                open_[:] = await suggestions.of_payment(self._database, subject)
                return [await self._get(subject)]
            open_[:] = await suggestions.of_signature(self._database, subject)
            return await payments.by_signature(self._database, subject)

        def decide(records: Sequence[Record]) -> list[Statement]:
            batch, now = [], int(self._clock())
            done.clear()
            for record in records:
                chosen = [each for each in _asked(record) if is_payment or each == subject]
                if chosen := chosen[:DECISIONS_MAX]:
                    _check_refusable(record, chosen)
                    batch += self._decided(record, chosen, DecisionKind.REFUSED, note)
                    done[record.payment.terms.id] = len(chosen)
            batch += [suggestions.close(each, Fate.DISMISSED, now) for each in open_]
            if not batch:
                raise CannotDecide(_nothing_to_refuse(subject, records))
            return batch

        await self._pipeline.change(select, decide)
        about = {*done, *(each.payment_id for each in open_)}
        found = await payments.by_ids(self._database, sorted(about))
        return Refusal(tuple(found), sum(done.values()), len(open_))

    def _decided(
        self, record: Record, signatures: Iterable[str], kind: DecisionKind, note: str | None
    ) -> list[Statement]:
        now, id_ = int(self._clock()), record.payment.terms.id
        decisions = [_decision(id_, signature, kind, note, now) for signature in signatures]
        return settlement(record, decisions=decisions, now=now)

    async def _get(self, payment_id: str) -> Record:
        record = await payments.get(self._database, payment_id)
        if record is not None:
            return record
        if await cards.get(self._database, payment_id) is not None:
            raise CannotDecide(
                f"{payment_id} is by card: money that is too much is given back at Paymob, and "
                "then nothing is left to decide"
            )
        raise CannotDecide(f"there is no payment {payment_id}; see `axiompay payments list`")


# ------------------------------------------------------------------------- what may be decided


def _asked(record: Record) -> Mapping[str, tuple[Reason, ...]]:
    return questions(
        record.payment.terms,
        record.verdicts,
        canceled_at=record.payment.state.canceled_at,
        accepted=record.accepted,
        refused=record.refused,
    )


def _asked_about(record: Record, signature: str) -> Mapping[str, tuple[Reason, ...]]:
    """The question about one transaction, which there must be."""
    _check_undecided(record, signature)
    asked = _asked(record)
    if signature in asked:
        return {signature: asked[signature]}
    id_ = record.payment.terms.id
    if any(verdict.signature == signature for verdict in record.verdicts):
        raise CannotDecide(f"nothing about {signature} is in doubt for {id_}")
    raise CannotDecide(
        f"{signature} is no transaction of {id_}; one that names no payment is given to it by "
        "`axiompay review match`"
    )


def _check_undecided(record: Record, signature: str) -> None:
    for each in record.decisions:
        if each.signature == signature:
            raise CannotDecide(
                f"{signature} was {each.kind} for {each.payment_id} at "
                f"{format_time(each.decided_at)} already: a decision is made once"
            )


def _check_matchable(record: Record, signature: str) -> None:
    """The payment still waits for money, and knows nothing of the transaction."""
    id_, status = record.payment.terms.id, record.payment.state.status
    _check_undecided(record, signature)
    if any(verdict.signature == signature for verdict in record.verdicts):
        raise CannotDecide(f"{signature} names {id_} itself and was judged: see `payments show`")
    if status not in _MATCHABLE:
        raise CannotDecide(f"{id_} is {status} already: nothing more can be matched to it")


def _check_free(record: Record, others: Sequence[Record], read: Read) -> None:
    """No payment is named by the transaction, and none has any of its money."""
    signature, keys = read.transaction.signature, set(read.transaction.keys)
    for each in (record, *others):
        id_ = each.payment.terms.id
        if each.payment.terms.reference in keys:
            raise CannotDecide(f"{signature} names {id_}: it is judged by itself")
        if any(verdict.signature == signature for verdict in each.verdicts):
            raise CannotDecide(f"{signature} pays {id_} already: a transfer counts once")


def _check_refusable(record: Record, signatures: Iterable[str]) -> None:
    """What settled a payment cannot be taken back; it can be accepted as it is."""
    state = record.payment.state
    if state.status is not Status.SETTLED:
        return
    without = fold(
        record.payment.terms,
        record.verdicts,
        frontier_time=None,
        sighted=False,
        canceled_at=state.canceled_at,
        accepted=record.accepted,
        refused=record.refused | set(signatures),
    )
    if without.status is not Status.SETTLED:
        raise CannotDecide(
            f"{record.payment.terms.id} was settled by this money and stays so: accept it"
        )


def _check(signature: str | None, note: str | None) -> None:
    texts.check_line("note", note, chars_max=NOTE_CHARS_MAX)
    if signature is None:
        return
    try:
        raw = base58.b58decode(signature) if len(signature) <= _SIGNATURE_CHARS_MAX else b""
    except ValueError:
        raw = b""
    if len(raw) != _SIGNATURE_BYTES:
        raise InvalidInput("signature", f"{signature[:100]!r} is no signature, nor a payment id")


# ----------------------------------------------------------------------------------- in words


def _decision(
    payment_id: str, signature: str, kind: DecisionKind, note: str | None, now: int
) -> Decision:
    return Decision(
        payment_id=payment_id, signature=signature, kind=kind, note=note, decided_at=now
    )


def _fate(suggestion: Suggestion, payment_id: str) -> Fate:
    """A transfer counts once: what it was suggested for besides is dismissed."""
    return Fate.MATCHED if suggestion.payment_id == payment_id else Fate.DISMISSED


def _pays_nothing(record: Record, verdict: Verdict) -> str:
    terms, evidence = record.payment.terms, verdict.evidence
    return (
        f"{verdict.signature} pays no {terms.asset.symbol} to {terms.recipient}: "
        f"{evidence.bound} came by transfers, {evidence.debited} left, "
        f"the balance changed by {evidence.delta} base units"
    )


def _nothing_to_accept(record: Record, asked: Mapping[str, tuple[Reason, ...]]) -> str:
    id_ = record.payment.terms.id
    if asked:
        return f"what is in doubt credits {id_} with nothing: `review refuse` it once seen"
    return f"nothing about {id_} waits for a decision"


def _nothing_to_refuse(subject: str, records: Sequence[Record]) -> str:
    for record in records:
        for each in record.decisions:
            if each.signature == subject:
                return (
                    f"{subject} was {each.kind} for {each.payment_id} at "
                    f"{format_time(each.decided_at)} already: a decision is made once"
                )
    return f"nothing about {subject} waits for a decision"
