"""Indexer and API as processes of their own, on one database: they meet in it."""

import asyncio
import os
import signal
import subprocess

import aiohttp
import pytest
from solders.keypair import Keypair

from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from tests.ports import free_port
from tests.rates import UNLIMITED
from tests.scenario.deployment import PATIENCE_S, SIGNING_KEY
from tests.scenario.serving import AXIOMPAY, axiompay


@pytest.fixture
def environment(surfnet: Surfnet, database_url: str) -> dict[str, str]:
    return os.environ | {
        "AXIOM_DATABASE_URL": database_url,
        "AXIOM_WEBHOOK_SIGNING_KEYS": SIGNING_KEY,
        "AXIOM_RPC_URLS": surfnet.rpc_url,
        "AXIOM_WS_URLS": surfnet.ws_url,
        "AXIOM_TOKENS": "SOL",
        "AXIOM_PORT": str(free_port()),
        "AXIOM_RATE_LIMIT": str(UNLIMITED),
    }


async def test_a_stream_of_one_process_tells_what_the_other_settled(
    environment: dict[str, str], wallet: Wallet
) -> None:
    axiompay(environment, "migrate")
    key = axiompay(environment, "keys", "create", "shop", "--scopes", "payments:write")
    url = f"http://127.0.0.1:{environment['AXIOM_PORT']}"
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "order-1"}
    order = {"amount": "0.5", "token": "SOL", "recipient": str(Keypair().pubkey())}
    processes = [
        subprocess.Popen([AXIOMPAY, name], env=environment, stdout=subprocess.DEVNULL)
        for name in ("indexer", "api")
    ]
    try:
        async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession(url) as session:
            await until_alive(session)
            async with session.post("/api/pay", json=order, headers=headers) as answer:
                payment = await answer.json()
            async with session.get(f"/api/sse/payments/{payment['id']}") as stream:
                await wallet.pay(payment["url"])
                # The server closes once the payment is final: the loop ends by itself.
                heard = [line async for line in stream.content if line.startswith(b"event:")]
            async with session.get(f"/api/pay/{payment['id']}") as answer:
                final = await answer.json()
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(PATIENCE_S) for process in processes]

    assert heard[0] == b"event: payment\n"
    assert heard[-1] == b"event: payment.settled\n"
    assert (final["status"], final["paid"]) == ("settled", "exact")
    assert codes == [0, 0]


async def until_alive(session: aiohttp.ClientSession) -> None:
    while True:
        try:
            async with session.get("/livez") as answer:
                assert answer.status == 200
                return
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.1)
