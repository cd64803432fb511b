"""Deadlines: kept by the chain's time, and only once everything before them is known."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from indexer import sweep
from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import Paid, Reason, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import cursors
from store.cursors import Frontier
from store.payments import Record
from tests.scenario.deployment import Deployment


LAMPORTS = 10_000_000
CREATED, DETECTED, EXPIRED = "payment.created", "payment.detected", "payment.expired"
PARTIALLY_PAID, SETTLED = "payment.partially_paid", "payment.settled"
CANCELED, REVIEW = "payment.canceled", "payment.review"
DAY_S = 86_400


@pytest.fixture(autouse=True)
def _frequent_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "SWEEP_INTERVAL_S", 0.5)


@pytest_asyncio.fixture
async def deployment(surfnet: Surfnet, tmp_path: Path) -> AsyncIterator[Deployment]:
    async with Deployment.over(surfnet, tmp_path) as deployment:
        await deployment.start()
        yield deployment


@pytest_asyncio.fixture
async def own_deployment(own_surfnet: Surfnet, tmp_path: Path) -> AsyncIterator[Deployment]:
    async with Deployment.over(own_surfnet, tmp_path) as deployment:
        await deployment.start()
        yield deployment


# ----------------------------------------------------------------------- the chain's own time


async def test_what_nobody_pays_expires(deployment: Deployment) -> None:
    payment = await deployment.create("0.01", expires_in_s=1)

    record = await deployment.until(payment, Status.EXPIRED)

    assert ((await _frontier(deployment)).block_time or 0) > payment.terms.expires_at
    assert (record.payment.state.paid, record.payment.state.late) == (Paid.NONE, False)
    assert await deployment.events(payment) == [CREATED, EXPIRED]


async def test_a_part_that_came_in_time_does_not_keep_it_from_expiring(
    deployment: Deployment, wallet: Wallet
) -> None:
    payment = await deployment.create("0.01", expires_in_s=2)
    await wallet.pay(solana_pay_url(payment), amount=LAMPORTS // 2)

    record = await deployment.until(payment, Status.EXPIRED)

    state = record.payment.state
    assert (state.paid, state.received, state.late) == (Paid.PARTIAL, LAMPORTS // 2, False)
    assert await _undetected(deployment, payment) == [CREATED, PARTIALLY_PAID, EXPIRED]


async def test_what_is_paid_within_the_grace_time_settles_late(
    deployment: Deployment, wallet: Wallet
) -> None:
    payment = await deployment.create("0.01", expires_in_s=1)
    await deployment.until(payment, Status.EXPIRED)
    await wallet.pay(solana_pay_url(payment))

    record = await deployment.until(payment, Status.SETTLED)

    state = record.payment.state
    assert (state.late, state.paid, state.review) == (True, Paid.EXACT, ())
    assert state.settled_at is not None
    assert state.settled_at > payment.terms.expires_at
    assert await deployment.events(payment) == [CREATED, EXPIRED, SETTLED]


async def test_a_rest_that_comes_late_makes_all_of_it_late(
    deployment: Deployment, wallet: Wallet
) -> None:
    payment = await deployment.create("0.01", expires_in_s=2)
    await wallet.pay(solana_pay_url(payment), amount=LAMPORTS - 1)
    await deployment.until(payment, Status.EXPIRED)
    await wallet.pay(solana_pay_url(payment), amount=2)

    record = await deployment.until(payment, Status.SETTLED)

    assert (record.payment.state.late, record.payment.state.paid) == (True, Paid.OVER)
    assert await _undetected(deployment, payment) == [CREATED, PARTIALLY_PAID, EXPIRED, SETTLED]


async def test_what_is_paid_after_the_grace_time_is_for_a_person(
    deployment: Deployment, wallet: Wallet
) -> None:
    payment = await deployment.create("0.01", expires_in_s=1, grace_s=1)
    deadline = payment.terms.expires_at + payment.terms.grace_s
    await deployment.until(payment, Status.EXPIRED)
    await _until_frontier(deployment, block_time=deadline + 1)
    await wallet.pay(solana_pay_url(payment))

    record = await deployment.until(payment, _has_verdict)

    state = record.payment.state
    assert (state.status, state.paid, state.late) == (Status.EXPIRED, Paid.EXACT, True)
    assert state.review == (Reason.LATE_AFTER_GRACE,)
    assert (state.received, state.settled_at) == (LAMPORTS, None)
    assert await deployment.events(payment) == [CREATED, EXPIRED, REVIEW]


async def test_a_part_after_the_grace_time_does_not_complete_it(
    deployment: Deployment, wallet: Wallet
) -> None:
    payment = await deployment.create("0.01", expires_in_s=2, grace_s=1)
    deadline = payment.terms.expires_at + payment.terms.grace_s
    await wallet.pay(solana_pay_url(payment), amount=LAMPORTS - 1)
    await _until_frontier(deployment, block_time=deadline + 1)
    await wallet.pay(solana_pay_url(payment), amount=1)

    record = await deployment.until(payment, lambda r: len(r.verdicts) == 2)

    state = record.payment.state
    assert (state.status, state.paid) == (Status.EXPIRED, Paid.EXACT)
    assert state.review == (Reason.LATE_AFTER_GRACE,)
    assert await _undetected(deployment, payment) == [CREATED, PARTIALLY_PAID, EXPIRED, REVIEW]


async def test_what_was_paid_in_time_settles_however_late_we_learn_of_it(
    surfnet: Surfnet, cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    """Nobody was watching while it was paid and while its time ran out."""
    async with Deployment.over(surfnet, tmp_path) as deployment:
        payment = await deployment.create("0.01", expires_in_s=2)
        signature = await wallet.pay(solana_pay_url(payment))
        await cluster.landed([signature])
        await _until_block_time(cluster, payment.terms.expires_at + 1)
        await deployment.start()

        record = await deployment.until(payment, Status.SETTLED)

        state = record.payment.state
        assert (state.late, state.review) == (False, ())
        assert state.settled_at == record.verdicts[0].block_time
        assert (state.settled_at or 0) <= payment.terms.expires_at
        assert await deployment.events(payment) == [CREATED, SETTLED]


# ---------------------------------------------------------------------------------- canceled


async def test_what_is_canceled_stays_canceled_also_when_it_is_paid(
    deployment: Deployment, wallet: Wallet
) -> None:
    payment = await deployment.create("0.01")
    await deployment.cancel(payment)
    await wallet.pay(solana_pay_url(payment))

    record = await deployment.until(payment, _has_verdict)

    state = record.payment.state
    assert (state.status, state.paid) == (Status.CANCELED, Paid.EXACT)
    assert (state.received, state.review) == (LAMPORTS, (Reason.PAID_AFTER_CANCEL,))
    assert (state.settled_at, state.late) == (None, False)
    assert await deployment.events(payment) == [CREATED, CANCELED, REVIEW]


async def test_what_is_canceled_does_not_expire(deployment: Deployment) -> None:
    canceled = await deployment.create("0.01", expires_in_s=1)
    await deployment.cancel(canceled)
    beside = await deployment.create("0.01", expires_in_s=1)

    await deployment.until(beside, Status.EXPIRED)

    assert (await deployment.record(canceled)).payment.state.status is Status.CANCELED
    assert await deployment.events(canceled) == [CREATED, CANCELED]


# --------------------------------------------------------------------- not the machine's clock


async def test_the_chains_time_decides_when_it_is_ahead_of_the_machines(
    own_deployment: Deployment, own_cluster: Cluster
) -> None:
    payer = await Wallet.funded(own_cluster)
    early, late, hopeless = [await own_deployment.create("0.01") for _ in range(3)]
    await payer.pay(solana_pay_url(early))
    await own_deployment.until(early, Status.SETTLED)

    await own_cluster.travel_to_time(late.terms.expires_at + 10)
    await own_deployment.until(late, Status.EXPIRED)
    await payer.pay(solana_pay_url(late))
    in_grace = await own_deployment.until(late, Status.SETTLED)
    await own_cluster.travel_to_time(hopeless.terms.expires_at + DAY_S + 10)
    await payer.pay(solana_pay_url(hopeless))
    after_grace = await own_deployment.until(hopeless, _has_verdict)

    assert time.time() < late.terms.expires_at
    assert in_grace.payment.state.late
    assert after_grace.payment.state.status is Status.EXPIRED
    assert after_grace.payment.state.review == (Reason.LATE_AFTER_GRACE,)
    assert not (await own_deployment.record(early)).payment.state.late


async def test_nothing_expires_while_the_chain_stands_still(
    own_deployment: Deployment, own_cluster: Cluster
) -> None:
    await _until_frontier(own_deployment, block_time=1)
    payment = await own_deployment.create("0.01", expires_in_s=1)
    await own_cluster.pause_clock()
    while time.time() < payment.terms.expires_at + 2:
        await asyncio.sleep(0.1)
    waiting = await own_deployment.record(payment)
    await own_cluster.resume_clock()

    await own_deployment.until(payment, Status.EXPIRED)

    assert waiting.payment.state.status is Status.PENDING


# ---------------------------------------------------------------------------------- what helps


def _has_verdict(record: Record) -> bool:
    return bool(record.verdicts)


async def _undetected(deployment: Deployment, payment: Payment) -> list[str]:
    """The events without `payment.detected`, which comes only where nobody is slow."""
    return [event for event in await deployment.events(payment) if event != DETECTED]


async def _frontier(deployment: Deployment) -> Frontier:
    async with asyncio.timeout(30):
        while True:
            frontier = await cursors.get(deployment.database, deployment.watch_key)
            if frontier is not None:
                return frontier
            await asyncio.sleep(0.05)


async def _until_frontier(deployment: Deployment, *, block_time: int) -> None:
    async with asyncio.timeout(30):
        while ((await _frontier(deployment)).block_time or 0) < block_time:
            await asyncio.sleep(0.05)


async def _until_block_time(cluster: Cluster, unix_s: int) -> None:
    async with asyncio.timeout(30):
        while True:
            slot = await cluster.slot("finalized")
            if int(await cluster.call("getBlockTime", slot) or 0) > unix_s:
                return
            await asyncio.sleep(0.1)
