"""The traps: each row of the tables, and those that take several payments, transactions or days."""

import copy
from typing import Any

import msgspec
import pytest

from indexer.core.decode import decode_transaction
from indexer.core.payment import State, Terms
from indexer.core.settle import REVIEW_REASONS, fold
from indexer.core.transaction import Missing, Undecided
from indexer.core.types import Paid, Reason, Status
from indexer.core.verdict import Verdict
from tests.chain import (
    checked_transfer,
    memo,
    sol_transfer,
    system_transfer,
    token_transfer,
    transaction,
)
from tests.core.script import (
    AMOUNT,
    BUYER,
    EXPIRES_AT,
    GRACE_S,
    ORDER,
    OTHER_ORDER,
    SHOP,
    STRANGER,
    USDC,
    in_sol,
    in_tokens,
    judged,
    verdict,
)
from tests.core.traps import (
    BUYER_ATA,
    NATIVE_SOL,
    PAY_SOL,
    PAY_USDC,
    SHOP_ATA,
    Says,
    bound,
    clean,
    in_usdc,
)
from tests.core.traps_tokens import TOKENS


ROWS = [*NATIVE_SOL, *TOKENS]


def said(verdict: Verdict) -> Says:
    return Says(verdict.credit, verdict.clean, verdict.reasons)


def folded(
    *verdicts: Verdict,
    terms: Terms = PAY_SOL,
    frontier_time: int | None = None,
    sighted: bool = False,
) -> State:
    return fold(terms, verdicts, frontier_time=frontier_time, sighted=sighted, canceled_at=None)


@pytest.mark.parametrize(
    ("landed", "terms", "says"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_one_transaction_and_one_payment(landed: dict[str, Any], terms: Terms, says: Says) -> None:
    (verdict,) = judged(landed, terms)

    assert said(verdict) == says
    state = folded(verdict, terms=terms)
    assert (state.status is Status.SETTLED) == (says.clean and says.credit >= terms.amount)
    assert set(state.review) == set(says.reasons) & REVIEW_REASONS


# ----------------------------------------------------------------- what a node leaves out


def _without(landed: dict[str, Any], *path: str) -> dict[str, Any]:
    changed = copy.deepcopy(landed)
    inside = changed
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = None
    return changed


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        (("meta",), Missing.META),
        (("meta", "innerInstructions"), Missing.INNER_INSTRUCTIONS),
        (("meta", "preTokenBalances"), Missing.TOKEN_BALANCES),
        (("meta", "postTokenBalances"), Missing.TOKEN_BALANCES),
        (("meta", "loadedAddresses"), Missing.LOADED_ADDRESSES),
    ],
)
def test_what_a_node_did_not_keep_decides_nothing(path: tuple[str, ...], missing: Missing) -> None:
    landed = in_usdc(bound(), version=0, loaded_readonly=[ORDER])

    answer = decode_transaction(msgspec.json.encode(_without(landed, *path)))

    assert answer == Undecided(landed["transaction"]["signatures"][0], missing)


# ---------------------------------------------------- several payments in one transaction

FIRST, SECOND = in_tokens(), in_tokens(reference=OTHER_ORDER)


def test_two_payments_in_one_transaction_get_each_its_own_transfer() -> None:
    landed = in_usdc(bound(1_000, ORDER), bound(1_200, OTHER_ORDER))

    first, second = judged(landed, FIRST, SECOND)

    assert (said(first), said(second)) == (clean(1_000), clean(1_200))
    assert [leg.outer for leg in (*first.legs, *second.legs)] == [0, 1]
    assert (first.evidence.other_inflow, second.evidence.other_inflow) == (1_200, 1_000)


@pytest.mark.parametrize("references", [(ORDER, OTHER_ORDER), (OTHER_ORDER, ORDER)])
def test_a_transfer_that_names_two_payments_pays_the_one_it_names_first(
    references: tuple[str, str],
) -> None:
    landed = in_usdc(bound(AMOUNT, *references))

    verdicts = judged(landed, FIRST, SECOND)

    said_of = {
        reference: said(v) for reference, v in zip((ORDER, OTHER_ORDER), verdicts, strict=True)
    }
    assert said_of[references[0]] == clean(AMOUNT)
    assert said_of[references[1]] == clean(0, Reason.ALREADY_ALLOCATED)


def test_a_transfer_goes_past_a_payment_that_it_cannot_pay() -> None:
    """The first reference belongs to a payment in SOL: no token transfer can pay it."""
    landed = in_usdc(bound(AMOUNT, OTHER_ORDER, ORDER))

    in_another_asset, paid = judged(landed, in_sol(reference=OTHER_ORDER), FIRST)

    assert said(in_another_asset) == clean(0, Reason.WRONG_MINT)
    assert said(paid) == clean(AMOUNT)


def test_a_payment_that_the_transaction_only_mentions_gets_nothing() -> None:
    landed = in_usdc(bound(AMOUNT, ORDER), memo("also for", OTHER_ORDER))

    first, second = judged(landed, FIRST, SECOND)

    assert (said(first), said(second)) == (clean(AMOUNT), clean(0, Reason.NOT_BOUND))


