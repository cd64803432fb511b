"""What holds for every transaction: those of an honest bank, and those of a node that lies."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import assume, event, example, given, settings, strategies as st

from indexer.core.decode import decode_transaction
from indexer.core.legs import read_ledger
from indexer.core.match import mentioned
from indexer.core.payment import Terms
from indexer.core.settle import fold
from indexer.core.transaction import Transaction, Undecided
from indexer.core.types import AMOUNT_MAX, TOKEN_2022_PROGRAM, Reason, Status
from indexer.core.verdict import Verdict
from indexer.core.verify import verify
from tests.chain import key, memo, token_transfer
from tests.core.bank import (
    ACCOUNTS,
    OWNER_OF,
    PEOPLE,
    REFERENCES,
    Leg,
    Move,
    Scene,
    empties_purse,
    landed,
    moves,
    payment,
    scenes,
)
from tests.core.script import BUYER, CREATED_AT, ORDER, SHOP, USDC, decoded, in_sol, in_tokens
from tests.core.spoiled import spoiled


MANY = settings(max_examples=2500, deadline=None)


def verdicts_on(answer: Mapping[str, Any], payments: Sequence[Terms]) -> dict[str, Verdict]:
    found = verify(payments, decoded(answer), block_time=CREATED_AT)
    return {verdict.payment_id: verdict for verdict in found}


# ---------------------------------------------------- what was really paid, without decoding


def owners_after(scene: Scene) -> dict[str, str]:
    return OWNER_OF | scene.owner_after


def accounts_of(scene: Scene, terms: Terms) -> set[str]:
    if terms.asset.mint is None:
        return {terms.recipient}
    after = owners_after(scene)
    mints = {row.account: row.mint for row in ACCOUNTS}
    return {
        account
        for account, mint in mints.items()
        if mint == terms.asset.mint and terms.recipient in (OWNER_OF[account], after[account])
    }


def can_pay(scene: Scene, leg: Leg, terms: Terms) -> bool:
    if leg.mint != terms.asset.mint or leg.payer == terms.recipient:
        return False
    if terms.token_account is None:
        return leg.destination == terms.recipient
    held = owners_after(scene)[terms.token_account] == terms.recipient
    return held and leg.destination == terms.token_account


def brought(scene: Scene, terms: Terms) -> int:
    """B, as it happened."""
    by_reference = {each.reference: each for each in scene.payments}
    total = 0
    for leg in scene.legs:
        named = [by_reference[key] for key in leg.references if key in by_reference]
        paid = next((each for each in named if can_pay(scene, leg, each)), None)
        total += leg.brought if paid == terms else 0
    return total


def taken(scene: Scene, terms: Terms) -> int:
    """D, as it happened."""
    mine = accounts_of(scene, terms)
    return sum(
        leg.taken for leg in scene.legs if leg.source in mine and leg.mint == terms.asset.mint
    )


# ------------------------------------------------------------------------------- honest nodes


@MANY
@given(scene=scenes())
def test_a_clean_credit_is_what_the_payer_brought_to_the_unit(scene: Scene) -> None:
    for terms in scene.payments:
        verdict = verdicts_on(scene.landed, scene.payments)[terms.id]
        event(f"clean: {verdict.clean}, paid: {verdict.credit > 0}")

        if verdict.clean:
            assert taken(scene, terms) == 0
            assert verdict.credit == verdict.evidence.bound == brought(scene, terms)


@MANY
@given(scene=scenes(owners_change=True))
def test_no_credit_is_more_than_was_brought_and_kept(scene: Scene) -> None:
    """Where something undecodable went on in the account it may be, and a person looks."""
    for terms in scene.payments:
        verdict = verdicts_on(scene.landed, scene.payments)[terms.id]
        kept = max(0, brought(scene, terms) - taken(scene, terms))

        assert verdict.credit <= kept or Reason.UNDECODABLE in verdict.reasons
        assert verdict.evidence.debited == taken(scene, terms)


@MANY
@given(scene=scenes(), data=st.data())
def test_an_unrelated_instruction_never_raises_a_credit(scene: Scene, data: st.DataObject) -> None:
    """Or it leaves the credit to a person, which it did before or does now."""
    more = data.draw(moves([], scene.fee_bps).filter(lambda move: not empties_purse(move)))
    at = data.draw(st.integers(min_value=0, max_value=len(scene.moves)))
    longer = [*scene.moves[:at], more, *scene.moves[at:]]
    before = verdicts_on(landed(scene.moves, fee_payer=scene.fee_payer), scene.payments)

    after = verdicts_on(landed(longer, fee_payer=scene.fee_payer), scene.payments)

    for each, verdict in after.items():
        if verdict.clean:
            assert before[each].clean
            assert verdict.credit == before[each].credit
        else:
            assert verdict.credit <= before[each].credit or Reason.UNDECODABLE in verdict.reasons


@MANY
@given(scene=scenes(owners_change=True), data=st.data())
def test_verdicts_do_not_depend_on_the_payments_that_they_are_not_about(
    scene: Scene, data: st.DataObject
) -> None:
    transaction = decoded(scene.landed)
    others = [
        payment(key(f"elsewhere {n}"), recipient, mint)
        for n, (recipient, mint) in enumerate([(SHOP, None), (SHOP, USDC), (BUYER, USDC)])
    ]
    shuffled = data.draw(st.permutations([*scene.payments, *others]))

    verdicts = verify(shuffled, transaction, block_time=CREATED_AT)

    assert verdicts == verify(scene.payments, transaction, block_time=CREATED_AT)
    assert verdicts == verify(verdicts_order(scene), transaction, block_time=CREATED_AT)


def verdicts_order(scene: Scene) -> Sequence[Terms]:
    return mentioned(scene.payments, decoded(scene.landed))


@MANY
@given(scene=scenes(), data=st.data())
def test_a_payment_that_no_transfer_names_changes_no_other_verdict(
    scene: Scene, data: st.DataObject
) -> None:
    """Although the transaction mentions it."""
    named = {reference for leg in scene.legs for reference in leg.references}
    silent = [terms for terms in scene.payments if terms.reference not in named]
    assume(silent)
    left_out = data.draw(st.sampled_from(silent))
    rest = [terms for terms in scene.payments if terms is not left_out]

    with_it = verdicts_on(scene.landed, scene.payments)

    assert with_it.pop(left_out.id).credit == 0
    assert with_it == verdicts_on(scene.landed, rest)


@MANY
@given(scene=scenes(owners_change=True), err=st.sampled_from(["AccountInUse", {"X": 1}, 0]))
def test_a_failed_transaction_pays_nothing_whatever_it_says(scene: Scene, err: Any) -> None:
    failed = copy.deepcopy(scene.landed)
    failed["meta"]["err"] = err

    for verdict in verdicts_on(failed, scene.payments).values():
        assert (verdict.credit, verdict.legs) == (0, ())
        assert verdict.reasons == (Reason.FAILED_TRANSACTION,)


@MANY
@given(scene=scenes(), data=st.data())
def test_what_a_node_leaves_out_never_settles_a_payment(scene: Scene, data: st.DataObject) -> None:
    """Keys of lookup tables or inner instructions that are gone leave nothing to decide on."""
    keys = scene.landed["transaction"]["message"]["accountKeys"]
    loaded = data.draw(st.sets(st.sampled_from(keys[5:]), min_size=1, max_size=4))
    whole = landed(scene.moves, version=0, loaded_readonly=sorted(loaded))
    gap = data.draw(st.sampled_from(["innerInstructions", "loadedAddresses"]))

    answer = decode_transaction(
        msgspec.json.encode({**whole, "meta": {**whole["meta"], gap: None}})
    )

    assert isinstance(answer, Undecided)


@MANY
@given(made=st.lists(scenes(), min_size=1, max_size=3), data=st.data())
def test_the_state_of_a_payment_does_not_depend_on_how_its_transactions_arrive(
    made: list[Scene], data: st.DataObject
) -> None:
    """In any order, any number of times, and whatever other payments were looked up along."""
    terms = data.draw(st.sampled_from(made[0].payments))
    answers = [
        replace(decoded(scene.landed), slot=n // 2, signature=f"{n}")
        for n, scene in enumerate(made)
    ]
    found = [
        verdict for answer in answers for verdict in verify([terms], answer, block_time=CREATED_AT)
    ]
    shuffled = data.draw(st.permutations([*found, *found]))

    states = {
        fold(terms, each, frontier_time=None, sighted=False, canceled_at=None)
        for each in (found, shuffled, list(reversed(found)))
    }

    assert len(states) == 1
    (state,) = states
    clean = sum(verdict.credit for verdict in found if verdict.clean)
    assert (state.status is Status.SETTLED) == (clean >= terms.amount)


# -------------------------------------------------------------------------------- lying nodes

ANY_AMOUNT = st.integers(min_value=0, max_value=9_000) | st.sampled_from([AMOUNT_MAX, 2**63])


@st.composite
def lies(draw: st.DrawFn) -> tuple[Scene, Transaction]:
    """A scene whose balances, owners and mints say anything."""
    scene = draw(scenes(owners_change=True))
    truth = decoded(scene.landed)
    rows = list(truth.post_tokens)
    for _ in range(draw(st.integers(min_value=0, max_value=6))):
        n = draw(st.integers(min_value=0, max_value=len(rows) - 1))
        lie: dict[str, Any] = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "amount": ANY_AMOUNT,
                    "owner": st.sampled_from(PEOPLE),
                    "mint": st.sampled_from([USDC, key("another mint")]),
                    "token_program": st.sampled_from([None, TOKEN_2022_PROGRAM]),
                },
            )
        )
        rows[n] = replace(rows[n], **lie)
    kept = draw(st.sets(st.sampled_from(rows)))
    lamports = [draw(ANY_AMOUNT) if draw(st.booleans()) else each for each in truth.post_lamports]
    return scene, replace(
        truth,
        post_tokens=tuple(row for row in rows if row in kept),
        pre_tokens=tuple(draw(st.permutations(truth.pre_tokens)))[
            : draw(st.integers(min_value=0, max_value=len(truth.pre_tokens)))
        ],
        post_lamports=tuple(lamports),
        fee=draw(ANY_AMOUNT),
    )


def gained(terms: Terms, transaction: Transaction) -> int:
    """Δ, straight from the balances."""
    if terms.asset.mint is not None:
        held = [
            sum(
                row.amount
                for row in rows
                if (row.owner, row.mint) == (terms.recipient, terms.asset.mint)
            )
            for rows in (transaction.pre_tokens, transaction.post_tokens)
        ]
        return held[1] - held[0]
    position = transaction.keys.index(terms.recipient)
    fee = transaction.fee if transaction.fee_payer == terms.recipient else 0
    return transaction.post_lamports[position] - transaction.pre_lamports[position] + fee


@MANY
@given(lie=lies())
def test_no_credit_exceeds_what_was_bound_or_what_was_gained(
    lie: tuple[Scene, Transaction],
) -> None:
    scene, transaction = lie
    assume({terms.recipient for terms in scene.payments} <= set(transaction.keys))

    verdicts = verify(scene.payments, transaction, block_time=CREATED_AT)

    shared: dict[tuple[str, str | None], int] = {}
    for terms, verdict in zip(mentioned(scene.payments, transaction), verdicts, strict=True):
        delta = gained(terms, transaction)
        bound = verdict.evidence.bound
        assert verdict.evidence.delta == delta
        assert bound == sum(leg.net for leg in verdict.legs)
        assert all(0 <= leg.net <= leg.amount for leg in verdict.legs)
        assert 0 <= verdict.credit <= max(0, min(bound - verdict.evidence.debited, delta))
        group = (terms.recipient, terms.asset.mint)
        shared[group] = shared.get(group, 0) + verdict.credit
        assert shared[group] <= max(0, delta)


@MANY
@given(lie=lies())
def test_no_transfer_counts_for_two_payments(lie: tuple[Scene, Transaction]) -> None:
    scene, transaction = lie
    verdicts = verify(scene.payments, transaction, block_time=CREATED_AT)

    places = [(leg.outer, leg.inner, leg.sub) for v in verdicts for leg in v.legs]
    transfers = {
        (m.outer, m.inner, m.sub) for m in read_ledger(transaction).movements if m.transfer
    }
    assert len(places) == len(set(places))
    assert set(places) <= transfers


@MANY
@given(lie=lies())
def test_a_clean_credit_has_books_that_balance(lie: tuple[Scene, Transaction]) -> None:
    """And reasons that say nothing against it; a doubtful one says why."""
    scene, transaction = lie
    doubts = {Reason.DEBITED, Reason.BOOKS, Reason.UNDECODABLE, Reason.FEE_UNKNOWN}

    for verdict in verify(scene.payments, transaction, block_time=CREATED_AT):
        numbers = verdict.evidence
        assert verdict.reasons == tuple(sorted(set(verdict.reasons)))
        if verdict.legs:
            assert verdict.clean == doubts.isdisjoint(verdict.reasons)
        else:
            assert verdict.reasons
            assert verdict.credit == 0
        if verdict.clean:
            explained = numbers.bound + numbers.other_inflow
            assert numbers.debited == 0
            assert numbers.delta >= explained


@MANY
@given(raw=spoiled())
@example(raw=msgspec.json.encode(token_transfer(BUYER, SHOP, 7, mint=USDC, references=[ORDER])))
def test_whatever_can_be_decoded_can_be_judged(raw: bytes) -> None:
    try:
        answer = decode_transaction(raw)
    except Exception:  # noqa: BLE001 - which exceptions may come is the matter of test_decode
        return
    if isinstance(answer, Transaction):
        for verdict in verify([in_tokens(), in_sol(reference=SHOP)], answer, block_time=1):
            assert 0 <= verdict.credit <= AMOUNT_MAX


@pytest.mark.parametrize("moved", [[], [Move(memo("nothing"))]])
def test_the_bank_itself_keeps_its_books(moved: list[Move]) -> None:
    """A check of the model: with nothing moved, only the network fee is gone."""
    answer = decoded(landed(moved, fee_payer=BUYER))

    assert sum(answer.pre_lamports) - sum(answer.post_lamports) == answer.fee
    assert answer.pre_tokens == answer.post_tokens
    assert set(REFERENCES) <= set(answer.keys)
