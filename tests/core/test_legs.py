from dataclasses import replace
from typing import Any

import base58
import pytest
from hypothesis import given, settings, strategies as st

from indexer.core.legs import DATA_LENGTH_MAX, UNKNOWN_MINT, Ledger, Movement, read_ledger
from indexer.core.transaction import Instruction
from indexer.core.types import (
    AMOUNT_MAX,
    NATIVE_MINT,
    NATIVE_MINT_2022,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
)
from tests import vectors
from tests.chain import (
    Ix,
    TokenAccount,
    ata,
    batch,
    burn,
    call,
    checked_transfer,
    checked_transfer_with_fee,
    close_account,
    create_account,
    create_account_with_seed,
    key,
    memo,
    mint_to,
    plain_transfer,
    sync_native,
    system_transfer,
    system_transfer_with_seed,
    transaction,
    unwrap_lamports,
)
from tests.core.script import BUYER, ORDER, OTHER_ORDER, SHOP, USDC, decoded


A, B, C, D = (key(f"account {n}") for n in range(4))
WRAPPED = TokenAccount(account=A, mint=NATIVE_MINT, owner=BUYER, amount=50)
ROWS = [
    replace(WRAPPED, mint=USDC),
    TokenAccount(account=B, mint=USDC, owner=SHOP, amount=0),
]


def ledger(*instructions: Ix, **rest: Any) -> Ledger:
    return read_ledger(decoded(transaction(instructions, **rest)))


def only(read: Ledger) -> Movement:
    assert read.opaque == ()
    (movement,) = read.movements
    return movement


def raw_call(program: str, data: bytes, *accounts: str) -> Ix:
    return Ix(program=program, accounts=accounts, data=data)


def movement(source: str | None, destination: str | None, amount: int, **rest: Any) -> Movement:
    return Movement(
        **{
            "outer": 0,
            "inner": None,
            "sub": None,
            "mint": None,
            "source": source,
            "destination": destination,
            "amount": amount,
        }
        | rest
    )


BIG = 2**63 + 1

#: Instruction, and what it moves.
LAYOUTS: list[tuple[str, Ix, Movement]] = [
    (
        "Transfer",
        system_transfer(A, B, BIG, ORDER, C),
        movement(A, B, BIG, transfer=True, references=(ORDER, C)),
    ),
    (
        "TransferWithSeed",
        system_transfer_with_seed(A, C, B, BIG, ORDER),
        movement(A, B, BIG, transfer=True, own_base=C, references=(ORDER,)),
    ),
    ("CreateAccount", create_account(A, B, BIG, ORDER), movement(A, B, BIG)),
    ("CreateAccountWithSeed", create_account_with_seed(A, B, C, BIG), movement(A, B, BIG)),
    (
        "WithdrawNonceAccount",
        raw_call(SYSTEM_PROGRAM, b"\5\0\0\0" + (9).to_bytes(8, "little"), A, B, C, ORDER),
        movement(A, B, 9),
    ),
    (
        "CreateAccountAllowPrefund",
        raw_call(SYSTEM_PROGRAM, b"\x0d\0\0\0" + (9).to_bytes(8, "little") + bytes(40), B, A),
        movement(A, B, 9),
    ),
    (
        "token Transfer",
        plain_transfer(A, B, C, BIG, ORDER),
        movement(A, B, BIG, mint=USDC, transfer=True, authority=C, references=(ORDER,)),
    ),
    (
        "TransferChecked",
        checked_transfer(A, D, B, C, BIG, ORDER, OTHER_ORDER),
        movement(A, B, BIG, mint=D, transfer=True, authority=C, references=(ORDER, OTHER_ORDER)),
    ),
    (
        "TransferChecked of Token-2022",
        checked_transfer(A, D, B, C, BIG, program=TOKEN_2022_PROGRAM),
        movement(A, B, BIG, mint=D, transfer=True, authority=C),
    ),
    (
        "TransferCheckedWithFee",
        checked_transfer_with_fee(A, D, B, C, BIG, 7, ORDER),
        movement(A, B, BIG, mint=D, fee=7, transfer=True, authority=C, references=(ORDER,)),
    ),
    ("MintTo", mint_to(D, B, C, BIG), movement(None, B, BIG, mint=D)),
    (
        "MintToChecked",
        raw_call(TOKEN_PROGRAM, b"\x0e" + (9).to_bytes(8, "little") + b"\6", D, B, C),
        movement(None, B, 9, mint=D),
    ),
    ("Burn", burn(A, D, C, BIG), movement(A, None, BIG, mint=D)),
    (
        "BurnChecked",
        raw_call(TOKEN_PROGRAM, b"\x0f" + (9).to_bytes(8, "little") + b"\6", A, D, C),
        movement(A, None, 9, mint=D),
    ),
]

