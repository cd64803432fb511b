"""Paid in the plain ways: settled, with every event once."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from indexer.core.creation import solana_pay_url
from indexer.core.types import Paid, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from tests.scenario.deployment import Deployment


CREATED, DETECTED = "payment.created", "payment.detected"
PARTIALLY_PAID, SETTLED = "payment.partially_paid", "payment.settled"


async def test_sol_paid_in_full_is_settled(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path
) -> None:
    async with Deployment.over(surfnet, tmp_path) as deployment:
        payment = await deployment.create("0.25")
        await deployment.start()
        signature = await wallet.pay(solana_pay_url(payment))
        record = await deployment.until(payment, Status.SETTLED)

        assert record.payment.state.paid is Paid.EXACT
        assert [v.signature for v in record.verdicts] == [signature]
        assert record.sightings == ()
        assert await deployment.events(payment) == [CREATED, DETECTED, SETTLED]


async def test_tokens_paid_in_two_parts_are_settled(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path
) -> None:
    token = await wallet.create_token(decimals=6, supply=10_000_000)
    async with Deployment.over(surfnet, tmp_path, tokens={"USDC": str(token.mint)}) as deployment:
        await deployment.start()
        payment = await deployment.create("3", "USDC", memo="order 7")
        url = solana_pay_url(payment)
        first = await wallet.pay(url, token=token, amount=1_000_000)
        await deployment.until(payment, lambda record: record.payment.state.received > 0)
        second = await wallet.pay(url, token=token, amount=2_000_000)
        record = await deployment.until(payment, Status.SETTLED)

        assert [(v.signature, v.credit) for v in record.verdicts] == [
            (first, 1_000_000),
            (second, 2_000_000),
        ]
        assert record.payment.state.settled_at == record.verdicts[1].block_time
        assert await deployment.events(payment) == [
            CREATED,
            DETECTED,
            PARTIALLY_PAID,
            DETECTED,
            SETTLED,
        ]


async def test_an_event_says_which_transaction_and_where_the_payment_stands(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path
) -> None:
    async with Deployment.over(surfnet, tmp_path) as deployment:
        await deployment.start()
        payment = await deployment.create("0.25")
        signature = await wallet.pay(solana_pay_url(payment))
        record = await deployment.until(payment, Status.SETTLED)
        stored = await deployment.stored_events(payment)

    told = [json.loads(event.data) for event in stored]
    assert [event.version for event in stored] == [1, 2, 3]
    assert [each["payment"]["status"] for each in told] == ["pending", "processing", "settled"]
    assert [each["payment"]["received"] for each in told] == ["0", "0", "0.25"]
    assert [each.get("signature") for each in told] == [None, signature, signature]
    assert [each["payment"]["version"] for each in told] == [1, 2, 3]
    assert record.payment.version == 3


@pytest.mark.parametrize("count", [40])
async def test_many_payments_at_once_settle_each_once(
    surfnet: Surfnet, cluster: Cluster, tmp_path: Path, count: int
) -> None:
    async with Deployment.over(surfnet, tmp_path) as deployment:
        await deployment.start()
        payers = await Wallet.many(cluster, count)
        payments = [await deployment.create("0.01") for _ in payers]
        await asyncio.gather(
            *(
                payer.pay(solana_pay_url(payment))
                for payer, payment in zip(payers, payments, strict=True)
            )
        )
        await asyncio.gather(*(deployment.until(each, Status.SETTLED) for each in payments))
        await deployment.swept_past(await cluster.slot())

        for payment in payments:
            events = Counter(await deployment.events(payment))
            assert events[CREATED] == events[SETTLED] == 1
            assert events.total() == 2 + events[DETECTED] <= 3
