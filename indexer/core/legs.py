"""What a transaction's instructions moved: transfers, and every other way money leaves.

Instructions say *who meant what*: a transfer names its accounts, and the references among them.
They are read here for the System program, Token and Token-2022, at top level, called by other
programs, and inside a `Batch`. What an instruction *achieved* is for the balances to say (see
`verify`). Log lines are never looked at: newer token programs do not write them.

An instruction of these programs that moves money in a way that its data does not tell, or that
is unknown here, is `Opaque`: harmless unless it touches the recipient's accounts.

Sources: System program, SPL Token and Token-2022 instruction layouts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import base58

from indexer.core.transaction import Instruction, TokenBalance, Transaction
from indexer.core.types import (
    NATIVE_MINT,
    NATIVE_MINT_2022,
    NATIVE_MINTS,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
)


#: Stands for the mint of a plain `Transfer` between accounts that have no balance row.
UNKNOWN_MINT: Final = ""

#: Characters of base58. Even a `Batch` over all accounts that an instruction can have is
#: shorter; longer data is not decoded, because that takes time with the square of its length.
DATA_LENGTH_MAX: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Money that one instruction moved, or created, or destroyed.

    Attributes:
        outer, inner, sub: where the instruction stands; `sub` inside a `Batch`.
        mint: None for SOL, in lamports.
        source: base58 of the debited account; None where money came into being.
        destination: base58 of the credited account; None where money ceased to be.
        amount: base units, as the instruction says; a transfer fee is still in it.
        fee: base units withheld on the way, where the instruction says so; None where not.
        transfer: it is one of the transfers that can pay; others only count in the books.
        own_base: base58 of the key that the source was derived from with a seed, if it was.
        authority: base58 of the key that signed for the source, where the layout names one.
        references: the keys in the instruction's own account list after those that its layout
            names, in order: references, and what else is passed along (signers of a multisig,
            a hook's accounts). Empty for what is no transfer.
    """

    outer: int
    inner: int | None
    sub: int | None
    mint: str | None
    source: str | None
    destination: str | None
    amount: int
    fee: int | None = None
    transfer: bool = False
    own_base: str | None = None
    authority: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """An instruction whose effect on balances cannot be told from its data."""

    outer: int
    inner: int | None
    sub: int | None
    program: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that was read from one transaction's instructions, in order of execution."""

    movements: tuple[Movement, ...]
    opaque: tuple[Opaque, ...]


def read_ledger(transaction: Transaction) -> Ledger:
    """What the instructions of a successful transaction moved."""
    reader = _Reader(transaction)
    for instruction in transaction.instructions:
        reader.read(instruction)
    return Ledger(tuple(reader.movements), tuple(reader.opaque))


@dataclass(frozen=True, slots=True)
class _Call:
    """One instruction, its data decoded, its place known."""

    outer: int
    inner: int | None
    sub: int | None
    program: str
    accounts: tuple[str, ...]
    data: bytes

    def u64(self, offset: int) -> int:
        if len(self.data) < offset + 8:
            raise IndexError
        return int.from_bytes(self.data[offset : offset + 8], "little")


