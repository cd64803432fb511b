"""A payment: what a merchant asked for, and where it stands.

`Terms` never change after creation; `State` is what the fold in `settle` makes of them.
All times are unix seconds, UTC. All amounts are base units of the asset, 0 … 2^64-1;
`received` is a sum of such amounts and may be larger.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from indexer.core.types import Paid, Provider, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """What is to be paid: native SOL, or one mint.

    Attributes:
        symbol: what a person reads, such as `SOL` or `USDC`; the mint where no name is known.
        mint: base58 of the mint account; None for native SOL.
        decimals: digits after the point of one unit; 9 for SOL.
        token_program: base58 of the program that owns the mint; None for native SOL.
    """

    symbol: str
    mint: str | None
    decimals: int
    token_program: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Everything that decides whether a payment has been made.

    Attributes:
        id: `pay_` and 26 characters.
        asset: in what.
        recipient: base58 of the wallet (or program-derived vault) to be paid.
        token_account: the recipient's associated token account; None for native SOL.
        amount: base units, 1 … 2^64-1.
        reference: base58 of the key that ties a transfer to this payment.
        watch_key: base58 of the deployment's key that stands beside the reference in the URL;
            None when the URL was made elsewhere and cannot be relied on to carry it.
        created_at: unix seconds.
        expires_at: unix seconds; money in a block after this time is late.
        grace_s: seconds after `expires_at` in which late money still settles by itself.
    """

    id: str
    asset: Asset
    recipient: str
    token_account: str | None
    amount: int
    reference: str
    watch_key: str | None
    created_at: int
    expires_at: int
    grace_s: int


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
class Payment:
    """Terms, state, and what the merchant wanted to remember.

    Attributes:
        version: 1 at creation, one more with every stored change; guards concurrent writers.
        order_id: the merchant's own number; not shown without a key.
        metadata: the merchant's own notes; not shown without a key.
    """

    terms: Terms
    state: State = field(default_factory=State)
    version: int = 1
    provider: Provider = Provider.SOLANA
    order_id: str | None = None
    label: str | None = None
    message: str | None = None
    memo: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
