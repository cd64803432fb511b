"""Instructions as programs read them: accounts, data, and what they do to balances.

One function for each instruction that the decoder must know, and some that it must not mistake
for a payment. `tests.chain` puts them into transactions.

Sources: System program, SPL Token, Token-2022 and Memo instruction layouts.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cache

import base58
from solders.pubkey import Pubkey

from indexer.core.types import (
    ASSOCIATED_TOKEN_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
)


MEMO_PROGRAM = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
COMPUTE_BUDGET_PROGRAM = "ComputeBudget111111111111111111111111111111"

#: What a token account holds beside its tokens.
RENT_LAMPORTS = 2_039_280


# -------------------------------------------------------------------------------- names


@cache
def key(name: str) -> str:
    """A key that is always the same for the same name."""
    return base58.b58encode(hashlib.sha256(name.encode()).digest()).decode()


@cache
def signature(name: str) -> str:
    """A signature that is always the same for the same name."""
    return base58.b58encode(hashlib.sha512(name.encode()).digest()).decode()


@cache
def ata(owner: str, mint: str, program: str = TOKEN_PROGRAM) -> str:
    """The associated token account of a wallet for a mint."""
    seeds = [bytes(Pubkey.from_string(text)) for text in (owner, program, mint)]
    address, _ = Pubkey.find_program_address(seeds, Pubkey.from_string(ASSOCIATED_TOKEN_PROGRAM))
    return str(address)


# ------------------------------------------------------------------------- instructions


@dataclass(frozen=True, kw_only=True)
class Ix:
    """One instruction, and what it does to balances when the transaction succeeds.

    Attributes:
        signers: those of `accounts` that sign.
        lamports: account -> lamports gained.
        tokens: token account -> base units gained.
    """

    program: str
    accounts: tuple[str, ...]
    data: bytes
    signers: tuple[str, ...] = ()
    lamports: tuple[tuple[str, int], ...] = ()
    tokens: tuple[tuple[str, int], ...] = ()

    def without_effect(self) -> "Ix":
        """The same instruction, of which the balances will show nothing."""
        return replace(self, lamports=(), tokens=())


def system_transfer(source: str, recipient: str, lamports: int, *references: str) -> Ix:
    """System `Transfer` (2)."""
    return Ix(
        program=SYSTEM_PROGRAM,
        accounts=(source, recipient, *references),
        data=_u32(2) + _u64(lamports),
        signers=(source,),
        lamports=((source, -lamports), (recipient, lamports)),
    )


def system_transfer_with_seed(
    source: str, base: str, recipient: str, lamports: int, *references: str, seed: str = "seed"
) -> Ix:
    """System `TransferWithSeed` (11): the base signs, the derived source is debited."""
    return Ix(
        program=SYSTEM_PROGRAM,
        accounts=(source, base, recipient, *references),
        data=_u32(11) + _u64(lamports) + _string(seed) + _key(SYSTEM_PROGRAM),
        signers=(base,),
        lamports=((source, -lamports), (recipient, lamports)),
    )


def create_account(
    source: str,
    created: str,
    lamports: int,
    *references: str,
    space: int = 0,
    owner: str = SYSTEM_PROGRAM,
) -> Ix:
    """System `CreateAccount` (0)."""
    return Ix(
        program=SYSTEM_PROGRAM,
        accounts=(source, created, *references),
        data=_u32(0) + _u64(lamports) + _u64(space) + _key(owner),
        signers=(source, created),
        lamports=((source, -lamports), (created, lamports)),
    )


def create_account_with_seed(
    source: str, created: str, base: str, lamports: int, *references: str, seed: str = "seed"
) -> Ix:
    """System `CreateAccountWithSeed` (3)."""
    return Ix(
        program=SYSTEM_PROGRAM,
        accounts=(source, created, base, *references),
        data=_u32(3) + _key(base) + _string(seed) + _u64(lamports) + _u64(0) + _key(SYSTEM_PROGRAM),
        signers=(source, base),
        lamports=((source, -lamports), (created, lamports)),
    )


def plain_transfer(
    source: str,
    destination: str,
    authority: str,
    amount: int,
    *references: str,
    program: str = TOKEN_PROGRAM,
) -> Ix:
    """Token `Transfer` (3), which does not name the mint."""
    return Ix(
        program=program,
        accounts=(source, destination, authority, *references),
        data=b"\x03" + _u64(amount),
        signers=(authority,),
        tokens=((source, -amount), (destination, amount)),
    )


def checked_transfer(
    source: str,
    mint: str,
    destination: str,
    authority: str,
    amount: int,
    *references: str,
    decimals: int = 6,
    withheld: int = 0,
    program: str = TOKEN_PROGRAM,
) -> Ix:
    """Token `TransferChecked` (12); `withheld` is a transfer fee that does not arrive."""
    return Ix(
        program=program,
        accounts=(source, mint, destination, authority, *references),
        data=b"\x0c" + _u64(amount) + bytes([decimals]),
        signers=(authority,),
        tokens=((source, -amount), (destination, amount - withheld)),
    )


def checked_transfer_with_fee(
    source: str,
    mint: str,
    destination: str,
    authority: str,
    amount: int,
    fee: int,
    *references: str,
    decimals: int = 6,
) -> Ix:
    """Token-2022 `TransferCheckedWithFee` (26, 1)."""
    return Ix(
        program=TOKEN_2022_PROGRAM,
        accounts=(source, mint, destination, authority, *references),
        data=b"\x1a\x01" + _u64(amount) + bytes([decimals]) + _u64(fee),
        signers=(authority,),
        tokens=((source, -amount), (destination, amount - fee)),
    )


def mint_to(
    mint: str, destination: str, authority: str, amount: int, *, program: str = TOKEN_PROGRAM
) -> Ix:
    """Token `MintTo` (7)."""
    return Ix(
        program=program,
        accounts=(mint, destination, authority),
        data=b"\x07" + _u64(amount),
        signers=(authority,),
        tokens=((destination, amount),),
    )


def burn(
    account: str, mint: str, authority: str, amount: int, *, program: str = TOKEN_PROGRAM
) -> Ix:
    """Token `Burn` (8)."""
    return Ix(
        program=program,
        accounts=(account, mint, authority),
        data=b"\x08" + _u64(amount),
        signers=(authority,),
        tokens=((account, -amount),),
    )


def close_account(
    account: str,
    destination: str,
    authority: str,
    *,
    lamports: int = RENT_LAMPORTS,
    program: str = TOKEN_PROGRAM,
) -> Ix:
    """Token `CloseAccount` (9): its lamports go to the destination."""
    return Ix(
        program=program,
        accounts=(account, destination, authority),
        data=b"\x09",
        signers=(authority,),
        lamports=((account, -lamports), (destination, lamports)),
    )


def set_owner(account: str, authority: str, owner: str, *, program: str = TOKEN_PROGRAM) -> Ix:
    """Token `SetAuthority` (6) of the account's owner; say the new one in `TokenAccount`."""
    return Ix(
        program=program,
        accounts=(account, authority),
        data=b"\x06\x02\x01" + _key(owner),
        signers=(authority,),
    )


