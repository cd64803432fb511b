"""What a transaction brings to a payment that it does not name, and what a person makes of it."""

from dataclasses import replace
from typing import Any

import pytest

from indexer.core.payment import Terms
from indexer.core.types import TOKEN_2022_PROGRAM, Reason
from indexer.core.verify import arrivals, verify_matched
from tests.chain import (
    Ix,
    TokenAccount,
    ata,
    batch,
    checked_transfer,
    create_account,
    holding,
    key,
    mint_to,
    system_transfer,
    token_transfer,
    transaction,
)
from tests.core.script import (
    AMOUNT,
    BUYER,
    CREATED_AT,
    ORDER,
    SHOP,
    STRANGER,
    USDC,
    decoded,
    in_sol,
    in_tokens,
    judged,
)


SHOP_USDC, BUYER_USDC = ata(SHOP, USDC), ata(BUYER, USDC)


def in_usdc(*instructions: Ix, **rest: Any) -> dict[str, Any]:
    rows = [holding(who, USDC) for who in (SHOP, BUYER, STRANGER)]
    return transaction(instructions, tokens=rows, **rest)


def to_shop(amount: int, *references: str) -> Ix:
    return checked_transfer(BUYER_USDC, USDC, SHOP_USDC, BUYER, amount, *references)


# --------------------------------------------------------------------------------- arrivals


ARRIVALS = {
    "SOL": (in_sol(), [system_transfer(BUYER, SHOP, 7)], [7]),
    "several": (
        in_sol(),
        [system_transfer(BUYER, SHOP, 7), system_transfer(STRANGER, SHOP, 8)],
        [7, 8],
    ),
    "tokens": (in_tokens(), [to_shop(7)], [7]),
    "whomever it names": (in_tokens(), [to_shop(7, ORDER)], [7]),
    "in a batch": (in_tokens(), [batch(to_shop(1), to_shop(2))], [1, 2]),
    "nothing": (in_tokens(), [to_shop(0)], []),
    "elsewhere": (in_sol(), [system_transfer(BUYER, STRANGER, 7)], []),
    "another asset": (in_sol(), [to_shop(7)], []),
    "from his own pocket": (in_sol(), [system_transfer(SHOP, SHOP, 7)], []),
    "minted": (in_tokens(), [mint_to(USDC, SHOP_USDC, STRANGER, 7)], []),
    "an account that was made": (in_sol(), [create_account(BUYER, SHOP, 7)], []),
}


@pytest.mark.parametrize(("terms", "instructions", "amounts"), ARRIVALS.values(), ids=ARRIVALS)
def test_what_arrived_for_a_payment_without_naming_it(
    terms: Terms, instructions: list[Ix], amounts: list[int]
) -> None:
    landed = decoded(in_usdc(*instructions))

    assert [leg.net for leg in arrivals(terms, landed)] == amounts
    assert arrivals(terms, replace(landed, failed=True)) == ()


def test_what_arrived_is_less_the_transfer_fee() -> None:
    taxed, program = key("taxed"), TOKEN_2022_PROGRAM
    landed = token_transfer(BUYER, SHOP, 1_000, mint=taxed, program=program, withheld=10)

    (leg,) = arrivals(in_tokens(mint=taxed, program=program), decoded(landed))

    assert (leg.amount, leg.net) == (1_000, 990)


def test_tokens_that_another_owner_ends_up_with_did_not_arrive() -> None:
    row = TokenAccount(account=SHOP_USDC, mint=USDC, owner=SHOP, owner_after=STRANGER)
    landed = transaction([to_shop(7)], tokens=[row, holding(BUYER, USDC)])

    assert arrivals(in_tokens(), decoded(landed)) == ()


# --------------------------------------------------------------------------- a person's word


MATCHES = {
    "exact": (in_sol(), [system_transfer(BUYER, SHOP, AMOUNT)], AMOUNT, ()),
    "a part": (in_sol(), [system_transfer(BUYER, SHOP, 1)], 1, ()),
    "two legs": (in_tokens(), [to_shop(400), to_shop(600)], AMOUNT, ()),
    "a round trip": (
        in_sol(),
        [system_transfer(BUYER, SHOP, AMOUNT), system_transfer(SHOP, BUYER, 400)],
        600,
        (Reason.DEBITED,),
    ),
    "nothing of it stays": (
        in_sol(),
        [system_transfer(BUYER, SHOP, AMOUNT), system_transfer(SHOP, BUYER, AMOUNT)],
        0,
        (Reason.DEBITED,),
    ),
    "nothing": (in_sol(), [system_transfer(BUYER, STRANGER, AMOUNT)], 0, (Reason.NOT_BOUND,)),
    "his own": (in_sol(), [system_transfer(SHOP, SHOP, AMOUNT)], 0, (Reason.NOT_BOUND,)),
    "another asset": (in_tokens(), [system_transfer(BUYER, SHOP, 1)], 0, (Reason.NOT_BOUND,)),
}


@pytest.mark.parametrize(
    ("terms", "instructions", "credit", "doubts"), MATCHES.values(), ids=MATCHES
)
def test_a_persons_word_takes_the_place_of_the_reference_alone(
    terms: Terms, instructions: list[Ix], credit: int, doubts: tuple[Reason, ...]
) -> None:
    verdict = verify_matched(terms, decoded(in_usdc(*instructions)), block_time=CREATED_AT)

    assert (verdict.credit, verdict.clean) == (credit, True)
    assert verdict.reasons == tuple(sorted({*doubts, Reason.MATCHED}))
    assert verdict.payment_id == terms.id
    assert sum(leg.net for leg in verdict.legs) == verdict.evidence.bound


def test_balances_cap_what_a_person_may_match() -> None:
    """An instruction that achieved less than it says."""
    landed = transaction([system_transfer(BUYER, SHOP, AMOUNT)], extra_lamports={SHOP: -1})

    verdict = verify_matched(in_sol(), decoded(landed), block_time=CREATED_AT)

    assert (verdict.credit, verdict.reasons) == (AMOUNT - 1, (Reason.BOOKS, Reason.MATCHED))


def test_nothing_of_a_failed_transaction_can_be_matched() -> None:
    landed = decoded(in_usdc(to_shop(AMOUNT), err="AccountInUse"))

    verdict = verify_matched(in_tokens(), landed, block_time=None)

    assert (verdict.credit, verdict.legs) == (0, ())


@pytest.mark.parametrize("terms", [in_sol(), in_tokens()])
def test_what_a_person_matches_is_what_the_reference_would_have_bound(terms: Terms) -> None:
    moves = [
        [system_transfer(BUYER, SHOP, AMOUNT, *named), to_shop(AMOUNT, *named)]
        for named in ((), (ORDER,))
    ]

    matched = verify_matched(terms, decoded(in_usdc(*moves[0])), block_time=CREATED_AT + 60)
    (bound,) = judged(in_usdc(*moves[1]), terms)

    assert (matched.credit, matched.legs, matched.evidence) == (
        bound.credit,
        bound.legs,
        bound.evidence,
    )
