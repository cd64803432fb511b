"""The people and payments that the core's tests tell of, and short ways to judge a transaction."""

from collections.abc import Mapping
from typing import Any

import msgspec

from indexer.core.decode import decode_transaction
from indexer.core.payment import Asset, Terms
from indexer.core.transaction import Transaction
from indexer.core.types import TOKEN_PROGRAM
from indexer.core.verdict import Evidence, Verdict
from indexer.core.verify import verify
from tests.chain import ata, key


SHOP = key("shop")
BUYER = key("buyer")
STRANGER = key("stranger")
ORDER = key("order")
OTHER_ORDER = key("other order")
WATCH_KEY = key("watch key")
USDC = key("usdc")

AMOUNT = 1_000
CREATED_AT = 1_790_000_000
EXPIRES_AT = CREATED_AT + 900
GRACE_S = 3_600

SOL = Asset(symbol="SOL", mint=None, decimals=9, token_program=None)


def in_sol(amount: int = AMOUNT, *, reference: str = ORDER, recipient: str = SHOP) -> Terms:
    """A payment of lamports to the shop."""
    return _terms(SOL, amount, reference, recipient, None)


def in_tokens(
    amount: int = AMOUNT,
    *,
    mint: str = USDC,
    program: str = TOKEN_PROGRAM,
    reference: str = ORDER,
    recipient: str = SHOP,
) -> Terms:
    """A payment of a token to the shop's associated token account."""
    asset = Asset(symbol="USDC", mint=mint, decimals=6, token_program=program)
    return _terms(asset, amount, reference, recipient, ata(recipient, mint, program))


def _terms(
    asset: Asset, amount: int, reference: str, recipient: str, token_account: str | None
) -> Terms:
    return Terms(
        id=f"pay_{reference[:26].lower()}",
        asset=asset,
        recipient=recipient,
        token_account=token_account,
        amount=amount,
        reference=reference,
        watch_key=WATCH_KEY,
        created_at=CREATED_AT,
        expires_at=EXPIRES_AT,
        grace_s=GRACE_S,
    )


def decoded(landed: Mapping[str, Any]) -> Transaction:
    """The transaction that an answer of getTransaction tells of, which must be complete."""
    transaction = decode_transaction(msgspec.json.encode(landed))
    assert isinstance(transaction, Transaction)
    return transaction


def judged(landed: Mapping[str, Any], *payments: Terms) -> tuple[Verdict, ...]:
    """The verdicts on a transaction, in the order of the payments."""
    verdicts = verify(payments, decoded(landed), block_time=CREATED_AT + 60)
    by_payment = {verdict.payment_id: verdict for verdict in verdicts}
    return tuple(by_payment[terms.id] for terms in payments)


def verdict(
    credit: int = AMOUNT,
    *,
    name: str = "paying",
    slot: int = 100,
    index: int | None = 0,
    block_time: int | None = CREATED_AT + 60,
    clean: bool = True,
    reasons: tuple[Any, ...] = (),
    payment_id: str = "",
) -> Verdict:
    """A verdict, for tests of what follows from verdicts."""
    return Verdict(
        payment_id=payment_id or in_sol().id,
        signature=name,
        slot=slot,
        index=index,
        block_time=block_time,
        credit=credit,
        clean=clean,
        reasons=reasons,
        evidence=Evidence(bound=credit, delta=credit),
    )
