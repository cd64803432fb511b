"""What a transfer without a reference is suggested for, and what it is not."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from indexer.core.payment import Payment, Terms
from indexer.core.suggest import (
    AMOUNTS_MAX,
    CREATED_MARGIN_S,
    LINES_MAX,
    MEMO_CHARS_MAX,
    SUGGESTIONS_PER_LEG_MAX,
    WORDS_MAX,
    Suggestion,
    Why,
    clues,
    memo_of,
    suggestions,
)
from indexer.core.transaction import Instruction
from indexer.core.types import MEMO_PROGRAMS, TOKEN_2022_PROGRAM
from tests.chain import (
    ata,
    call,
    checked_transfer,
    holding,
    key,
    memo,
    sol_transfer,
    system_transfer,
    token_transfer,
    transaction,
)
from tests.core.script import (
    AMOUNT,
    BUYER,
    CREATED_AT,
    EXPIRES_AT,
    GRACE_S,
    ORDER,
    SHOP,
    STRANGER,
    USDC,
    decoded,
    in_sol,
    in_tokens,
)


NOW = CREATED_AT + 500
BLOCK_TIME = CREATED_AT + 60
SHOP_USDC = ata(SHOP, USDC)


def payment(terms: Terms | None = None, *, number: int = 1, **rest: Any) -> Payment:
    terms = terms or in_sol()
    id_ = f"pay_{number:026d}"
    return Payment(terms=replace(terms, id=id_, reference=key(f"reference {number}")), **rest)


def suggested(
    landed: dict[str, Any], *payments: Payment, block_time: int | None = BLOCK_TIME
) -> list[Suggestion]:
    return suggestions(payments, decoded(landed), block_time=block_time, now=NOW)


def paying(amount: int = AMOUNT, text: str | None = None, **rest: Any) -> dict[str, Any]:
    return sol_transfer(BUYER, SHOP, amount, memo_text=text, **rest)


# ---------------------------------------------------------------------------- what fits what


def test_a_suggestion_names_the_leg_the_payment_and_why() -> None:
    landed = paying(text=" order 7 ", slot=77)

    (found,) = suggested(landed, payment(order_id="7"))

    assert found == Suggestion(
        signature=decoded(landed).signature,
        outer=1,
        inner=None,
        sub=None,
        payment_id=payment().terms.id,
        why=Why.AMOUNT_AND_MEMO,
        source=BUYER,
        destination=SHOP,
        amount=AMOUNT,
        memo=" order 7 ",
        slot=77,
        block_time=BLOCK_TIME,
        found_at=NOW,
    )


THIS = payment(memo="Tea, green", order_id="1042")
MEMOS = {
    "nothing": (None, False),
    "empty": ("", False),
    "its own memo": ("Tea, green", True),
    "its own memo among others": ("hello\nTea, green \nbye", True),
    "its own memo and space": (" Tea, green\t", True),
    "a part of its memo": ("Tea", False),
    "its memo and more": ("Tea, green, hot", False),
    "its id": (THIS.terms.id, True),
    "its id in a sentence": (f"this is for {THIS.terms.id}.", True),
    "more than its id": (THIS.terms.id + "0", False),
    "its reference": (f"ref={THIS.terms.reference}", True),
    "its order": ("1042", True),
    "its order in a sentence": ("Order #1042, thank you", True),
    "its order behind a colon": ("order:1042", True),
    "its order in a path": ("shop/1042/x", True),
    "its order in brackets": ("invoice (1042)", True),
    "another order": ("10421", False),
    "in capitals": (THIS.terms.id.upper(), False),
    "zero bytes": ("1042\0", False),
}


@pytest.mark.parametrize(("text", "is_named"), MEMOS.values(), ids=MEMOS)
def test_when_a_memo_names_a_payment(text: str | None, is_named: bool) -> None:
    equal, other = (suggested(paying(amount, text), THIS) for amount in (AMOUNT, AMOUNT - 1))

    assert [each.why for each in equal] == [Why.AMOUNT_AND_MEMO if is_named else Why.AMOUNT]
    assert [each.why for each in other] == ([Why.MEMO] if is_named else [])


def test_an_order_number_may_have_signs_in_it() -> None:
    (found,) = suggested(paying(1, "for 2026/17,"), payment(order_id="2026/17"))

    assert found.why is Why.MEMO


@pytest.mark.parametrize(
    ("landed", "terms"),
    [
        (paying(AMOUNT + 1), in_sol()),
        (paying(err="AccountInUse"), in_sol()),
        (sol_transfer(BUYER, STRANGER, AMOUNT), in_sol()),
        (sol_transfer(SHOP, SHOP, AMOUNT), in_sol()),
        (sol_transfer(SHOP, BUYER, AMOUNT), in_sol()),
        (token_transfer(BUYER, SHOP, AMOUNT, mint=USDC), in_sol()),
        (paying(), in_tokens()),
        (token_transfer(BUYER, SHOP, AMOUNT, mint=key("other mint")), in_tokens()),
        (paying(), in_sol(recipient=STRANGER)),
        (paying(0, THIS.terms.id), in_sol()),
    ],
)
def test_what_pays_nothing_is_suggested_for_nothing(landed: dict[str, Any], terms: Terms) -> None:
    assert suggested(landed, payment(terms)) == []


def test_the_amount_that_arrived_counts_and_not_what_was_sent() -> None:
    taxed = in_tokens(mint=key("taxed"), program=TOKEN_2022_PROGRAM)
    landed = token_transfer(
        BUYER, SHOP, AMOUNT + 10, mint=key("taxed"), program=TOKEN_2022_PROGRAM, withheld=10
    )

    (found,) = suggested(landed, payment(taxed))

    assert (found.why, found.amount) == (Why.AMOUNT, AMOUNT)


def test_a_transfer_that_a_program_makes_is_suggested_too() -> None:
    landed = transaction([call(key("program"))], inner={0: [system_transfer(BUYER, SHOP, AMOUNT)]})

    (found,) = suggested(landed, payment())

    assert (found.outer, found.inner, found.sub) == (0, 0, None)


def test_each_leg_is_suggested_by_itself() -> None:
    landed = transaction([system_transfer(BUYER, SHOP, each) for each in (1, AMOUNT, AMOUNT)])

    assert [each.outer for each in suggested(landed, payment())] == [1, 2]


@pytest.mark.parametrize(
    ("block_time", "is_possible"),
    [
        (None, False),
        (CREATED_AT - CREATED_MARGIN_S - 1, False),
        (CREATED_AT - CREATED_MARGIN_S, True),
        (EXPIRES_AT + GRACE_S, True),
        (EXPIRES_AT + GRACE_S + 1, False),
    ],
)
def test_only_money_of_its_time_is_suggested_for_a_payment(
    block_time: int | None, is_possible: bool
) -> None:
    found = suggested(paying(), payment(), block_time=block_time)

    assert len(found) == is_possible


def test_of_many_payments_the_named_one_and_the_youngest_are_suggested() -> None:
    payments = [
        payment(replace(in_sol(), created_at=CREATED_AT - 100 + number), number=number)
        for number in range(40)
    ]

    found = suggested(paying(text=payments[3].terms.id), *payments)

    numbers = [int(each.payment_id[4:]) for each in found]
    assert numbers == [3, *range(39, 39 - SUGGESTIONS_PER_LEG_MAX + 1, -1)]


# ---------------------------------------------------------------------------------- the clues


def test_clues_hold_all_that_a_payment_may_be_found_by() -> None:
    landed = transaction(
        [
            memo("Tea, green\nfor #1042"),
            checked_transfer(ata(BUYER, USDC), USDC, SHOP_USDC, BUYER, 700, withheld=7),
        ],
        tokens=[holding(BUYER, USDC), holding(SHOP, USDC)],
    )

    found = clues(decoded(landed), SHOP_USDC)

    assert found is not None
    assert {693, 700} <= set(found.amounts)
    assert {"Tea, green", "for #1042"} <= set(found.lines)
    assert {"Tea", "green", "1042"} <= set(found.words)


@pytest.mark.parametrize(
    ("landed", "destination"),
    [
        (paying(text="memo"), BUYER),
        (paying(text="memo"), SHOP_USDC),
        (paying(0, "memo"), SHOP),
        (paying(text="memo", err="AccountInUse"), SHOP),
    ],
)
def test_what_brings_nothing_has_no_clues(landed: dict[str, Any], destination: str) -> None:
    assert clues(decoded(landed), destination) is None


def test_clues_are_bounded_whatever_is_sent() -> None:
    text = " ".join(f"word{n}\n" for n in range(150))
    moves = [system_transfer(BUYER, SHOP, n + 1) for n in range(AMOUNTS_MAX * 2)]

    found = clues(decoded(transaction([memo(text), memo(text), *moves])), SHOP)

    assert found is not None
    assert len(found.amounts) == AMOUNTS_MAX
    assert len(found.lines) == LINES_MAX
    assert len(found.words) == WORDS_MAX


@pytest.mark.parametrize("program", sorted(MEMO_PROGRAMS))
def test_every_memo_program_is_read(program: str) -> None:
    landed = transaction([replace(memo("hello"), program=program)])

    assert memo_of(decoded(landed)) == "hello"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"a\0b", "a\ufffdb"),
        (b"   ", None),
        (b"x" * 3_000, None),  # longer than is decoded
        (b"x" * 1_200, "x" * MEMO_CHARS_MAX),
    ],
)
def test_a_memo_may_be_anything(data: bytes, text: str | None) -> None:
    landed = transaction([replace(memo(""), data=data)])

    assert memo_of(decoded(landed)) == text


def test_a_memo_that_is_no_base58_is_none() -> None:
    landed = decoded(paying())
    broken = Instruction(0, None, min(MEMO_PROGRAMS), (), "0OIl")

    assert memo_of(replace(landed, instructions=(broken,))) is None


@given(text=st.text(max_size=300), amount=st.integers(min_value=1, max_value=10))
def test_clues_find_every_payment_that_is_suggested(text: str, amount: int) -> None:
    """Whoever looks payments up by the clues misses none that the rule would suggest."""
    word = (text.split() or ["x"])[-1]
    payments = [
        payment(in_sol(5), number=1, order_id=word or None),
        payment(in_sol(amount), number=2, memo=text or None),
        payment(in_sol(7), number=3, memo=text.strip() or None, order_id=text.strip(":#") or None),
    ]
    landed = paying(amount, text)

    found = clues(decoded(landed), SHOP)
    assert found is not None
    for each in suggested(landed, *payments):
        it = next(p for p in payments if p.terms.id == each.payment_id)
        by_memo = it.memo is not None and it.memo in found.lines
        by_name = {it.terms.id, it.terms.reference, it.order_id} & set(found.words)
        assert it.terms.amount in found.amounts or by_memo or by_name


def test_the_reference_of_another_payment_says_nothing_here() -> None:
    """Whether a transaction names a payment is for the caller to know."""
    assert len(suggested(paying(references=[ORDER]), payment())) == 1
