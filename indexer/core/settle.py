"""The states of a payment, and the fold that finds the one it is in.

A payment's state is a pure function of five things: its terms, the verdicts of the finalized
transactions that carry its reference, the frontier (the block time up to which all of those are
known), whether the merchant canceled, and what a person decided about single transactions.
Nothing else. In particular not the order in which transactions were seen or decided on, nor how
often, nor from where: `fold` sorts by the chain's own order and looks at each signature once.
What is merely *sighted* (at `confirmed`) can make a payment look `processing`, and nothing more.

    pending ──► processing      a transaction that would pay was sighted, or the money is there
       ▲            │           but a person must look at it first (see `review`)
       └────────────┘           the sighting was dropped, or turned out not to be enough, or a
                                person refused the money
    pending | processing ──► settled    clean credits reached the amount: goods may be released
    pending | processing ──► expired    the frontier's block time passed `expires_at`
    expired ──► settled         the money came late but within the grace time, or it came in time
                                and was only readable later, or a person accepted it
    pending ──► canceled        the merchant took the offer back

Only clean credits settle: those whose transaction leaves no doubt (see `verify`). A doubtful
transaction is credited, shown and flagged, but cannot settle, and cannot block a clean one
either: garbage sent before or after the real payment changes nothing about it.

Each reason for `review` is a question about one transaction (`questions`), and a person answers
it once and for ever. What was *accepted* counts as if nothing were in doubt, and however late it
came; so does a transaction that names no reference and that a person *matched* to the payment.
What was *refused* counts for nothing: it neither settles, nor keeps the payment `processing`, nor
makes it late. `received` and `paid` still show it, because the money did arrive: they tell what
came, not what was made of it. No answer takes back what was settled, or opens what was canceled.

`failed` and `refunded` belong to cards. Overpaid and late are no states but facts beside the
state (`paid`, `late`), so that "late and overpaid" needs no name of its own.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self, TypeVar

from indexer.core.payment import AnyPayment, State, Terms
from indexer.core.types import Paid, Reason, Status
from indexer.core.verdict import Verdict
from indexer.errors import InvariantError


P = TypeVar("P", bound=AnyPayment)

#: Every legal change of status; the database holds the same table and refuses the rest.
TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = {
    Status.PENDING: frozenset(
        {Status.PROCESSING, Status.SETTLED, Status.EXPIRED, Status.CANCELED, Status.FAILED}
    ),
    Status.PROCESSING: frozenset({Status.PENDING, Status.SETTLED, Status.EXPIRED, Status.FAILED}),
    Status.SETTLED: frozenset({Status.REFUNDED}),
    Status.EXPIRED: frozenset({Status.SETTLED}),
    Status.CANCELED: frozenset(),
    Status.FAILED: frozenset({Status.SETTLED}),
    Status.REFUNDED: frozenset(),
}

#: Reasons that ask for a person. The others merely explain why a transaction credits nothing.
REVIEW_REASONS: Final = frozenset(
    {
        Reason.AUXILIARY_ACCOUNT,
        Reason.ALREADY_ALLOCATED,
        Reason.ACCOUNT_CREATED,
        Reason.DEBITED,
        Reason.BOOKS,
        Reason.UNDECODABLE,
        Reason.FEE_UNKNOWN,
        Reason.LATE_AFTER_GRACE,
        Reason.PAID_AFTER_CANCEL,
        Reason.PAID_AGAIN,
        Reason.PARTIALLY_REFUNDED,
    }
)


def fold(
    terms: Terms,
    verdicts: Iterable[Verdict],
    *,
    frontier_time: int | None,
    sighted: bool,
    canceled_at: int | None,
    accepted: Collection[str] = (),
    refused: Collection[str] = (),
) -> State:
    """The state that the facts add up to.

    Args:
        terms: what was asked for.
        verdicts: of finalized transactions, in any order, with any repetition.
        frontier_time: block time up to which every finalized transaction that carries the
            reference is among `verdicts`; None when nothing is known to be complete yet.
        sighted: some transaction at `confirmed` would pay.
        canceled_at: when the merchant canceled, unix seconds.
        accepted: signatures that a person accepted or matched; others than those of `verdicts`
            say nothing.
        refused: signatures that a person refused.
    """
    facts = _Facts.of(terms, verdicts, canceled_at, accepted, refused)
    settling, counted = facts.settling, facts.counted
    received = sum(verdict.credit for verdict in facts.distinct)
    expirable = frontier_time is not None and frontier_time > terms.expires_at
    if facts.canceled:
        status = Status.CANCELED
    elif settling is not None:
        status = Status.SETTLED
    elif _in_time(terms, counted) >= terms.amount:
        status = Status.PROCESSING  # the money is here, but a person must look: never expires
    elif expirable:
        status = Status.EXPIRED
    else:
        status = Status.PROCESSING if sighted else Status.PENDING
    return State(
        status=status,
        paid=_paid(received, terms.amount),
        late=any(_is_late(terms, v) for v in _up_to(settling, counted)),
        review=tuple(sorted({reason for asked in _asked(facts).values() for reason in asked})),
        received=received,
        settled_at=None if settling is None else counted[settling].block_time,
        canceled_at=canceled_at,
    )


def questions(
    terms: Terms,
    verdicts: Iterable[Verdict],
    *,
    canceled_at: int | None,
    accepted: Collection[str] = (),
    refused: Collection[str] = (),
) -> Mapping[str, tuple[Reason, ...]]:
    """What a person is asked about each transaction: signature -> reasons, in the chain's order.

    Together they are the `review` of the state that `fold` makes of the same facts.
    """
    facts = _Facts.of(terms, verdicts, canceled_at, accepted, refused)
    return {
        signature: tuple(sorted(reasons)) for signature, reasons in _asked(facts).items() if reasons
    }


def advance(payment: P, state: State) -> P:
    """The payment in its new state and next version; the same payment when nothing changed.

    The fold does not know where the payment stood. One of its answers may then be no legal
    step: a payment that expired, and whose full but doubtful money only became readable
    afterwards, stays expired, with the reasons for review beside it.
    """
    status = payment.state.status
    if state.status is not status and state.status not in TRANSITIONS[status]:
        if (status, state.status) != (Status.EXPIRED, Status.PROCESSING):
            raise InvariantError(f"{payment.terms.id}: {status} may not become {state.status}")
        state = replace(state, status=status)
    if state == payment.state:
        return payment
    return replace(payment, state=state, version=payment.version + 1)


def cancel(payment: P, now: int, *, decided: int = 0) -> P:
    """The payment, canceled, as `fold` will have it. Only a pending one can be: ask before.

    Args:
        payment: as it stands.
        now: unix seconds.
        decided: base units of what was received that a person has accepted or refused already.
    """
    state = payment.state
    if Status.CANCELED not in TRANSITIONS[state.status]:
        raise InvariantError(f"{payment.terms.id} is {state.status}, not cancelable")
    is_asked = state.received > decided
    review = {*state.review, Reason.PAID_AFTER_CANCEL} if is_asked else state.review
    canceled = replace(state, status=Status.CANCELED, canceled_at=now, review=tuple(sorted(review)))
    return advance(payment, canceled)


@dataclass(frozen=True, slots=True)
class _Facts:
    """The verdicts, put in order and weighed by what a person said of them.

    Attributes:
        distinct: each transaction once, in the chain's order.
        counted: those that credit something and were not refused.
        settling: position in `counted` of the one that completes the amount; None when none does.
    """

    terms: Terms
    distinct: Sequence[Verdict]
    counted: Sequence[Verdict]
    settling: int | None
    canceled: bool
    decided: frozenset[str]

    @classmethod
    def of(
        cls,
        terms: Terms,
        verdicts: Iterable[Verdict],
        canceled_at: int | None,
        accepted: Collection[str],
        refused: Collection[str],
    ) -> Self:
        good, bad = frozenset(accepted), frozenset(refused)
        distinct = sorted({v.signature: v for v in verdicts}.values(), key=lambda v: v.order)
        counted = [v for v in distinct if v.credit > 0 and v.signature not in bad]
        canceled = canceled_at is not None
        settling = None if canceled else _settling(terms, counted, good)
        return cls(terms, distinct, counted, settling, canceled, good | bad)


def _settling(terms: Terms, counted: Sequence[Verdict], accepted: frozenset[str]) -> int | None:
    """Position of the verdict whose credit completes the amount, in the chain's order.

    Only clean credits within the grace time do so by themselves, and accepted ones.
    """
    total = 0
    for position, verdict in enumerate(counted):
        is_good = verdict.clean and not _is_after_grace(terms, verdict)
        if is_good or verdict.signature in accepted:
            total += verdict.credit
            if total >= terms.amount:
                return position
    return None


def _up_to(settling: int | None, counted: Sequence[Verdict]) -> Sequence[Verdict]:
    """What counts for lateness: everything until it was settled, nothing that came after."""
    return counted if settling is None else counted[: settling + 1]


def _in_time(terms: Terms, counted: Sequence[Verdict]) -> int:
    return sum(verdict.credit for verdict in counted if not _is_late(terms, verdict))


def _is_late(terms: Terms, verdict: Verdict) -> bool:
    return _block_time(verdict) > terms.expires_at


def _is_after_grace(terms: Terms, verdict: Verdict) -> bool:
    return _block_time(verdict) > terms.expires_at + terms.grace_s


def _block_time(verdict: Verdict) -> int:
    """The time that decides lateness; a credit without one is never made (see `verify`)."""
    if verdict.block_time is None:
        raise InvariantError(f"{verdict.signature} credits without a block time")
    return verdict.block_time


def _paid(received: int, amount: int) -> Paid:
    if received == 0:
        return Paid.NONE
    if received < amount:
        return Paid.PARTIAL
    return Paid.EXACT if received == amount else Paid.OVER


def _asked(facts: _Facts) -> dict[str, set[Reason]]:
    """Why a person must look at each transaction that nobody decided on."""
    terms, settling = facts.terms, facts.settling
    after = () if settling is None else facts.counted[settling + 1 :]
    asked: dict[str, set[Reason]] = {}
    for verdict in facts.distinct:
        if verdict.signature not in facts.decided:
            asked[verdict.signature] = set(verdict.reasons) & REVIEW_REASONS
    for verdict in facts.counted:
        reasons = asked.get(verdict.signature, set())
        if facts.canceled:
            reasons.add(Reason.PAID_AFTER_CANCEL)
        if settling is None and _is_after_grace(terms, verdict):
            reasons.add(Reason.LATE_AFTER_GRACE)
    for verdict in after:
        # Small change that follows the payment only makes it overpaid. The whole amount once
        # more is a customer who paid twice and will want it back.
        if verdict.credit >= terms.amount:
            asked.get(verdict.signature, set()).add(Reason.PAID_AGAIN)
    return asked
