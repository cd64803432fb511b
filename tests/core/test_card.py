"""A payment by card is where its charges put it, in whatever order they became known."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from hypothesis import given, settings, strategies as st

from indexer.core.card import advance, fold_card
from indexer.core.charge import Charge, ChargeNews, learned
from indexer.core.payment import Asset, CardPayment, Offer, State
from indexer.core.settle import TRANSITIONS, cancel
from indexer.core.types import ChargeState, Paid, Reason, Status
from indexer.errors import InvariantError
from tests.builders import NOW


AMOUNT: Final = 10_000
EXPIRES_AT: Final = NOW + 900
GRACE_S: Final = 3_600
END: Final = EXPIRES_AT + GRACE_S

P, D, A, PAID, R, V = (
    ChargeState.PENDING,
    ChargeState.DECLINED,
    ChargeState.AUTHORIZED,
    ChargeState.PAID,
    ChargeState.REFUNDED,
    ChargeState.VOIDED,
)

OFFER: Final = Offer(
    id=f"pay_{1:026d}",
    asset=Asset(symbol="EGP", mint=None, decimals=2, token_program=None),
    amount=AMOUNT,
    created_at=NOW,
    expires_at=EXPIRES_AT,
    grace_s=GRACE_S,
)
PAYMENT: Final = CardPayment(terms=OFFER)


def charge(
    state: ChargeState = PAID,
    *,
    id: int = 1,
    amount: int = AMOUNT,
    refunded: int = 0,
    at: int | None = NOW + 60,
) -> Charge:
    """A charge; `at` is when it was paid, if it ever was."""
    return Charge(
        id=id,
        order_id=3,
        state=state,
        amount=amount,
        refunded=amount if state is R else refunded,
        made_at="2026-11-22T22:00:00",
        seen_at=NOW,
        paid_at=None if state in {P, D, A} else at,
        updated_at=NOW,
    )


def fold(*charges: Charge, complete_to: int | None = None, canceled_at: int | None = None) -> State:
    return fold_card(OFFER, charges, complete_to=complete_to, canceled_at=canceled_at)


NEVER_PAID = charge(V, at=None)
LATER = NOW + 120


@pytest.mark.parametrize(
    ("charges", "status"),
    [
        ([], Status.PENDING),
        ([charge(P)], Status.PROCESSING),
        ([charge(A)], Status.PROCESSING),
        ([charge(D)], Status.FAILED),
        ([charge(D), charge(P, id=2)], Status.FAILED),
        ([charge(D), charge(A, id=2)], Status.FAILED),
        ([charge(PAID)], Status.SETTLED),
        ([charge(D), charge(PAID, id=2)], Status.SETTLED),
        ([charge(PAID), charge(P, id=2)], Status.SETTLED),
        ([charge(PAID), charge(D, id=2)], Status.SETTLED),
        ([NEVER_PAID], Status.FAILED),
        ([charge(V)], Status.REFUNDED),
        ([charge(R)], Status.REFUNDED),
        ([charge(R), charge(PAID, id=2, at=LATER)], Status.SETTLED),
        ([charge(R), charge(V, id=2, at=LATER)], Status.REFUNDED),
        ([charge(PAID, amount=AMOUNT - 1)], Status.PENDING),
        ([charge(PAID, amount=4_000), charge(PAID, amount=6_000, id=2)], Status.SETTLED),
        ([charge(R, amount=4_000)], Status.FAILED),
    ],
)
def test_the_charges_decide_the_status(charges: list[Charge], status: Status) -> None:
    assert fold(*charges).status is status


@pytest.mark.parametrize(
    ("charges", "complete_to", "status"),
    [
        ([], EXPIRES_AT, Status.PENDING),
        ([], EXPIRES_AT + 1, Status.EXPIRED),
        ([charge(P)], EXPIRES_AT + 1, Status.PROCESSING),
        ([charge(P)], END, Status.PROCESSING),
        ([charge(P)], END + 1, Status.EXPIRED),
        ([charge(A)], END + 10 * GRACE_S, Status.PROCESSING),
        ([charge(D)], END + 1, Status.FAILED),
        ([charge(PAID)], END + 1, Status.SETTLED),
        ([charge(PAID, amount=4_000)], EXPIRES_AT + 1, Status.EXPIRED),
        ([charge(PAID, at=END + 1)], END + 1, Status.EXPIRED),
    ],
)
def test_it_expires_when_nothing_can_come_any_more(
    charges: list[Charge], complete_to: int, status: Status
) -> None:
    assert fold(*charges, complete_to=complete_to).status is status


@pytest.mark.parametrize(
    ("charges", "paid", "received"),
    [
        ([], Paid.NONE, 0),
        ([charge(P), charge(D, id=2), charge(A, id=3)], Paid.NONE, 0),
        ([NEVER_PAID], Paid.NONE, 0),
        ([charge(PAID, amount=4_000)], Paid.PARTIAL, 4_000),
        ([charge(PAID)], Paid.EXACT, AMOUNT),
        ([charge(R)], Paid.EXACT, AMOUNT),
        ([charge(PAID, refunded=1)], Paid.EXACT, AMOUNT),
        ([charge(PAID), charge(PAID, id=2)], Paid.OVER, 2 * AMOUNT),
        ([charge(PAID, at=END + 1)], Paid.EXACT, AMOUNT),
    ],
)
def test_received_is_what_was_ever_paid(charges: list[Charge], paid: Paid, received: int) -> None:
    state = fold(*charges)

    assert (state.paid, state.received) == (paid, received)


@pytest.mark.parametrize(
    ("charges", "reasons"),
    [
        ([charge(PAID)], []),
        ([charge(D), charge(PAID, id=2)], []),
        ([charge(PAID, refunded=1)], [Reason.PARTIALLY_REFUNDED]),
        ([charge(R)], []),
        ([charge(PAID), charge(PAID, id=2)], [Reason.PAID_AGAIN]),
        ([charge(PAID), charge(PAID, id=2, amount=50)], []),
        # Giving one of two back answers the question; giving a part back does not.
        ([charge(R), charge(PAID, id=2, at=LATER)], []),
        ([charge(PAID), charge(V, id=2, at=LATER)], []),
        ([charge(PAID), charge(PAID, id=2, refunded=10)], [Reason.PAID_AGAIN]),
        ([charge(PAID, refunded=10), charge(R, id=2)], [Reason.PARTIALLY_REFUNDED]),
        ([charge(R), charge(PAID, id=2, refunded=10)], [Reason.PARTIALLY_REFUNDED]),
        ([charge(PAID, at=END + 1)], [Reason.LATE_AFTER_GRACE]),
        ([charge(R, at=END + 1)], []),
        ([charge(PAID), charge(PAID, id=2, at=END + 1)], [Reason.PAID_AGAIN]),
        ([charge(R), charge(PAID, id=2, at=END + 1)], [Reason.PAID_AGAIN]),
        ([charge(R), charge(id=2, at=END + 1, refunded=AMOUNT - 1)], [Reason.PAID_AGAIN]),
        # One charge of too much is overpaid, and nobody paid twice.
        ([charge(amount=2 * AMOUNT)], []),
    ],
)
def test_a_person_is_asked_about_money_that_is_too_much_or_too_little(
    charges: list[Charge], reasons: list[Reason]
) -> None:
    assert fold(*charges).review == tuple(sorted(reasons))


def test_money_after_the_merchant_canceled_is_for_a_person() -> None:
    assert fold(charge(P), canceled_at=NOW).review == ()
    assert fold(charge(R), canceled_at=NOW).review == ()
    state = fold(charge(PAID), canceled_at=NOW, complete_to=END + 1)

    assert state.status is Status.CANCELED
    assert state.review == (Reason.PAID_AFTER_CANCEL,)
    assert (state.canceled_at, state.settled_at) == (NOW, None)


@pytest.mark.parametrize(
    ("at", "late", "status"),
    [
        (EXPIRES_AT, False, Status.SETTLED),
        (EXPIRES_AT + 1, True, Status.SETTLED),
        (END, True, Status.SETTLED),
        (END + 1, True, Status.PENDING),
    ],
)
def test_it_is_late_by_the_time_at_which_it_was_paid(at: int, late: bool, status: Status) -> None:
    state = fold(charge(PAID, at=at))

    assert (state.late, state.status) == (late, status)
    assert state.settled_at == (at if status is Status.SETTLED else None)


def test_what_follows_the_payment_does_not_make_it_late() -> None:
    assert not fold(charge(PAID), charge(PAID, id=2, at=EXPIRES_AT + 5)).late


def test_it_is_settled_by_the_charge_that_completes_it() -> None:
    parts = [charge(amount=4_000, at=NOW + 5), charge(amount=6_000, id=2, at=NOW + 9)]

    assert fold(*parts, charge(id=3, at=NOW + 20)).settled_at == NOW + 9


# ------------------------------------------------------------------------------ what is shown


@pytest.mark.parametrize(
    ("before", "charges", "shown"),
    [
        # Nobody was ever told that it is settled.
        (Status.PENDING, [charge(R)], Status.FAILED),
        (Status.PROCESSING, [charge(V)], Status.FAILED),
        # Only money moves these on.
        (Status.EXPIRED, [charge(P)], Status.EXPIRED),
        (Status.EXPIRED, [charge(D)], Status.EXPIRED),
        (Status.EXPIRED, [charge(R)], Status.EXPIRED),
        (Status.EXPIRED, [], Status.EXPIRED),
        (Status.EXPIRED, [charge(PAID)], Status.SETTLED),
        (Status.FAILED, [charge(A)], Status.FAILED),
        (Status.FAILED, [charge(R)], Status.FAILED),
        (Status.FAILED, [charge(R), charge(PAID, id=2)], Status.SETTLED),
        # What was given back is not taken again.
        (Status.REFUNDED, [charge(R), charge(PAID, id=2)], Status.REFUNDED),
    ],
)
def test_where_the_fold_leads_nowhere_the_nearest_is_shown(
    before: Status, charges: list[Charge], shown: Status
) -> None:
    settled_at = NOW if before is Status.REFUNDED else None
    payment = replace(PAYMENT, state=State(status=before, settled_at=settled_at))

    after = advance(payment, fold(*charges))

    assert after.state.status is shown
    assert (after.state.settled_at is not None) == (shown in {Status.SETTLED, Status.REFUNDED})


def test_what_is_paid_after_all_was_given_back_is_for_a_person() -> None:
    refunded = advance(advance(PAYMENT, fold(charge())), fold(charge(R)))

    again = advance(refunded, fold(charge(R), charge(id=2, at=LATER)))
    assert again.state.status is Status.REFUNDED
    assert again.state.review == (Reason.PAID_AGAIN,)

    returned = advance(again, fold(charge(R), charge(R, id=2, at=LATER)))
    assert returned.state.review == ()


def test_nothing_new_is_no_new_version() -> None:
    settled = advance(PAYMENT, fold(charge()))

    assert settled.version == 2
    assert advance(settled, fold(charge())) is settled


@pytest.mark.parametrize(
    ("before", "state"),
    [
        (Status.SETTLED, fold()),
        (Status.SETTLED, fold(charge(D))),
        (Status.CANCELED, fold(charge())),
        (Status.REFUNDED, fold()),
        (Status.EXPIRED, fold(canceled_at=NOW)),
        (Status.PROCESSING, fold(canceled_at=NOW)),
    ],
)
def test_what_no_charges_can_lead_to_is_a_bug(before: Status, state: State) -> None:
    with pytest.raises(InvariantError, match="may not become"):
        advance(replace(PAYMENT, state=State(status=before)), state)


# --------------------------------------------------------------------- against another model


@dataclass
class Ledger:
    """What a bookkeeper makes of it: all that was ever told, looked through anew each time."""

    told: list[tuple[int, ChargeNews]]

    def of(self, id: int) -> list[tuple[int, ChargeNews]]:
        return [(at, news) for at, news in self.told if news.id == id]

    @property
    def ids(self) -> set[int]:
        return {news.id for _, news in self.told}

    def paid_at(self, id: int) -> int | None:
        times = [at for at, news in self.of(id) if news.was_paid]
        return min(times) if times else None

    def says(self, id: int, *states: ChargeState) -> bool:
        return any(news.state in states for _, news in self.of(id))

    def left(self, id: int) -> int:
        if self.paid_at(id) is None or self.says(id, V, R):
            return 0
        return AMOUNT - max(news.refunded for _, news in self.of(id))

    def status(self, complete_to: int) -> Status:
        """Every charge here is of the whole amount, so that one settles."""
        times = {number: self.paid_at(number) for number in self.ids}
        good = [number for number, at in times.items() if at is not None and at <= END]
        if good:
            return Status.SETTLED if any(self.left(number) for number in good) else Status.REFUNDED
        unpaid = {number for number, at in times.items() if at is None}
        gone = {number for number in self.ids - unpaid if not self.left(number)}
        open_ = {
            number for number in unpaid if not self.says(number, A, V) and not self.says(number, D)
        }
        held = {number for number in unpaid if self.says(number, A) and not self.says(number, V)}
        if gone or unpaid - open_ - held:
            return Status.FAILED
        if not held and complete_to > (END if open_ else EXPIRES_AT):
            return Status.EXPIRED
        return Status.PROCESSING if open_ or held else Status.PENDING

    def review(self) -> set[Reason]:
        paid = sorted(
            (at, number) for number in self.ids if (at := self.paid_at(number)) is not None
        )
        good = [number for at, number in paid if at <= END]
        left = sum(self.left(number) for number in good)
        everything = sum(self.left(number) for _, number in paid)
        if not good:
            return {Reason.LATE_AFTER_GRACE} if everything else set()
        found = {Reason.PARTIALLY_REFUNDED} if 0 < left < AMOUNT else set()
        others = [number for _, number in paid[1:] if self.left(number)]
        if others and everything > (AMOUNT if left else 0):
            found.add(Reason.PAID_AGAIN)
        return found


def consistent(state: ChargeState, was_paid: bool, refunded: int) -> dict[str, Any]:
    """What one piece of news may say: only what was paid can be refunded."""
    was_paid = state in {PAID, R} or (state is V and was_paid)
    return {"state": state, "was_paid": was_paid, "refunded": refunded if was_paid else 0}


FACTS = st.builds(
    consistent,
    st.sampled_from(ChargeState),
    st.booleans(),
    st.sampled_from([0, 0, 1, 9_999, AMOUNT]),
)
TIMES = st.sampled_from([NOW, NOW + 1, EXPIRES_AT, EXPIRES_AT + 1, END, END + 1, END + 9])


def news(id: int, facts: Mapping[str, Any]) -> ChargeNews:
    return ChargeNews(
        id=id, order_id=3, amount=AMOUNT, currency="EGP", made_at="2026-11-22T22:00:00", **facts
    )


TOLD = st.lists(st.tuples(TIMES, st.builds(news, st.integers(1, 3), FACTS)), max_size=7)


def charges_of(told: Iterable[tuple[int, ChargeNews]]) -> dict[int, Charge]:
    known: dict[int, Charge] = {}
    for at, each in told:
        known[each.id] = learned(known.get(each.id), each, at)
    return known


@settings(max_examples=400)
@given(TOLD, TIMES, st.data())
def test_no_order_of_news_makes_a_difference_and_a_bookkeeper_says_the_same(
    told: list[tuple[int, ChargeNews]], complete_to: int, data: st.DataObject
) -> None:
    repeated = data.draw(st.lists(st.sampled_from(told), max_size=4)) if told else []
    mixed = data.draw(st.permutations(told + repeated))

    state, other = (
        fold(*data.draw(st.permutations(list(charges_of(each).values()))), complete_to=complete_to)
        for each in (told, mixed)
    )

    ledger = Ledger(told)
    assert state == other
    assert state.status is ledger.status(complete_to)
    assert set(state.review) == ledger.review()
    paid = [number for number in ledger.ids if ledger.paid_at(number) is not None]
    assert state.received == AMOUNT * len(paid)


def walk(
    told: Sequence[tuple[int, ChargeNews]], asked: Sequence[int], *, canceled: bool
) -> list[CardPayment]:
    """The payment after each piece of news, one by one, and after inquiries between them."""
    payment, known = PAYMENT, dict[int, Charge]()
    if canceled:
        payment = cancel(payment, NOW)
    versions, complete_to = [payment], None
    for number, (at, each) in enumerate(told):
        known[each.id] = learned(known.get(each.id), each, at)
        complete_to = asked[number] if number < len(asked) else None
        state = fold(
            *known.values(), complete_to=complete_to, canceled_at=payment.state.canceled_at
        )
        payment = advance(payment, state)
        assert advance(payment, state) is payment, "shown once, it stays"
        versions.append(payment)
    return versions


@settings(max_examples=400)
@given(TOLD, st.lists(TIMES | st.none(), max_size=7), st.booleans())
def test_every_step_is_legal_whatever_comes_first(
    told: list[tuple[int, ChargeNews]], asked: list[int], canceled: bool
) -> None:
    versions = walk(told, asked, canceled=canceled)

    statuses = [payment.state.status for payment in versions]
    for before, after in itertools.pairwise(statuses):
        assert before is after or after in TRANSITIONS[before]
    for payment in versions:
        state = payment.state
        final = state.status in {Status.SETTLED, Status.REFUNDED}
        assert (state.settled_at is not None) == final  # as the database demands
        assert (state.status is Status.CANCELED) == (state.canceled_at is not None)


@settings(max_examples=400)
@given(TOLD, st.permutations(range(7)))
def test_in_the_end_every_order_shows_whether_money_is_here(
    told: list[tuple[int, ChargeNews]], order: Sequence[int]
) -> None:
    """Where two ways end apart, neither of them says `settled` of money that is not here."""
    mixed = [told[position] for position in order if position < len(told)]
    ends = [walk(each, (), canceled=False)[-1].state for each in (told, mixed)]

    folded = fold(*charges_of(told).values())
    for state in ends:
        if folded.status is Status.SETTLED:
            paid_again = state.status is Status.REFUNDED and Reason.PAID_AGAIN in state.review
            assert state.status is Status.SETTLED or paid_again
        else:
            assert state.status is not Status.SETTLED
        assert (state.paid, state.received, state.late) == (
            folded.paid,
            folded.received,
            folded.late,
        )
