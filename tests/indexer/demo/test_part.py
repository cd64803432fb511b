import asyncio
from typing import Any

import pytest
from solders.keypair import Keypair

from indexer.core.solana_pay import TransferRequest, encode
from indexer.core.types import Paid, Status
from indexer.demo.cluster import Cluster
from indexer.demo.part import Part
from indexer.demo.stories import stories
from indexer.demo.wallet import Wallet


STORY = stories("T")[0]
STATE = {"status": "pending", "paid": "none", "late": False, "received": "0", "review": []}
SETTLED = {**STATE, "status": "settled", "paid": "exact", "received": STORY.received}


class Ticking:
    """A clock that is one second on each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def part(wallet: Wallet) -> Part:
    url = encode(
        TransferRequest(
            recipient=str(Keypair().pubkey()),
            amount="0.25",
            references=(str(Keypair().pubkey()),),
        )
    )
    payment = {"id": "pay_x", "amount_base_units": "250000000", "url": url}
    return Part(STORY, payment, wallet, None, Ticking())


async def test_it_pays_what_the_url_asks_for_or_what_it_is_told(wallet: Wallet) -> None:
    one = part(wallet)
    before = await wallet.cluster.lamports(wallet.key)

    await one.pay()
    await one.pay(1_000_000)

    async with asyncio.timeout(90):
        while await wallet.cluster.lamports(wallet.key) != before - 251_000_000 - 2 * 5_000:
            await asyncio.sleep(0.05)


async def test_a_failing_transfer_moves_nothing(wallet: Wallet) -> None:
    before = await wallet.cluster.lamports(wallet.key)

    await part(wallet).fail()

    assert await wallet.cluster.lamports(wallet.key) == before - 5_000


async def test_waiting_ends_when_the_shop_hears_it(wallet: Wallet) -> None:
    one = part(wallet)
    waiting = asyncio.gather(one.until(status=Status.SETTLED), one.until(paid=Paid.EXACT))
    await one.hear(STATE)
    await asyncio.sleep(0)
    assert not waiting.done()

    await one.hear(SETTLED)

    async with asyncio.timeout(90):
        await waiting


async def test_times_count_from_the_transfers(wallet: Wallet) -> None:
    one = part(wallet)
    await one.pay()  # at 1
    await one.hear(STATE)  # at 2: created, long before
    await one.hear({**STATE, "status": "processing"})  # at 3
    await one.pay()  # at 4
    await one.hear(SETTLED)  # at 5

    assert (one.row.seen_s, one.row.settled_s) == (2.0, 1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "processing"},
        {"paid": "over"},
        {"late": True},
        {"received": "0.250000001"},
        {"review": ["debited"]},
    ],
)
def test_a_payment_is_right_only_in_every_respect(changes: dict[str, Any]) -> None:
    def verdict(payment: dict[str, Any]) -> bool | None:
        one = part(Wallet(Cluster("http://127.0.0.1:1")))
        one.judge(payment)
        return one.row.right

    assert verdict(SETTLED) is True
    assert verdict({**SETTLED, **changes}) is False
