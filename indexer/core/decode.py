"""The answer of `getTransaction` (`encoding: "json"`), read into values.

Only the plain `json` encoding is understood: `jsonParsed` drops the extra accounts of System
transfers, which is where references live. Legacy, v0 (with lookup tables) and v1 transactions
come in the same form; keys loaded from tables follow the static keys, writable ones first, and
balances count along that list. A node may leave parts out; what is then unknown is returned as
`Undecided`, never guessed.

Blocks are not read here: see `watching`.

Source: Solana JSON-RPC, getTransaction.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec

from indexer.core.transaction import (
    Instruction,
    Missing,
    TokenBalance,
    Transaction,
    Undecided,
)
from indexer.core.types import AMOUNT_MAX
from indexer.errors import DecodeError


_Unsigned = Annotated[int, msgspec.Meta(ge=0)]
#: What a signed 64-bit column can hold; a slot beyond it is no slot.
_Slot = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Struct(msgspec.Struct, rename="camel", gc=False):
    """Unknown fields are skipped: nodes add some with every release."""


class _Instruction(_Struct):
    program_id_index: _Unsigned
    accounts: list[_Unsigned]
    data: str


class _InnerInstructions(_Struct):
    index: _Unsigned
    instructions: list[_Instruction]


class _TokenAmount(_Struct):
    amount: str


class _TokenBalance(_Struct):
    account_index: _Unsigned
    mint: str
    ui_token_amount: _TokenAmount
    owner: str | None = None
    program_id: str | None = None


class _LoadedAddresses(_Struct):
    writable: list[str]
    readonly: list[str]


class _Meta(_Struct):
    err: Any
    fee: _Unsigned
    pre_balances: list[_Unsigned]
    post_balances: list[_Unsigned]
    inner_instructions: list[_InnerInstructions] | None = None
    pre_token_balances: list[_TokenBalance] | None = None
    post_token_balances: list[_TokenBalance] | None = None
    loaded_addresses: _LoadedAddresses | None = None


class _AddressTableLookup(_Struct):
    writable_indexes: list[int]
    readonly_indexes: list[int]


class _Message(_Struct):
    account_keys: list[str]
    instructions: list[_Instruction]
    address_table_lookups: list[_AddressTableLookup] | None = None


class _SignedMessage(_Struct):
    signatures: list[str]
    message: _Message


class _TransactionAnswer(_Struct, kw_only=True):
    transaction: _SignedMessage
    meta: _Meta | None = None
    version: Literal["legacy"] | _Unsigned = "legacy"
    slot: _Slot
    block_time: int | None = None
    transaction_index: _Slot | None = None


_transaction_decoder = msgspec.json.Decoder(_TransactionAnswer)

#: What goes wrong with bytes that are no such answer; the last is JSON nested without end.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, DecodeError, RecursionError)


def decode_transaction(raw: bytes, *, signature: str | None = None) -> Transaction | Undecided:
    """The transaction in the `result` of getTransaction.

    Args:
        raw: JSON of `result`, not null.
        signature: what was asked for; an answer about another transaction is refused.

    Raises:
        DecodeError: the bytes do not have the shape of a transaction; carries them.
    """
    try:
        answer = _transaction_decoder.decode(raw)
        _check_asked_for(answer, signature)
        return _transaction(answer)
    except _UNREADABLE as error:
        raise DecodeError(f"unreadable transaction: {error}", payload=raw) from error


def _check_asked_for(answer: _TransactionAnswer, signature: str | None) -> None:
    if signature is not None and answer.transaction.signatures[:1] != [signature]:
        raise DecodeError(f"asked for {signature}, got another transaction")


def _transaction(answer: _TransactionAnswer) -> Transaction | Undecided:
    signed, meta = answer.transaction, answer.meta
    signatures, message = signed.signatures, signed.message
    if not signatures:
        raise DecodeError("the transaction has no signature")
    if meta is None:
        return Undecided(signatures[0], Missing.META)
    missing = _missing(message, meta)
    if missing is not None:
        return Undecided(signatures[0], missing)
    keys = _keys(message, meta)
    _check_lamports(meta, keys)
    return Transaction(
        signature=signatures[0],
        slot=answer.slot,
        index=answer.transaction_index,
        block_time=answer.block_time,
        version=answer.version,
        failed=meta.err is not None,
        fee=meta.fee,
        keys=keys,
        instructions=tuple(_instructions(message, meta, keys)),
        pre_lamports=tuple(meta.pre_balances),
        post_lamports=tuple(meta.post_balances),
        pre_tokens=_token_balances(meta.pre_token_balances or [], keys),
        post_tokens=_token_balances(meta.post_token_balances or [], keys),
    )


def _check_lamports(meta: _Meta, keys: tuple[str, ...]) -> None:
    before, after = meta.pre_balances, meta.post_balances
    if not keys or len(before) != len(keys) or len(after) != len(keys):
        raise DecodeError(f"{len(keys)} keys, {len(before)} balances before and {len(after)} after")
    if max(meta.fee, *before, *after) > AMOUNT_MAX:
        raise DecodeError(f"the fee or a balance is beyond {AMOUNT_MAX} lamports")


def _missing(message: _Message, meta: _Meta) -> Missing | None:
    """The first part that is needed and not there.

    A failed transaction moved nothing: it needs only its keys.
    """
    loaded = meta.loaded_addresses
    for side in ("writable", "readonly"):
        wanted = sum(
            len(getattr(lookup, f"{side}_indexes"))
            for lookup in message.address_table_lookups or ()
        )
        if wanted != (0 if loaded is None else len(getattr(loaded, side))):
            return Missing.LOADED_ADDRESSES
    if meta.err is not None:
        return None
    if meta.inner_instructions is None:
        return Missing.INNER_INSTRUCTIONS
    if meta.pre_token_balances is None or meta.post_token_balances is None:
        return Missing.TOKEN_BALANCES
    if any(row.owner is None for row in (*meta.pre_token_balances, *meta.post_token_balances)):
        return Missing.TOKEN_BALANCES
    return None


def _keys(message: _Message, meta: _Meta) -> tuple[str, ...]:
    """Every key, each once: the runtime refuses a transaction that loads an account twice."""
    loaded = meta.loaded_addresses
    keys = tuple(message.account_keys)
    if loaded is not None:
        keys = (*keys, *loaded.writable, *loaded.readonly)
    if len(set(keys)) != len(keys):
        raise DecodeError(f"{len(keys) - len(set(keys))} of {len(keys)} keys stand there twice")
    return keys


def _instructions(message: _Message, meta: _Meta, keys: tuple[str, ...]) -> Iterator[Instruction]:
    """Each top-level instruction, then what it called, as they were executed."""
    inner: dict[int, list[_Instruction]] = {}
    for group in meta.inner_instructions or ():
        if group.index >= len(message.instructions):
            raise DecodeError(
                f"inner instructions of instruction {group.index}, which is not there"
            )
        inner.setdefault(group.index, []).extend(group.instructions)
    for outer, instruction in enumerate(message.instructions):
        yield _instruction(instruction, outer, None, keys)
        for position, called in enumerate(inner.get(outer, ())):
            yield _instruction(called, outer, position, keys)


def _instruction(
    raw: _Instruction, outer: int, inner: int | None, keys: tuple[str, ...]
) -> Instruction:
    try:
        return Instruction(
            outer,
            inner,
            keys[raw.program_id_index],
            tuple([keys[index] for index in raw.accounts]),
            raw.data,
        )
    except IndexError:
        place = f"{outer}" if inner is None else f"{outer}.{inner}"
        raise DecodeError(
            f"instruction {place} names a key beyond the {len(keys)} there are"
        ) from None


def _token_balances(rows: list[_TokenBalance], keys: tuple[str, ...]) -> tuple[TokenBalance, ...]:
    if len({row.account_index for row in rows}) != len(rows):
        raise DecodeError("an account has two token balances")
    return tuple([_token_balance(row, keys) for row in rows])


def _token_balance(row: _TokenBalance, keys: tuple[str, ...]) -> TokenBalance:
    text = row.ui_token_amount.amount
    if row.account_index >= len(keys):
        raise DecodeError(f"a token balance names key {row.account_index} of {len(keys)}")
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= AMOUNT_MAX):
        raise DecodeError(f"a token balance of {text[:40]!r} is no amount")
    return TokenBalance(keys[row.account_index], row.mint, row.owner, row.program_id, int(text))
