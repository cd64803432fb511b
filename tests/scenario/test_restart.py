"""A restart, such as for a new secret, on a socket that outlives the process."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from tests.scenario.deployment import PATIENCE_S
from tests.scenario.serving import migrated, settings
from tests.scenario.supervised import Supervisor, supervised


RESTARTS = 3
SHOPS = 4


async def until_alive(session: aiohttp.ClientSession) -> None:
    """The first answer: whoever connects before waits in the kernel."""
    async with asyncio.timeout(PATIENCE_S), session.get("/livez") as answer:
        assert answer.status == 200


async def until_counted(counts: Counter[Any], name: str, more: int) -> None:
    wanted = counts[name] + more
    async with asyncio.timeout(PATIENCE_S):
        while counts[name] < wanted:
            await asyncio.sleep(0.01)


async def restarted_under_load(supervisor: Supervisor, counts: Counter[Any], key: str) -> None:
    """Counts statuses while processes come and go.

    Each request has a connection of its own: one that is kept is tried again by the client
    itself when it breaks, and would tell nothing.
    """
    goes_on = True
    headers = {"Authorization": f"Bearer {key}"}

    async def shop(session: aiohttp.ClientSession) -> None:
        while goes_on:
            try:
                async with session.get("/api/pay", headers=headers) as answer:
                    await answer.read()
                    counts[answer.status] += 1
            except aiohttp.ClientError as error:
                counts[type(error)] += 1
            counts["all"] += 1

    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    base = f"http://127.0.0.1:{supervisor.port}"
    async with aiohttp.ClientSession(base, connector=connector, timeout=timeout) as session:
        supervisor.start()
        await until_alive(session)
        shops = [asyncio.create_task(shop(session)) for _ in range(SHOPS)]
        for number in range(RESTARTS):
            await until_counted(counts, "all", 50)
            assert await supervisor.stop() == 0
            supervisor.start(AXIOM_HELIUS_WEBHOOK_SECRETS=f"the-secret-of-start-{number}")
            await until_alive(session)
        await until_counted(counts, "all", 50)
        goes_on = False
        await asyncio.gather(*shops)


async def test_a_restart_under_load_refuses_no_request(tmp_path: Path) -> None:
    environment = settings(tmp_path)
    key = await migrated(environment, "payments:read")
    counts: Counter[Any] = Counter()
    with supervised(environment) as supervisor:
        await restarted_under_load(supervisor, counts, key)

    assert counts[200] >= 50 * (RESTARTS + 1)
    assert counts.keys() == {200, "all"}