LAYOUT_IDS = [name for name, _, _ in LAYOUTS]


def without_effects(ix: Ix, *, tokens: list[TokenAccount] | None = None) -> Ledger:
    return ledger(ix.without_effect(), tokens=ROWS if tokens is None else tokens)


@pytest.mark.parametrize(("ix", "moves"), [row[1:] for row in LAYOUTS], ids=LAYOUT_IDS)
def test_an_instruction_moves_what_its_data_says(ix: Ix, moves: Movement) -> None:
    assert only(without_effects(ix)) == moves


@pytest.mark.parametrize(("ix", "moves"), [row[1:] for row in LAYOUTS], ids=LAYOUT_IDS)
def test_data_beyond_the_layout_changes_nothing(ix: Ix, moves: Movement) -> None:
    assert only(without_effects(replace(ix, data=ix.data + b"\xff\xff"))) == moves


@pytest.mark.parametrize("ix", [row[1] for row in LAYOUTS], ids=LAYOUT_IDS)
def test_data_that_ends_before_its_amount_is_opaque(ix: Ix) -> None:
    for length in range(9):
        read = without_effects(replace(ix, data=ix.data[:length]))

        assert read.movements == ()
        assert [(o.outer, o.program, o.keys) for o in read.opaque] == [(0, ix.program, ix.accounts)]


@pytest.mark.parametrize("ix", [row[1] for row in LAYOUTS], ids=LAYOUT_IDS)
def test_an_instruction_without_its_accounts_is_opaque(ix: Ix) -> None:
    read = without_effects(replace(ix, accounts=(ix.accounts[0],), signers=()))

    assert (read.movements, len(read.opaque)) == ((), 1)


def test_other_programs_move_nothing_by_themselves() -> None:
    transfer = system_transfer(A, B, 5)

    assert ledger(replace(transfer, program=key("looks alike")), memo("5")) == Ledger((), ())


def _u32(tag: int) -> bytes:
    return tag.to_bytes(4, "little")


@pytest.mark.parametrize("tag", [1, 4, 6, 7, 8, 9, 10, 12])
def test_system_instructions_that_move_nothing(tag: int) -> None:
    assert ledger(raw_call(SYSTEM_PROGRAM, _u32(tag), A, B)) == Ledger((), ())


@pytest.mark.parametrize("tag", [14, 255, 256, 2**32 - 1])
def test_unknown_system_instructions_are_opaque(tag: int) -> None:
    assert len(ledger(raw_call(SYSTEM_PROGRAM, _u32(tag) + bytes(8), A, B)).opaque) == 1


def test_an_account_that_had_its_lamports_before_needs_no_funder() -> None:
    data = _u32(13) + bytes(8) + bytes(40)

    assert ledger(raw_call(SYSTEM_PROGRAM, data, A)) == Ledger((), ())


MOVES_NOTHING = {0, 1, 2, 4, 5, 6, 10, 11, 13, 16, *range(18, 26), *range(28, 37), 38, 39}
MOVES_NOTHING |= {40, 41, 43, 44}


@pytest.mark.parametrize("program", [TOKEN_PROGRAM, TOKEN_2022_PROGRAM])
def test_every_other_token_instruction_is_opaque_or_known_to_move_nothing(program: str) -> None:
    moving = {3, 7, 8, 9, 12, 14, 15, 26, 45, 255}
    for tag in set(range(256)) - moving:
        read = ledger(raw_call(program, bytes([tag]) + bytes(40), A, B, C, D))

        assert read.movements == ()
        assert len(read.opaque) == (0 if tag in MOVES_NOTHING else 1), tag


