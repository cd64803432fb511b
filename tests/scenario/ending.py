"""What is stored of a payment once a story is over, in a form that can be compared at a glance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from indexer.core.types import EventType, Paid, Reason, Status
from indexer.core.verdict import Verdict
from store.payments import Record


Events = tuple[EventType, ...]

SETTLED: Events = (EventType.SETTLED,)
PARTIALLY_PAID: Events = (EventType.PARTIALLY_PAID,)
EXPIRED: Events = (EventType.EXPIRED,)
REVIEW: Events = (EventType.REVIEW,)
PARTIAL_AND_REVIEW: Events = (*PARTIALLY_PAID, *REVIEW)


@dataclass(frozen=True, slots=True)
class Says:
    """What a verdict says: base units, whether they may settle, and why not."""

    credit: int
    clean: bool
    reasons: tuple[Reason, ...]


def clean(credit: int, *reasons: Reason) -> Says:
    """A verdict that needs no person."""
    return Says(credit, clean=True, reasons=tuple(sorted(reasons)))


def doubtful(credit: int, *reasons: Reason) -> Says:
    """A verdict that settles nothing by itself."""
    return Says(credit, clean=False, reasons=tuple(sorted(reasons)))


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Where a payment came to stand, by which verdicts, and what was published on the way.

    Attributes:
        verdicts: by signature. That of a failed transaction is left out: whether it is looked
            at depends on who tells of it, and it never matters.
        events: after `payment.created`, without `payment.detected`: both are sure to come at
            most once per transaction, the second only where nobody is slow.
    """

    status: Status = Status.PENDING
    paid: Paid = Paid.NONE
    late: bool = False
    received: int = 0
    review: tuple[Reason, ...] = ()
    verdicts: Mapping[str, Says] = field(default_factory=dict)
    events: Events = ()

    @classmethod
    def of(cls, record: Record, events: list[str]) -> Self:
        """The ending as it is stored."""
        state = record.payment.state
        return cls(
            status=state.status,
            paid=state.paid,
            late=state.late,
            received=state.received,
            review=tuple(Reason(reason) for reason in state.review),
            verdicts={v.signature: says(v) for v in record.verdicts if not _failed(v)},
            events=tuple(EventType(e) for e in events[1:] if e != EventType.DETECTED),
        )


def settled(*signatures: str, amount: int) -> Ending:
    """Paid exactly and without a doubt, by equal parts in each transaction."""
    share = amount // len(signatures)
    return Ending(
        status=Status.SETTLED,
        paid=Paid.EXACT,
        received=amount,
        verdicts={signature: clean(share) for signature in signatures},
        events=SETTLED,
    )


def unpaid(
    signature: str, *reasons: Reason, review: tuple[Reason, ...] = (), doubt: bool = False
) -> Ending:
    """Still open: the transaction credits nothing, for these reasons.

    `doubt` says that it could not have settled anything either.
    """
    return Ending(
        review=review,
        verdicts={signature: doubtful(0, *reasons) if doubt else clean(0, *reasons)},
        events=REVIEW if review else (),
    )


def says(verdict: Verdict) -> Says:
    """The part of a verdict that decides."""
    return Says(verdict.credit, verdict.clean, verdict.reasons)


def _failed(verdict: Verdict) -> bool:
    return verdict.reasons == (Reason.FAILED_TRANSACTION,)
