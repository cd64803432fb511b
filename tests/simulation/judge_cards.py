"""What the daemon made of payments by card, held against what Paymob truly has."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

from indexer.core.payment import Offer
from tests.simulation.case import Case, Row, grouped
from tests.simulation.outcome import Outcome, Sold, TrueCharge


#: From where to where a payment by card may go.
STEPS: Final = {
    "pending": {"processing", "settled", "expired", "canceled", "failed"},
    "processing": {"pending", "settled", "expired", "failed"},
    "settled": {"refunded"},
    "expired": {"settled"},
    "failed": {"settled"},
}

#: In which order states of a charge say more and more.
RANKS: Final = ("pending", "declined", "authorized", "paid", "refunded", "voided")

#: What is told by an inquiry counts from when it was made; answers take up to that many seconds.
ANSWER_S_MAX: Final = 60


class CardCase(Case):
    """One outcome of a shop."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        assert outcome.sold is not None
        self.sold: Sold = outcome.sold

    @cached_property
    def terms(self) -> dict[str, Offer]:
        """Payment id -> what was asked for."""
        return {terms.id: terms for terms in self.sold.asked}

    @cached_property
    def known(self) -> dict[str, list[Row]]:
        """Payment id -> the charges that are stored."""
        return grouped(self.outcome.rows["charges"], lambda row: row["payment_id"])

    def orders_of(self, payment_id: str) -> frozenset[int]:
        """Numbers of the orders that were made for a payment."""
        orders = self.sold.orders.values()
        return frozenset(o.id for o in orders if o.reference.partition("-")[0] == payment_id)

    def statuses(self, payment_id: str) -> list[str]:
        """Those that the payment went through."""
        return [change.status for change in self.changes.get(payment_id, ())]


def every_payment_is_there(case: CardCase) -> Iterator[str]:
    """What the merchant was promised is stored, and nothing else."""
    for payment_id in case.terms.keys() ^ case.payments.keys():
        yield f"{payment_id} was accepted and is not stored, or the other way round"


def charges_are_true(case: CardCase) -> Iterator[str]:
    """What is stored of a charge is what Paymob has; and all that was told is stored."""
    for row in case.outcome.rows["charges"]:
        true: TrueCharge | None = case.sold.charges.get(row["id"])
        if true is None or true.order_id not in case.orders_of(row["payment_id"]):
            yield f"charge {row['id']} of {row['payment_id']} is not, or of another payment"
            continue
        stored = (row["order_id"], row["amount"], row["state"], row["refunded"])
        expected = (true.order_id, str(true.amount), true.shown_state, str(true.refunded))
        if stored != expected:
            yield f"charge {row['id']} is stored as {stored}, in truth {expected}"
        if not _is_told_time(row["paid_at"], true.paid_at):
            yield f"charge {row['id']} was paid at {true.paid_at}, stored is {row['paid_at']}"
    stored_ids = {row["id"] for row in case.outcome.rows["charges"]}
    for id_ in _told(case) - stored_ids:
        yield f"charge {id_} was told of and is not stored: it is lost"


def _is_told_time(told_at: int | None, paid_at: float | None) -> bool:
    """Whether somebody may have been told then of what was paid at that time."""
    if told_at is None or paid_at is None:
        return told_at is None and paid_at is None
    return told_at >= int(paid_at) - ANSWER_S_MAX


def _told(case: CardCase) -> set[int]:
    """Charges that must be known: by a callback, or because an inquiry ends with them."""
    latest = {
        case.sold.orders[order_id].charges[-1]
        for order_id in case.sold.page.values()
        if case.sold.orders[order_id].charges
    }
    return {*case.sold.taken_in, *latest}


def charges_never_go_back(case: CardCase) -> Iterator[str]:
    """What was once known of a charge stays known, in whatever order it is told."""
    for charge_id, learned in grouped(case.sold.learned, lambda each: str(each.id)).items():
        for before, after in pairwise(learned):
            if RANKS.index(after.state) < RANKS.index(before.state):
                yield f"charge {charge_id} was {before.state} and became {after.state}"
            if after.refunded < before.refunded:
                yield f"of charge {charge_id} {before.refunded} were refunded, then less"
            if before.paid_at is not None and not before.paid_at >= (after.paid_at or 2**62):
                yield f"charge {charge_id} was paid at {before.paid_at}, then {after.paid_at}"


def states_are_true(case: CardCase) -> Iterator[str]:
    """Each payment stands where the charges that are known put it."""
    for payment_id, terms in case.terms.items():
        row = case.payments.get(payment_id)
        if row is None:
            continue
        facts = _Facts(terms, case.known.get(payment_id, ()), row["canceled_at"] is not None)
        allowed = facts.statuses(case.statuses(payment_id))
        if row["status"] not in allowed:
            yield f"{payment_id} is {row['status']}, in truth {' or '.join(sorted(allowed))}"
        wanted = {
            "received": str(facts.received),
            "paid": facts.paid,
            "late": int(facts.is_late),
            "review": json.dumps(sorted(facts.review(row["status"])), separators=(",", ":")),
            "settled_at": facts.settled_at if row["status"] in {"settled", "refunded"} else None,
        }
        for column, value in wanted.items():
            if row[column] != value:
                yield f"{payment_id}: {column} is {row[column]!r}, in truth {value!r}"


