"""Mints, their token accounts, and transfers between them."""

from dataclasses import dataclass
from typing import Final

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account
from spl.token import instructions as spl, models

from indexer.core.types import (
    LAMPORTS_PER_SOL_DECIMALS,
    NATIVE_MINT,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
)
from indexer.demo.instructions import sol_transfer, transfer_checked_with_fee


CLASSIC: Final = Pubkey.from_string(TOKEN_PROGRAM)
TOKEN_2022: Final = Pubkey.from_string(TOKEN_2022_PROGRAM)

_MINT_SIZE: Final = 82
#: An extended mint is padded to the size of a token account, then comes a byte that says it is a
#: mint, then each extension behind its type and length; the transfer fee's takes 108 bytes.
_FEE_MINT_SIZE: Final = 165 + 1 + 4 + 108


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferFee:
    """What a Token-2022 mint keeps of every transfer.

    Attributes:
        basis_points: of the amount, rounded up.
        maximum: base units.
    """

    basis_points: int
    maximum: int

    def of(self, amount: int) -> int:
        """Base units that are withheld from a transfer of `amount`."""
        return min(-(-amount * self.basis_points // 10_000), self.maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One mint, and the instructions to its program.

    Attributes:
        program: the token program that owns it.
        fee: None where transfers cost nothing.
    """

    mint: Pubkey
    decimals: int
    program: Pubkey = CLASSIC
    fee: TransferFee | None = None

    def account(self, owner: Pubkey) -> Pubkey:
        """The owner's associated token account."""
        return spl.get_associated_token_address(owner, self.mint, self.program)

    def create_account(self, payer: Pubkey, owner: Pubkey) -> Instruction:
        """Makes the owner's associated token account unless it exists."""
        return spl.create_idempotent_associated_token_account(payer, owner, self.mint, self.program)

    def transfer(
        self, owner: Pubkey, recipient: Pubkey, amount: int, *, source: Pubkey | None = None
    ) -> Instruction:
        """TransferChecked between associated token accounts; `source` names another to pay from."""
        return spl.transfer_checked(
            models.TransferCheckedParams(
                program_id=self.program,
                source=self.account(owner) if source is None else source,
                mint=self.mint,
                dest=self.account(recipient),
                owner=owner,
                amount=amount,
                decimals=self.decimals,
            )
        )

    def transfer_unchecked(self, owner: Pubkey, recipient: Pubkey, amount: int) -> Instruction:
        """The older Transfer, which does not name the mint."""
        return spl.transfer(
            models.TransferParams(
                program_id=self.program,
                source=self.account(owner),
                dest=self.account(recipient),
                owner=owner,
                amount=amount,
            )
        )

    def transfer_with_fee(self, owner: Pubkey, recipient: Pubkey, amount: int) -> Instruction:
        """TransferCheckedWithFee; only for a mint that takes one."""
        if self.fee is None:
            raise ValueError(f"{self.mint} takes no fee")
        return transfer_checked_with_fee(
            program=self.program,
            source=self.account(owner),
            mint=self.mint,
            destination=self.account(recipient),
            owner=owner,
            amount=amount,
            decimals=self.decimals,
            fee=self.fee.of(amount),
        )

    def mint_to(self, authority: Pubkey, owner: Pubkey, amount: int) -> Instruction:
        """New units into the owner's associated token account."""
        return spl.mint_to(
            models.MintToParams(
                program_id=self.program,
                mint=self.mint,
                dest=self.account(owner),
                mint_authority=authority,
                amount=amount,
            )
        )

    def wrap(self, owner: Pubkey, lamports: int) -> list[Instruction]:
        """SOL into the owner's account of wrapped SOL; only for `WRAPPED_SOL`."""
        account = self.account(owner)
        sync = models.SyncNativeParams(program_id=self.program, account=account)
        return [
            self.create_account(owner, owner),
            sol_transfer(owner, account, lamports),
            spl.sync_native(sync),
        ]


WRAPPED_SOL: Final = Token(mint=Pubkey.from_string(NATIVE_MINT), decimals=LAMPORTS_PER_SOL_DECIMALS)


def mint_size(token: Token) -> int:
    """Bytes of the mint account, for which rent must be paid."""
    return _MINT_SIZE if token.fee is None else _FEE_MINT_SIZE


def creation(token: Token, authority: Pubkey, supply: int, rent: int) -> list[Instruction]:
    """Makes the mint with its authority, and puts `supply` base units into the latter's account.

    The authority pays, and the mint's own key signs too.
    """
    create = CreateAccountParams(
        from_pubkey=authority,
        to_pubkey=token.mint,
        lamports=rent,
        space=mint_size(token),
        owner=token.program,
    )
    initialize = models.InitializeMint2Params(
        decimals=token.decimals,
        program_id=token.program,
        mint=token.mint,
        mint_authority=authority,
    )
    extend = [] if token.fee is None else [_with_fee(token, token.fee, authority)]
    return [
        create_account(create),
        *extend,  # extensions come before the mint itself
        spl.initialize_mint2(initialize),
        token.create_account(authority, authority),
        token.mint_to(authority, authority, supply),
    ]


def _with_fee(token: Token, fee: TransferFee, authority: Pubkey) -> Instruction:
    return spl.initialize_transfer_fee_config(
        models.InitializeTransferFeeConfigParams(
            program_id=token.program,
            mint=token.mint,
            transfer_fee_config_authority=authority,
            withdraw_withheld_authority=authority,
            transfer_fee_basis_points=fee.basis_points,
            maximum_fee=fee.maximum,
        )
    )
