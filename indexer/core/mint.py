"""Mint accounts: how many decimals, which program, and whether to take such a token at all.

A mint is 82 bytes under both token programs. Under Token-2022 extensions may follow: zeros up to
byte 165, the account's type, then entries of type (u16), length (u16) and value, all little
endian. Some extensions change what an amount means or whether it stays; those are refused or
named in a warning, so that a merchant decides with open eyes.

Source: solana-program/token-2022, interface, `state.rs` and `extension/mod.rs`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, assert_never

from solders.pubkey import Pubkey

from indexer.core.account import (
    MINT_SIZE,
    TOKEN_ACCOUNT_SIZE,
    TOKEN_PROGRAMS,
    Account,
    Kind,
    kind,
    token_account_parts,
)
from indexer.errors import InvalidInput


class Extension(IntEnum):
    """What a Token-2022 mint can carry. Numbers that are not here belong to token accounts."""

    TRANSFER_FEE = 1
    MINT_CLOSE_AUTHORITY = 3
    CONFIDENTIAL_TRANSFER = 4
    DEFAULT_ACCOUNT_STATE = 6
    NON_TRANSFERABLE = 9
    INTEREST_BEARING = 10
    PERMANENT_DELEGATE = 12
    TRANSFER_HOOK = 14
    CONFIDENTIAL_TRANSFER_FEE = 16
    METADATA_POINTER = 18
    TOKEN_METADATA = 19
    GROUP_POINTER = 20
    TOKEN_GROUP = 21
    GROUP_MEMBER_POINTER = 22
    TOKEN_GROUP_MEMBER = 23
    CONFIDENTIAL_MINT_BURN = 24
    SCALED_UI_AMOUNT = 25
    PAUSABLE = 26
    PERMISSIONED_BURN = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class MintTerms:
    """What a payment needs to know of its mint.

    Attributes:
        decimals: digits after the point of one unit, 0 … 255.
        token_program: base58 of the program that owns the mint.
        warnings: sentences for whoever creates the payment; empty for an ordinary token.
    """

    decimals: int
    token_program: str
    warnings: tuple[str, ...]


def parse_mint(mint: str, account: Account | None) -> MintTerms:
    """The terms of a mint that payments may be made in.

    Args:
        mint: base58 of the mint, for the messages.
        account: what the chain says of it; None when there is nothing.

    Raises:
        InvalidInput: field `token`: not a mint, not initialised, or refused by policy.
    """
    if account is None:
        raise _refused(mint, "does not exist on this cluster")
    match kind(account):
        case Kind.MINT:
            return _parse(mint, account)
        case Kind.TOKEN_ACCOUNT:
            of_mint, _ = token_account_parts(account)
            raise _refused(mint, f"is a token account, not a mint; its mint is {of_mint}")
        case Kind.WALLET | Kind.PROGRAM | Kind.SYSVAR | Kind.DATA:
            raise _refused(
                mint,
                f"is not a mint: {account.owner}, which owns it, is no "
                f"token program (those are {', '.join(sorted(TOKEN_PROGRAMS))})",
            )
        case Kind.TOKEN_MULTISIG | Kind.TOKEN_UNREADABLE as other:
            raise _refused(mint, f"is no mint: {other}")
        case unreachable:
            assert_never(unreachable)


def _parse(mint: str, account: Account) -> MintTerms:
    """Base layout: authority (tag u32, key), supply u64, decimals u8, initialised u8, authority."""
    data = account.data
    if data[45] == 0:
        raise _refused(mint, "is not initialised")
    authority_tags = data[0:4], data[46:50]
    if data[45] != 1 or any(int.from_bytes(tag, "little") > 1 for tag in authority_tags):
        raise _refused(mint, "cannot be read as a mint")
    warnings: list[str] = []
    for number, value in _extensions(mint, data):
        warning = _judge(mint, number, value)
        if warning is not None:
            warnings.append(warning)
    return MintTerms(decimals=data[44], token_program=account.owner, warnings=tuple(warnings))


def _extensions(mint: str, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of each extension, in the order of the account."""
    if any(data[MINT_SIZE:TOKEN_ACCOUNT_SIZE]):
        raise _refused(mint, "cannot be read: its padding is not zero")
    position = TOKEN_ACCOUNT_SIZE + 1
    while position + 2 <= len(data):
        number = int.from_bytes(data[position : position + 2], "little")
        if number == 0:  # nothing is written after it
            return
        start = position + 4
        end = start + int.from_bytes(data[position + 2 : start], "little")
        if end > len(data):
            raise _refused(mint, f"cannot be read: extension {number} is cut off")
        yield number, data[start:end]
        position = end


