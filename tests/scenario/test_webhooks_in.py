"""A webhook alone leads to a settled payment; a lie leads to nothing; a death loses nothing.

Nobody listens and nobody sees: the WebSocket leads nowhere, and the node lists no signatures of
any key. So what is settled here was told of by the webhook and by nobody else.

On a libSQL server without the two that only wait for nothing to happen, and half of the deaths.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import Commitment, Paid, Status, WebhookVerdict
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from indexer.settings import Settings
from store import webhook_events
from store.webhook_events import Entry
from tests.chain import key
from tests.indexer.stage import forged
from tests.ports import free_port
from tests.scenario.deployment import PATIENCE_S, SIGNING_KEY, Deployment
from tests.servers.proxy import blind_node


ROOT = Path(__file__).resolve().parents[2]
NOBODY = "ws://127.0.0.1:1"
SECRET = "what-helius-was-told-to-send"
CREATED, DETECTED, SETTLED = "payment.created", "payment.detected", "payment.settled"


@asynccontextmanager
async def deaf_and_blind(
    surfnet: Surfnet, folder: Path, database_url: str, *, refuses: bool = False
) -> AsyncIterator[Deployment]:
    """A deployment that learns of nothing by itself; no daemon runs yet."""
    async with (
        blind_node(surfnet.rpc_url, refuses=refuses) as url,
        Deployment.over(surfnet, folder, database_url=database_url) as deployment,
    ):
        deployment.settings = replace(
            deployment.settings,
            rpc_urls=(url,),
            ws_urls=(NOBODY,),
            port=free_port(),
            helius_webhook_secrets=(SECRET,),
        )
        yield deployment


async def post(settings: Settings, body: Any, *, secret: str = SECRET) -> int:
    """Sends it as Helius does; the status of the answer."""
    url = f"http://127.0.0.1:{settings.port}/api/webhooks/helius"
    async with (
        aiohttp.ClientSession(headers={"Authorization": secret}) as session,
        session.post(url, json=body) as response,
    ):
        return response.status


async def raw(surfnet: Surfnet, signature: str) -> list[dict[str, Any]]:
    """What Helius sends of a transaction: raw, once it is confirmed."""
    async with Cluster(surfnet.rpc_url) as cluster:
        await cluster.landed([signature], Commitment.CONFIRMED)
    options = {
        "encoding": "json", "commitment": "confirmed", "maxSupportedTransactionVersion": 1,
    }  # fmt: skip
    question = {
        "jsonrpc": "2.0", "id": 1, "method": "getTransaction", "params": [signature, options],
    }  # fmt: skip
    async with (
        aiohttp.ClientSession() as session,
        session.post(surfnet.rpc_url, json=question) as response,
    ):
        landed = (await response.json())["result"]
    assert landed is not None
    return [landed | {"indexWithinBlock": 7}]


def enhanced(signature: str, *accounts: str, amount: int = 10**9, slot: int = 5) -> dict[str, Any]:
    """What Helius says of a transaction in its own words, true or not."""
    return {
        "accountData": [
            {"account": each, "nativeBalanceChange": amount, "tokenBalanceChanges": []}
            for each in accounts
        ],
        "description": f"somebody transferred {amount} SOL",
        "events": {},
        "fee": 5_000,
        "feePayer": key("payer"),
        "instructions": [],
        "nativeTransfers": [
            {"fromUserAccount": key("payer"), "toUserAccount": each, "amount": amount}
            for each in accounts
        ],
        "signature": signature,
        "slot": slot,
        "timestamp": 1_790_000_000,
        "tokenTransfers": [],
        "transactionError": None,
        "type": "TRANSFER",
    }


async def events_in(deployment: Deployment) -> list[Entry]:
    return await webhook_events.page(deployment.database, limit=100)


async def until_ended(deployment: Deployment, count: int = 1) -> list[Entry]:
    """The webhooks that came in, the newest first, once none of them waits."""
    found: list[Entry] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < count or any(e.verdict is WebhookVerdict.WAITING for e in found):
                await asyncio.sleep(0.05)
                found = await events_in(deployment)
    except TimeoutError:
        raise AssertionError(f"they only came to {found}") from None
    return found


async def assert_settled_once(deployment: Deployment, payment: Payment) -> None:
    record = await deployment.until(payment, Status.SETTLED)
    assert record.payment.state.paid is Paid.EXACT
    log = await deployment.events(payment)
    assert log in ([CREATED, DETECTED, SETTLED], [CREATED, SETTLED])


# ------------------------------------------------------------------------------------ alone


@pytest.mark.parametrize("refuses", [False, True], ids=["empty_lists", "no_lists"])
async def test_a_raw_webhook_alone_leads_to_settled(
    refuses: bool, surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with deaf_and_blind(surfnet, tmp_path, database_url, refuses=refuses) as deployment:
        payment = await deployment.create("0.1")
        await deployment.start(api=True)
        signature = await wallet.pay(solana_pay_url(payment))
        body = await raw(surfnet, signature)
        assert (await deployment.record(payment)).payment.state.status is Status.PENDING

        assert await post(deployment.settings, body) == 200

        await assert_settled_once(deployment, payment)
        [event] = await until_ended(deployment)
        assert event.verdict is WebhookVerdict.DONE
        assert event.payment_ids == (payment.terms.id,)


async def test_an_enhanced_webhook_alone_leads_to_settled(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with deaf_and_blind(surfnet, tmp_path, database_url) as deployment:
        payment = await deployment.create("0.1")
        await deployment.start(api=True)
        signature = await wallet.pay(solana_pay_url(payment))
        body = [enhanced(signature, payment.terms.reference, amount=7)]

        assert await post(deployment.settings, body) == 200

        await assert_settled_once(deployment, payment)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_without_a_webhook_nothing_is_learned(
    surfnet: Surfnet, cluster: Cluster, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    """The others prove nothing if this one did."""
    async with deaf_and_blind(surfnet, tmp_path, database_url) as deployment:
        payment = await deployment.create("0.1")
        await deployment.start(api=True)
        signature = await wallet.pay(solana_pay_url(payment))
        [landed] = await cluster.landed([signature], Commitment.FINALIZED)
        await deployment.swept_past(landed.slot)
        await deployment.swept_past(landed.slot + 20)

        assert await deployment.events(payment) == [CREATED]


async def test_one_that_comes_fifty_times_at_once_is_one(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with deaf_and_blind(surfnet, tmp_path, database_url) as deployment:
        payment = await deployment.create("0.1")
        await deployment.start(api=True)
        body = await raw(surfnet, await wallet.pay(solana_pay_url(payment)))

        statuses = await asyncio.gather(*(post(deployment.settings, body) for _ in range(50)))

        assert statuses == [200] * 50
        await assert_settled_once(deployment, payment)
        [event] = await until_ended(deployment)
        assert event.repeats == 49


# -------------------------------------------------------------------------------------- lies


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_lies_lead_to_nothing(
    surfnet: Surfnet, cluster: Cluster, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    """A signature that paid somebody else, one that nobody signed, amounts that nobody sent."""
    async with deaf_and_blind(surfnet, tmp_path, database_url) as deployment:
        payment = await deployment.create("0.1")
        victim = payment.terms
        paid_elsewhere = await deployment.create("0.1")
        await deployment.start(api=True)
        elsewhere = await wallet.pay(solana_pay_url(paid_elsewhere))
        too_little = await wallet.pay(solana_pay_url(payment), amount=1_000_000)
        await cluster.landed([elsewhere, too_little], Commitment.CONFIRMED)
        ours = (victim.reference, victim.recipient, deployment.watch_key)
        lies = [
            [enhanced(elsewhere, *ours)],
            [enhanced(too_little, *ours, amount=victim.amount)],
            [enhanced(forged("never signed"), *ours)],
            [enhanced(elsewhere, *ours, amount=2**64)],
            [{"signature": victim.id, "paymentId": victim.id, "status": "settled"}],
            {"type": "payment.settled", "payment": victim.id, "reference": victim.reference},
        ]

        statuses = [await post(deployment.settings, lie) for lie in lies]

        assert statuses == [200] * len(lies)
        record = await deployment.until(payment, lambda r: r.payment.state.paid is Paid.PARTIAL)
        await deployment.until(paid_elsewhere, Status.SETTLED)
        assert record.payment.state.received == 1_000_000, "what the chain says, and no more"
        assert SETTLED not in await deployment.events(payment)
        await until_put_off(deployment, forged("never signed"))
        assert SETTLED not in await deployment.events(payment)


async def until_put_off(deployment: Deployment, signature: str) -> None:
    """Waits until nothing is open but the one with a signature that may still turn up."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await events_in(deployment)
            waiting = [e for e in found if e.verdict is WebhookVerdict.WAITING]
            if len(waiting) == 1 and signature in (waiting[0].detail or ""):
                return
            await asyncio.sleep(0.05)


