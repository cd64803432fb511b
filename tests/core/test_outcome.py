from dataclasses import replace

import pytest

from indexer.core.outcome import Outcome, preview_of
from indexer.core.types import Reason
from indexer.core.verdict import Evidence, Verdict


def verdict(payment_id: str, credit: int, *reasons: Reason) -> Verdict:
    return Verdict(
        payment_id=payment_id,
        signature="s",
        slot=5,
        index=0,
        block_time=1,
        credit=credit,
        clean=not reasons,
        reasons=reasons,
        evidence=Evidence(),
    )


A, B = verdict("a", 5), verdict("b", 7)
NOTHING = verdict("c", 0, Reason.NOT_BOUND)


@pytest.mark.parametrize(
    ("new", "stored", "outcome", "credits_"),
    [
        ([], [], Outcome.ORPHAN, {}),
        ([A], [], Outcome.WOULD_CREDIT, {"a": 5}),
        ([A], [A], Outcome.ALREADY_CREDITED, {"a": 5}),
        ([], [A], Outcome.ALREADY_CREDITED, {"a": 5}),  # a person matched it
        ([A, B], [A], Outcome.WOULD_CREDIT, {"a": 5, "b": 7}),
        ([A, NOTHING], [A], Outcome.ALREADY_CREDITED, {"a": 5}),
        ([NOTHING], [], Outcome.INVALID, {}),
        ([NOTHING], [NOTHING], Outcome.INVALID, {}),
        # What is stored stands, whatever a second look says.
        ([replace(A, credit=9)], [A], Outcome.ALREADY_CREDITED, {"a": 5}),
        ([A], [replace(A, credit=0)], Outcome.INVALID, {}),
    ],
)
def test_a_transaction_comes_to_one_thing(
    new: list[Verdict], stored: list[Verdict], outcome: Outcome, credits_: dict[str, int]
) -> None:
    preview = preview_of("s", 5, {v.payment_id: v for v in new}, {v.payment_id: v for v in stored})

    assert (preview.signature, preview.slot) == ("s", 5)
    assert preview.outcome is outcome
    assert preview.credits == credits_


def test_the_reasons_are_told_once() -> None:
    other = verdict("d", 0, Reason.BOOKS, Reason.NOT_BOUND)

    preview = preview_of("s", 5, {"c": NOTHING, "d": other}, {})

    assert preview.reasons == ("books_do_not_balance", "not_bound")