class _Reader:
    """Collects movements; keeps running balances of wrapped SOL, which some calls empty."""

    def __init__(self, transaction: Transaction) -> None:
        self.movements: list[Movement] = []
        self.opaque: list[Opaque] = []
        self._rows = _rows_by_account(transaction)
        self._held = {row.account: row.amount for row in transaction.pre_tokens}
        self._exactly_known = set(self._held)

    def read(self, instruction: Instruction) -> None:
        """Adds what one instruction of a program that can move money did."""
        program = instruction.program
        if program not in _READERS:
            return
        place = (instruction.outer, instruction.inner, None, program, instruction.accounts)
        if len(instruction.data) > DATA_LENGTH_MAX:
            self._unknown(_Call(*place, b""))
            return
        try:
            data = base58.b58decode(instruction.data)
        except ValueError:
            self._unknown(_Call(*place, b""))
            return
        self._read_call(_Call(*place, data))

    def _read_call(self, call: _Call) -> None:
        try:
            moved = _READERS[call.program](self, call)
        except (IndexError, ValueError):  # shorter data or fewer accounts than the layout has
            moved = None
        if moved is None:
            self._unknown(call)
            return
        for movement in moved:
            self._add(movement)

    def _unknown(self, call: _Call) -> None:
        self._exactly_known.difference_update(call.accounts)
        self.opaque.append(
            Opaque(
                outer=call.outer,
                inner=call.inner,
                sub=call.sub,
                program=call.program,
                keys=call.accounts,
            )
        )

    def _add(self, movement: Movement) -> None:
        self.movements.append(movement)
        if movement.mint is None:
            return
        if movement.source is not None:
            self._held[movement.source] = self._held.get(movement.source, 0) - movement.amount
        if movement.destination is not None:
            self._held[movement.destination] = (
                self._held.get(movement.destination, 0) + movement.amount
            )

    # ------------------------------------------------------------------ System program

    def system(self, call: _Call) -> list[Movement] | None:
        """Tag u32; the layouts are bincode's: u64 little-endian, strings with a u64 length."""
        if len(call.data) < 4:
            return None
        accounts = call.accounts
        match int.from_bytes(call.data[:4], "little"):
            case 2:  # Transfer: from, to, then references
                return [_lamports(call, accounts[0], accounts[1], call.u64(4), layout=2)]
            case 11:  # TransferWithSeed: from, base, to, then references
                source, base, destination = accounts[0], accounts[1], accounts[2]
                lamports = call.u64(4)
                return [_lamports(call, source, destination, lamports, layout=3, own_base=base)]
            case 0:  # CreateAccount: funder, new account
                return [_lamports(call, accounts[0], accounts[1], call.u64(4))]
            case 3:  # CreateAccountWithSeed: funder, new account; base key and seed come first
                seed_length = call.u64(36)
                return [_lamports(call, accounts[0], accounts[1], call.u64(44 + seed_length))]
            case 5:  # WithdrawNonceAccount: nonce account, destination
                return [_lamports(call, accounts[0], accounts[1], call.u64(4))]
            case 13:  # CreateAccountAllowPrefund: new account, funder unless it needs none
                lamports = call.u64(4)
                return [_lamports(call, accounts[1], accounts[0], lamports)] if lamports else []
            case 1 | 4 | 6 | 7 | 8 | 9 | 10 | 12:  # assign, allocate, nonce upkeep
                return []
            case _:
                return None

    # ------------------------------------------------------------------ Token programs

    def token(self, call: _Call) -> list[Movement] | None:
        """Tag u8; the same for both programs, Token-2022 knows more tags."""
        if not call.data:
            return None
        tag, accounts = call.data[0], call.accounts
        if tag in _TOKEN_TAGS_THAT_MOVE_NOTHING:
            return []
        match tag:
            case 3:  # Transfer: source, destination, authority, then references
                source, destination, authority = accounts[0], accounts[1], accounts[2]
                mint = self._mint_of(source, destination)
                amount = call.u64(1)
                return [_tokens(call, mint, source, destination, amount, authority, layout=3)]
            case 12:  # TransferChecked: source, mint, destination, authority, then references
                return [self._checked(call, call.u64(1), None)]
            case 26:  # the transfer fee extension
                return self._transfer_fee(call)
            case 7 | 14:  # MintTo, MintToChecked: mint, account
                return [_books(call, accounts[0], None, accounts[1], call.u64(1))]
            case 8 | 15:  # Burn, BurnChecked: account, mint
                return [_books(call, accounts[1], accounts[0], None, call.u64(1))]
            case 9:  # CloseAccount: account, destination of its lamports
                return self._close(call)
            case 45:  # UnwrapLamports: account, destination, authority, then references
                return self._unwrap(call)
            case 255 if call.sub is None:
                return self._batch(call)
            case _:
                return None

    def _checked(self, call: _Call, amount: int, fee: int | None) -> Movement:
        source, mint, destination, authority = call.accounts[:4]
        return _tokens(call, mint, source, destination, amount, authority, layout=4, fee=fee)

    def _transfer_fee(self, call: _Call) -> list[Movement] | None:
        match call.data[1]:
            case 1:  # TransferCheckedWithFee: amount u64, decimals u8, fee u64
                return [self._checked(call, call.u64(2), call.u64(11))]
            case 0 | 4 | 5:  # initialize, harvest (withheld is not in the balance), set the fee
                return []
            case _:  # withdraw withheld: credits an amount that the data does not say
                return None

    def _close(self, call: _Call) -> list[Movement]:
        """Only wrapped SOL may be closed with a balance; all of it ceases to be a token."""
        account, _destination = call.accounts[0], call.accounts[1]
        mint = self._mint_of(account)
        held = self._held.get(account, 0)
        self._exactly_known.discard(account)  # whoever opens it again starts with some lamports
        if mint not in NATIVE_MINTS or held <= 0:
            return []
        return [_books(call, mint, account, None, held)]

    def _unwrap(self, call: _Call) -> list[Movement] | None:
        """Wrapped SOL becomes lamports of the destination: a transfer of SOL, in effect.

        Data: tag, then an optional u64; without it, everything, which is not always known.
        """
        source, destination, authority = call.accounts[:3]
        everything = call.data[1] == 0
        if everything and source not in self._exactly_known:
            return None
        amount = max(0, self._held[source]) if everything else call.u64(2)
        mint = self._mint_of(source)
        if mint == UNKNOWN_MINT:
            mint = NATIVE_MINT if call.program == TOKEN_PROGRAM else NATIVE_MINT_2022
        return [
            _lamports(call, source, destination, amount, layout=3, authority=authority),
            _books(call, mint, source, None, amount),
        ]

    def _batch(self, call: _Call) -> list[Movement]:
        """Many instructions in one: for each a count of accounts, a length, and the data.

        The accounts follow one another in the batch's own list. Batches do not nest.
        """
        data, accounts, sub = call.data[1:], call.accounts, 0
        while data:
            count, length = data[0], data[1]
            if len(accounts) < count or len(data) < 2 + length:
                raise IndexError
            self._read_call(
                _Call(
                    call.outer,
                    call.inner,
                    sub,
                    call.program,
                    accounts[:count],
                    data[2 : 2 + length],
                )
            )
            data, accounts, sub = data[2 + length :], accounts[count:], sub + 1
        return []

    def _mint_of(self, *accounts: str) -> str:
        for account in accounts:
            if account in self._rows:
                return self._rows[account].mint
        return UNKNOWN_MINT


