"""Paid in the plain ways: settled, with every event once."""

import json
from pathlib import Path

from indexer.core.creation import solana_pay_url
from indexer.core.types import Paid, Status
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

        stored = await deployment.stored_events(payment)
        told = [json.loads(event.data) for event in stored]
        assert [event.version for event in stored] == [1, 2, 3]
        assert [each["payment"]["version"] for each in told] == [1, 2, 3]
        assert [each["payment"]["status"] for each in told] == ["pending", "processing", "settled"]
        assert [each["payment"]["received"] for each in told] == ["0", "0", "0.25"]
        assert [each.get("signature") for each in told] == [None, signature, signature]


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
