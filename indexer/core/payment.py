"""A payment: what a merchant asked for, and where it stands.

An `Offer` (on the chain: `Terms`) never changes after creation; `State` is what the fold in
`settle` (for cards: `card`) makes of what is known.
All times are unix seconds, UTC. All amounts are base units of the asset, 0 … 2^64-1;
`received` is a sum of such amounts and may be larger.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from indexer.core.types import Paid, Provider, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """What is to be paid: native SOL, one mint, or a currency.

    Attributes:
        symbol: what a person reads, such as `SOL`, `USDC` or `EGP`; the mint where no name is
            known.
        mint: base58 of the mint account; None for native SOL, and for a currency.
        decimals: digits after the point of one unit; 9 for SOL.
        token_program: base58 of the program that owns the mint; None where there is no mint.
    """

    symbol: str
    mint: str | None
    decimals: int
    token_program: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What is asked for, whoever moves the money.

    Attributes:
        id: `pay_` and 26 characters.
        asset: in what.
        amount: base units, 1 … 2^64-1.
        created_at: unix seconds.
        expires_at: unix seconds; money that comes after this time is late.
        grace_s: seconds after `expires_at` in which late money still settles by itself.
    """

    id: str
    asset: Asset
    amount: int
    created_at: int
    expires_at: int
    grace_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms(Offer):
    """Everything that decides whether a payment has been made on the chain.

    Attributes:
        recipient: base58 of the wallet (or program-derived vault) to be paid.
        token_account: the recipient's associated token account; None for native SOL.
        reference: base58 of the key that ties a transfer to this payment.
        watch_key: base58 of the deployment's key that stands beside the reference in the URL;
            None when the URL was made elsewhere and cannot be relied on to carry it.
    """

    recipient: str
    token_account: str | None
    reference: str
    watch_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a payment stands: four separate facts, and when it got there.

    Attributes:
        status: see `Status`.
        paid: how much has arrived against the amount.
        late: the crediting transactions include one in a block after `expires_at`.
        review: why a person must look, sorted; empty when all is well. Values of `Reason`.
        received: base units credited by finalized transactions.
        settled_at: block time of the transaction that completed the amount.
        canceled_at: when the merchant canceled.
    """

    status: Status = Status.PENDING
    paid: Paid = Paid.NONE
    late: bool = False
    review: tuple[str, ...] = ()
    received: int = 0
    settled_at: int | None = None
    canceled_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyPayment:
    """What was offered, where it stands, and what the merchant wanted to remember.

    Attributes:
        version: 1 at creation, one more with every stored change; guards concurrent writers.
        order_id: the merchant's own number; not shown without a key.
        metadata: the merchant's own notes; not shown without a key.
    """

    provider: ClassVar[Provider]

    terms: Offer
    state: State = field(default_factory=State)
    version: int = 1
    order_id: str | None = None
    label: str | None = None
    message: str | None = None
    memo: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment(AnyPayment):
    """A payment on the chain."""

    provider: ClassVar[Provider] = Provider.SOLANA

    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPayment(AnyPayment):
    """A payment by card: its asset is a currency, with the currency's minor units."""

    provider: ClassVar[Provider] = Provider.PAYMOB
