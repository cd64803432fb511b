"""Nothing is settled before it is final, whether or not the node tells the two apart.

What is final is what the test says: the node holds it back for as long as it takes the daemon to
look often enough, however slow both are.
"""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from indexer import live, sweep
from indexer.core.creation import solana_pay_url
from indexer.core.types import Commitment, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from indexer.live import Live
from tests.scenario.deployment import PATIENCE_S, Deployment
from tests.servers.proxy import LateNode


#: How often the daemon looks at what is not final, before it is.
LOOKS = 5

either_node = pytest.mark.parametrize("is_strict", [True, False], ids=["strict_node", "early_node"])


@asynccontextmanager
async def deployment_behind(
    surfnet: Surfnet, folder: Path, *, is_strict: bool, ws_url: str | None = None
) -> AsyncIterator[tuple[Deployment, LateNode]]:
    """A daemon that has swept, and listens if it can, and its node: nothing more becomes final."""
    async with (
        LateNode.before(surfnet.rpc_url, is_strict=is_strict) as node,
        Deployment.over(surfnet, folder) as deployment,
    ):
        ws_urls = (ws_url or surfnet.ws_url,)
        settings = replace(deployment.settings, rpc_urls=(node.url,), ws_urls=ws_urls)
        await deployment.start(settings=settings)
        await deployment.swept_past(0)
        if ws_url is None:
            await deployment.listening()
        await node.hold()
        yield deployment, node


@either_node
async def test_a_doorbell_settles_only_what_is_final(
    is_strict: bool,
    surfnet: Surfnet,
    cluster: Cluster,
    wallet: Wallet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "POLL_INTERVAL_S", 0.05)
    looks = count_looks(monkeypatch)
    async with deployment_behind(surfnet, tmp_path, is_strict=is_strict) as (deployment, node):
        payment = await deployment.create("0.1")
        signature = await wallet.pay(solana_pay_url(payment))
        await deployment.until(payment, Status.PROCESSING)
        # By now the other node would give it as finalized, and says so of its slot too.
        (landed,) = await cluster.landed([signature], Commitment.FINALIZED)
        for final in (node.final_up_to, landed.slot - 1):
            node.final_up_to = final
            enough = len(looks) + LOOKS
            async with asyncio.timeout(PATIENCE_S):
                while len(looks) < enough:
                    await asyncio.sleep(0.01)
            record = await deployment.record(payment)

            assert record.payment.state.status is Status.PROCESSING
            assert record.verdicts == ()

        assert looks[-1] == landed.slot - 1
        node.final_up_to = landed.slot
        await deployment.until(payment, Status.SETTLED)


@either_node
async def test_a_sweep_settles_only_what_is_final(
    is_strict: bool,
    surfnet: Surfnet,
    cluster: Cluster,
    wallet: Wallet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No doorbell rings; sweeps pass by many times while the transaction is listed too early."""
    monkeypatch.setattr(sweep, "SWEEP_INTERVAL_S", 0.05)
    async with deployment_behind(
        surfnet, tmp_path, is_strict=is_strict, ws_url="ws://127.0.0.1:1"
    ) as (deployment, node):
        payment = await deployment.create("0.1")
        signature = await wallet.pay(solana_pay_url(payment))
        (landed,) = await cluster.landed([signature], Commitment.FINALIZED)
        for final in range(landed.slot - LOOKS, landed.slot):
            node.final_up_to = final
            await deployment.swept_past(final - 1)
            record = await deployment.record(payment)

            assert record.payment.state.status is Status.PENDING
            assert record.verdicts == ()

        node.final_up_to = landed.slot
        await deployment.until(payment, Status.SETTLED)


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The finalized slots at which the daemon has looked for what to settle, as it goes on."""
    looks: list[int] = []
    look = Live._settle_final

    @functools.wraps(look)
    async def counted(self: Live, finalized: int) -> None:
        await look(self, finalized)
        looks.append(finalized)

    monkeypatch.setattr(Live, "_settle_final", counted)
    return looks
