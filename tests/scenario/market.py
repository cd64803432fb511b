"""The people, tokens and payments that the stories are told with, over one running deployment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account
from spl.token import instructions as spl, models

from indexer.core.amounts import format_amount
from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import AMOUNT_MAX
from indexer.demo.cluster import Cluster
from indexer.demo.instructions import MEMO_V1, memo, sol_transfer, with_references
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.tokens import TOKEN_2022, WRAPPED_SOL, Token, TransferFee
from indexer.demo.wallet import Version, Wallet
from tests.scenario.deployment import Deployment
from tests.scenario.forwarder import FORWARDING, NOTHING, deploy


#: What a payment is about unless a story says otherwise: base units of whatever it is made in.
#: As lamports it is more than the rent-exempt minimum.
AMOUNT = 10_000_000

SUPPLY = 10**15
FEE = TransferFee(basis_points=100, maximum=AMOUNT)
TOKEN_ACCOUNT_SIZE = 165

_PERMANENT_DELEGATE = 35
_TRANSFER_HOOK = 36
_EXTENSIONS_AT = TOKEN_ACCOUNT_SIZE + 1


@dataclass(frozen=True, kw_only=True)
class Market:
    """A running deployment, a customer who has some of everything, and the tokens.

    Attributes:
        usdc, lookalike: two mints of the classic program; the second is accepted nowhere.
        modern: a mint of Token-2022.
        taxed: a mint of Token-2022 that keeps a hundredth of every transfer.
        held_back: a mint of Token-2022 whose issuer, the customer, may take anything back.
        whole: a mint without decimals, of which the customer has as much as there can be.
        hooked: a mint of Token-2022 that calls a program at every transfer, `hook`.
        forwarder: a program that calls others; see `tests.scenario.forwarder`.
    """

    deployment: Deployment
    cluster: Cluster
    buyer: Wallet
    usdc: Token
    lookalike: Token
    modern: Token
    taxed: Token
    held_back: Token
    whole: Token
    hooked: Token
    hook: Pubkey
    forwarder: Pubkey

    @classmethod
    @asynccontextmanager
    async def open(cls, surfnet: Surfnet, folder: Path) -> AsyncIterator[Self]:
        """Makes the mints, and starts a daemon that accepts them."""
        async with Cluster(surfnet.rpc_url) as cluster:
            buyer = await Wallet.funded(cluster)
            hook = await deploy(cluster, NOTHING)
            usdc, lookalike, modern, taxed, held_back, whole, hooked = await asyncio.gather(
                buyer.create_token(decimals=6, supply=SUPPLY),
                buyer.create_token(decimals=6, supply=SUPPLY),
                buyer.create_token(decimals=6, supply=SUPPLY, program=TOKEN_2022),
                buyer.create_token(decimals=6, supply=SUPPLY, program=TOKEN_2022, fee=FEE),
                _extended(buyer, bytes([_PERMANENT_DELEGATE, *bytes(buyer.key)])),
                buyer.create_token(decimals=0, supply=AMOUNT_MAX),
                _extended(buyer, bytes([_TRANSFER_HOOK, 0, *bytes(buyer.key), *bytes(hook)])),
            )
            accepted = {
                "USDC": usdc,
                "MODERN": modern,
                "TAXED": taxed,
                "HELD": held_back,
                "WHOLE": whole,
                "HOOKED": hooked,
                "WSOL": WRAPPED_SOL,
            }
            tokens = {symbol: str(token.mint) for symbol, token in accepted.items()}
            async with Deployment.over(surfnet, folder, tokens=tokens) as deployment:
                await deployment.start()
                yield cls(
                    deployment=deployment,
                    cluster=cluster,
                    buyer=buyer,
                    usdc=usdc,
                    lookalike=lookalike,
                    modern=modern,
                    taxed=taxed,
                    held_back=held_back,
                    whole=whole,
                    hooked=hooked,
                    hook=hook,
                    forwarder=await deploy(cluster, FORWARDING),
                )

    # ----------------------------------------------------------------------------- payments

    async def ask(
        self,
        token: Token | None = None,
        amount: int = AMOUNT,
        *,
        to: Pubkey | Keypair | None = None,
        reference: Pubkey | None = None,
        memo: str | None = None,
        expires_in_s: int | None = None,
        grace_s: int | None = None,
    ) -> Payment:
        """A payment of that many base units; None asks for SOL, a new wallet unless `to`."""
        recipient = to.pubkey() if isinstance(to, Keypair) else to
        return await self.deployment.create(
            format_amount(amount, 9 if token is None else token.decimals),
            "SOL" if token is None else str(token.mint),
            recipient=None if recipient is None else str(recipient),
            reference=None if reference is None else str(reference),
            memo=memo,
            expires_in_s=expires_in_s,
            grace_s=grace_s,
        )

    def sol(
        self, payment: Payment, lamports: int = AMOUNT, *, by: Pubkey | None = None
    ) -> Instruction:
        """The transfer that pays in SOL, references and all."""
        transfer = sol_transfer(by or self.buyer.key, recipient(payment), lamports)
        return bound(transfer, payment)

    def tokens(
        self, payment: Payment, token: Token, amount: int = AMOUNT, *, by: Pubkey | None = None
    ) -> Instruction:
        """The transfer that pays in tokens, references and all."""
        return bound(token.transfer(by or self.buyer.key, recipient(payment), amount), payment)

    def account(self, payment: Payment, token: Token) -> Instruction:
        """Makes the recipient's associated token account."""
        return token.create_account(self.buyer.key, recipient(payment))

    async def pays(
        self,
        payment: Payment,
        token: Token | None = None,
        *,
        amount: int | None = None,
        version: Version = 0,
    ) -> str:
        """The customer pays as a wallet does."""
        url = solana_pay_url(payment)
        return await self.buyer.pay(url, token=token, amount=amount, version=version)

    async def lands(self, signature: str) -> str:
        """The signature, once no later transaction can be in its slot."""
        (landed,) = await self.cluster.landed([signature])
        await self.cluster.slot_after(landed.slot)
        return signature

    async def fails(self, *instructions: Instruction, by: Wallet | None = None) -> None:
        """Somebody, the customer unless said, sends what lands and fails."""
        signature = await self.lands(await (by or self.buyer).send(*instructions))
        (landed,) = await self.cluster.landed([signature])
        assert landed.error is not None

    # --------------------------------------------------------------------------- what helps

    async def wallet(self, keypair: Keypair | None = None, *, sol: int = 1) -> Wallet:
        """A wallet that has some SOL and nothing else."""
        wallet = Wallet(self.cluster, keypair)
        await self.cluster.fund_sol(wallet.key, sol * 10**9)
        return wallet

    async def stock(self, token: Token, owner: Pubkey, amount: int = AMOUNT) -> None:
        """Gives somebody an associated token account with that much in it."""
        create = token.create_account(self.buyer.key, owner)
        await self.buyer.run(create, token.transfer(self.buyer.key, owner, amount))

    async def auxiliary_account(self, token: Token, owner: Pubkey, amount: int = 0) -> Pubkey:
        """A token account of that owner that is not the associated one."""
        account = Keypair()
        fill = models.TransferParams(
            program_id=token.program,
            source=token.account(self.buyer.key),
            dest=account.pubkey(),
            owner=self.buyer.key,
            amount=amount,
        )
        await self.buyer.run(
            *await self.open_account(token, account.pubkey(), owner, payer=self.buyer.key),
            spl.transfer(fill),
            signers=[account],
        )
        return account.pubkey()

    async def open_account(
        self, token: Token, account: Pubkey, owner: Pubkey, *, payer: Pubkey
    ) -> list[Instruction]:
        """Makes a token account at any address whose key signs."""
        create = CreateAccountParams(
            from_pubkey=payer,
            to_pubkey=account,
            lamports=await self.cluster.rent_exempt_minimum(TOKEN_ACCOUNT_SIZE),
            space=TOKEN_ACCOUNT_SIZE,
            owner=token.program,
        )
        initialize = models.InitializeAccount3Params(
            program_id=token.program, account=account, mint=token.mint, owner=owner
        )
        return [create_account(create), spl.initialize_account3(initialize)]


