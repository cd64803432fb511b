"""Builds what `getTransaction` answers (`encoding: "json"`), with books that balance by default.

The short way is one call for a whole transaction:

    sol_transfer(key("buyer"), key("shop"), 5_000, references=[key("order 1")], slot=120)
    token_transfer(key("buyer"), key("shop"), 1_000_000, mint=key("usdc"), references=[...])

The long way is `transaction([...instructions...], ...)`, where each instruction comes from one of
the encoders of `tests.instructions` (all of them are names here as well) and brings its own
effect on balances. Whatever a case needs that no real program would do is said on top:
`extra_lamports`, `extra_tokens`, `inner`, `err`, `version`, `loaded_writable`,
`loaded_readonly`. The result is a plain dict: change it as you like.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import base58

from indexer.core.types import TOKEN_PROGRAM
from tests.instructions import (
    COMPUTE_BUDGET_PROGRAM,
    MEMO_PROGRAM,
    RENT_LAMPORTS,
    Ix,
    ata,
    batch,
    burn,
    call,
    checked_transfer,
    checked_transfer_with_fee,
    close_account,
    confidential_transfer,
    create_account,
    create_account_with_seed,
    key,
    memo,
    mint_to,
    plain_transfer,
    set_owner,
    signature,
    sync_native,
    system_transfer,
    system_transfer_with_seed,
    unwrap_lamports,
    withdraw_excess_lamports,
)


__all__ = [
    "BLOCK_TIME",
    "COMPUTE_BUDGET_PROGRAM",
    "FEE_LAMPORTS",
    "MEMO_PROGRAM",
    "RENT_LAMPORTS",
    "SLOT",
    "START_LAMPORTS",
    "START_TOKENS",
    "Ix",
    "TokenAccount",
    "Version",
    "ata",
    "batch",
    "burn",
    "call",
    "checked_transfer",
    "checked_transfer_with_fee",
    "close_account",
    "confidential_transfer",
    "create_account",
    "create_account_with_seed",
    "holding",
    "key",
    "keys_of",
    "memo",
    "mint_to",
    "moved_to",
    "plain_transfer",
    "set_owner",
    "signature",
    "signature_of",
    "sol_transfer",
    "sync_native",
    "system_transfer",
    "system_transfer_with_seed",
    "token_transfer",
    "transaction",
    "unwrap_lamports",
    "withdraw_excess_lamports",
]

FEE_LAMPORTS = 5_000
BLOCK_TIME = 1_790_000_000
SLOT = 100
START_LAMPORTS = 10_000_000_000
START_TOKENS = 1_000_000_000_000

Version = Literal["legacy"] | int


# ------------------------------------------------------------------------- transactions


@dataclass(frozen=True, kw_only=True)
class TokenAccount:
    """A token account that appears in the balances.

    Attributes:
        amount: base units before; None when it comes into being in this transaction.
        owner_after: the owner afterwards, where it changes.
        closed: it is gone afterwards.
    """

    account: str
    mint: str
    owner: str
    amount: int | None = START_TOKENS
    owner_after: str | None = None
    closed: bool = False
    decimals: int = 6
    program: str = TOKEN_PROGRAM


def holding(
    owner: str,
    mint: str,
    amount: int | None = START_TOKENS,
    *,
    decimals: int = 6,
    program: str = TOKEN_PROGRAM,
) -> TokenAccount:
    """The associated token account of a wallet, as it appears in the balances."""
    return TokenAccount(
        account=ata(owner, mint, program),
        mint=mint,
        owner=owner,
        amount=amount,
        decimals=decimals,
        program=program,
    )


def transaction(
    instructions: Sequence[Ix],
    *,
    inner: Mapping[int, Sequence[Ix]] | None = None,
    fee_payer: str | None = None,
    name: str | None = None,
    slot: int = SLOT,
    block_time: int | None = BLOCK_TIME,
    index: int | None = 0,
    version: Version = "legacy",
    err: Any = None,
    fee: int = FEE_LAMPORTS,
    tokens: Sequence[TokenAccount] = (),
    lamports: Mapping[str, int] | None = None,
    extra_lamports: Mapping[str, int] | None = None,
    extra_tokens: Mapping[str, int] | None = None,
    loaded_writable: Sequence[str] = (),
    loaded_readonly: Sequence[str] = (),
) -> dict[str, Any]:
    """The `result` of getTransaction.

    Args:
        instructions: at top level, in order.
        inner: position of a top-level instruction -> what it called, in order.
        fee_payer: who pays `fee`; the first signer when None.
        name: two transactions of one name have one signature; made from the content when None.
        slot: where it landed.
        block_time: unix seconds, as this answer says it.
        index: position in its block; None leaves the field out.
        version: `legacy`, 0 or 1.
        err: what `meta.err` says; then only the fee is paid.
        fee: lamports.
        tokens: the token accounts that have balance rows.
        lamports: account -> lamports before, where `START_LAMPORTS` is not right.
        extra_lamports: changes that no instruction explains.
        extra_tokens: the same, of token accounts.
        loaded_writable: keys that come from lookup tables (version 0).
        loaded_readonly: the same, read-only.
    """
    inner = inner or {}
    executed = [ix for n, outer in enumerate(instructions) for ix in (outer, *inner.get(n, ()))]
    loaded = (*loaded_writable, *loaded_readonly)
    static = _static_keys(executed, fee_payer, [row.account for row in tokens], loaded)
    keys = (*static, *loaded)
    gained = _lamports_gained(executed, err, extra_lamports, keys[0], fee)
    landed: dict[str, Any] = {
        "slot": slot,
        "blockTime": block_time,
        "version": version,
        "meta": {
            "err": err,
            "status": {"Ok": None} if err is None else {"Err": err},
            "fee": fee,
            "computeUnitsConsumed": 450,
            "innerInstructions": _inner(inner, keys),
            "loadedAddresses": {"writable": [*loaded_writable], "readonly": [*loaded_readonly]},
            "logMessages": [],
            **_lamport_balances(lamports or {}, gained, keys),
            **_token_balances(tokens, _tokens_gained(executed, err, extra_tokens), keys),
            "rewards": [],
        },
        "transaction": {
            "signatures": [signature(name or repr((executed, slot, index, version, err)))],
            "message": _message(
                instructions, keys, static, version, loaded_writable, loaded_readonly
            ),
        },
    }
    return landed if index is None else {**landed, "transactionIndex": index}


def sol_transfer(
    source: str,
    recipient: str,
    lamports: int,
    *,
    references: Sequence[str] = (),
    memo_text: str | None = None,
    **rest: Any,
) -> dict[str, Any]:
    """One System transfer, as a wallet makes it; `rest` goes to `transaction`."""
    transfer = system_transfer(source, recipient, lamports, *references)
    return transaction([*_memos(memo_text), transfer], **rest)


def token_transfer(
    source: str,
    recipient: str,
    amount: int,
    *,
    mint: str,
    references: Sequence[str] = (),
    decimals: int = 6,
    program: str = TOKEN_PROGRAM,
    withheld: int = 0,
    recipient_before: int | None = 0,
    memo_text: str | None = None,
    **rest: Any,
) -> dict[str, Any]:
    """One `TransferChecked` between the associated accounts of two wallets.

    Args:
        source: the wallet that pays.
        recipient: the wallet that is paid.
        amount: base units, with the transfer fee still in it.
        mint: of the token.
        references: keys after the authority.
        decimals: of the mint.
        program: the token program.
        withheld: a transfer fee that does not arrive.
        recipient_before: what the recipient's account held; None when it comes into being.
        memo_text: of a memo before the transfer.
        rest: goes to `transaction`.
    """
    rows = (
        holding(source, mint, decimals=decimals, program=program),
        holding(recipient, mint, recipient_before, decimals=decimals, program=program),
    )
    transfer = checked_transfer(
        rows[0].account,
        mint,
        rows[1].account,
        source,
        amount,
        *references,
        decimals=decimals,
        withheld=withheld,
        program=program,
    )
    return transaction([*_memos(memo_text), transfer], tokens=rows, **rest)


def signature_of(landed: Mapping[str, Any]) -> str:
    """The signature that names a transaction."""
    return str(landed["transaction"]["signatures"][0])


def keys_of(landed: Mapping[str, Any]) -> tuple[str, ...]:
    """All keys of a transaction, those from lookup tables included."""
    loaded = landed["meta"]["loadedAddresses"]
    static = landed["transaction"]["message"]["accountKeys"]
    return (*static, *loaded["writable"], *loaded["readonly"])


def moved_to(landed: Mapping[str, Any], slot: int) -> dict[str, Any]:
    """The same transaction in another slot, as after a fork."""
    moved = copy.deepcopy(dict(landed))
    moved["slot"] = slot
    return moved


# ------------------------------------------------------------------------------ details


def _memos(text: str | None) -> list[Ix]:
    return [] if text is None else [memo(text)]


def _static_keys(
    executed: Sequence[Ix], fee_payer: str | None, others: Sequence[str], loaded: Sequence[str]
) -> tuple[str, ...]:
    """The fee payer, the other signers, the accounts, the programs: each once."""
    signers = [signer for ix in executed for signer in ix.signers]
    payer = fee_payer or (signers or [key("fee payer")])[0]
    accounts = [account for ix in executed for account in ix.accounts]
    programs = [ix.program for ix in executed]
    wanted = dict.fromkeys([payer, *signers, *accounts, *others, *programs])
    return tuple(account for account in wanted if account not in loaded)


def _lamports_gained(
    executed: Sequence[Ix], err: Any, extra: Mapping[str, int] | None, payer: str, fee: int
) -> dict[str, int]:
    changes = [] if err is not None else [change for ix in executed for change in ix.lamports]
    return _summed([*changes, *(extra or {}).items(), (payer, -fee)])


def _lamport_balances(
    before: Mapping[str, int], gained: Mapping[str, int], keys: Sequence[str]
) -> dict[str, list[int]]:
    held = [before.get(account, START_LAMPORTS) for account in keys]
    return {
        "preBalances": held,
        "postBalances": [
            amount + gained.get(account, 0) for account, amount in zip(keys, held, strict=True)
        ],
    }


def _tokens_gained(
    executed: Sequence[Ix], err: Any, extra: Mapping[str, int] | None
) -> dict[str, int]:
    changes = [] if err is not None else [change for ix in executed for change in ix.tokens]
    return _summed([*changes, *(extra or {}).items()])


def _summed(changes: Sequence[tuple[str, int]]) -> dict[str, int]:
    gained: dict[str, int] = {}
    for account, change in changes:
        gained[account] = gained.get(account, 0) + change
    return gained


def _inner(inner: Mapping[int, Sequence[Ix]], keys: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"index": n, "instructions": [_compiled(ix, keys, stack_height=2) for ix in called]}
        for n, called in sorted(inner.items())
    ]


def _token_balances(
    rows: Sequence[TokenAccount], gained: Mapping[str, int], keys: Sequence[str]
) -> dict[str, Any]:
    return {
        "preTokenBalances": [
            _token_row(row, keys, row.amount, row.owner) for row in rows if row.amount is not None
        ],
        "postTokenBalances": [
            _token_row(
                row,
                keys,
                (row.amount or 0) + gained.get(row.account, 0),
                row.owner_after or row.owner,
            )
            for row in rows
            if not row.closed
        ],
    }


def _token_row(row: TokenAccount, keys: Sequence[str], amount: int, owner: str) -> dict[str, Any]:
    return {
        "accountIndex": keys.index(row.account),
        "mint": row.mint,
        "owner": owner,
        "programId": row.program,
        "uiTokenAmount": {
            "amount": str(amount),
            "decimals": row.decimals,
            "uiAmount": amount / 10**row.decimals,
            "uiAmountString": str(amount / 10**row.decimals),
        },
    }


def _compiled(ix: Ix, keys: Sequence[str], *, stack_height: int | None = None) -> dict[str, Any]:
    return {
        "programIdIndex": keys.index(ix.program),
        "accounts": [keys.index(account) for account in ix.accounts],
        "data": base58.b58encode(ix.data).decode(),
        "stackHeight": stack_height,
    }


def _message(
    instructions: Sequence[Ix],
    keys: Sequence[str],
    static: Sequence[str],
    version: Version,
    loaded_writable: Sequence[str],
    loaded_readonly: Sequence[str],
) -> dict[str, Any]:
    signers = {signer for ix in instructions for signer in ix.signers} | {static[0]}
    message: dict[str, Any] = {
        "accountKeys": list(static),
        "header": {
            "numRequiredSignatures": len(signers),
            "numReadonlySignedAccounts": 0,
            "numReadonlyUnsignedAccounts": len({ix.program for ix in instructions}),
        },
        "instructions": [_compiled(ix, keys, stack_height=1) for ix in instructions],
        "recentBlockhash": key("blockhash"),
    }
    if version == 0:
        positions = range(len(loaded_writable) + len(loaded_readonly))
        lookup = {
            "accountKey": key("lookup table"),
            "writableIndexes": list(positions[: len(loaded_writable)]),
            "readonlyIndexes": list(positions[len(loaded_writable) :]),
        }
        message["addressTableLookups"] = [lookup] if positions else []
    elif version == 1:
        message["transactionConfig"] = {"computeUnitLimit": 200_000, "priorityFeeLamports": 0}
    return message
