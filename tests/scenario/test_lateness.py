"""Deadlines are kept by the chain's time, and only once everything before them is known."""

import asyncio
import time
from pathlib import Path

import pytest
import pytest_asyncio

from indexer import sweep
from indexer.core.creation import solana_pay_url
from indexer.core.types import Commitment, Reason, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from tests.scenario.deployment import Deployment
from tests.scenario.stories_of_time import OF_TIME
from tests.scenario.story import Outcomes, outcomes, tell


CREATED, EXPIRED, SETTLED = "payment.created", "payment.expired", "payment.settled"

#: The runtime is off by up to a twentieth of what it has travelled.
HOUR_S, DAY_S = 3_600, 86_400


@pytest.fixture(autouse=True)
def _frequent_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "SWEEP_INTERVAL_S", 0.2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(surfnet: Surfnet, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Apart from the other stories: who is held up by those would come late himself."""
    return await tell(surfnet, tmp_path_factory.mktemp("lateness"), OF_TIME)


@pytest.mark.parametrize("name", OF_TIME)
def test_around_the_deadline(told: Outcomes, name: str) -> None:
    for outcome in outcomes(told, name):
        assert outcome.seen == outcome.expected
        assert outcome.faults == []


async def test_what_was_paid_in_time_settles_however_late_we_learn_of_it(
    own_surfnet: Surfnet, own_cluster: Cluster, tmp_path: Path
) -> None:
    """Nobody was watching while it was paid and while its time ran out."""
    payer = await Wallet.funded(own_cluster)
    async with Deployment.over(own_surfnet, tmp_path) as deployment:
        payment = await deployment.create("0.01")
        signature = await payer.pay(solana_pay_url(payment))
        await own_cluster.landed([signature], Commitment.FINALIZED)
        await own_cluster.travel_to_time(payment.terms.expires_at + HOUR_S)
        await _until_block_time(own_cluster, payment.terms.expires_at + 1)
        await deployment.start()

        record = await deployment.until(payment, Status.SETTLED)

        state = record.payment.state
        assert (state.late, state.review) == (False, ())
        assert state.settled_at == record.verdicts[0].block_time
        assert (state.settled_at or 0) <= payment.terms.expires_at
        assert await deployment.events(payment) == [CREATED, SETTLED]


async def test_the_chains_time_decides_and_not_the_machines(
    own_surfnet: Surfnet, own_cluster: Cluster, tmp_path: Path
) -> None:
    """The chain stands still first, and then it is far ahead."""
    payer = await Wallet.funded(own_cluster)
    async with Deployment.over(own_surfnet, tmp_path) as deployment:
        await deployment.start()
        await own_cluster.pause_clock()
        short = await deployment.create("0.01", expires_in_s=1)
        late, hopeless = await deployment.create("0.01"), await deployment.create("0.01")
        while time.time() < short.terms.expires_at + 1:
            await asyncio.sleep(0.1)
        standing_still = await deployment.record(short)
        await own_cluster.resume_clock()
        await deployment.until(short, Status.EXPIRED)

        await own_cluster.travel_to_time(late.terms.expires_at + HOUR_S)
        await deployment.until(late, Status.EXPIRED)
        await payer.pay(solana_pay_url(late))
        in_grace = await deployment.until(late, Status.SETTLED)

        await own_cluster.travel_to_time(hopeless.terms.expires_at + 10 * DAY_S)
        await payer.pay(solana_pay_url(hopeless))
        after_grace = await deployment.until(hopeless, lambda record: bool(record.verdicts))

        assert standing_still.payment.state.status is Status.PENDING
        assert time.time() < late.terms.expires_at
        assert in_grace.payment.state.late
        assert await deployment.events(late) == [CREATED, EXPIRED, SETTLED]
        assert after_grace.payment.state.status is Status.EXPIRED
        assert after_grace.payment.state.review == (Reason.LATE_AFTER_GRACE,)


async def _until_block_time(cluster: Cluster, unix_s: int) -> None:
    """Waits until the chain is final beyond that second."""
    async with asyncio.timeout(90):
        while True:
            slot = await cluster.slot("finalized")
            if int(await cluster.call("getBlockTime", slot) or 0) > unix_s:
                return
            await asyncio.sleep(0.1)
