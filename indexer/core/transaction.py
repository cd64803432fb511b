"""What is kept of a transaction: instructions, balances, the error. Made by `decode`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, top level or inner, with its account indexes resolved to keys.

    Attributes:
        outer: position of the top-level instruction, from 0.
        inner: position among the inner instructions of `outer`, from 0; None at top level.
        program: base58 of the program that ran.
        accounts: base58 keys of the instruction's own account list, in order.
        data: base58 as the node sent it; decoded only for programs that can move money.
    """

    outer: int
    inner: int | None
    program: str
    accounts: tuple[str, ...]
    data: str


@dataclass(frozen=True, slots=True)
class TokenBalance:
    """One row of `preTokenBalances` or `postTokenBalances`.

    Attributes:
        account: base58 of the token account.
        owner: base58 of the wallet that owns it; None on ancient rows.
        token_program: base58 of the owning program; None on old rows.
        amount: base units.
    """

    account: str
    mint: str
    owner: str | None
    token_program: str | None
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A landed transaction, successful or failed, with all that the rule looks at.

    Attributes:
        signature: the first signature, which names the transaction.
        index: position in its block; None from nodes that do not say.
        block_time: unix seconds as this answer says it; None when the node does not know.
        failed: `meta.err` was not null: nothing moved but the fee.
        fee: lamports, paid by `keys[0]`.
        keys: static keys, then those loaded writable, then those loaded read-only. Balances
            count along this list.
        instructions: in order of execution: each top-level one, then its inner ones.
        pre_lamports, post_lamports: one for each key.
        pre_tokens, post_tokens: token balances; an account that holds none has no row.
    """

    signature: str
    slot: int
    index: int | None
    block_time: int | None
    version: Literal["legacy"] | int
    failed: bool
    fee: int
    keys: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    pre_lamports: tuple[int, ...]
    post_lamports: tuple[int, ...]
    pre_tokens: tuple[TokenBalance, ...]
    post_tokens: tuple[TokenBalance, ...]

    @property
    def fee_payer(self) -> str:
        """The first key, which pays `fee`."""
        return self.keys[0]

    @property
    def order(self) -> tuple[int, int, str]:
        """Sorts transactions as the chain did: slot, position in the block, then signature."""
        return (self.slot, -1 if self.index is None else self.index, self.signature)


class Missing(StrEnum):
    """What a node left out of an otherwise readable answer."""

    META = "meta"
    INNER_INSTRUCTIONS = "innerInstructions"
    TOKEN_BALANCES = "tokenBalances"
    LOADED_ADDRESSES = "loadedAddresses"


@dataclass(frozen=True, slots=True)
class Undecided:
    """An answer from which nothing may be concluded: ask another node, or later.

    It never means "not paid".
    """

    signature: str
    missing: Missing