def test_two_recipients_in_one_transaction_do_not_share_their_money() -> None:
    landed = transaction(
        [
            system_transfer(BUYER, SHOP, AMOUNT, ORDER),
            system_transfer(BUYER, STRANGER, AMOUNT, OTHER_ORDER),
        ]
    )

    verdicts = judged(landed, PAY_SOL, in_sol(reference=OTHER_ORDER, recipient=STRANGER))

    assert [said(v) for v in verdicts] == [clean(AMOUNT), clean(AMOUNT)]


def test_payments_that_share_an_account_share_what_it_gained() -> None:
    """The account belongs to a program that took half of it away without an instruction."""
    landed = transaction(
        [
            system_transfer(BUYER, SHOP, AMOUNT, ORDER),
            system_transfer(BUYER, SHOP, AMOUNT, OTHER_ORDER),
        ],
        extra_lamports={SHOP: -AMOUNT},
    )

    first, second = judged(landed, PAY_SOL, in_sol(reference=OTHER_ORDER))

    assert (first.credit, second.credit) == (AMOUNT, 0)
    assert first.reasons == second.reasons == (Reason.BOOKS,)


# ---------------------------------------------------------- several transactions, and time


def test_a_failed_transaction_never_blocks_the_one_that_pays() -> None:
    failed = verdict(0, name="failed", slot=1, reasons=(Reason.FAILED_TRANSACTION,))

    state = folded(failed, verdict(slot=2))

    assert (state.status, state.review) == (Status.SETTLED, ())


@pytest.mark.parametrize("dust_slot", [1, 300])
def test_dust_and_junk_around_the_real_payment_change_nothing(dust_slot: int) -> None:
    """However much of it there is, before or after."""
    junk = [
        verdict(0, name=f"junk {n}", slot=dust_slot, index=n, reasons=(Reason.NOT_BOUND,))
        for n in range(500)
    ]
    dust = verdict(1, name="dust", slot=dust_slot, index=501)

    state = folded(*junk, dust, verdict(slot=100))

    assert state.status is Status.SETTLED
    assert (state.paid, state.received, state.review) == (Paid.OVER, AMOUNT + 1, ())


def test_a_payment_that_is_paid_twice_settles_once_and_asks_for_a_person() -> None:
    state = folded(verdict(name="first", slot=1), verdict(name="second", slot=2))

    assert (state.status, state.paid) == (Status.SETTLED, Paid.OVER)
    assert (state.received, state.review) == (2 * AMOUNT, (Reason.PAID_AGAIN,))


def test_partial_payments_add_up() -> None:
    parts = [verdict(400, name="a", slot=1), verdict(600, name="b", slot=2)]

    assert [folded(*parts[:n]).paid for n in range(3)] == [Paid.NONE, Paid.PARTIAL, Paid.EXACT]
    assert [folded(*parts[:n]).status for n in range(3)] == [
        Status.PENDING,
        Status.PENDING,
        Status.SETTLED,
    ]


def test_an_overpayment_settles() -> None:
    state = folded(verdict(AMOUNT + 1))

    assert (state.status, state.paid, state.review) == (Status.SETTLED, Paid.OVER, ())


def test_a_sighting_that_a_fork_dropped_leaves_the_payment_as_it_was() -> None:
    assert folded(sighted=True).status is Status.PROCESSING
    assert folded(sighted=False) == State()


@pytest.mark.parametrize(
    ("block_time", "status", "review"),
    [
        (EXPIRES_AT, Status.SETTLED, ()),
        (EXPIRES_AT + 1, Status.SETTLED, ()),
        (EXPIRES_AT + GRACE_S, Status.SETTLED, ()),
        (EXPIRES_AT + GRACE_S + 1, Status.EXPIRED, (Reason.LATE_AFTER_GRACE,)),
    ],
)
def test_a_transaction_signed_long_ago_may_land_late(
    block_time: int, status: Status, review: tuple[Reason, ...]
) -> None:
    """Durable nonces and offline signatures do not expire."""
    state = folded(verdict(block_time=block_time), frontier_time=block_time)

    assert (state.status, state.review) == (status, review)
    assert state.late == (block_time > EXPIRES_AT)


def test_a_refund_does_not_undo_the_payment() -> None:
    paid = in_usdc(bound(), slot=1)
    refunded = in_usdc(checked_transfer(SHOP_ATA, USDC, BUYER_ATA, SHOP, AMOUNT, ORDER), slot=2)

    verdicts = [*judged(paid, PAY_USDC), *judged(refunded, PAY_USDC)]

    state = folded(*verdicts, terms=PAY_USDC)
    assert (state.status, state.received, state.review) == (Status.SETTLED, AMOUNT, ())


def test_whoever_tells_of_a_transaction_and_how_often_it_counts_once() -> None:
    (told,) = judged(sol_transfer(BUYER, SHOP, AMOUNT // 2, references=[ORDER]), PAY_SOL)

    assert folded(told, told, told) == folded(told)
    assert folded(told, told).status is Status.PENDING


@pytest.mark.parametrize("memo_program", ["Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo", "other"])
def test_memo_programs_old_and_new_are_all_the_same(memo_program: str) -> None:
    landed = token_transfer(BUYER, SHOP, AMOUNT, mint=USDC, references=[ORDER], memo_text="order 1")
    keys = landed["transaction"]["message"]["accountKeys"]
    position = landed["transaction"]["message"]["instructions"][0]["programIdIndex"]
    keys[position] = memo_program

    (verdict,) = judged(landed, PAY_USDC)

    assert said(verdict) == clean(AMOUNT)
