"""What every payment must look like, reckoned from the chain of a simulated world alone.

A second opinion, on purpose: nothing of the product that decides about money is called here, so
that a mistake there cannot excuse itself. It is simple because it may be: the wallets of the
simulation only send plain transfers, of which the world knows what each was meant to be.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from indexer.core.payment import Terms
from tests.simulation.outcome import Landed, Leg, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """What one finalized transaction truly pays towards one payment.

    Attributes:
        amount: base units; never 0.
        legs: the transfers behind it, in the order of the transaction.
        is_hidden: nobody who looks at the watch key alone would find it.
    """

    signature: str
    slot: int
    index: int
    block_time: int
    amount: int
    legs: tuple[Leg, ...]
    is_hidden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The columns of a payment's row that the chain decides.

    Attributes:
        status: None when nothing was decided, and only time tells `pending` from `expired`.
    """

    status: str | None
    paid: str
    late: bool
    review: tuple[str, ...]
    received: int
    settled_at: int | None


class Reckoning:
    """The truth about all payments of one world."""

    def __init__(self, outcome: Outcome) -> None:
        self.terms = {asked.terms.id: asked.terms for asked in outcome.payments}
        self.canceled_at = {asked.terms.id: asked.canceled_at for asked in outcome.payments}
        self._outcome = outcome

    @cached_property
    def by_reference(self) -> Mapping[str, Terms]:
        """Reference -> the payment that it stands for."""
        return {terms.reference: terms for terms in self.terms.values()}

    @cached_property
    def named(self) -> Sequence[tuple[Landed, Terms]]:
        """Every finalized transaction with each payment whose reference it carries."""
        return [(landed, t) for landed in self._outcome.finalized for t in self.mentions(landed)]

    @cached_property
    def credits(self) -> Mapping[str, Sequence[Credit]]:
        """Payment id -> what truly pays it, in the chain's order."""
        found: dict[str, list[Credit]] = {id_: [] for id_ in self.terms}
        for landed, terms in sorted(self.named, key=lambda pair: (pair[0].slot, pair[0].index)):
            if credit := self._credit(landed, terms):
                found[terms.id].append(credit)
        return found

    def mentions(self, landed: Landed) -> list[Terms]:
        """The payments whose reference is among the transaction's keys."""
        keys = dict.fromkeys(landed.keys)
        return [self.by_reference[key] for key in keys if key in self.by_reference]

    def holder(self, leg: Leg) -> Terms | None:
        """The one payment that a transfer pays: the first that it names and can pay."""
        named = [self.by_reference[key] for key in leg.references if key in self.by_reference]
        return next((terms for terms in named if _pays(leg, terms)), None)

    def expected(
        self, payment_id: str, found: Collection[str], unplaced: Collection[str] = ()
    ) -> Expected:
        """What those of its transactions whose signature was found make of the payment.

        Where no node told the position of some within their slot (`unplaced`), they come first
        there, by signature: so it is agreed, for nobody can know.
        """
        terms = self.terms[payment_id]

        def order(credit: Credit) -> tuple[int, int, str]:
            is_placed = credit.signature not in unplaced
            return credit.slot, credit.index if is_placed else -1, credit.signature

        credited = sorted(
            (credit for credit in self.credits[payment_id] if credit.signature in found), key=order
        )
        canceled = self.canceled_at[payment_id] is not None
        settling = None if canceled else _settling(terms, credited)
        until = credited if settling is None else credited[: settling + 1]
        received = sum(credit.amount for credit in credited)
        status = "canceled" if canceled else None if settling is None else "settled"
        return Expected(
            status=status,
            paid=_paid(received, terms.amount),
            late=any(credit.block_time > terms.expires_at for credit in until),
            review=tuple(
                sorted(
                    {*self._odd_legs(terms, found), *_reasons(terms, credited, settling, canceled)}
                )
            ),
            received=received,
            settled_at=None if settling is None else credited[settling].block_time,
        )

    def is_paid_in_time(self, payment_id: str, without: Collection[str] = ()) -> bool:
        """Whether the whole amount is on the chain in blocks up to the deadline.

        `without` are signatures that are left out.
        """
        terms = self.terms[payment_id]
        in_time = [
            credit.amount
            for credit in self.credits[payment_id]
            if credit.block_time <= terms.expires_at and credit.signature not in without
        ]
        return sum(in_time) >= terms.amount

    def _credit(self, landed: Landed, terms: Terms) -> Credit | None:
        if landed.failed:
            return None
        legs = tuple(leg for leg in landed.legs if self.holder(leg) is terms)
        if not sum(leg.amount for leg in legs):
            return None
        return Credit(
            signature=landed.signature,
            slot=landed.slot,
            index=landed.index,
            block_time=landed.block_time,
            amount=sum(leg.amount for leg in legs),
            legs=legs,
            is_hidden=terms.watch_key is None or terms.watch_key not in landed.keys,
        )

    def _odd_legs(self, terms: Terms, found: Collection[str]) -> Iterable[str]:
        """Transfers that name the payment and reach its recipient, and still do not pay it."""
        for landed, named in self.named:
            if named is not terms or landed.failed or landed.signature not in found:
                continue
            for leg in landed.legs:
                if terms.reference not in leg.references or self.holder(leg) is terms:
                    continue
                if _pays(leg, terms):
                    yield "already_allocated"
                elif (leg.owner, leg.mint) == (terms.recipient, terms.asset.mint):
                    yield "auxiliary_account"


def _pays(leg: Leg, terms: Terms) -> bool:
    destination = terms.recipient if terms.token_account is None else terms.token_account
    return (leg.mint, leg.destination, leg.owner) == (
        terms.asset.mint,
        destination,
        terms.recipient,
    )


def _reasons(
    terms: Terms,
    credited: Sequence[Credit],
    settling: int | None,
    canceled: bool,
) -> Iterable[str]:
    """Why a person must look at what came when."""
    grace_ends_at = terms.expires_at + terms.grace_s
    if canceled and credited:
        yield "paid_after_cancel"
    if settling is None and any(credit.block_time > grace_ends_at for credit in credited):
        yield "late_after_grace"
    if settling is not None and any(c.amount >= terms.amount for c in credited[settling + 1 :]):
        yield "paid_again"


def _settling(terms: Terms, credited: Sequence[Credit]) -> int | None:
    """Position of the credit that completes the amount within the grace time."""
    total = 0
    for position, credit in enumerate(credited):
        if credit.block_time <= terms.expires_at + terms.grace_s:
            total += credit.amount
            if total >= terms.amount:
                return position
    return None


def _paid(received: int, amount: int) -> str:
    if received == 0:
        return "none"
    if received < amount:
        return "partial"
    return "exact" if received == amount else "over"
