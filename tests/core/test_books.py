"""Credits, legs and balances come to the same, or it is said."""

from dataclasses import replace
from typing import Any

import pytest

from indexer.core.books import Books, Credit, gained
from indexer.core.payment import Asset, Terms
from indexer.core.types import TOKEN_PROGRAM, Reason
from indexer.core.verify import verify
from tests.builders import AMOUNT, CUSTOMER, MERCHANT, NOW, SOL, USDC, make_terms
from tests.chain import holding, key, sol_transfer, system_transfer, token_transfer, transaction
from tests.core.script import decoded


def terms(number: int = 1, asset: Asset = SOL) -> Terms:
    return make_terms(number, asset=asset)


def credit(payment: Terms, landed: dict[str, Any], *others: Terms) -> Credit:
    """What the rule gives it."""
    verdicts = verify([payment, *others], decoded(landed), block_time=NOW)
    (verdict,) = [each for each in verdicts if each.payment_id == payment.id]
    return Credit(verdict=verdict, recipient=payment.recipient, asset=payment.asset)


def paid(payment: Terms, **rest: Any) -> dict[str, Any]:
    return sol_transfer(CUSTOMER, MERCHANT, AMOUNT, references=[payment.reference], **rest)


def test_what_is_right_is_added_up() -> None:
    books, payment = Books(), terms()
    landed = paid(payment)

    assert books.enter(decoded(landed), [credit(payment, landed)]) == []
    assert books.enter(decoded(landed), [credit(payment, landed)]) == []

    account = books.accounts[None]
    assert (account.credits, account.legs, account.moved, account.beside) == (
        2 * AMOUNT, 2 * AMOUNT, 2 * AMOUNT, 0,
    )  # fmt: skip


def test_each_asset_has_its_account() -> None:
    books, payment = Books(), terms(asset=USDC)
    assert USDC.mint is not None
    landed = token_transfer(
        CUSTOMER, MERCHANT, AMOUNT, mint=USDC.mint, references=[payment.reference]
    )

    assert books.enter(decoded(landed), [credit(payment, landed)]) == []
    assert {mint: each.moved for mint, each in books.accounts.items()} == {USDC.mint: AMOUNT}


def test_two_payments_of_one_transaction_share_what_it_moved() -> None:
    books, one, other = Books(), terms(1), terms(2)
    transfers = [
        system_transfer(CUSTOMER, MERCHANT, AMOUNT, each.reference) for each in (one, other)
    ]
    landed = transaction(transfers)
    both = [credit(one, landed, other), credit(other, landed, one)]

    assert books.enter(decoded(landed), both) == []
    assert books.accounts[None].moved == books.accounts[None].credits == 2 * AMOUNT


def test_what_came_beside_is_told_apart() -> None:
    books, payment = Books(), terms()
    transfers = [
        system_transfer(CUSTOMER, MERCHANT, AMOUNT, payment.reference),
        system_transfer(CUSTOMER, MERCHANT, 77),
    ]
    landed = transaction(transfers)

    assert books.enter(decoded(landed), [credit(payment, landed)]) == []
    assert books.accounts[None].beside == 77


def test_rent_that_comes_back_is_no_difference_in_sol() -> None:
    books, payment = Books(), terms()
    landed = paid(payment, extra_lamports={MERCHANT: 9})

    assert books.enter(decoded(landed), [credit(payment, landed)]) == []
    assert books.accounts[None].beside == 9


def test_a_fee_that_the_recipient_paid_is_no_loss() -> None:
    books, payment = Books(), terms()
    landed = paid(payment, fee_payer=MERCHANT)

    assert books.enter(decoded(landed), [credit(payment, landed)]) == []
    assert books.accounts[None].moved == AMOUNT


@pytest.mark.parametrize("changed", [AMOUNT - 1, AMOUNT + 1])
def test_a_credit_that_no_leg_brought_is_found(changed: int) -> None:
    payment = terms()
    landed = paid(payment)
    entry = credit(payment, landed)
    forged = replace(entry, verdict=replace(entry.verdict, credit=changed))

    (found,) = Books().enter(decoded(landed), [forged])

    assert (found.what, found.payment_id) == ("books", payment.id)
    assert found.stored == {"credits": str(changed), "legs": str(AMOUNT)}
    assert found.chain == {"moved": str(AMOUNT)}


def test_a_leg_that_no_balance_shows_is_found() -> None:
    payment = terms()
    landed = paid(payment)
    entry = credit(payment, landed)
    legs = (replace(entry.verdict.legs[0], net=AMOUNT * 2),)
    forged = replace(entry, verdict=replace(entry.verdict, credit=AMOUNT * 2, legs=legs))

    assert len(Books().enter(decoded(landed), [forged])) == 1


def test_tokens_that_nobody_explains_are_found() -> None:
    payment = terms(asset=USDC)
    assert USDC.mint is not None
    landed = token_transfer(
        CUSTOMER, MERCHANT, AMOUNT, mint=USDC.mint, references=[payment.reference]
    )
    entry = credit(payment, landed)
    shifted = replace(entry.verdict.evidence, other_inflow=1)
    forged = replace(entry, verdict=replace(entry.verdict, evidence=shifted))

    assert len(Books().enter(decoded(landed), [forged])) == 1


@pytest.mark.parametrize("doubt", [{"clean": False}, {"reasons": (Reason.MATCHED,)}])
def test_a_doubtful_credit_is_in_no_sum(doubt: dict[str, Any]) -> None:
    books, payment = Books(), terms()
    landed = paid(payment)
    entry = credit(payment, landed)
    doubtful = replace(entry, verdict=replace(entry.verdict, credit=1, **doubt))

    assert books.enter(decoded(landed), [doubtful]) == []
    assert books.accounts == {}


def test_a_gain_is_that_of_all_accounts_of_the_owner() -> None:
    mint = key("usdc")
    rows = (
        holding(MERCHANT, mint, 100),
        replace(holding(MERCHANT, mint, 50), account=key("second account")),
        replace(holding(MERCHANT, key("other mint"), 5), account=key("third account")),
        holding(CUSTOMER, mint),
    )
    extra = {rows[0].account: 7, key("second account"): -2, key("third account"): 1_000}
    landed = decoded(transaction([], fee_payer=CUSTOMER, tokens=rows, extra_tokens=extra))

    assert gained(landed, MERCHANT, mint) == 5
    assert gained(landed, MERCHANT, key("third mint")) == 0
    assert gained(landed, key("stranger"), None) == 0
    assert gained(landed, CUSTOMER, None) == 0  # the fee is added back
    assert TOKEN_PROGRAM in {row.token_program for row in landed.pre_tokens}
