"""What a provider's webhook says of transactions: signatures, slots, and the keys they name.

Nothing else leaves this module: amounts, types, descriptions are rumours, and so are the keys.
They only say whether a look at the signature may be worth it.

Helius sends an array of transactions, *raw* (as getTransaction has them) or *enhanced*. QuickNode
sends `{"data": …, "metadata": …}`: blocks as getBlock has them (they do not say their slot), what
programs were invoked, or whatever somebody's filter made of these. So the body is walked: what
looks like a transaction is read as one, everything else is looked into. What cannot be read is
counted and skipped; sweeps find it.

Sources: Helius, "Webhooks" (raw and enhanced payloads); QuickNode, "Streams: data sources, Solana";
Solana JSON-RPC, getTransaction (`json` and `jsonParsed`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import base58
import msgspec

from indexer.errors import InvalidInput


#: Transactions of one body that are read; a full block has fewer.
MENTIONS_MAX: Final = 10_000
#: Containers within containers that are looked into.
DEPTH_MAX: Final = 12

#: Characters of 32 and of 64 bytes in base58, at the least and at the most.
_KEY_LENGTHS: Final = range(32, 45)
_SIGNATURE_LENGTHS: Final = range(64, 89)
_SLOT_MAX: Final = 2**63 - 1

#: Of QuickNode: about the stream, never about a transaction.
_METADATA: Final = "metadata"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A transaction that somebody spoke of.

    Attributes:
        signature: base58 of 64 bytes; that there is such a transaction is not said by that.
        slot: where it is said to be; None when nobody said.
        accounts: keys that it is said to name, and owners of token accounts in it; empty when
            nothing was said of them.
    """

    signature: str
    slot: int | None
    accounts: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A whole body.

    Attributes:
        mentions: each signature once, in the order of the body.
        skipped: elements of which no signature could be read.
        beyond: transactions that were not read, because there are more than `MENTIONS_MAX`.
    """

    mentions: tuple[Mention, ...]
    skipped: int
    beyond: int


# ------------------------------------------------------------------------------ transactions


class _Struct(msgspec.Struct, rename="camel", gc=False):
    """Unknown fields are skipped: `events` may be an object, a list, or not there."""


class _Key(_Struct):
    pubkey: str


_Account = str | _Key | int  # an index says nothing that the list of keys does not say


class _Balance(_Struct):
    owner: str | None = None


class _Loaded(_Struct):
    writable: list[str] = []
    readonly: list[str] = []


class _Meta(_Struct):
    loaded_addresses: _Loaded | None = None
    pre_token_balances: list[_Balance] | None = None
    post_token_balances: list[_Balance] | None = None


class _Message(_Struct):
    account_keys: list[_Account] | None = None


class _Signed(_Struct):
    signatures: list[str] = []
    message: _Message | None = None


class _TokenChange(_Struct):
    user_account: str | None = None
    token_account: str | None = None


class _Change(_Struct):
    account: str | None = None
    token_balance_changes: list[_TokenChange] | None = None


class _Instruction(_Struct):
    accounts: list[_Account] | None = None
    inner_instructions: list["_Instruction"] | None = None


class _Invocation(_Struct):
    instruction: _Instruction | None = None


class _Element(_Struct):
    """A transaction in any of the shapes; each fills other fields."""

    signature: str | None = None
    slot: Any = None
    # raw, and those of a block; in other encodings text, which says no keys
    transaction: _Signed | str | list[str] | None = None
    meta: _Meta | None = None
    # a transaction without its envelope
    signatures: list[str] | None = None
    message: _Message | None = None
    # enhanced
    fee_payer: str | None = None
    account_data: list[_Change] | None = None
    instructions: list[_Instruction] | None = None
    # what QuickNode calls programs and logs, and what filters make of it
    program_invocations: list[_Invocation] | None = None
    accounts: list[_Account] | None = None
    account_keys: list[_Account] | None = None


def _names(element: _Element) -> Iterator[object]:
    """Everything in it that may be a key."""
    signed = element.transaction if isinstance(element.transaction, _Signed) else None
    for message in (element.message, signed.message if signed else None):
        yield from (message.account_keys or ()) if message else ()
    if (meta := element.meta) is not None:
        if (loaded := meta.loaded_addresses) is not None:
            yield from (*loaded.writable, *loaded.readonly)
        for balances in (meta.pre_token_balances, meta.post_token_balances):
            yield from (balance.owner for balance in balances or ())
    yield element.fee_payer
    for change in element.account_data or ():
        yield change.account
        for moved in change.token_balance_changes or ():
            yield from (moved.user_account, moved.token_account)
    invoked = [each.instruction for each in element.program_invocations or () if each.instruction]
    yield from _accounts([*(element.instructions or ()), *invoked])
    yield from (*(element.accounts or ()), *(element.account_keys or ()))


def _accounts(instructions: list[_Instruction]) -> Iterator[object]:
    for instruction in instructions:
        yield from instruction.accounts or ()
        yield from _accounts(instruction.inner_instructions or [])


def _mention(found: dict[str, Any], slot: int | None) -> Mention | None:
    """The transaction; None when it has no signature or another shape than its kind has."""
    try:
        element = msgspec.convert(found, _Element)
    except (msgspec.ValidationError, RecursionError):
        return None
    signed = element.transaction if isinstance(element.transaction, _Signed) else None
    listed = [*(element.signatures or ()), *(signed.signatures if signed else ())]
    signature = element.signature or next(iter(listed), None)
    if not _is_signature(signature):
        return None
    names = (each.pubkey if isinstance(each, _Key) else each for each in _names(element))
    keys = frozenset(key for key in names if isinstance(key, str) and len(key) in _KEY_LENGTHS)
    own_slot = _slot(element.slot)
    return Mention(
        signature=signature, slot=slot if own_slot is None else own_slot, accounts=keys
    )
