"""Which transactions of a block name a watched key, found without reading the rest of them.

A full block has more than a thousand transactions, and nearly none of them is ours. So only what
names keys is read here: static keys, keys loaded from lookup tables, and whether the transaction
failed. What is found is a doorbell and no more: each is fetched and proven by itself, later.

A part that a node left out makes the whole block unreadable: a transaction whose keys are not
known may be ours.

Source: Solana JSON-RPC, getBlock (`encoding: "json"`, `transactionDetails: "full"`).
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from indexer.core.transaction import Missing
from indexer.errors import DecodeError


_Slot = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Struct(msgspec.Struct, rename="camel", gc=False):
    """Unknown fields are skipped, and that is where the time is saved."""


class _Loaded(_Struct):
    writable: list[str]
    readonly: list[str]


class _Meta(_Struct):
    err: Any
    loaded_addresses: _Loaded | None = None


class _Lookup(_Struct):
    writable_indexes: list[int]
    readonly_indexes: list[int]


class _Message(_Struct):
    account_keys: list[str]
    address_table_lookups: list[_Lookup] | None = None


class _Signed(_Struct):
    signatures: list[str]
    message: _Message


class _Landed(_Struct):
    transaction: _Signed
    meta: _Meta | None = None


class _BlockAnswer(_Struct):
    parent_slot: _Slot
    blockhash: str
    previous_blockhash: str
    transactions: list[_Landed]


_decoder = msgspec.json.Decoder(_BlockAnswer)

#: What goes wrong with bytes that are no such answer; the last is JSON nested without end.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, DecodeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What is kept of a block: its place in the chain, and what names a watched key.

    Attributes:
        slot: the one that was asked for; the block itself does not say it.
        parent_slot: that of the block before it; between them there is none.
        blockhash: names this block.
        previous_blockhash: names the one before it.
        transactions: how many there are in it.
        named: signatures of those that name a watched key and did not fail, in order.
    """

    slot: int
    parent_slot: int
    blockhash: str
    previous_blockhash: str
    transactions: int
    named: tuple[str, ...]


def read_block(raw: bytes, *, slot: int, watched: AbstractSet[str]) -> Block:
    """The block in the `result` of getBlock, matched against the watched keys.

    Raises:
        DecodeError: it does not have the shape of a block, or keys of it are not told.
    """
    try:
        answer = _decoder.decode(raw)
        named = tuple(
            [
                landed.transaction.signatures[0]
                for index, landed in enumerate(answer.transactions)
                if _names(landed, index, watched)
            ]
        )
    except _UNREADABLE as error:
        raise DecodeError(f"unreadable block {slot}: {error}") from error
    return Block(
        slot=slot,
        parent_slot=answer.parent_slot,
        blockhash=answer.blockhash,
        previous_blockhash=answer.previous_blockhash,
        transactions=len(answer.transactions),
        named=named,
    )


def _names(landed: _Landed, index: int, watched: AbstractSet[str]) -> bool:
    """Whether the transaction succeeded and has a watched key."""
    meta, message = landed.meta, landed.transaction.message
    if meta is None:
        raise DecodeError(f"transaction {index} lacks {Missing.META}")
    if not landed.transaction.signatures:
        raise DecodeError(f"transaction {index} has no signature")
    if meta.err is not None:
        return False  # moved nothing
    loaded = meta.loaded_addresses
    if message.address_table_lookups and not _is_loaded(message.address_table_lookups, loaded):
        raise DecodeError(f"transaction {index} lacks {Missing.LOADED_ADDRESSES}")
    if not watched.isdisjoint(message.account_keys):
        return True
    return loaded is not None and not (
        watched.isdisjoint(loaded.writable) and watched.isdisjoint(loaded.readonly)
    )


def _is_loaded(lookups: list[_Lookup], loaded: _Loaded | None) -> bool:
    """Every key that the lookup tables give is there."""
    if loaded is None:
        return False
    writable = sum(len(lookup.writable_indexes) for lookup in lookups)
    readonly = sum(len(lookup.readonly_indexes) for lookup in lookups)
    return (writable, readonly) == (len(loaded.writable), len(loaded.readonly))
