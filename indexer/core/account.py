"""Keys and accounts: what an address is, and what stands behind it on the chain."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from solders.pubkey import Pubkey

from indexer.core.types import (
    ASSOCIATED_TOKEN_PROGRAM,
    MEMO_PROGRAMS,
    NATIVE_MINTS,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
)


TOKEN_PROGRAMS: Final = frozenset({TOKEN_PROGRAM, TOKEN_2022_PROGRAM})

#: They own programs, and the accounts that hold a program's code.
LOADERS: Final = frozenset(
    {
        "NativeLoader1111111111111111111111111111111",
        "BPFLoader1111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "LoaderV411111111111111111111111111111111111",
    }
)

_SYSVAR_OWNER: Final = "Sysvar1111111111111111111111111111111111111"

#: Addresses that belong to everybody. Money sent to one is lost, and one as a reference would
#: match the transactions of strangers. Most are visible as programs on the chain as well, but
#: not all have an account there. Source: crate solana-sdk-ids; SPL Token, Memo.
KNOWN_ADDRESSES: Final = (
    TOKEN_PROGRAMS
    | LOADERS
    | NATIVE_MINTS
    | MEMO_PROGRAMS
    | {
        SYSTEM_PROGRAM,
        ASSOCIATED_TOKEN_PROGRAM,
        "ComputeBudget111111111111111111111111111111",
        "AddressLookupTab1e1111111111111111111111111",
        "Stake11111111111111111111111111111111111111",
        "StakeConfig11111111111111111111111111111111",
        "Vote111111111111111111111111111111111111111",
        "Config1111111111111111111111111111111111111",
        "Feature111111111111111111111111111111111111",
        "Ed25519SigVerify111111111111111111111111111",
        "KeccakSecp256k11111111111111111111111111111",
        "Secp256r1SigVerify1111111111111111111111111",
        "ZkTokenProof1111111111111111111111111111111",
        "ZkE1Gama1Proof11111111111111111111111111111",
        "1nc1nerator11111111111111111111111111111111",  # burns what it is sent
        _SYSVAR_OWNER,
        "SysvarC1ock11111111111111111111111111111111",
        "SysvarEpochRewards1111111111111111111111111",
        "SysvarEpochSchedu1e111111111111111111111111",
        "SysvarFees111111111111111111111111111111111",
        "Sysvar1nstructions1111111111111111111111111",
        "SysvarLastRestartS1ot1111111111111111111111",
        "SysvarRecentB1ockHashes11111111111111111111",
        "SysvarRent111111111111111111111111111111111",
        "SysvarRewards111111111111111111111111111111",
        "SysvarS1otHashes111111111111111111111111111",
        "SysvarS1otHistory11111111111111111111111111",
        "SysvarStakeHistory1111111111111111111111111",
    }
)

MINT_SIZE: Final = 82
TOKEN_ACCOUNT_SIZE: Final = 165
_MULTISIG_SIZE: Final = 355


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What getAccountInfo says of one account.

    Attributes:
        owner: base58 of the program that may change it.
        executable: it is a program.
    """

    owner: str
    lamports: int
    executable: bool
    data: bytes


class Kind(StrEnum):
    """What stands behind an address, as far as it matters to whom one may pay."""

    WALLET = "wallet"  # owned by the System program: a key pair's, or a vault of a program
    PROGRAM = "program"  # executable, or code that a loader keeps
    MINT = "mint"
    TOKEN_ACCOUNT = "token account"
    TOKEN_MULTISIG = "token multisig"
    TOKEN_UNREADABLE = "unreadable account of a token program"
    SYSVAR = "sysvar"
    DATA = "data"  # some other program's


def is_key(text: str) -> bool:
    """Whether the text is base58 of exactly 32 bytes. It need not be a point on the curve."""
    try:
        Pubkey.from_string(text)
    except ValueError:
        return False
    return True


def kind(account: Account) -> Kind:
    """What the account is. Token accounts and mints need not be initialised to count as such.

    Source: the sizes by which the token programs themselves tell their accounts apart; with
    extensions, a type byte after the size of a token account (spl-token-2022, `AccountType`).
    """
    if account.executable or account.owner in LOADERS:
        return Kind.PROGRAM
    if account.owner in TOKEN_PROGRAMS:
        return _token_kind(account)
    if account.owner == SYSTEM_PROGRAM:
        return Kind.WALLET
    return Kind.SYSVAR if account.owner == _SYSVAR_OWNER else Kind.DATA


def _token_kind(account: Account) -> Kind:
    size = len(account.data)
    if size == MINT_SIZE:
        return Kind.MINT
    if size == TOKEN_ACCOUNT_SIZE:
        return Kind.TOKEN_ACCOUNT
    if size == _MULTISIG_SIZE:
        return Kind.TOKEN_MULTISIG
    if account.owner == TOKEN_2022_PROGRAM and size > TOKEN_ACCOUNT_SIZE:
        match account.data[TOKEN_ACCOUNT_SIZE]:  # there only when it has extensions
            case 1:
                return Kind.MINT
            case 2:
                return Kind.TOKEN_ACCOUNT
            case _:
                pass
    return Kind.TOKEN_UNREADABLE


def token_account_parts(account: Account) -> tuple[str, str]:
    """The mint and the wallet of a token account, in this order."""
    return str(Pubkey(account.data[:32])), str(Pubkey(account.data[32:64]))


def associated_token_account(owner: str, mint: str, token_program: str) -> str:
    """The one account in which a wallet holds a token by convention.

    Source: Associated Token Account program; wallets pay nowhere else.
    """
    seeds = [bytes(Pubkey.from_string(key)) for key in (owner, token_program, mint)]
    address, _bump = Pubkey.find_program_address(
        seeds, Pubkey.from_string(ASSOCIATED_TOKEN_PROGRAM)
    )
    return str(address)