@pytest.mark.parametrize(("sub_tag", "opaque"), [(0, 0), (2, 1), (3, 1), (4, 0), (5, 0), (6, 1)])
def test_of_the_fee_extension_only_withdrawals_are_opaque(sub_tag: int, opaque: int) -> None:
    """They credit an amount that the data does not say; harvested fees are in no balance."""
    read = ledger(raw_call(TOKEN_2022_PROGRAM, bytes([26, sub_tag]) + bytes(20), A, B, C, D))

    assert (read.movements, len(read.opaque)) == ((), opaque)


# --------------------------------------------------------------------------- data as text


@pytest.mark.parametrize("data", ["0", "O", "l", "é", "3 3", "\0", "1" * (DATA_LENGTH_MAX + 1)])
def test_data_that_is_not_base58_or_too_long_is_opaque(data: str) -> None:
    whole = decoded(transaction([system_transfer(A, B, 5)]))
    changed = replace(whole, instructions=(replace(whole.instructions[0], data=data),))

    read = read_ledger(changed)

    assert (read.movements, len(read.opaque)) == ((), 1)


def test_the_longest_batch_that_an_instruction_can_hold_is_decoded() -> None:
    """An instruction has 255 accounts at most, and a transfer takes three of them."""
    calls = [plain_transfer(A, B, C, 1) for _ in range(85)]

    assert len(ledger(batch(*calls).without_effect(), tokens=ROWS).movements) == 85


# ----------------------------------------------------------------- the mint of a transfer


@pytest.mark.parametrize(
    ("rows", "mint"),
    [
        ([ROWS[0]], USDC),
        ([ROWS[1]], USDC),
        ([replace(ROWS[1], amount=None)], USDC),
        ([replace(ROWS[0], closed=True)], USDC),
        ([], UNKNOWN_MINT),
    ],
)
def test_the_mint_of_a_plain_transfer_is_that_of_either_account(
    rows: list[TokenAccount], mint: str
) -> None:
    read = without_effects(plain_transfer(A, B, C, 5), tokens=rows)

    assert only(read).mint == mint


# ------------------------------------------------------------------------------ wrapped SOL


def unwrap(lamports: int | None, *references: str, program: str = TOKEN_PROGRAM) -> Ix:
    ix = unwrap_lamports(A, D, C, lamports or 0, *references, program=program).without_effect()
    return ix if lamports is not None else replace(ix, data=b"\x2d\x00")


def test_unwrapping_is_a_transfer_of_lamports_and_the_end_of_tokens() -> None:
    read = ledger(unwrap(7, ORDER), tokens=[WRAPPED])

    assert read.movements == (
        movement(A, D, 7, transfer=True, authority=C, references=(ORDER,)),
        movement(A, None, 7, mint=NATIVE_MINT),
    )


@pytest.mark.parametrize(
    ("program", "mint"), [(TOKEN_PROGRAM, NATIVE_MINT), (TOKEN_2022_PROGRAM, NATIVE_MINT_2022)]
)
def test_an_account_without_a_row_can_only_have_held_the_native_mint(
    program: str, mint: str
) -> None:
    read = ledger(unwrap(7, program=program))

    assert [each.mint for each in read.movements] == [None, mint]


@pytest.mark.parametrize(
    ("before", "unwrapped"),
    [
        ([], 50),
        ([plain_transfer(A, B, C, 20)], 30),
        ([plain_transfer(B, A, C, 20)], 70),
        ([batch(plain_transfer(B, A, C, 20), plain_transfer(A, B, C, 5))], 65),
        ([plain_transfer(A, A, C, 20)], 50),
        ([unwrap(20)], 30),
        ([unwrap(None)], 0),
        ([plain_transfer(A, B, C, 60)], 0),  # no program does that; a node that lies might
    ],
)
def test_unwrapping_everything_unwraps_what_is_held_by_then(
    before: list[Ix], unwrapped: int
) -> None:
    rows = [WRAPPED, replace(WRAPPED, account=B)]
    quiet = [ix.without_effect() for ix in before]

    read = ledger(*quiet, unwrap(None), tokens=rows)

    *_, lamports, tokens = read.movements
    assert (lamports.amount, tokens.amount) == (unwrapped, unwrapped)


