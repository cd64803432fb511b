"""A charge is what was told of it, in whatever order it was told, and it never goes back."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, strategies as st

from indexer.core.charge import Charge, ChargeNews, learned
from indexer.core.types import ChargeState
from indexer.errors import InvalidInput, InvariantError


AMOUNT: Final = 10_000
NOW: Final = 1_795_377_600

P, D, A, PAID, R, V = (
    ChargeState.PENDING,
    ChargeState.DECLINED,
    ChargeState.AUTHORIZED,
    ChargeState.PAID,
    ChargeState.REFUNDED,
    ChargeState.VOIDED,
)


def told(state: ChargeState, **changes: Any) -> ChargeNews:
    """News of charge 7; what is paid or refunded was paid."""
    facts: dict[str, Any] = {
        "id": 7,
        "order_id": 3,
        "amount": AMOUNT,
        "currency": "EGP",
        "made_at": "2026-11-22T22:00:00",
        "state": state,
        "was_paid": state in {PAID, R},
    }
    return ChargeNews(**facts | changes)


def told_all(*news: ChargeNews, at: Sequence[int] | None = None) -> Charge:
    charge: Charge | None = None
    for number, each in enumerate(news):
        charge = learned(charge, each, NOW + number if at is None else at[number])
    assert charge is not None
    return charge


def test_what_is_first_told_of_a_charge_is_kept() -> None:
    assert learned(None, told(PAID), NOW) == Charge(
        id=7,
        order_id=3,
        state=PAID,
        amount=AMOUNT,
        made_at="2026-11-22T22:00:00",
        seen_at=NOW,
        paid_at=NOW,
        updated_at=NOW,
    )


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ([P, PAID], PAID),
        ([PAID, P], PAID),
        ([P, D], D),
        ([D, P], D),
        ([D, PAID], PAID),
        ([PAID, D], PAID),
        ([P, A, PAID], PAID),
        ([PAID, A], PAID),
        ([A, V], V),
        ([PAID, R, PAID], R),
        ([V, PAID], V),
        ([PAID, V, R], V),
        ([R, P, D, A], R),
    ],
)
def test_the_state_that_says_most_counts(states: list[ChargeState], state: ChargeState) -> None:
    assert told_all(*map(told, states)).state is state


def test_what_says_nothing_new_changes_nothing() -> None:
    known = told_all(told(PAID, refunded=500))

    for stale in (told(P), told(D), told(PAID), told(PAID, refunded=499), told(A)):
        assert learned(known, stale, NOW + 60) is known


def test_a_change_has_the_time_at_which_it_was_told() -> None:
    charge = told_all(told(P), told(PAID), at=[NOW, NOW + 60])

    assert (charge.seen_at, charge.paid_at, charge.updated_at) == (NOW, NOW + 60, NOW + 60)


def test_the_earliest_time_of_being_paid_counts() -> None:
    """A callback may be processed after the inquiry that told the same."""
    charge = told_all(told(PAID), told(PAID), at=[NOW + 60, NOW])

    assert (charge.paid_at, charge.seen_at) == (NOW, NOW + 60)


def test_refunds_add_up_to_all_of_it() -> None:
    part = told_all(told(PAID, refunded=4_000))
    assert (part.state, part.refunded, part.kept) == (PAID, 4_000, 6_000)

    whole = learned(part, told(PAID, refunded=AMOUNT), NOW)
    assert (whole.state, whole.refunded, whole.kept) == (R, AMOUNT, 0)
    assert told_all(told(R)) == replace(told_all(told(PAID, refunded=AMOUNT)))
    assert told_all(told(PAID, refunded=AMOUNT + 1)).refunded == AMOUNT


def test_what_was_never_paid_keeps_nothing() -> None:
    for state in (P, D, A, V):
        assert told_all(told(state)).kept == 0
    assert told_all(told(V, was_paid=True)).kept == 0


def test_a_void_tells_whether_it_had_been_paid() -> None:
    assert told_all(told(V)).paid_at is None
    assert told_all(told(V, was_paid=True)).paid_at == NOW


@pytest.mark.parametrize(
    ("changes", "field"), [({"order_id": 4}, "order.id"), ({"amount": AMOUNT + 1}, "amount_cents")]
)
def test_a_charge_never_changes_its_order_or_its_amount(
    changes: dict[str, int], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        learned(told_all(told(P)), told(PAID, **changes), NOW)

    assert refused.value.field == field


def test_what_is_no_news_of_the_charge_is_refused() -> None:
    with pytest.raises(InvariantError, match="news of transaction 8"):
        learned(told_all(told(P)), told(PAID, id=8), NOW)
    for known in (None, told_all(told(P))):
        with pytest.raises(InvariantError, match="only an inquiry"):
            learned(known, told(PAID, needs_inquiry=True), NOW)


NEWS = st.builds(
    told,
    st.sampled_from(ChargeState),
    was_paid=st.booleans(),
    refunded=st.integers(0, AMOUNT),
).map(lambda news: replace(news, was_paid=news.was_paid or news.state in {PAID, R}))


@given(st.lists(NEWS, min_size=1, max_size=5), st.data())
def test_no_order_and_no_repetition_makes_a_difference(
    news: list[ChargeNews], data: st.DataObject
) -> None:
    timed = list(zip(news, itertools.count(NOW), strict=False))
    mixed = data.draw(st.permutations(timed + data.draw(st.lists(st.sampled_from(timed)))))

    one = told_all(*news)
    other = told_all(*(each for each, _ in mixed), at=[at for _, at in mixed])

    ignored = {"seen_at": 0, "updated_at": 0}
    assert replace(one, **ignored) == replace(other, **ignored)  # type: ignore[arg-type]  # integers


@given(st.lists(NEWS, min_size=1, max_size=6))
def test_a_charge_never_goes_back(news: list[ChargeNews]) -> None:
    known = learned(None, news[0], NOW)
    for at, each in enumerate(news[1:], NOW + 1):
        after = learned(known, each, at)
        assert 0 <= known.refunded <= after.refunded <= AMOUNT
        assert known.paid_at is None or known.paid_at == after.paid_at
        assert after.kept <= known.kept or known.paid_at is None
        assert (after.state is R) <= (after.refunded == AMOUNT)
        known = after