_READERS: Final[Mapping[str, Callable[[_Reader, _Call], list[Movement] | None]]] = {
    SYSTEM_PROGRAM: _Reader.system,
    TOKEN_PROGRAM: _Reader.token,
    TOKEN_2022_PROGRAM: _Reader.token,
}

#: Initialisation, approval, authority, freezing, metadata, the set-up of extensions, and
#: WithdrawExcessLamports (38), which moves no tokens and whose lamports pay nobody. Not here,
#: and therefore opaque: SyncNative (17), the confidential extensions (27, 37, 42) and whatever
#: comes after.
_TOKEN_TAGS_THAT_MOVE_NOTHING: Final = frozenset(
    {0, 1, 2, 4, 5, 6, 10, 11, 13, 16, 18, 19, 20, 21, 22, 23, 24, 25}
    | {28, 29, 30, 31, 32, 33, 34, 35, 36, 38, 39, 40, 41, 43, 44}
)


def _rows_by_account(transaction: Transaction) -> dict[str, TokenBalance]:
    return {row.account: row for row in _all_rows(transaction)}


def _all_rows(transaction: Transaction) -> Iterator[TokenBalance]:
    yield from transaction.pre_tokens
    yield from transaction.post_tokens


def _lamports(
    call: _Call,
    source: str,
    destination: str,
    amount: int,
    *,
    layout: int | None = None,
    own_base: str | None = None,
    authority: str | None = None,
) -> Movement:
    """Lamports; `layout` is how many accounts a transfer has before the references."""
    return Movement(
        outer=call.outer,
        inner=call.inner,
        sub=call.sub,
        mint=None,
        source=source,
        destination=destination,
        amount=amount,
        transfer=layout is not None,
        own_base=own_base,
        authority=authority,
        references=() if layout is None else call.accounts[layout:],
    )


def _tokens(
    call: _Call,
    mint: str,
    source: str,
    destination: str,
    amount: int,
    authority: str,
    *,
    layout: int,
    fee: int | None = None,
) -> Movement:
    """A transfer of tokens; `layout` is how many accounts it has before the references."""
    return Movement(
        outer=call.outer,
        inner=call.inner,
        sub=call.sub,
        mint=mint,
        source=source,
        destination=destination,
        amount=amount,
        fee=fee,
        transfer=True,
        authority=authority,
        references=call.accounts[layout:],
    )


def _books(
    call: _Call, mint: str, source: str | None, destination: str | None, amount: int
) -> Movement:
    """A change of balances that is no transfer: mint, burn, close, unwrap."""
    return Movement(
        outer=call.outer,
        inner=call.inner,
        sub=call.sub,
        mint=mint,
        source=source,
        destination=destination,
        amount=amount,
    )
