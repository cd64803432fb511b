"""Payments whose URL was made elsewhere: nothing but their own reference leads to them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from solders.keypair import Keypair

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


LAMPORTS = 10_000_000
CREATED, DETECTED = "payment.created", "payment.detected"
EXPIRED, SETTLED = "payment.expired", "payment.settled"


@pytest_asyncio.fixture
async def deployment(
    surfnet: Surfnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Deployment]:
    monkeypatch.setattr(sweep, "SWEEP_INTERVAL_S", 0.5)
    async with Deployment.over(surfnet, tmp_path) as deployment:
        yield deployment


@pytest.fixture
def unswept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SWEPT_PER_ROUND", 0)


@pytest.fixture
def unsubscribed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SUBSCRIPTIONS_MAX", 0)


@pytest.mark.usefixtures("unswept")
async def test_a_subscription_of_its_own_finds_it(deployment: Deployment, wallet: Wallet) -> None:
    older, payment = await _foreign(deployment), await _foreign(deployment)
    await deployment.start()
    await _heard(deployment, older, wallet)

    signature = await wallet.pay(solana_pay_url(payment))
    record = await deployment.until(payment, Status.SETTLED)

    assert [verdict.signature for verdict in record.verdicts] == [signature]
    assert await deployment.events(payment) == [CREATED, DETECTED, SETTLED]
    assert await cursors.get(deployment.database, payment.terms.reference) is None


@pytest.mark.usefixtures("unswept")
async def test_one_that_is_made_while_the_daemon_runs_is_subscribed_to(
    deployment: Deployment, wallet: Wallet
) -> None:
    await deployment.start()
    payment = await _foreign(deployment)

    await _heard(deployment, payment, wallet)
    await wallet.pay(solana_pay_url(payment))
    record = await deployment.until(payment, Status.SETTLED)

    assert record.payment.state.paid is Paid.OVER


@pytest.mark.usefixtures("unsubscribed")
async def test_a_sweep_alone_finds_it(deployment: Deployment, wallet: Wallet) -> None:
    await deployment.start()
    payment = await _foreign(deployment)

    signature = await wallet.pay(solana_pay_url(payment))
    record = await deployment.until(payment, Status.SETTLED)

    assert [verdict.signature for verdict in record.verdicts] == [signature]
    assert record.verdicts[0].credit == LAMPORTS
    assert await deployment.events(payment) == [CREATED, SETTLED]


@pytest.mark.usefixtures("unsubscribed")
async def test_more_than_one_sweep_takes_are_found_in_turn(
    deployment: Deployment, wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SWEPT_PER_ROUND", 3)
    payments = [await _foreign(deployment) for _ in range(8)]
    await deployment.start()

    for payment in payments:
        await wallet.pay(solana_pay_url(payment))
    await asyncio.gather(*(deployment.until(payment, Status.SETTLED) for payment in payments))

    assert [await deployment.events(each) for each in payments] == [[CREATED, SETTLED]] * 8


async def test_one_that_was_paid_before_we_were_told_of_it_settles(
    deployment: Deployment, wallet: Wallet, cluster: Cluster
) -> None:
    merchant, reference = Keypair().pubkey(), Keypair().pubkey()
    url = f"solana:{merchant}?amount=0.01&reference={reference}"
    signature = await wallet.pay(url)
    await cluster.landed([signature])
    await deployment.start()

    payment = await _foreign(deployment, to=str(merchant), reference=str(reference))
    record = await deployment.until(payment, Status.SETTLED)

    assert [verdict.signature for verdict in record.verdicts] == [signature]
    assert record.payment.state.paid is Paid.EXACT


async def test_the_watch_key_of_another_deployment_does_not_matter(
    deployment: Deployment, wallet: Wallet
) -> None:
    """The URL names three keys; ours is the second of them."""
    await deployment.start()
    payment = await _foreign(deployment)
    request = parse(solana_pay_url(payment))
    before, after = (str(Keypair().pubkey()) for _ in range(2))
    url = (
        f"solana:{request.recipient}?amount={request.amount}&reference={before}"
        f"&reference={payment.terms.reference}&reference={after}"
    )

    await wallet.pay(url)
    record = await deployment.until(payment, Status.SETTLED)

    assert record.payment.state.paid is Paid.EXACT


async def test_it_expires_by_a_frontier_of_its_own_and_may_be_paid_late(
    deployment: Deployment, wallet: Wallet
) -> None:
    await deployment.start()
    payment = await _foreign(deployment, expires_in_s=1)
    await deployment.until(payment, Status.EXPIRED)
    frontier = await cursors.get(deployment.database, payment.terms.reference)

    await wallet.pay(solana_pay_url(payment))
    record = await deployment.until(payment, Status.SETTLED)

    assert frontier is not None
    assert frontier.block_time is not None
    assert frontier.block_time > payment.terms.expires_at
    assert record.payment.state.late
    assert await deployment.events(payment) == [CREATED, EXPIRED, SETTLED]


async def _foreign(
    deployment: Deployment,
    *,
    to: str | None = None,
    reference: str | None = None,
    expires_in_s: int | None = None,
) -> Payment:
    payment = await deployment.create(
        "0.01",
        recipient=to or str(Keypair().pubkey()),
        reference=reference or str(Keypair().pubkey()),
        expires_in_s=expires_in_s,
    )
    assert payment.terms.watch_key is None
    return payment


async def _heard(deployment: Deployment, payment: Payment, wallet: Wallet) -> None:
    """Pays the payment a little again and again until it is heard: then it is subscribed to.

    Subscriptions are asked for in order, the newest payment first. So all younger ones are
    subscribed to as well.
    """
    part = LAMPORTS // 10
    for _ in range(9):
        await wallet.pay(solana_pay_url(payment), amount=part)
        try:
            async with asyncio.timeout(3):
                await deployment.until(payment, lambda record: record.payment.state.received > 0)
        except TimeoutError:
            continue
        return
    raise AssertionError("no subscription hears of it")
