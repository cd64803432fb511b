"""Payments whose URL was made elsewhere: nothing but their own reference leads to them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from indexer import sweep, watch
from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.solana_pay import parse
from indexer.core.types import Paid, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import cursors
from tests.scenario.deployment import Deployment


@pytest_asyncio.fixture
async def deployment(
    surfnet: Surfnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Deployment]:
    monkeypatch.setattr(sweep, "SWEEP_INTERVAL_S", 0.5)
    async with Deployment.over(surfnet, tmp_path) as deployment:
        yield deployment


async def test_its_own_subscription_finds_it(
    deployment: Deployment, wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SWEPT_PER_ROUND", 0)
    await deployment.start()
    payment = await _foreign(deployment)
    await deployment.subscribed(payment.terms.reference)

    signature = await wallet.pay(solana_pay_url(payment))

    record = await deployment.until(payment, Status.SETTLED)
    assert [verdict.signature for verdict in record.verdicts] == [signature]
    assert await deployment.events(payment) == [
        "payment.created",
        "payment.detected",
        "payment.settled",
    ]
    assert await cursors.get(deployment.database, payment.terms.reference) is None
