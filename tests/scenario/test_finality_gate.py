"""Nothing is settled before it is final, whether or not the node tells the two apart."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from indexer import sweep
from indexer.core.creation import solana_pay_url
from indexer.core.types import Commitment, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import cursors
from tests.scenario.deployment import PATIENCE_S, Deployment
from tests.servers.proxy import strict_node


@pytest.mark.parametrize("is_strict", [True, False], ids=["strict_node", "early_node"])
async def test_settled_only_when_final(
    is_strict: bool, surfnet: Surfnet, cluster: Cluster, wallet: Wallet, tmp_path: Path
) -> None:
    """Looks at the store, then at the chain: what is settled by then must be final by now."""
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(Deployment.over(surfnet, tmp_path))
        url = surfnet.rpc_url
        if is_strict:
            url = await stack.enter_async_context(strict_node(url))
        payment = await deployment.create("0.1")
        await deployment.start(settings=replace(deployment.settings, rpc_urls=(url,)))
        await wallet.pay(solana_pay_url(payment))
        seen_before = 0
        async with asyncio.timeout(PATIENCE_S):
            while True:
                record = await deployment.record(payment)
                finalized = await cluster.slot("finalized")
                if record.payment.state.status is Status.SETTLED:
                    break
                seen_before += record.payment.state.status is Status.PROCESSING
                await asyncio.sleep(0.01)

        assert record.verdicts[0].slot <= finalized
        # It was looked at while it was confirmed and not final: the gate was really tried.
        assert seen_before > 10


@pytest.mark.parametrize("is_strict", [True, False], ids=["strict_node", "early_node"])
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
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(Deployment.over(surfnet, tmp_path))
        url = surfnet.rpc_url
        if is_strict:
            url = await stack.enter_async_context(strict_node(url))
        settings = replace(deployment.settings, rpc_urls=(url,), ws_urls=("ws://127.0.0.1:1",))
        payment = await deployment.create("0.1")
        await deployment.start(settings=settings)
        signature = await wallet.pay(solana_pay_url(payment))
        (landed,) = await cluster.landed([signature], Commitment.CONFIRMED)
        swept: set[int] = set()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                record = await deployment.record(payment)
                frontier = await cursors.get(deployment.database, deployment.watch_key)
                finalized = await cluster.slot("finalized")
                if record.payment.state.status is Status.SETTLED:
                    break
                if frontier is not None and frontier.slot < landed.slot:
                    swept.add(frontier.slot)
                await asyncio.sleep(0.01)

        assert record.verdicts[0].slot == landed.slot <= finalized
        assert len(swept) > 3
