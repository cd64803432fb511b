"""Every way to pay, and every way to look as if one had paid, each with its right verdict.

The table reads: what happened, the transaction, the payment it speaks of, the verdict. Here are
the words of the tables and native SOL, in `traps_tokens` the tokens; `test_traps` runs them and
has what takes more than one transaction and one payment to show.
"""

from dataclasses import dataclass, replace
from typing import Any

from indexer.core.payment import Terms
from indexer.core.types import (
    NATIVE_MINT,
    SYSTEM_PROGRAM,
    Reason,
)
from tests.chain import (
    Ix,
    TokenAccount,
    ata,
    call,
    checked_transfer,
    close_account,
    create_account,
    create_account_with_seed,
    holding,
    key,
    memo,
    plain_transfer,
    sol_transfer,
    sync_native,
    system_transfer,
    system_transfer_with_seed,
    transaction,
    unwrap_lamports,
)
from tests.core.script import (
    AMOUNT,
    BUYER,
    ORDER,
    SHOP,
    STRANGER,
    USDC,
    in_sol,
    in_tokens,
)


@dataclass(frozen=True)
class Says:
    """What a verdict must say."""

    credit: int
    clean: bool
    reasons: tuple[Reason, ...]


def clean(credit: int, *reasons: Reason) -> Says:
    return Says(credit, clean=True, reasons=reasons)


def doubtful(credit: int, *reasons: Reason) -> Says:
    return Says(credit, clean=False, reasons=tuple(sorted(reasons)))


PROGRAM = key("some program")
SHOP_ATA, BUYER_ATA, STRANGER_ATA = ata(SHOP, USDC), ata(BUYER, USDC), ata(STRANGER, USDC)
SHOP_WSOL, BUYER_WSOL = ata(SHOP, NATIVE_MINT), ata(BUYER, NATIVE_MINT)

USDC_ROWS = [holding(SHOP, USDC), holding(BUYER, USDC), holding(STRANGER, USDC)]
WSOL_ROWS = [holding(SHOP, NATIVE_MINT), holding(BUYER, NATIVE_MINT)]

PAY_SOL, PAY_USDC = in_sol(), in_tokens()
PAY_WSOL = in_tokens(mint=NATIVE_MINT)


def bound(amount: int = AMOUNT, *references: str) -> Ix:
    """The transfer that pays in USDC."""
    return checked_transfer(BUYER_ATA, USDC, SHOP_ATA, BUYER, amount, *(references or (ORDER,)))


def in_usdc(*instructions: Ix, **rest: Any) -> dict[str, Any]:
    return transaction(instructions, tokens=rest.pop("tokens", USDC_ROWS), **rest)


def unwrap_everything(lamports: int) -> Ix:
    return replace(unwrap_lamports(BUYER_WSOL, SHOP, BUYER, lamports, ORDER), data=b"\x2d\x00")


def withdraw_nonce(nonce: str, recipient: str, lamports: int, *more: str) -> Ix:
    return Ix(
        program=SYSTEM_PROGRAM,
        accounts=(nonce, recipient, *more),
        data=(5).to_bytes(4, "little") + lamports.to_bytes(8, "little"),
        lamports=((nonce, -lamports), (recipient, lamports)),
    )


Row = tuple[str, dict[str, Any], Terms, Says]