def _judge(mint: str, number: int, value: bytes) -> str | None:
    """What to tell about one extension; None for those that do not concern a payment.

    Refused are those under which one unit is not one unit: the number that a wallet shows and
    the number that moves would differ, or nothing can move at all.
    """
    try:
        extension = Extension(number)
    except ValueError:
        return f"the mint has extension {number}, which is unknown here: read up on it first"
    match extension:
        case Extension.NON_TRANSFERABLE:
            raise _refused(mint, "is not transferable: nobody could pay with it")
        case Extension.INTEREST_BEARING:
            raise _refused(mint, "bears interest: wallets show other amounts than those that move")
        case Extension.SCALED_UI_AMOUNT:
            raise _refused(
                mint, "scales its amounts: wallets show other amounts than those that move"
            )
        case _:
            tell = _WARNINGS.get(extension)
    if tell is None:
        return None
    if len(value) < _SIZES[extension]:
        raise _refused(mint, f"cannot be read: extension {number} is too short")
    return tell(value)


def _transfer_fee(value: bytes) -> str:
    """Two schedules (epoch u64, maximum u64, basis points u16): the older until an epoch."""
    highest = max(int.from_bytes(value[at : at + 2], "little") for at in (88, 106))
    if highest == 0:
        return "the token may take a fee from each transfer (none now): net amounts are credited"
    return (
        f"the token takes a fee of up to {highest / 100:g} % from each transfer: net amounts are "
        "credited, so that a transfer of the exact amount falls short"
    )


def _permanent_delegate(value: bytes) -> str | None:
    if not any(value[:32]):
        return None
    return f"the token's permanent delegate {_key(value)} can take it back from anyone, at any time"


def _transfer_hook(value: bytes) -> str | None:
    if not any(value[32:64]):
        return None
    return f"the token asks program {_key(value[32:])} at each transfer, which may refuse it"


def _default_account_state(value: bytes) -> str | None:
    if value[0] != 2:
        return None
    return "new accounts of the token are frozen: the recipient needs one that was thawed"


def _pausable(value: bytes) -> str:
    if value[32]:
        return "the token is paused: it cannot be transferred at present"
    return "the token's issuer can pause all transfers"


def _confidential_transfer(_value: bytes) -> str:
    return "the token can be sent confidentially: such amounts cannot be seen and are not credited"


#: What to say of those extensions that concern a payment.
_WARNINGS: Final[Mapping[Extension, Callable[[bytes], str | None]]] = {
    Extension.TRANSFER_FEE: _transfer_fee,
    Extension.PERMANENT_DELEGATE: _permanent_delegate,
    Extension.TRANSFER_HOOK: _transfer_hook,
    Extension.DEFAULT_ACCOUNT_STATE: _default_account_state,
    Extension.PAUSABLE: _pausable,
    Extension.CONFIDENTIAL_TRANSFER: _confidential_transfer,
}

#: Bytes of the values that are looked into.
_SIZES: Final[Mapping[Extension, int]] = {
    Extension.TRANSFER_FEE: 108,
    Extension.PERMANENT_DELEGATE: 32,
    Extension.TRANSFER_HOOK: 64,
    Extension.DEFAULT_ACCOUNT_STATE: 1,
    Extension.PAUSABLE: 33,
    Extension.CONFIDENTIAL_TRANSFER: 0,
}


def _key(value: bytes) -> str:
    return str(Pubkey(value[:32]))


def _refused(mint: str, why: str) -> InvalidInput:
    return InvalidInput("token", f"{mint} {why}")
