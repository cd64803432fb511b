"""A wallet that signs and sends: its key lives in memory, and its money is worth nothing."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, Self, assert_never

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0, MessageV1, TransactionConfig
from solders.pubkey import Pubkey
from solders.system_program import (
    CreateLookupTableParams,
    ExtendLookupTableParams,
    create_lookup_table,
    extend_lookup_table,
)
from solders.transaction import VersionedTransaction

from indexer.core.amounts import parse_amount
from indexer.core.solana_pay import TransferRequest, parse
from indexer.core.types import LAMPORTS_PER_SOL_DECIMALS, Commitment
from indexer.demo.cluster import Cluster, Landed
from indexer.demo.instructions import memo, sol_transfer, with_references
from indexer.demo.surfnet.install import SurfnetError
from indexer.demo.tokens import CLASSIC, Token, TransferFee, creation, mint_size


Version = Literal["legacy", 0, 1]

LAMPORTS_PER_SOL: Final = 10**LAMPORTS_PER_SOL_DECIMALS

#: Version 1 states its budget in the message; this is enough for everything here.
_BUDGET: Final = TransactionConfig(compute_unit_limit=400_000)
_NEXT_BLOCKHASH_S: Final = 0.02
#: The transactions that a wallet compares a new one with: more than it sends under one blockhash.
_REMEMBERED_MAX: Final = 32
_FUNDED_AT_ONCE: Final = 50


class Wallet:
    """One key pair on one cluster.

    Attributes:
        keypair: signs.
        key: the public half, which is the wallet's address.
    """

    def __init__(self, cluster: Cluster, keypair: Keypair | None = None) -> None:
        self.cluster = cluster
        self.keypair = Keypair() if keypair is None else keypair
        self.key = self.keypair.pubkey()
        self._sent: deque[VersionedTransaction] = deque(maxlen=_REMEMBERED_MAX)

    @classmethod
    async def funded(cls, cluster: Cluster, lamports: int = 100 * LAMPORTS_PER_SOL) -> Self:
        """A new wallet that has SOL."""
        (wallet,) = await cls.many(cluster, 1, lamports)
        return wallet

    @classmethod
    async def many(
        cls, cluster: Cluster, count: int, lamports: int = LAMPORTS_PER_SOL
    ) -> list[Self]:
        """New wallets that have SOL: one payer alone becomes slow as its history grows."""
        wallets = [cls(cluster) for _ in range(count)]
        for start in range(0, count, _FUNDED_AT_ONCE):
            some = wallets[start : start + _FUNDED_AT_ONCE]
            await asyncio.gather(*(cluster.fund_sol(wallet.key, lamports) for wallet in some))
        return wallets

    async def pay(
        self,
        url: str,
        *,
        token: Token | None = None,
        amount: int | None = None,
        version: Version = 0,
    ) -> str:
        """Pays a Solana Pay URL and returns the signature at once.

        Args:
            url: `solana:…`, as scanned.
            token: what the URL's mint is; None for SOL.
            amount: base units; None pays what the URL asks for.
            version: of the transaction.
        """
        request = parse(url)
        decimals = LAMPORTS_PER_SOL_DECIMALS if token is None else token.decimals
        if amount is None:
            amount = parse_amount(request.amount or "", decimals)
        return await self.send(*self.instructions(request, amount, token), version=version)

    def instructions(
        self, request: TransferRequest, amount: int, token: Token | None
    ) -> list[Instruction]:
        """What the specification wants: the memo right before the transfer, which is last."""
        recipient = Pubkey.from_string(request.recipient)
        before = [] if request.memo is None else [memo(request.memo)]
        if token is None:
            transfer = sol_transfer(self.key, recipient, amount)
        else:
            before.insert(0, token.create_account(self.key, recipient))
            transfer = token.transfer(self.key, recipient, amount)
        return [*before, with_references(transfer, request.references)]

    async def send(
        self,
        *instructions: Instruction,
        signers: Sequence[Keypair] = (),
        version: Version = 0,
        lookup_tables: Sequence[AddressLookupTableAccount] = (),
    ) -> str:
        """Signs, sends and returns the signature; the transaction lands also when it will fail.

        Args:
            instructions: in order.
            signers: beside this wallet, which also pays the fee.
            version: of the transaction.
            lookup_tables: for version 0 only.
        """
        while True:
            blockhash = await self.cluster.blockhash()
            message = self._message(instructions, version, lookup_tables, blockhash)
            transaction = VersionedTransaction(message, [self.keypair, *signers])
            if transaction not in self._sent:
                break
            # The same transfer twice under one blockhash is one transaction, and lands once.
            await asyncio.sleep(_NEXT_BLOCKHASH_S)
        self._sent.append(transaction)
        return await self.cluster.send(transaction)

    async def run(
        self,
        *instructions: Instruction,
        signers: Sequence[Keypair] = (),
        commitment: Commitment = Commitment.CONFIRMED,
    ) -> Landed:
        """Sends what must succeed, and waits until it has.

        Raises:
            SurfnetError: when it fails on the chain.
        """
        signature = await self.send(*instructions, signers=signers)
        (landed,) = await self.cluster.landed([signature], commitment)
        if landed.error is not None:
            raise SurfnetError(f"{signature} failed on the chain: {landed.error}")
        return landed

    async def create_token(
        self,
        *,
        decimals: int,
        supply: int = 0,
        program: Pubkey = CLASSIC,
        fee: TransferFee | None = None,
    ) -> Token:
        """A new mint of which this wallet is the authority and owns `supply` base units.

        Args:
            decimals: digits after the point of one unit.
            supply: base units.
            program: `tokens.CLASSIC` or `tokens.TOKEN_2022`.
            fee: what transfers cost; only under Token-2022.
        """
        mint = Keypair()
        token = Token(mint=mint.pubkey(), decimals=decimals, program=program, fee=fee)
        rent = await self.cluster.rent_exempt_minimum(mint_size(token))
        await self.run(*creation(token, self.key, supply, rent), signers=[mint])
        return token

    async def create_lookup_table(self, keys: Sequence[Pubkey]) -> AddressLookupTableAccount:
        """A lookup table that holds these keys, ready to be used by version 0 messages."""
        recent = await self.cluster.slot("finalized")
        create, table = create_lookup_table(
            CreateLookupTableParams(
                authority_address=self.key, payer_address=self.key, recent_slot=recent
            )
        )
        extend = extend_lookup_table(
            ExtendLookupTableParams(
                lookup_table_address=table,
                authority_address=self.key,
                payer_address=self.key,
                new_addresses=list(keys),
            )
        )
        landed = await self.run(create, extend)
        await self.cluster.slot_after(landed.slot)  # only the next slot may look things up in it
        return AddressLookupTableAccount(key=table, addresses=list(keys))

    def _message(
        self,
        instructions: Sequence[Instruction],
        version: Version,
        lookup_tables: Sequence[AddressLookupTableAccount],
        blockhash: Hash,
    ) -> Message | MessageV0 | MessageV1:
        match version:
            case "legacy":
                return Message.new_with_blockhash(instructions, self.key, blockhash)
            case 0:
                return MessageV0.try_compile(self.key, instructions, lookup_tables, blockhash)
            case 1:
                return MessageV1.try_compile(self.key, instructions, blockhash, _BUDGET)
            case _:
                assert_never(version)
