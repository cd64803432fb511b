"""Paid in the plain ways: settled, with every event once.

The node holds finality back until what was paid is detected, however slow the machine is: the
whole way of a payment is to be seen here.
"""

import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from indexer import parts
from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import Paid, Status
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from tests.scenario.deployment import Deployment
from tests.servers.proxy import LateNode


CREATED, DETECTED = "payment.created", "payment.detected"
PARTIALLY_PAID, SETTLED = "payment.partially_paid", "payment.settled"


@pytest.fixture(autouse=True)
def _frequent_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "REPORT_INTERVAL_S", 0.05)


@pytest_asyncio.fixture
async def node(surfnet: Surfnet) -> AsyncIterator[LateNode]:
    async with LateNode.before(surfnet.rpc_url, is_strict=True) as node:
        yield node


async def test_sol_paid_in_full_is_settled(
    surfnet: Surfnet, node: LateNode, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment:
        payment = await deployment.create("0.25")
        await start(deployment, node)
        signature = await seen(deployment, node, payment, wallet.pay(solana_pay_url(payment)))
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
    surfnet: Surfnet, node: LateNode, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    token = await wallet.create_token(decimals=6, supply=10_000_000)
    async with Deployment.over(
        surfnet, tmp_path, database_url=database_url, tokens={"USDC": str(token.mint)}
    ) as deployment:
        await start(deployment, node)
        payment = await deployment.create("3", "USDC", memo="order 7")
        url = solana_pay_url(payment)
        half = wallet.pay(url, token=token, amount=1_000_000)
        first = await seen(deployment, node, payment, half)
        await deployment.until(payment, lambda record: record.payment.state.received > 0)
        rest = wallet.pay(url, token=token, amount=2_000_000)
        second = await seen(deployment, node, payment, rest)
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


async def start(deployment: Deployment, node: LateNode) -> None:
    """A daemon that asks this node, and listens."""
    await deployment.start(settings=replace(deployment.settings, rpc_urls=(node.url,)))
    await deployment.listening()


async def seen(
    deployment: Deployment, node: LateNode, payment: Payment, paying: Awaitable[str]
) -> str:
    """Pays, and lets it become final once it is detected; the signature."""
    await node.hold()
    signature = await paying
    await deployment.until(payment, Status.PROCESSING)
    node.release()
    return signature