def recipient(payment: Payment) -> Pubkey:
    """Who is to be paid."""
    return Pubkey.from_string(payment.terms.recipient)


def names(payment: Payment) -> list[str]:
    """The payment's reference, then the watch key, as in its URL."""
    terms = payment.terms
    return [key for key in (terms.reference, terms.watch_key) if key is not None]


def bound(instruction: Instruction, *payments: Payment) -> Instruction:
    """The instruction with the references of these payments at the end of its accounts."""
    keys = [key for payment in payments for key in names(payment)]
    return with_references(instruction, list(dict.fromkeys(keys)))


def mention(*payments: Payment) -> Instruction:
    """A memo that names the payments: their references are in the transaction, and that is all."""
    return bound(memo("for you", program=MEMO_V1), *payments)


def key(address: Pubkey, *, signer: bool = False, writable: bool = True) -> AccountMeta:
    """An account of an instruction that no library builds."""
    return AccountMeta(address, is_signer=signer, is_writable=writable)


async def _extended(issuer: Wallet, extension: bytes) -> Token:
    """A mint of Token-2022 with an extension, whose issuer may freeze accounts as well.

    `extension` is the data of the instruction that asks for it. All but the tag, and the number
    that may follow that, is what the extension holds.
    """
    mint = Keypair()
    token = Token(mint=mint.pubkey(), decimals=6, program=TOKEN_2022)
    size = _EXTENSIONS_AT + 4 + len(extension) // 32 * 32
    create = CreateAccountParams(
        from_pubkey=issuer.key,
        to_pubkey=token.mint,
        lamports=await issuer.cluster.rent_exempt_minimum(size),
        space=size,
        owner=TOKEN_2022,
    )
    initialize = models.InitializeMint2Params(
        decimals=token.decimals,
        program_id=TOKEN_2022,
        mint=token.mint,
        mint_authority=issuer.key,
        freeze_authority=issuer.key,
    )
    await issuer.run(
        create_account(create),
        Instruction(TOKEN_2022, extension, [key(token.mint)]),
        spl.initialize_mint2(initialize),
        token.create_account(issuer.key, issuer.key),
        token.mint_to(issuer.key, issuer.key, SUPPLY),
        signers=[mint],
    )
    return token