async def test_who_does_not_know_the_secret_changes_nothing(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with deaf_and_blind(surfnet, tmp_path, database_url) as deployment:
        payment = await deployment.create("0.1")
        await deployment.start(api=True)
        body = await raw(surfnet, await wallet.pay(solana_pay_url(payment)))

        assert await post(deployment.settings, body, secret="guessed") == 401
        # At most the sample row of the door, which holds nothing of it.
        samples = await events_in(deployment)
        assert all(each.verdict is WebhookVerdict.UNAUTHENTICATED for each in samples)
        assert sum(each.body_bytes for each in samples) == 0

        assert await post(deployment.settings, body) == 200
        await assert_settled_once(deployment, payment)


# ------------------------------------------------------------------------------------- deaths


def environment_of(settings: Settings) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "AXIOM_DATABASE_URL": settings.database_url,
        "AXIOM_RPC_URLS": ",".join(settings.rpc_urls),
        "AXIOM_WS_URLS": ",".join(settings.ws_urls),
        "AXIOM_RPC_RATE": "0",
        "AXIOM_TOKENS": "SOL",
        "AXIOM_PORT": f"{settings.port}",
        "AXIOM_HELIUS_WEBHOOK_SECRETS": SECRET,
        "AXIOM_WEBHOOK_SIGNING_KEYS": SIGNING_KEY,
    }


