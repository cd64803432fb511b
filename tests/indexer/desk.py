"""What the tests of suggestions and decisions do again and again: money that names nobody.

signature = send(it)                 a transfer to the shop without any reference
await suggest_all(it)                one round of the net that finds it
await desk(it).match(signature, order.terms.id)
"""

from typing import Any

from indexer.core.payment import Asset, Payment
from indexer.core.types import TOKEN_PROGRAM
from indexer.recipients import Recipients
from indexer.review import Review
from tests.chain import (
    key,
    signature_of,
    sol_transfer,
    system_transfer,
    transaction,
)
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    EXPIRES_AT,
    FINAL_SLOT,
    GRACE_S,
    SHOP,
    Stage,
)


MINT = key("usdc")
USDC = Asset(symbol="USDC", mint=MINT, decimals=6, token_program=TOKEN_PROGRAM)
TOO_LATE = EXPIRES_AT + GRACE_S + 1


def desk(it: Stage) -> Review:
    return Review(it.database, it.pipeline, clock=it.clock)


def send(it: Stage, lamports: int = AMOUNT, *, to: str = SHOP, **rest: Any) -> str:
    """A transfer that names nobody; returns its signature."""
    values: dict[str, Any] = {"slot": FINAL_SLOT, "name": f"{to} {lamports} {rest}"} | rest
    landed = sol_transfer(BUYER, to, lamports, **values)
    it.chain.add(landed)
    return signature_of(landed)


async def suggest_all(it: Stage) -> None:
    await Recipients(it.database, it.rpc, it.pipeline, clock=it.clock).round()


async def doubtful(it: Stage, order: Payment, amount: int = AMOUNT, **rest: Any) -> str:
    """Money that came, while a little of the recipient's left in the same transaction."""
    values: dict[str, Any] = {"slot": FINAL_SLOT, "name": f"doubtful {amount} {rest}"} | rest
    landed = transaction(
        [
            system_transfer(BUYER, SHOP, amount + 1, order.terms.reference),
            system_transfer(SHOP, BUYER, 1),
        ],
        **values,
    )
    it.chain.add(landed)
    await it.settle(it.found(landed))
    return signature_of(landed)


async def states(it: Stage) -> dict[str, int]:
    """How many suggestions have each state."""
    found = [state for (state,) in await it.table("suggestions", "state")]
    return {state: found.count(state) for state in set(found)}
