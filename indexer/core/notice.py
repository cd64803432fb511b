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
from typing import Any, Final, TypeGuard

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
    return Mention(signature=signature, slot=slot if own_slot is None else own_slot, accounts=keys)


def _is_signature(text: str | None) -> TypeGuard[str]:
    # The library takes white space at the end for nothing; a node does not.
    if text is None or len(text) not in _SIGNATURE_LENGTHS or not text.isalnum():
        return False
    try:
        return len(base58.b58decode(text)) == 64
    except ValueError:
        return False


def _slot(said: Any) -> int | None:
    is_number = isinstance(said, int) and not isinstance(said, bool)
    return said if is_number and 0 <= said <= _SLOT_MAX else None


# ------------------------------------------------------------------------------------ the walk


def read_notice(body: bytes) -> Notice:
    """Every transaction that the body speaks of.

    Raises:
        InvalidInput: the body is neither an array nor an object.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput("", "the body is not JSON") from error
    if not isinstance(value, list | dict):
        raise InvalidInput("", "the body must be a JSON array or object")
    walk = _Walk()
    walk.look(value, slot=None, depth=0, is_outer=True)
    return Notice(mentions=walk.mentions(), skipped=walk.skipped, beyond=walk.beyond)


@dataclass(slots=True)
class _Walk:
    """What was found so far."""

    slots: dict[str, int | None] = field(default_factory=dict)
    accounts: dict[str, set[str]] = field(default_factory=dict)
    skipped: int = 0
    beyond: int = 0

    def look(self, value: Any, *, slot: int | None, depth: int, is_outer: bool) -> None:
        """Looks into one container.

        Args:
            value: an array or an object.
            slot: what is said of the slot of all that is in it.
            depth: containers around it.
            is_outer: each of its elements should be a transaction, and is counted if it is not.
        """
        if depth >= DEPTH_MAX:
            self.skipped += 1
        elif isinstance(value, list):
            for item in value:
                self._item(item, slot, depth, is_outer=is_outer)
        elif _is_transaction(value):
            self._take(value, slot)
        else:
            self._object(value, slot, depth, is_outer=is_outer)

    def _item(self, item: Any, slot: int | None, depth: int, *, is_outer: bool) -> None:
        if isinstance(item, list | dict):
            self.look(item, slot=slot, depth=depth + 1, is_outer=is_outer)
        elif isinstance(item, str) and _is_signature(item):
            self._add(Mention(signature=item, slot=slot, accounts=frozenset()))
        elif is_outer:
            self.skipped += 1

    def _object(self, value: Any, slot: int | None, depth: int, *, is_outer: bool) -> None:
        own_slot = _slot(value.get("slot"))
        slot = slot if own_slot is None else own_slot
        inside = {name: each for name, each in value.items() if isinstance(each, list | dict)}
        if is_outer and not inside:
            self.skipped += 1
        for name, each in inside.items():
            if name != _METADATA:
                # QuickNode's envelope is the only object whose elements are known to be ours.
                is_data = depth == 0 and name == "data"
                self.look(each, slot=slot, depth=depth + 1, is_outer=is_data)

    def _take(self, value: Any, slot: int | None) -> None:
        if len(self.slots) >= MENTIONS_MAX:
            self.beyond += 1
            return
        mention = _mention(value, slot)
        if mention is None:
            self.skipped += 1
        else:
            self._add(mention)

    def _add(self, mention: Mention) -> None:
        if mention.signature not in self.slots:
            if len(self.slots) >= MENTIONS_MAX:
                self.beyond += 1
                return
            self.slots[mention.signature] = mention.slot
        # In place: a signature may be there a hundred thousand times, each with another key.
        self.accounts.setdefault(mention.signature, set()).update(mention.accounts)

    def mentions(self) -> tuple[Mention, ...]:
        """Each signature once, in the order of the body."""
        return tuple(
            Mention(signature=signature, slot=slot, accounts=frozenset(self.accounts[signature]))
            for signature, slot in self.slots.items()
        )


def _is_transaction(value: dict[str, Any]) -> bool:
    """Whether an object is meant to be a transaction, well-formed or not."""
    match value:
        case {"signature": _} | {"signatures": _, "message": _}:
            return True
        case {"transaction": dict(inner)}:
            return "signatures" in inner
        case {"transaction": str() | list()}:
            return True
    return False