def sync_native(account: str, gained: int = 0, *, program: str = TOKEN_PROGRAM) -> Ix:
    """Token `SyncNative` (17): the amount follows the lamports."""
    return Ix(program=program, accounts=(account,), data=b"\x11", tokens=((account, gained),))


def unwrap_lamports(
    source: str,
    destination: str,
    authority: str,
    lamports: int,
    *references: str,
    program: str = TOKEN_PROGRAM,
) -> Ix:
    """Token `UnwrapLamports` (45): wrapped SOL becomes lamports of the destination."""
    return Ix(
        program=program,
        accounts=(source, destination, authority, *references),
        data=b"\x2d\x01" + _u64(lamports),
        signers=(authority,),
        lamports=((source, -lamports), (destination, lamports)),
        tokens=((source, -lamports),),
    )


def withdraw_excess_lamports(
    source: str, destination: str, authority: str, lamports: int, *, program: str = TOKEN_PROGRAM
) -> Ix:
    """Token `WithdrawExcessLamports` (38)."""
    return Ix(
        program=program,
        accounts=(source, destination, authority),
        data=b"\x26",
        signers=(authority,),
        lamports=((source, -lamports), (destination, lamports)),
    )


def confidential_transfer(source: str, mint: str, destination: str, authority: str) -> Ix:
    """Token-2022 confidential `Transfer` (27, 7): amounts are encrypted, balances stand still."""
    return Ix(
        program=TOKEN_2022_PROGRAM,
        accounts=(source, mint, destination, authority),
        data=b"\x1b\x07" + bytes(32),
        signers=(authority,),
    )


def batch(*calls: Ix, program: str = TOKEN_PROGRAM) -> Ix:
    """Token `Batch` (255): several instructions of the program in one, accounts in a row."""
    parts = [bytes([len(call.accounts), len(call.data)]) + call.data for call in calls]
    return Ix(
        program=program,
        accounts=tuple(account for call in calls for account in call.accounts),
        data=b"\xff" + b"".join(parts),
        signers=tuple(signer for call in calls for signer in call.signers),
        lamports=tuple(change for call in calls for change in call.lamports),
        tokens=tuple(change for call in calls for change in call.tokens),
    )


def memo(text: str, *accounts: str) -> Ix:
    """A memo; further accounts must sign it."""
    return Ix(program=MEMO_PROGRAM, accounts=accounts, data=text.encode(), signers=accounts)


def call(program: str, *accounts: str, data: bytes = b"") -> Ix:
    """Any instruction of any other program; what it called goes into `inner`."""
    return Ix(program=program, accounts=accounts, data=data)


# ------------------------------------------------------------------------------- layouts


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _key(text: str) -> bytes:
    return base58.b58decode(text)


def _string(text: str) -> bytes:
    return _u64(len(text)) + text.encode()
