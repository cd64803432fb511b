"""What counts as a difference, field by field, and which history explains what is stored."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from indexer.core.judge import Read
from indexer.core.payment import State, Terms
from indexer.core.reckoning import (
    Difference,
    Said,
    differing_state,
    differing_verdicts,
    expected,
    recomputed,
)
from indexer.core.types import Paid, Reason, Status
from indexer.core.verdict import Evidence, Verdict
from tests.builders import AMOUNT, MERCHANT, NOW, make_leg, make_payment, make_terms, make_verdict
from tests.chain import key, sol_transfer
from tests.core.script import decoded


PAYMENT = make_payment()
ID = PAYMENT.terms.id
TRUE = make_verdict(PAYMENT)
FAILED = make_verdict(PAYMENT, name="failed", credit=0, reasons=[Reason.FAILED_TRANSACTION])


def differences(stored: Verdict | None, true: Verdict | None, **said: Any) -> list[Difference]:
    found = differing_verdicts(
        ID,
        {} if stored is None else {stored.signature: stored},
        Said(verdicts={} if true is None else {true.signature: true}, **said),
    )
    return list(found)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"slot": 1}, "verdict.slot"),
        ({"block_time": 1}, "verdict.block_time"),
        ({"block_time": None}, "verdict.block_time"),
        ({"credit": 1}, "verdict.credit"),
        ({"clean": False}, "verdict.clean"),
        ({"reasons": (Reason.DEBITED,)}, "verdict.reasons"),
        ({"evidence": Evidence(bound=1)}, "verdict.evidence"),
        ({"index": 7}, "verdict.transaction_index"),
        ({"legs": ()}, "transfer"),
        ({"legs": (*TRUE.legs, make_leg(PAYMENT, outer=3))}, "transfer"),
        ({"legs": (replace(TRUE.legs[0], source="x"),)}, "transfer.source"),
        ({"legs": (replace(TRUE.legs[0], destination="x"),)}, "transfer.destination"),
        ({"legs": (replace(TRUE.legs[0], amount=1),)}, "transfer.amount"),
        ({"legs": (replace(TRUE.legs[0], net=1),)}, "transfer.net"),
    ],
)
def test_every_column_of_a_verdict_is_compared(changes: dict[str, Any], what: str) -> None:
    (found,) = differences(replace(TRUE, **changes), TRUE)

    assert (found.payment_id, found.what) == (ID, what)
    assert found.where.startswith(TRUE.signature)
    assert found.stored != found.chain


def test_the_same_is_no_difference() -> None:
    assert differences(TRUE, TRUE) == []


@pytest.mark.parametrize(("ours", "theirs"), [(None, 4), (4, None)])
def test_a_position_that_one_node_does_not_say_is_no_difference(
    ours: int | None, theirs: int | None
) -> None:
    assert differences(replace(TRUE, index=ours), replace(TRUE, index=theirs)) == []


def test_what_only_one_side_has_is_a_difference() -> None:
    (extra,) = differences(TRUE, None)
    (missing,) = differences(None, TRUE)

    assert (extra.what, extra.chain, missing.stored) == ("verdict", None, None)
    assert extra.stored == missing.chain == {
        "credit": str(AMOUNT), "slot": TRUE.slot, "reasons": [],
    }  # fmt: skip


def test_what_may_be_missing_is_none() -> None:
    assert differences(None, TRUE, excused={TRUE.signature: "later"}) == []
    assert differences(TRUE, None, unread={TRUE.signature: "no answer"}) == []


def test_an_excuse_excuses_only_what_is_missing() -> None:
    assert differences(replace(TRUE, credit=1), TRUE, excused={TRUE.signature: "later"})


def test_a_failed_transaction_need_not_be_stored_but_must_be_right() -> None:
    assert differences(None, FAILED) == []
    assert differences(replace(FAILED, block_time=None), FAILED) == []
    assert differences(replace(FAILED, credit=1), FAILED) != []
    assert differences(FAILED, None) != []


@pytest.mark.parametrize(
    "changes",
    [
        {"status": Status.EXPIRED},
        {"paid": Paid.NONE},
        {"late": True},
        {"review": ("debited",)},
        {"received": 0},
        {"settled_at": 1},
    ],
)
def test_every_column_of_a_state_is_compared(changes: dict[str, Any]) -> None:
    true = State(status=Status.SETTLED, paid=Paid.EXACT, received=5, settled_at=NOW)

    (found,) = differing_state(ID, replace(true, **changes), true)

    assert found.what == f"payment.{next(iter(changes))}"


def test_amounts_are_text_and_flags_are_flags() -> None:
    """Many readers of JSON round numbers beyond 2^53."""
    true = State(received=2**64)

    (found,) = differing_state(ID, replace(true, received=2**64 - 1), true)
    assert (found.stored, found.chain) == (str(2**64 - 1), str(2**64))
    (found,) = differing_state(ID, replace(true, late=True), true)
    assert (found.stored, found.chain) == (True, False)


def test_what_expired_stays_expired_though_its_doubtful_money_came_to_light() -> None:
    folded = State(status=Status.PROCESSING, received=5)

    assert expected(Status.EXPIRED, folded) == replace(folded, status=Status.EXPIRED)
    assert expected(Status.PENDING, folded) == folded
    assert expected(Status.EXPIRED, State()) == State()


# ---------------------------------------------------------------------------------- histories


def named(*payments: Terms) -> Read:
    references = [terms.reference for terms in payments]
    paid = sol_transfer(key("customer"), MERCHANT, AMOUNT, references=references)
    return Read(decoded(paid), NOW)


def credits_of(verdicts: Mapping[str, Verdict]) -> dict[str, int]:
    return {id_: verdict.credit for id_, verdict in verdicts.items()}


def test_all_existed_where_nothing_says_otherwise() -> None:
    old, new = make_terms(1, created_at=NOW - 10), make_terms(2)

    assert credits_of(recomputed([old, new], named(new, old), {})) == {new.id: AMOUNT, old.id: 0}


def test_the_history_that_explains_what_is_stored_is_the_one() -> None:
    """The younger payment is named first, and the older one was there alone when it was judged."""
    old, new = make_terms(1, created_at=NOW - 10), make_terms(2)
    alone = recomputed([old], named(new, old), {})

    verdicts = recomputed([old, new], named(new, old), alone)

    assert credits_of(verdicts) == {old.id: AMOUNT, new.id: 0}
    assert verdicts[new.id].reasons == (Reason.ALREADY_ALLOCATED,)


def test_three_may_have_come_one_after_another() -> None:
    one, two, three = (make_terms(n, created_at=NOW + n) for n in (1, 2, 3))
    read = named(three, two, one)
    stored = recomputed([one], read, {})

    assert credits_of(recomputed([one, two, three], read, stored)) == {
        one.id: AMOUNT, two.id: 0, three.id: 0,
    }  # fmt: skip


def test_a_history_that_the_ages_forbid_explains_nothing() -> None:
    """The older payment is named first: it would have had the leg, whenever it was judged."""
    old, new = make_terms(1, created_at=NOW - 10), make_terms(2)
    forged = recomputed([new], named(old, new), {})

    assert credits_of(recomputed([old, new], named(old, new), forged)) == {
        old.id: AMOUNT, new.id: 0,
    }  # fmt: skip


def test_what_a_person_matched_is_judged_without_a_reference() -> None:
    strange, matched = make_terms(1), make_terms(2)

    verdicts = recomputed([strange, matched], named(), {}, matched=[matched])

    assert credits_of(verdicts) == {matched.id: AMOUNT}
    assert Reason.MATCHED in verdicts[matched.id].reasons


def test_a_person_may_have_spoken_before_a_payment_was_there_that_is_named() -> None:
    younger, matched = make_terms(1, created_at=NOW + 10), make_terms(2)
    stored = recomputed([matched], named(younger), {}, matched=[matched])

    verdicts = recomputed([younger, matched], named(younger), stored, matched=[matched])

    assert credits_of(verdicts) == {younger.id: 0, matched.id: AMOUNT}
