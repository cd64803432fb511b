"""The judge's own arithmetic, case by case: what the chain makes of a payment."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.builders import AMOUNT, CUSTOMER, MERCHANT, NOW, USDC, WATCH_KEY, make_terms
from tests.instructions import key, signature
from tests.simulation.outcome import Asked, Landed, Leg, Outcome
from tests.simulation.reckoning import Expected, Reckoning


TERMS = make_terms(1, expires_in_s=100, grace_s=50)
OTHER = make_terms(2, expires_in_s=100, grace_s=50)
TOKEN = make_terms(3, asset=USDC, expires_in_s=100, grace_s=50)
IN_TIME, LATE, IN_GRACE, TOO_LATE = NOW + 100, NOW + 101, NOW + 150, NOW + 151

UNPAID = Expected(status=None, paid="none", late=False, review=(), received=0, settled_at=None)
PAID = Expected(
    status="settled", paid="exact", late=False, review=(), received=AMOUNT, settled_at=IN_TIME
)


def leg(amount: int = AMOUNT, *references: str, to: str = MERCHANT) -> Leg:
    """A transfer of SOL, to the payment's merchant and with its references by default."""
    return Leg(
        source=CUSTOMER,
        destination=to,
        owner=to,
        mint=None,
        amount=amount,
        references=references or (TERMS.reference, WATCH_KEY),
    )


def landed(time: int, *legs: Leg, slot: int = 10, index: int = 0, failed: bool = False) -> Landed:
    return Landed(
        signature=signature(f"{slot} {index}"),
        slot=slot,
        index=index,
        block_time=time,
        failed=failed,
        keys=(CUSTOMER, *(name for each in legs for name in each.references)),
        legs=legs,
        finalized_at_s=1.0,
    )


def reckoning(transactions: Sequence[Landed], canceled_at: int | None = None) -> Reckoning:
    payments = [
        Asked(terms=TERMS, stored_at_s=1.0, canceled_at=canceled_at),
        Asked(terms=OTHER, stored_at_s=1.0),
        Asked(terms=TOKEN, stored_at_s=1.0),
    ]
    return Reckoning(
        Outcome(
            seed=1,
            profile={},
            watch_key=WATCH_KEY,
            quorum=1,
            finalized=transactions,
            payments=payments,
        )
    )


def late(**changes: object) -> Expected:
    return replace(PAID, late=True, **changes)  # type: ignore[arg-type]  # fields by name


HALF = AMOUNT // 2
CASES: dict[str, tuple[list[Landed], Expected]] = {
    "nothing": ([], UNPAID),
    "exact": ([landed(IN_TIME, leg())], PAID),
    "failed": ([landed(IN_TIME, leg(), failed=True)], UNPAID),
    "to somebody else": ([landed(IN_TIME, leg(to=key("stranger")))], UNPAID),
    "in another currency": (
        [landed(IN_TIME, replace(leg(), mint=USDC.mint, destination=key("account")))],
        UNPAID,
    ),
    "of dust": (
        [landed(IN_TIME, leg(1))],
        replace(UNPAID, paid="partial", received=1),
    ),
    "over": ([landed(IN_TIME, leg(AMOUNT + 1))], replace(PAID, paid="over", received=AMOUNT + 1)),
    "late": ([landed(LATE, leg())], late(settled_at=LATE)),
    "at the end of the grace time": ([landed(IN_GRACE, leg())], late(settled_at=IN_GRACE)),
    "after the grace time": (
        [landed(TOO_LATE, leg())],
        late(status=None, settled_at=None, review=("late_after_grace",)),
    ),
    "in two parts": (
        [landed(NOW, leg(HALF)), landed(IN_TIME, leg(AMOUNT - HALF), slot=11)],
        PAID,
    ),
    "in two parts of one transaction": ([landed(IN_TIME, leg(HALF), leg(AMOUNT - HALF))], PAID),
    "in two parts, one of them late": (
        [landed(IN_TIME, leg(HALF)), landed(LATE, leg(AMOUNT - HALF), slot=11)],
        late(settled_at=LATE),
    ),
    "twice": (
        [landed(IN_TIME, leg()), landed(LATE, leg(), slot=11)],
        replace(PAID, paid="over", received=2 * AMOUNT, review=("paid_again",)),
    ),
    "small change after it": (
        [landed(IN_TIME, leg()), landed(LATE, leg(5), slot=11)],
        replace(PAID, paid="over", received=AMOUNT + 5),
    ),
    "together with another payment": (
        [landed(IN_TIME, leg(7, OTHER.reference), leg())],
        PAID,
    ),
    "by a transfer that names another one first": (
        [landed(IN_TIME, leg(AMOUNT, OTHER.reference, TERMS.reference))],
        replace(UNPAID, review=("already_allocated",)),
    ),
}


