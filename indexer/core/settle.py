"""The states of a payment, and the fold that finds the one it is in.

A payment's state is a pure function of four things: its terms, the verdicts of the finalized
transactions that carry its reference, the frontier (the block time up to which all of those are
known), and whether the merchant canceled. Nothing else. In particular not the order in which
transactions were seen, nor how often, nor from where: `fold` sorts by the chain's own order and
looks at each signature once. What is merely *sighted* (at `confirmed`) can make a payment look
`processing`, and nothing more.

    pending ──► processing      a transaction that would pay was sighted, or the money is there
       ▲            │           but a person must look at it first (see `review`)
       └────────────┘           the sighting was dropped, or turned out not to be enough
    pending | processing ──► settled    clean credits reached the amount: goods may be released
    pending | processing ──► expired    the frontier's block time passed `expires_at`
    expired ──► settled         the money came late but within the grace time, or it came in time
                                and was only readable later
    pending ──► canceled        the merchant took the offer back

Only clean credits settle: those whose transaction leaves no doubt (see `verify`). A doubtful
transaction is credited, shown and flagged, but cannot settle, and cannot block a clean one
either: garbage sent before or after the real payment changes nothing about it.

`failed` and `refunded` belong to cards. Overpaid and late are no states but facts beside the
state (`paid`, `late`), so that "late and overpaid" needs no name of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from indexer.core.payment import Payment, State, Terms
from indexer.core.types import Paid, Reason, Status
from indexer.core.verdict import Verdict
from indexer.errors import InvariantError


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
    }
)


def fold(
    terms: Terms,
    verdicts: Iterable[Verdict],
    *,
    frontier_time: int | None,
    sighted: bool,
    canceled_at: int | None,
) -> State:
    """The state that the facts add up to.

    Args:
        terms: what was asked for.
        verdicts: of finalized transactions, in any order, with any repetition.
        frontier_time: block time up to which every finalized transaction that carries the
            reference is among `verdicts`; None when nothing is known to be complete yet.
        sighted: some transaction at `confirmed` would pay.
        canceled_at: when the merchant canceled, unix seconds.
    """
    distinct = sorted({v.signature: v for v in verdicts}.values(), key=lambda v: v.order)
    credited = [verdict for verdict in distinct if verdict.credit > 0]
    received = sum(verdict.credit for verdict in credited)
    settling = None if canceled_at is not None else _settling(terms, credited)
    expirable = frontier_time is not None and frontier_time > terms.expires_at
    if canceled_at is not None:
        status = Status.CANCELED
    elif settling is not None:
        status = Status.SETTLED
    elif _in_time(terms, credited) >= terms.amount:
        status = Status.PROCESSING  # the money is here, but a person must look: never expires
    elif expirable:
        status = Status.EXPIRED
    else:
        status = Status.PROCESSING if sighted else Status.PENDING
    return State(
        status=status,
        paid=_paid(received, terms.amount),
        late=any(_is_late(terms, v) for v in _up_to(settling, credited)),
        review=_review(terms, distinct, credited, settling, canceled=canceled_at is not None),
        received=received,
        settled_at=None if settling is None else credited[settling].block_time,
        canceled_at=canceled_at,
    )


def advance(payment: Payment, state: State) -> Payment:
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


def cancel(payment: Payment, now: int) -> Payment:
    """The payment, canceled, as `fold` will have it. Only a pending one can be: ask before."""
    state = payment.state
    if Status.CANCELED not in TRANSITIONS[state.status]:
        raise InvariantError(f"{payment.terms.id} is {state.status}, not cancelable")
    review = {*state.review, Reason.PAID_AFTER_CANCEL} if state.received else state.review
    canceled = replace(state, status=Status.CANCELED, canceled_at=now, review=tuple(sorted(review)))
    return advance(payment, canceled)


def _settling(terms: Terms, credited: Sequence[Verdict]) -> int | None:
    """Position of the verdict whose clean credit completes the amount, in the chain's order."""
    total = 0
    for position, verdict in enumerate(credited):
        if verdict.clean and not _is_after_grace(terms, verdict):
            total += verdict.credit
            if total >= terms.amount:
                return position
    return None


def _up_to(settling: int | None, credited: Sequence[Verdict]) -> Sequence[Verdict]:
    """What counts for lateness: everything until it was settled, nothing that came after."""
    return credited if settling is None else credited[: settling + 1]


def _in_time(terms: Terms, credited: Sequence[Verdict]) -> int:
    return sum(verdict.credit for verdict in credited if not _is_late(terms, verdict))


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


def _review(
    terms: Terms,
    distinct: Sequence[Verdict],
    credited: Sequence[Verdict],
    settling: int | None,
    *,
    canceled: bool,
) -> tuple[str, ...]:
    """Why a person must look, sorted."""
    reasons = {reason for verdict in distinct for reason in verdict.reasons} & REVIEW_REASONS
    if canceled and credited:
        reasons.add(Reason.PAID_AFTER_CANCEL)
    if settling is None and any(_is_after_grace(terms, verdict) for verdict in credited):
        reasons.add(Reason.LATE_AFTER_GRACE)
    # Small change that follows the payment only makes it overpaid. The whole amount once more
    # is a customer who paid twice and will want it back.
    if settling is not None and any(v.credit >= terms.amount for v in credited[settling + 1 :]):
        reasons.add(Reason.PAID_AGAIN)
    return tuple(sorted(reasons))
