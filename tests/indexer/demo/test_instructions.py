"""The bytes that the real programs read; that they execute is shown in `test_wallet`."""

from solders.keypair import Keypair

from indexer.demo.instructions import (
    batch,
    memo,
    seeded,
    sol_transfer,
    sol_transfer_with_seed,
    transfer_checked_with_fee,
    unwrap_lamports,
    with_references,
    with_signer,
)
from indexer.demo.tokens import CLASSIC, TOKEN_2022


A, B, C, D = (Keypair().pubkey() for _ in range(4))


def test_references_come_last_and_neither_sign_nor_change() -> None:
    transfer = with_references(sol_transfer(A, B, 1), [C, str(D)])

    assert [meta.pubkey for meta in transfer.accounts] == [A, B, C, D]
    assert [(m.is_signer, m.is_writable) for m in transfer.accounts[2:]] == [(False, False)] * 2


def test_a_reference_may_be_writable() -> None:
    assert with_references(sol_transfer(A, B, 1), [C], writable=True).accounts[2].is_writable


def test_a_signer_is_appended() -> None:
    assert with_signer(sol_transfer(A, B, 1), C).accounts[2].is_signer


def test_a_seeded_transfer_names_the_base_after_the_source() -> None:
    transfer = sol_transfer_with_seed(A, "till", B, 5)

    assert [meta.pubkey for meta in transfer.accounts] == [seeded(A, "till"), A, B]
    assert transfer.data[:4] == (11).to_bytes(4, "little")


def test_a_memo_is_its_text() -> None:
    assert memo("grüezi").data == "grüezi".encode()


def test_a_fee_transfer_states_amount_decimals_and_fee() -> None:
    transfer = transfer_checked_with_fee(
        program=TOKEN_2022,
        source=A,
        mint=B,
        destination=C,
        owner=D,
        amount=258,
        decimals=6,
        fee=1,
    )

    assert transfer.data == bytes([26, 1, 2, 1, 0, 0, 0, 0, 0, 0, 6, 1, 0, 0, 0, 0, 0, 0, 0])
    assert [meta.pubkey for meta in transfer.accounts] == [A, B, C, D]


def test_unwrapping_all_leaves_the_amount_out() -> None:
    def data(lamports: int | None) -> bytes:
        return unwrap_lamports(
            program=CLASSIC, source=A, destination=B, owner=C, lamports=lamports
        ).data

    assert data(None) == bytes([45, 0])
    assert data(3) == bytes([45, 1, 3, 0, 0, 0, 0, 0, 0, 0])


def test_a_batch_has_a_header_for_each_part() -> None:
    parts = [
        unwrap_lamports(program=CLASSIC, source=A, destination=B, owner=C, lamports=None),
        with_references(
            unwrap_lamports(program=CLASSIC, source=B, destination=A, owner=C, lamports=None), [D]
        ),
    ]

    together = batch(parts)

    assert together.data == bytes([255, 3, 2, 45, 0, 4, 2, 45, 0])
    assert [meta.pubkey for meta in together.accounts] == [A, B, C, B, A, C, D]