@pytest.mark.parametrize(("transactions", "expected"), CASES.values(), ids=CASES)
def test_the_chain_decides(transactions: list[Landed], expected: Expected) -> None:
    found = {each.signature for each in transactions}

    assert reckoning(transactions).expected(TERMS.id, found) == expected


def test_a_canceled_payment_stays_canceled() -> None:
    paid = landed(IN_TIME, leg())
    canceled = replace(PAID, status="canceled", settled_at=None, review=("paid_after_cancel",))

    books = reckoning([paid], canceled_at=NOW)

    assert books.expected(TERMS.id, {paid.signature}) == canceled
    assert books.expected(TERMS.id, set()) == replace(UNPAID, status="canceled")


def test_the_chains_order_counts_and_not_that_of_the_list() -> None:
    first = landed(IN_TIME, leg(), slot=10, index=3)
    second = landed(LATE, leg(HALF), slot=10, index=4)

    expected = reckoning([second, first]).expected(TERMS.id, {first.signature, second.signature})

    assert (expected.late, expected.settled_at) == (False, IN_TIME)


def test_only_what_was_found_counts() -> None:
    paid = landed(IN_TIME, leg())

    assert reckoning([paid]).expected(TERMS.id, set()) == UNPAID


def test_tokens_are_paid_into_their_account_and_nowhere_else() -> None:
    assert USDC.mint
    assert TOKEN.token_account
    right = replace(leg(AMOUNT, TOKEN.reference), mint=USDC.mint, destination=TOKEN.token_account)
    aside = replace(right, destination=key("auxiliary account"))
    paid, astray = landed(IN_TIME, right), landed(IN_TIME, aside)

    assert reckoning([paid]).expected(TOKEN.id, {paid.signature}) == PAID
    assert reckoning([astray]).expected(TOKEN.id, {astray.signature}) == replace(
        UNPAID, review=("auxiliary_account",)
    )


def test_what_lacks_the_watch_key_is_hidden() -> None:
    [hidden] = reckoning([landed(IN_TIME, leg(AMOUNT, TERMS.reference))]).credits[TERMS.id]
    [shown] = reckoning([landed(IN_TIME, leg())]).credits[TERMS.id]

    assert (hidden.is_hidden, shown.is_hidden) == (True, False)


@pytest.mark.parametrize(("time", "is_in_time"), [(IN_TIME, True), (LATE, False)])
def test_a_payment_is_paid_in_time(time: int, is_in_time: bool) -> None:
    paid = landed(time, leg())

    assert reckoning([paid]).is_paid_in_time(TERMS.id) is is_in_time
    assert not reckoning([paid]).is_paid_in_time(TERMS.id, {paid.signature})


def test_where_no_node_says_which_was_first_the_signature_decides() -> None:
    half, rest, again = (
        replace(landed(IN_TIME, leg(amount), index=index), signature=name)
        for name, amount, index in (("b", HALF, 1), ("c", AMOUNT - HALF, 2), ("a", AMOUNT, 0))
    )
    books, found = reckoning([half, rest, again]), {"a", "b", "c"}

    assert books.expected(TERMS.id, found).review == ()
    assert books.expected(TERMS.id, found, found).review == ()
    last = replace(again, signature="d")
    books, found = reckoning([half, rest, last]), {"b", "c", "d"}
    assert books.expected(TERMS.id, found).review == ()
    assert books.expected(TERMS.id, found, found).review == ("paid_again",)