def nothing_settles_unpaid(case: CardCase) -> Iterator[str]:
    """At every moment no more counts than had truly been paid, and `settled` has all of it."""
    for change in case.outcome.changes:
        paid = case.sold.paid.get((change.payment_id, change.version), 0)
        if change.received > paid:
            yield f"{change.payment_id} had received {change.received}, when {paid} were paid"
        terms = case.terms.get(change.payment_id)
        if change.status == "settled" and (terms is None or change.received < terms.amount):
            yield f"{change.payment_id} was settled with {change.received}"


def expiry_waits_for_an_answer(case: CardCase) -> Iterator[str]:
    """Nothing expires before an inquiry was answered that was made after the deadline."""
    for change in case.outcome.changes:
        if change.status != "expired" or change.payment_id not in case.terms:
            continue
        deadline, orders = (
            case.terms[change.payment_id].expires_at,
            case.orders_of(change.payment_id),
        )
        if not any(
            order_id in orders and deadline < asked_at <= change.at_s
            for order_id, asked_at in case.sold.answered
        ):
            yield f"{change.payment_id} was expired and nobody had asked after {deadline}"


def steps_are_legal(case: CardCase) -> Iterator[str]:
    """A payment goes one way, and what was received never becomes less."""
    for payment_id, changes in case.changes.items():
        for before, after in pairwise(changes):
            is_same = before.status == after.status
            if not is_same and after.status not in STEPS.get(before.status, ()):
                yield f"{payment_id} was {before.status} and became {after.status}"
            if after.received < before.received:
                yield f"{payment_id} had received {before.received}, then {after.received}"


def nothing_is_left_to_ask(case: CardCase) -> Iterator[str]:
    """In the end no inquiry is due, and every callback came to an end.

    One for which Paymob had to be asked may be given up when it did not answer for minutes.
    """
    if not case.outcome.is_quiet:
        yield f"something was left to do after {case.outcome.ended_at_s:.0f} s"
    for row in case.outcome.rows["webhook_events"]:
        is_away = row["verdict"] == "failed" and "(simulated)" in row["detail"]
        if row["verdict"] in {"waiting", "failed"} and not is_away:
            yield f"callback {row['id']} is {row['verdict']}: {row['detail']}"


@dataclass(frozen=True)  # no slots: it remembers what was made of it
class _Facts:
    """What the stored charges of one payment come to."""

    terms: Offer
    charges: Sequence[Row]
    is_canceled: bool

    @cached_property
    def _paid(self) -> list[Row]:
        paid = [row for row in self.charges if row["paid_at"] is not None]
        return sorted(paid, key=lambda row: (row["paid_at"], row["id"]))

    @property
    def received(self) -> int:
        return sum(int(row["amount"]) for row in self._paid)

    @property
    def paid(self) -> str:
        if not self.received:
            return "none"
        return "exact" if self.received == self.terms.amount else "over"

    @property
    def _until(self) -> int:
        return self.terms.expires_at + self.terms.grace_s

    @property
    def _settling(self) -> Row | None:
        """Each is for the whole amount, so the first in time is enough."""
        first = self._paid[0] if self._paid else None
        if self.is_canceled or first is None or first["paid_at"] > self._until:
            return None
        return first

    @property
    def settled_at(self) -> int | None:
        return None if self._settling is None else int(self._settling["paid_at"])

    @property
    def is_late(self) -> bool:
        counting = self._paid if self._settling is None else [self._settling]
        return any(row["paid_at"] > self.terms.expires_at for row in counting)

    def _kept(self, *, in_grace: bool | None = None) -> int:
        return sum(
            _kept(row)
            for row in self._paid
            if in_grace is None or (row["paid_at"] <= self._until) is in_grace
        )

    def statuses(self, before: Sequence[str]) -> set[str]:
        """Where the payment may stand, given where it stood."""
        if self.is_canceled:
            return {"canceled"}
        if self._settling is not None:
            if "refunded" in before:
                return {"refunded"}
            if self._kept(in_grace=True):
                return {"settled"}
            # Whoever never heard that it was settled need not hear that it is not any more.
            return {"refunded"} if "settled" in before else {"failed", "expired"} & {*before}
        if any(row["state"] in {"declined", "voided", "refunded"} for row in self.charges):
            return {"failed", "expired"} & {*before}
        return {"expired"}

    def review(self, status: str) -> set[str]:
        """Why a person must look."""
        left, amount = self._kept(in_grace=True), self.terms.amount
        if self.is_canceled:
            return {"paid_after_cancel"} if self._kept() else set()
        if self._settling is None:
            return {"late_after_grace"} if self._kept(in_grace=False) else set()
        reasons = {"partially_refunded"} if 0 < left < amount else set()
        again = any(_kept(row) == amount for row in self._paid if row is not self._settling)
        if again and self._kept() > (amount if left else 0):
            reasons.add("paid_again")
        if status == "refunded" and left:
            reasons.add("paid_again")
        return reasons


def _kept(row: Row) -> int:
    return 0 if row["state"] == "voided" else int(row["amount"]) - int(row["refunded"])