@pytest.mark.parametrize(
    ("before", "rows"),
    [
        ([], []),
        ([], [replace(WRAPPED, amount=None)]),
        ([sync_native(A)], [WRAPPED]),
        ([close_account(A, C, C)], [WRAPPED]),
        ([plain_transfer(B, A, C, 20)], [replace(WRAPPED, account=B)]),
    ],
    ids=["no row", "made on the way", "synced", "opened anew", "filled on the way"],
)
def test_unwrapping_everything_is_opaque_where_nobody_can_say_how_much_that_is(
    before: list[Ix], rows: list[TokenAccount]
) -> None:
    read = ledger(*[ix.without_effect() for ix in before], unwrap(None, ORDER), tokens=rows)

    assert read.opaque[-1].keys == (A, D, C, ORDER)
    assert not any(each.transfer and each.mint is None for each in read.movements)


def test_closing_wrapped_sol_takes_all_that_it_holds() -> None:
    moves = [plain_transfer(A, B, C, 20), close_account(A, D, C), close_account(A, D, C)]

    read = ledger(*[ix.without_effect() for ix in moves], tokens=[WRAPPED])

    assert read.opaque == ()
    assert read.movements[1:] == (movement(A, None, 30, mint=NATIVE_MINT, outer=1),)


def test_closing_any_other_account_moves_nothing_because_it_must_be_empty() -> None:
    assert ledger(close_account(A, D, C).without_effect(), tokens=ROWS) == Ledger((), ())


# ------------------------------------------------------------------------------------ Batch


def test_each_part_of_a_batch_has_its_own_accounts_and_its_own_number() -> None:
    whole = batch(
        plain_transfer(A, B, C, 1, ORDER),
        raw_call(TOKEN_PROGRAM, b"\x05", A, C),
        checked_transfer(A, USDC, B, C, 2),
        mint_to(USDC, B, C, 3),
    )

    read = ledger(whole.without_effect(), tokens=ROWS)

    assert [(m.sub, m.amount, m.references) for m in read.movements] == [
        (0, 1, (ORDER,)),
        (2, 2, ()),
        (3, 3, ()),
    ]


def test_accounts_that_no_part_of_a_batch_takes_belong_to_none() -> None:
    whole = batch(plain_transfer(A, B, C, 1))

    read = ledger(replace(whole, accounts=(*whole.accounts, ORDER)).without_effect(), tokens=ROWS)

    assert only(read).references == ()


def test_a_batch_called_by_another_program_keeps_its_place() -> None:
    read = ledger(
        call(key("program")),
        inner={0: [memo(""), batch(plain_transfer(A, B, C, 1)).without_effect()]},
        tokens=ROWS,
    )

    assert (only(read).outer, only(read).inner, only(read).sub) == (0, 1, 0)


def test_batches_do_not_nest() -> None:
    inside = batch(plain_transfer(A, B, C, 1))

    read = ledger(batch(inside, plain_transfer(A, B, C, 2)).without_effect(), tokens=ROWS)

    assert [(m.sub, m.amount) for m in read.movements] == [(1, 2)]
    assert [(o.sub, o.keys) for o in read.opaque] == [(0, (A, B, C))]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\x03",
        b"\xff\x03\x09\x03",
        b"\xff\x04\x09\x03" + bytes(8),
        b"\xff\x03\x0a\x03" + bytes(8),
    ],
)
def test_a_batch_that_ends_too_early_is_opaque(data: bytes) -> None:
    read = ledger(raw_call(TOKEN_PROGRAM, data, A, B, C), tokens=ROWS)

    assert (read.movements, len(read.opaque)) == ((), 1)


def test_what_a_broken_batch_did_before_it_broke_is_kept_and_the_whole_is_opaque() -> None:
    good = batch(plain_transfer(A, B, C, 1))

    read = ledger(replace(good, data=good.data + b"\x03\x09").without_effect(), tokens=ROWS)

    assert [m.amount for m in read.movements] == [1]
    assert [(o.sub, o.keys) for o in read.opaque] == [(None, (A, B, C))]


