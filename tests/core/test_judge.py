"""A leg that is stored for a payment stays there, whoever names it later."""

from dataclasses import replace

from indexer.core.judge import Read, holders_of, name_of, verdicts_of, without_taken
from indexer.core.payment import Terms
from indexer.core.transaction import Transaction
from indexer.core.types import Reason
from tests.builders import AMOUNT, MERCHANT, make_leg, make_payment, make_terms, make_verdict
from tests.chain import key, sol_transfer
from tests.core.script import decoded


def landed(*payments: Terms, lamports: int = AMOUNT, slot: int = 100) -> Transaction:
    """One transfer that names all of these payments."""
    references = [terms.reference for terms in payments]
    paid = sol_transfer(key("customer"), MERCHANT, lamports, references=references, slot=slot)
    return decoded(paid)


def read(*payments: Terms) -> Read:
    return Read(landed(*payments), 1_795_377_700)


def test_each_payment_gets_its_verdict_and_a_stranger_none() -> None:
    one, other, stranger = make_terms(1), make_terms(2), make_terms(3)

    verdicts = verdicts_of([one, other, stranger], [read(one, other)], {})

    assert {id_: [v.credit for v in each] for id_, each in verdicts.items()} == {
        one.id: [AMOUNT],
        other.id: [0],
    }
    assert verdicts[other.id][0].reasons == (Reason.ALREADY_ALLOCATED,)


def test_a_transaction_that_is_told_twice_is_judged_once() -> None:
    one = make_terms(1)

    assert len(verdicts_of([one], [read(one), read(one)], {})[one.id]) == 1


def test_a_leg_that_is_stored_stays_with_whom_it_is_stored_for() -> None:
    one, other = make_terms(1), make_terms(2)
    stored = verdicts_of([other], [read(one, other)], {})[other.id]

    verdicts = verdicts_of([one, other], [read(one, other)], holders_of(stored))

    assert verdicts[one.id][0].credit == 0
    assert Reason.ALREADY_ALLOCATED in verdicts[one.id][0].reasons


def test_what_others_hold_is_taken_out_of_the_numbers() -> None:
    payment = make_payment(amount=100)
    first, second = make_leg(payment, amount=60), make_leg(payment, amount=40, outer=1, inner=2)
    whole = make_verdict(payment, credit=100, legs=(first, second))

    left = without_taken(whole, {name_of(first): "pay_other", name_of(second): payment.terms.id})

    assert left.legs == (second,)
    assert (left.credit, left.evidence.bound, left.evidence.other_inflow) == (40, 40, 60)
    assert left.reasons == (Reason.ALREADY_ALLOCATED,)


def test_a_debit_comes_off_what_is_left_and_never_below_nothing() -> None:
    payment = make_payment(amount=100)
    first, second = make_leg(payment, amount=60), make_leg(payment, amount=40, outer=1)
    whole = make_verdict(payment, credit=90, legs=(first, second))
    whole = replace(whole, evidence=replace(whole.evidence, debited=50))

    assert without_taken(whole, {name_of(first): "pay_other"}).credit == 0
    assert without_taken(whole, {name_of(second): "pay_other"}).credit == 10


def test_a_verdict_whose_legs_nobody_else_has_is_left_as_it_is() -> None:
    payment = make_payment()
    verdict = make_verdict(payment)

    assert without_taken(verdict, {}) is verdict
    assert without_taken(verdict, {name_of(verdict.legs[0]): payment.terms.id}) is verdict
