"""Payments without the watch key are found by a subscription of their own, or by a sweep alone.

What they are found to be is told in `stories_of_foreign_references`, among all the others.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from solders.keypair import Keypair

from indexer import sweep, watch
from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import Paid, Status
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import cursors
from tests.scenario.deployment import Deployment


LAMPORTS = 10_000_000
CREATED, DETECTED, SETTLED = "payment.created", "payment.detected", "payment.settled"


@pytest_asyncio.fixture
async def deployment(
    surfnet: Surfnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Deployment]:
    monkeypatch.setattr(sweep, "SWEEP_INTERVAL_S", 0.2)
    async with Deployment.over(surfnet, tmp_path) as deployment:
        yield deployment


async def test_a_subscription_of_its_own_finds_it(
    deployment: Deployment, wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SWEPT_PER_ROUND", 0)
    older, payment = await _foreign(deployment), await _foreign(deployment)
    await deployment.start()
    newer = await _foreign(deployment)
    await asyncio.gather(*(_heard(deployment, each, wallet) for each in (older, newer)))

    signature = await wallet.pay(solana_pay_url(payment))
    record = await deployment.until(payment, Status.SETTLED)

    assert [verdict.signature for verdict in record.verdicts] == [signature]
    assert record.payment.state.paid is Paid.EXACT
    events = await deployment.events(payment)
    assert [event for event in events if event != DETECTED] == [CREATED, SETTLED]
    assert await cursors.get(deployment.database, payment.terms.reference) is None


async def test_a_sweep_alone_finds_them_a_few_at_a_time(
    deployment: Deployment, wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SUBSCRIPTIONS_MAX", 0)
    monkeypatch.setattr(watch, "SWEPT_PER_ROUND", 3)
    await deployment.start()
    payments = [await _foreign(deployment) for _ in range(8)]

    signatures = [await wallet.pay(solana_pay_url(payment)) for payment in payments]
    records = await asyncio.gather(*(deployment.until(p, Status.SETTLED) for p in payments))

    found = [[(v.signature, v.credit) for v in record.verdicts] for record in records]
    assert found == [[(signature, LAMPORTS)] for signature in signatures]
    assert [await deployment.events(each) for each in payments] == [[CREATED, SETTLED]] * 8


async def _foreign(deployment: Deployment) -> Payment:
    payment = await deployment.create("0.01", reference=str(Keypair().pubkey()))
    assert payment.terms.watch_key is None
    return payment


async def _heard(deployment: Deployment, payment: Payment, wallet: Wallet) -> None:
    """Pays the payment a little, again and again, until it is heard: then it is subscribed to.

    Subscriptions are asked for in order, the newest payment first: when this one is there, those
    are too that were younger when the list was read.
    """
    for _ in range(9):
        await wallet.pay(solana_pay_url(payment), amount=LAMPORTS // 10)
        try:
            async with asyncio.timeout(3):
                await deployment.until(payment, lambda r: bool(r.sightings or r.verdicts))
        except TimeoutError:
            continue
        return
    raise AssertionError("no subscription hears of it")