NATIVE_SOL: list[Row] = [
    (
        "System Transfer",
        sol_transfer(BUYER, SHOP, AMOUNT, references=[ORDER]),
        PAY_SOL,
        clean(AMOUNT),
    ),
    (
        "TransferWithSeed",
        transaction([system_transfer_with_seed(key("derived"), BUYER, SHOP, AMOUNT, ORDER)]),
        PAY_SOL,
        clean(AMOUNT),
    ),
    (
        "TransferWithSeed out of an account that is derived from the recipient",
        transaction([system_transfer_with_seed(key("derived"), SHOP, SHOP, AMOUNT, ORDER)]),
        PAY_SOL,
        clean(0, Reason.OWN_FUNDS),
    ),
    (
        "CreateAccount of the recipient",
        transaction([create_account(BUYER, SHOP, AMOUNT, ORDER)]),
        PAY_SOL,
        clean(0, Reason.ACCOUNT_CREATED),
    ),
    (
        "CreateAccountWithSeed of the recipient",
        transaction([create_account_with_seed(BUYER, SHOP, STRANGER, AMOUNT, ORDER)]),
        PAY_SOL,
        clean(0, Reason.ACCOUNT_CREATED),
    ),
    (
        "WithdrawNonceAccount to the recipient",
        transaction([withdraw_nonce(key("nonce"), SHOP, AMOUNT, BUYER, ORDER)]),
        PAY_SOL,
        clean(0, Reason.ACCOUNT_CREATED),
    ),
    (
        "CloseAccount whose lamports go to the recipient",
        transaction([close_account(BUYER_ATA, SHOP, BUYER), memo("for", ORDER)]),
        PAY_SOL,
        clean(0, Reason.NOT_BOUND),
    ),
    (
        "UnwrapLamports that names the reference",
        transaction([unwrap_lamports(BUYER_WSOL, SHOP, BUYER, AMOUNT, ORDER)], tokens=WSOL_ROWS),
        PAY_SOL,
        clean(AMOUNT),
    ),
    (
        "UnwrapLamports of everything that names the reference",
        transaction([unwrap_everything(7)], tokens=[holding(BUYER, NATIVE_MINT, 7)]),
        PAY_SOL,
        clean(7),
    ),
    (
        "UnwrapLamports of everything, however much SyncNative has made that",
        transaction(
            [sync_native(BUYER_WSOL, 3), unwrap_everything(10)],
            tokens=[holding(BUYER, NATIVE_MINT, 7)],
        ),
        PAY_SOL,
        doubtful(0, Reason.UNDECODABLE),
    ),
    (
        "UnwrapLamports without the reference",
        transaction(
            [unwrap_lamports(BUYER_WSOL, SHOP, BUYER, AMOUNT), memo("for", ORDER)],
            tokens=WSOL_ROWS,
        ),
        PAY_SOL,
        clean(0, Reason.NOT_BOUND),
    ),
    (
        "UnwrapLamports of the recipient's own wrapped SOL",
        transaction([unwrap_lamports(SHOP_WSOL, SHOP, SHOP, AMOUNT, ORDER)], tokens=WSOL_ROWS),
        PAY_SOL,
        clean(0, Reason.OWN_FUNDS),
    ),
    (
        "a program credits the recipient's lamports",
        transaction([call(PROGRAM, SHOP, ORDER)], extra_lamports={SHOP: AMOUNT}),
        PAY_SOL,
        clean(0, Reason.NOT_BOUND),
    ),
    (
        "the recipient pays the network fee",
        sol_transfer(BUYER, SHOP, AMOUNT, references=[ORDER], fee_payer=SHOP, fee=5_000),
        PAY_SOL,
        clean(AMOUNT),
    ),
    (
        "the recipient pays himself",
        sol_transfer(SHOP, SHOP, AMOUNT, references=[ORDER]),
        PAY_SOL,
        doubtful(0, Reason.OWN_FUNDS),
    ),
    (
        "an account is created for the recipient beside the payment",
        transaction(
            [
                create_account(BUYER, SHOP, 5),
                system_transfer(BUYER, SHOP, AMOUNT, ORDER),
            ]
        ),
        PAY_SOL,
        clean(AMOUNT, Reason.ACCOUNT_CREATED),
    ),
    (
        "a round trip: there and back again",
        transaction(
            [
                system_transfer(BUYER, SHOP, AMOUNT, ORDER),
                system_transfer(SHOP, BUYER, AMOUNT),
            ]
        ),
        PAY_SOL,
        doubtful(0, Reason.DEBITED),
    ),
    (
        "a round trip that an unrelated inflow hides",
        transaction(
            [
                system_transfer(BUYER, SHOP, AMOUNT, ORDER),
                system_transfer(SHOP, BUYER, AMOUNT),
                system_transfer(STRANGER, SHOP, AMOUNT),
            ]
        ),
        PAY_SOL,
        doubtful(0, Reason.DEBITED),
    ),
    (
        "less than the rent-exempt minimum to an account that is not there: it fails",
        sol_transfer(
            BUYER,
            SHOP,
            1,
            references=[ORDER],
            err={"InsufficientFundsForRent": {"account_index": 1}},
        ),
        PAY_SOL,
        clean(0, Reason.FAILED_TRANSACTION),
    ),
    (
        "wrapped SOL where SOL was asked for",
        transaction(
            [plain_transfer(BUYER_WSOL, SHOP_WSOL, BUYER, AMOUNT, ORDER)], tokens=WSOL_ROWS
        ),
        PAY_SOL,
        clean(0, Reason.WRONG_MINT),
    ),
    (
        "SOL to the recipient's wrapped SOL account",
        sol_transfer(BUYER, SHOP_WSOL, AMOUNT, references=[ORDER], tokens=WSOL_ROWS),
        PAY_SOL,
        clean(0, Reason.AUXILIARY_ACCOUNT),
    ),
    (
        "lamports to the recipient's wrapped SOL account, and no SyncNative",
        sol_transfer(BUYER, SHOP_WSOL, AMOUNT, references=[ORDER], tokens=WSOL_ROWS),
        PAY_WSOL,
        clean(0, Reason.WRONG_MINT),
    ),
    (
        "SyncNative makes tokens of lamports that were sent to the wrapped SOL account",
        transaction(
            [
                system_transfer(BUYER, SHOP_WSOL, AMOUNT, ORDER),
                sync_native(SHOP_WSOL, AMOUNT),
            ],
            tokens=WSOL_ROWS,
        ),
        PAY_WSOL,
        doubtful(0, Reason.WRONG_MINT),
    ),
    (
        "wrapped SOL where wrapped SOL was asked for, after SyncNative on the payer's side",
        transaction(
            [
                system_transfer(BUYER, BUYER_WSOL, AMOUNT),
                sync_native(BUYER_WSOL, AMOUNT),
                plain_transfer(BUYER_WSOL, SHOP_WSOL, BUYER, AMOUNT, ORDER),
                close_account(BUYER_WSOL, BUYER, BUYER),
            ],
            tokens=[
                TokenAccount(
                    account=BUYER_WSOL, mint=NATIVE_MINT, owner=BUYER, amount=None, closed=True
                ),
                holding(SHOP, NATIVE_MINT),
            ],
        ),
        PAY_WSOL,
        clean(AMOUNT),
    ),
]