# --------------------------------------------------------------------------- any instruction

_KEYS = st.sampled_from([A, B, C, D, ORDER, SYSTEM_PROGRAM])


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    """Any data and accounts, for the programs that can move money."""
    tag = st.sampled_from([0, 2, 3, 5, 9, 11, 12, 13, 26, 45, 255]).map(lambda n: bytes([n]))
    data = draw(st.binary(max_size=40) | st.tuples(tag, st.binary(max_size=60)).map(b"".join))
    if draw(st.booleans()):
        data = data[:1] + bytes(3) + data[1:]
    return Instruction(
        draw(st.integers(min_value=0, max_value=2)),
        draw(st.none() | st.integers(min_value=0, max_value=2)),
        draw(st.sampled_from([SYSTEM_PROGRAM, TOKEN_PROGRAM, TOKEN_2022_PROGRAM, D])),
        tuple(draw(st.lists(_KEYS, max_size=8))),
        draw(st.just(base58.b58encode(data).decode()) | st.text(max_size=8)),
    )


@settings(max_examples=300, deadline=None)
@given(made=st.lists(instructions(), max_size=6))
def test_any_instructions_are_read_and_never_give_more_than_one_transfer_for_a_place(
    made: list[Instruction],
) -> None:
    base = decoded(transaction([memo("")], tokens=[WRAPPED, ROWS[1]]))
    placed = tuple(replace(each, outer=n, inner=None) for n, each in enumerate(made))

    read = read_ledger(replace(base, instructions=placed))

    places = [(m.outer, m.inner, m.sub) for m in read.movements if m.transfer]
    assert len(places) == len(set(places))
    assert all(0 <= m.amount <= AMOUNT_MAX for m in read.movements if m.transfer)
    named = {each.program for each in placed} - {SYSTEM_PROGRAM, TOKEN_PROGRAM, TOKEN_2022_PROGRAM}
    assert named.isdisjoint(o.program for o in read.opaque)


# ------------------------------------------------------------------------------ real clusters


@pytest.mark.parametrize(
    "name",
    [
        "13_sol_transfer_v0_mainnet",
        "16_usdc_transfer_sponsored_fee_payer_mainnet",
        "23_sol_self_transfer_devnet",
        "24_usdc_self_transfer_devnet",
        "25_usdc_transfer_devnet",
        "29_usdc_transferChecked_REFERENCE_helius_raw_webhook_devnet",
    ],
)
def test_what_is_read_explains_the_balances_of_real_transactions(name: str) -> None:
    answer = vectors.load(f"verify/{name}.json")
    real = decoded(answer[0] if isinstance(answer, list) else answer.get("result", answer))

    read = read_ledger(real)

    assert read.opaque == ()
    assert read.movements != ()
    explained: dict[tuple[str, str | None], int] = {(real.fee_payer, None): -real.fee}
    for each in read.movements:
        for account, change in ((each.source, -each.amount), (each.destination, each.amount)):
            assert account is not None
            explained[account, each.mint] = explained.get((account, each.mint), 0) + change
    happened: dict[tuple[str, str | None], int] = {
        (account, None): after - before
        for account, before, after in zip(
            real.keys, real.pre_lamports, real.post_lamports, strict=True
        )
    } | {(row.account, row.mint): row.amount for row in real.post_tokens}
    for row in real.pre_tokens:
        happened[row.account, row.mint] = happened.get((row.account, row.mint), 0) - row.amount
    assert {k: v for k, v in explained.items() if v} == {k: v for k, v in happened.items() if v}


def test_the_accounts_of_the_payer_and_the_shop_in_a_real_payment_are_the_associated_ones() -> None:
    (answer,) = vectors.load(
        "verify/29_usdc_transferChecked_REFERENCE_helius_raw_webhook_devnet.json"
    )
    real = decoded(answer)

    (leg,) = read_ledger(real).movements

    owners = {row.account: (row.owner, row.mint) for row in real.post_tokens}
    for account in (leg.source, leg.destination):
        assert account is not None
        owner, mint = owners[account]
        assert owner is not None
        assert ata(owner, mint) == account
    assert len(leg.references) == 2  # the payer's wallet passed its signer along