@asynccontextmanager
async def up(settings: Settings, *death: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`axiompay up` as a process that serves; told to stop at the end, if it is still there."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.scenario.webhook_child",
        *death,
        cwd=ROOT,
        env=environment_of(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await child.stdout.readline() not in {b"ready\n", b""}:
                pass
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await child.communicate()


DEATHS = ("before handle", "before look", "after sight", "after look", "before end", "after end")


@pytest.mark.parametrize(
    ("place", "death"),
    [*(("sqlite", death) for death in DEATHS), *(("libsql", death) for death in DEATHS[::2])],
    indirect=["place"],
)
async def test_killed_after_its_answer_it_is_processed_by_the_next_process_once(
    death: str, surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with deaf_and_blind(surfnet, tmp_path, database_url) as deployment:
        payment = await deployment.create("0.1")
        signature = await wallet.pay(solana_pay_url(payment))
        body = await raw(surfnet, signature)
        async with up(deployment.settings, death, "1") as child:
            assert await post(deployment.settings, body) == 200
            async with asyncio.timeout(PATIENCE_S):
                assert await child.wait() == -signal.SIGKILL
        [event] = await events_in(deployment)
        is_over = death == "after end"
        assert (event.verdict is WebhookVerdict.WAITING) is not is_over

        async with up(deployment.settings):
            await assert_settled_once(deployment, payment)
            [event] = await until_ended(deployment)

        assert event.verdict is WebhookVerdict.DONE
        assert event.payment_ids == (payment.terms.id,)
        verdicts = (await deployment.record(payment)).verdicts
        assert [v.signature for v in verdicts] == [signature]
