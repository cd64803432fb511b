"""Instructions as the programs read them, where no library builds them.

Sources: the instruction enums of the System program, of p-token (the Token program on every
cluster), and of Token-2022 with its transfer fee extension.
"""

from collections.abc import Sequence
from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import (
    TransferParams,
    TransferWithSeedParams,
    transfer,
    transfer_with_seed,
)

from indexer.core.types import SYSTEM_PROGRAM


SYSTEM: Final = Pubkey.from_string(SYSTEM_PROGRAM)
MEMO: Final = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
#: The first memo program. Alone among them it takes accounts that do not sign.
MEMO_V1: Final = Pubkey.from_string("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo")

_TRANSFER_FEE_EXTENSION: Final = 26
_TRANSFER_CHECKED_WITH_FEE: Final = 1
_UNWRAP_LAMPORTS: Final = 45
_BATCH: Final = 255


def sol_transfer(source: Pubkey, destination: Pubkey, lamports: int) -> Instruction:
    """System Transfer."""
    return transfer(TransferParams(from_pubkey=source, to_pubkey=destination, lamports=lamports))


def sol_transfer_with_seed(
    base: Pubkey, seed: str, destination: Pubkey, lamports: int
) -> Instruction:
    """System TransferWithSeed, out of the account that `seeded` names; `base` signs."""
    return transfer_with_seed(
        TransferWithSeedParams(
            from_pubkey=seeded(base, seed),
            from_base=base,
            from_seed=seed,
            from_owner=SYSTEM,
            to_pubkey=destination,
            lamports=lamports,
        )
    )


def seeded(base: Pubkey, seed: str) -> Pubkey:
    """The system account that `base` controls under this seed."""
    return Pubkey.create_with_seed(base, seed, SYSTEM)


def memo(text: str, accounts: Sequence[AccountMeta] = (), program: Pubkey = MEMO) -> Instruction:
    """A memo; the current program demands that every account signs."""
    return Instruction(program, text.encode(), list(accounts))


def transfer_checked_with_fee(
    *,
    program: Pubkey,
    source: Pubkey,
    mint: Pubkey,
    destination: Pubkey,
    owner: Pubkey,
    amount: int,
    decimals: int,
    fee: int,
) -> Instruction:
    """Token-2022 TransferCheckedWithFee: fails unless `fee` is exactly what the mint takes."""
    data = bytes((_TRANSFER_FEE_EXTENSION, _TRANSFER_CHECKED_WITH_FEE))
    data += _u64(amount) + bytes((decimals,)) + _u64(fee)
    accounts = [
        AccountMeta(source, is_signer=False, is_writable=True),
        AccountMeta(mint, is_signer=False, is_writable=False),
        AccountMeta(destination, is_signer=False, is_writable=True),
        AccountMeta(owner, is_signer=True, is_writable=False),
    ]
    return Instruction(program, data, accounts)


def unwrap_lamports(
    *, program: Pubkey, source: Pubkey, destination: Pubkey, owner: Pubkey, lamports: int | None
) -> Instruction:
    """Token UnwrapLamports: SOL out of a wrapped SOL account; None takes all of it."""
    data = bytes((_UNWRAP_LAMPORTS,))
    data += b"\0" if lamports is None else b"\1" + _u64(lamports)
    accounts = [
        AccountMeta(source, is_signer=False, is_writable=True),
        AccountMeta(destination, is_signer=False, is_writable=True),
        AccountMeta(owner, is_signer=True, is_writable=False),
    ]
    return Instruction(program, data, accounts)


def batch(instructions: Sequence[Instruction]) -> Instruction:
    """Token Batch: several instructions of one token program as one.

    The data of each follows the number of its accounts and its own length, a byte each; the
    accounts of all stand in one list.
    """
    (program,) = {instruction.program_id for instruction in instructions}
    data = bytes((_BATCH,))
    accounts: list[AccountMeta] = []
    for instruction in instructions:
        data += bytes((len(instruction.accounts), len(instruction.data))) + instruction.data
        accounts += instruction.accounts
    return Instruction(program, data, accounts)


def with_references(
    instruction: Instruction, references: Sequence[str | Pubkey], *, writable: bool = False
) -> Instruction:
    """The instruction with keys appended that it does not need, as Solana Pay places them."""
    extra = [AccountMeta(_key(key), is_signer=False, is_writable=writable) for key in references]
    return _with_accounts(instruction, extra)


def with_signer(instruction: Instruction, signer: Pubkey) -> Instruction:
    """The instruction with one more signer at the end of its accounts."""
    return _with_accounts(instruction, [AccountMeta(signer, is_signer=True, is_writable=False)])


def _with_accounts(instruction: Instruction, extra: list[AccountMeta]) -> Instruction:
    accounts = [*instruction.accounts, *extra]
    return Instruction(instruction.program_id, instruction.data, accounts)


def _key(key: str | Pubkey) -> Pubkey:
    return Pubkey.from_string(key) if isinstance(key, str) else key


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")
