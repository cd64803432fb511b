"""The state of a payment by card: the fold of its charges, and what is shown of it.

As on the chain, the state is a pure function of facts: the offer, the charges (see `charge`), the
time up to which the acquirer told of all charges, and whether the merchant canceled. In which
order the charges became known, and how often they were told of, makes no difference to `fold_card`.

    settled      charges that were paid within the grace time reached the amount
    refunded     … and nothing of them is left: refunded in full, or voided
    failed       an attempt came to nothing: declined, or voided before it paid. The customer may
                 try again, so `failed` may still become `settled`, and never becomes `expired`.
                 It counts for more than another attempt that is still under way: a payment that
                 was shown as failed must not be shown as processing again
    processing   an attempt is under way: 3D Secure, or authorized and not captured
    expired      the acquirer told, after the deadline, of no attempt. One that is under way then
                 has until the end of the grace time; one that is authorized holds the customer's
                 money, and is waited for
    canceled     by the merchant; money that comes all the same is a case for a person

`received` is what was ever paid, as on the chain: what became of it is told by the status and by
the reasons for review. These are:

    partially_refunded   settled, and less than the amount is left, but something is
    paid_again           settled, then paid in full once more, and not given back yet
    late_after_grace     paid after the grace time: it does not settle
    paid_after_cancel    paid although the merchant canceled

A reason is taken back by giving the money back: then there is nothing left to decide.

The fold does not know where the payment stood, and one piece of news may tell of several steps.
So `advance` shows the nearest legal thing where the fold's answer would be none:

    stood at                 the fold says            what is shown
    pending, processing      refunded                 failed: nobody was ever told that it is
                                                      settled, and nothing is left of the money
    expired, failed          all but settled          as it stood: only money moves it on
    refunded                 settled (paid again)     refunded, with `paid_again`
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from indexer.core import settle
from indexer.core.charge import Charge
from indexer.core.payment import CardPayment, Offer, State
from indexer.core.types import ChargeState, Paid, Reason, Status


_UNDER_WAY: Final = frozenset({ChargeState.PENDING, ChargeState.AUTHORIZED})
_CAME_TO_NOTHING: Final = frozenset(
    {ChargeState.DECLINED, ChargeState.VOIDED, ChargeState.REFUNDED}
)


def fold_card(
    terms: Offer,
    charges: Iterable[Charge],
    *,
    complete_to: int | None,
    canceled_at: int | None,
) -> State:
    """The state that the charges add up to.

    Args:
        terms: what was asked for.
        charges: of all orders of the payment, each once, in any order.
        complete_to: unix seconds; all charges that were made until then are among `charges`,
            because the acquirer was asked after that time and answered. None: nothing is known to
            be complete.
        canceled_at: when the merchant canceled, unix seconds.
    """
    facts = _Facts.of(terms, charges, canceled_at)
    received = sum(charge.amount for charge in facts.paid)
    return State(
        status=_status(facts, complete_to),
        paid=_paid(received, terms.amount),
        late=any(at > terms.expires_at for at in facts.times[: facts.counting]),
        review=tuple(sorted(_reasons(facts))),
        received=received,
        settled_at=None if facts.settling is None else facts.times[facts.settling],
        canceled_at=canceled_at,
    )


def advance(payment: CardPayment, state: State) -> CardPayment:
    """The payment in its new state and next version; the same payment when nothing changed.

    Args:
        payment: as it stands.
        state: of `fold_card`, of all that is known now.

    Raises:
        InvariantError: no charges lead there from where it stood.
    """
    return settle.advance(payment, _shown(payment.state.status, state))


@dataclass(frozen=True, slots=True)
class _Facts:
    """The charges, put in order.

    Attributes:
        charges: all of them.
        paid: those that were ever paid, by the time of that.
        times: when each of `paid` was.
        settling: position in `paid` of the charge that completes the amount; None when none does.
    """

    terms: Offer
    charges: Sequence[Charge]
    paid: Sequence[Charge]
    times: Sequence[int]
    settling: int | None
    canceled: bool

    @classmethod
    def of(cls, terms: Offer, charges: Iterable[Charge], canceled_at: int | None) -> Self:
        known = tuple(charges)
        dated = sorted(
            ((charge.paid_at, charge.id, charge) for charge in known if charge.paid_at is not None),
            key=lambda each: each[:2],
        )
        paid, times = [charge for _, _, charge in dated], [at for at, _, _ in dated]
        canceled = canceled_at is not None
        settling = None if canceled else _settling(terms, paid, times)
        return cls(terms, known, paid, times, settling, canceled)

    @property
    def in_grace(self) -> int:
        """How many of `paid` came within the grace time: those at the front."""
        end = self.terms.expires_at + self.terms.grace_s
        return sum(at <= end for at in self.times)

    @property
    def counting(self) -> int:
        """How many of `paid` decide about lateness: nothing that came after it was settled."""
        return len(self.paid) if self.settling is None else self.settling + 1


def _settling(terms: Offer, paid: Sequence[Charge], times: Sequence[int]) -> int | None:
    total = 0
    for position, (charge, at) in enumerate(zip(paid, times, strict=True)):
        if at > terms.expires_at + terms.grace_s:
            return None
        total += charge.amount
        if total >= terms.amount:
            return position
    return None


def _kept(charges: Iterable[Charge]) -> int:
    return sum(charge.kept for charge in charges)


def _status(facts: _Facts, complete_to: int | None) -> Status:
    if facts.canceled:
        return Status.CANCELED
    if facts.settling is not None:
        return Status.SETTLED if _kept(facts.paid[: facts.in_grace]) else Status.REFUNDED
    if any(charge.state in _CAME_TO_NOTHING for charge in facts.charges):
        return Status.FAILED
    if complete_to is not None and _is_over(facts, complete_to):
        return Status.EXPIRED
    under_way = any(charge.state in _UNDER_WAY for charge in facts.charges)
    return Status.PROCESSING if under_way else Status.PENDING


def _is_over(facts: _Facts, complete_to: int) -> bool:
    """Whether nothing can come any more that would settle it by itself."""
    states = {charge.state for charge in facts.charges}
    if ChargeState.AUTHORIZED in states:
        return False
    grace_s = facts.terms.grace_s if ChargeState.PENDING in states else 0
    return complete_to > facts.terms.expires_at + grace_s


def _paid(received: int, amount: int) -> Paid:
    if received == 0:
        return Paid.NONE
    if received < amount:
        return Paid.PARTIAL
    return Paid.EXACT if received == amount else Paid.OVER


def _reasons(facts: _Facts) -> set[Reason]:
    """Why a person must look: each is a question about money that is still here."""
    if facts.canceled:
        return {Reason.PAID_AFTER_CANCEL} if _kept(facts.paid) else set()
    if facts.settling is None:
        return {Reason.LATE_AFTER_GRACE} if _kept(facts.paid[facts.in_grace :]) else set()
    reasons = set()
    amount, left = facts.terms.amount, _kept(facts.paid[: facts.in_grace])
    if 0 < left < amount:
        reasons.add(Reason.PARTIALLY_REFUNDED)
    # Of a payment that was given back, everything that is still here is too much.
    due = amount if left else 0
    again = any(c.kept and c.amount >= amount for c in facts.paid[facts.settling + 1 :])
    if again and _kept(facts.paid) > due:
        reasons.add(Reason.PAID_AGAIN)
    return reasons


def _shown(before: Status, state: State) -> State:
    """The nearest thing to `state` that a payment may show after `before`: see above."""
    after = state.status
    match before:
        case Status.PENDING | Status.PROCESSING if after is Status.REFUNDED:
            return replace(state, status=Status.FAILED, settled_at=None)
        case Status.EXPIRED | Status.FAILED if after not in {Status.SETTLED, Status.CANCELED}:
            return replace(state, status=before, settled_at=None)
        case Status.REFUNDED if after is Status.SETTLED:
            review = {*state.review, Reason.PAID_AGAIN}
            return replace(state, status=before, review=tuple(sorted(review)))
        case _:
            return state
