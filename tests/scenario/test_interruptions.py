"""The notifications fail, the daemon is away: settled all the same, a little later."""

import asyncio
from dataclasses import replace
from pathlib import Path

from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import Commitment, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import health
from tests.scenario.deployment import PATIENCE_S, Deployment
from tests.servers.proxy import LateNode, Wire, silent_socket


#: A port of loopback on which nobody listens: it is reserved for that.
NOBODY = "ws://127.0.0.1:1"


async def pay_all(wallet: Wallet, created: list[Payment], *, every_s: float = 0.0) -> list[str]:
    signatures = []
    for payment in created:
        signatures.append(await wallet.pay(solana_pay_url(payment)))
        await asyncio.sleep(every_s)
    return signatures


async def assert_settled_once(deployment: Deployment, created: list[Payment]) -> None:
    for payment in created:
        await deployment.until(payment, Status.SETTLED)
        log = await deployment.events(payment)
        assert log.count("payment.settled") == 1
        assert len(log) == len(set(log))


async def problem_of(deployment: Deployment, component: str) -> str:
    """What a part complains of, once it does."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for report in await health.all_of(deployment.database):
                if report.component == component and report.problem is not None:
                    return report.problem
            await asyncio.sleep(0.1)


async def test_the_socket_is_cut_again_and_again(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with (
        Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment,
        Wire.to(surfnet.ws_url) as wire,
    ):
        created = [await deployment.create("0.1") for _ in range(8)]
        await deployment.start(settings=replace(deployment.settings, ws_urls=(wire.url,)))
        paying = asyncio.create_task(pay_all(wallet, created, every_s=0.3))
        async with asyncio.timeout(PATIENCE_S):
            while not paying.done() or wire.passed < 3:
                wire.cut()
                await asyncio.sleep(0.2)
        await paying

        await assert_settled_once(deployment, created)


async def test_nobody_listens_for_the_socket(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment:
        created = [await deployment.create("0.1") for _ in range(3)]
        await deployment.start(settings=replace(deployment.settings, ws_urls=(NOBODY,)))
        await pay_all(wallet, created)

        await assert_settled_once(deployment, created)
        assert await problem_of(deployment, "pubsub:0")


async def test_the_socket_says_nothing(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    """A socket that is open and silent is as good as closed: no slot, no trust."""
    async with (
        Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment,
        silent_socket() as url,
    ):
        created = [await deployment.create("0.1") for _ in range(3)]
        await deployment.start(settings=replace(deployment.settings, ws_urls=(url,)))
        await pay_all(wallet, created)

        await assert_settled_once(deployment, created)
        assert await problem_of(deployment, "pubsub:0")


async def test_the_socket_falls_silent_in_the_middle(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with (
        Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment,
        Wire.to(surfnet.ws_url) as wire,
    ):
        before = await deployment.create("0.1")
        meanwhile = await deployment.create("0.1")
        after = await deployment.create("0.1")
        await deployment.start(settings=replace(deployment.settings, ws_urls=(wire.url,)))
        await pay_all(wallet, [before])
        await deployment.until(before, Status.SETTLED)
        wire.hold()
        await pay_all(wallet, [meanwhile])
        await problem_of(deployment, "pubsub:0")
        wire.release()
        await pay_all(wallet, [after])

        await assert_settled_once(deployment, [before, meanwhile, after])


async def test_the_daemon_starts_after_everything_was_final(
    surfnet: Surfnet, cluster: Cluster, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment:
        created = [await deployment.create("0.1") for _ in range(3)]
        signatures = await pay_all(wallet, created)
        await cluster.landed(signatures, Commitment.FINALIZED)
        await deployment.start()

        await assert_settled_once(deployment, created)


async def test_the_daemon_is_away_while_a_payment_is_on_its_way(
    surfnet: Surfnet, cluster: Cluster, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    """Detected by one daemon, settled by the next; it is not final before the first has gone."""
    async with (
        Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment,
        LateNode.before(surfnet.rpc_url, is_strict=True) as node,
    ):
        payment = await deployment.create("0.1")
        await deployment.start(settings=replace(deployment.settings, rpc_urls=(node.url,)))
        await deployment.listening()
        await node.hold()
        signatures = await pay_all(wallet, [payment])
        await deployment.until(payment, Status.PROCESSING)
        await deployment.stop()
        await cluster.landed(signatures, Commitment.FINALIZED)
        assert (await deployment.record(payment)).payment.state.status is Status.PROCESSING
        await deployment.start()

        await assert_settled_once(deployment, [payment])
        assert (await deployment.record(payment)).sightings == ()


async def test_the_node_says_nothing_for_a_while(
    surfnet: Surfnet, cluster: Cluster, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with (
        Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment,
        Wire.to(surfnet.rpc_url) as wire,
    ):
        created = [await deployment.create("0.1") for _ in range(2)]
        await deployment.start(settings=replace(deployment.settings, rpc_urls=(wire.url,)))
        await pay_all(wallet, created[:1])
        await deployment.until(created[0], Status.SETTLED)
        wire.hold()
        signatures = await pay_all(wallet, created[1:])
        await cluster.landed(signatures, Commitment.FINALIZED)
        assert await deployment.events(created[1]) == ["payment.created"]
        wire.release()

        await assert_settled_once(deployment, created)
