"""API processes on one database, as they stand behind a load balancer."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from store import migrate
from store.database import open_database
from tests.api.running import make_key
from tests.ports import free_port
from tests.rates import UNLIMITED
from tests.scenario.deployment import PATIENCE_S


AXIOMPAY = Path(sys.executable).with_name("axiompay")


@dataclass
class Server:
    """One `axiompay api`.

    Attributes:
        session: knows its address.
    """

    process: subprocess.Popen[bytes]
    session: aiohttp.ClientSession

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    async def until_alive(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    async with self.session.get("/livez") as answer:
                        assert answer.status == 200
                        return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)


def settings(folder: Path, **more: str) -> dict[str, str]:
    """The environment of every process over the database in the folder; no node answers."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("AXIOM_")}
    return {
        **ours,
        "AXIOM_DATABASE_URL": f"sqlite:///{folder}/axiom.db",
        "AXIOM_RPC_URLS": "http://127.0.0.1:9",
        "AXIOM_RATE_LIMIT": str(UNLIMITED),
        **more,
    }


def axiompay(environment: Mapping[str, str], *arguments: str) -> str:
    """What a command prints; fails the test when it fails."""
    return subprocess.run(
        [AXIOMPAY, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    ).stdout.strip()


async def migrated(environment: Mapping[str, str], *scopes: str) -> str:
    """A new database and an API key named `shop`; returns the key."""
    database = await open_database(environment["AXIOM_DATABASE_URL"], readers=1)
    try:
        await migrate.migrate(database)
        headers = await make_key(database, "shop", *scopes)
    finally:
        await database.close()
    return headers["Authorization"].removeprefix("Bearer ")


@asynccontextmanager
async def both(environment: Mapping[str, str]) -> AsyncIterator[tuple[Server, Server]]:
    """Two processes that answer."""
    async with serving(environment) as first, serving(environment) as second:
        await first.until_alive()
        await second.until_alive()
        yield first, second


@asynccontextmanager
async def serving(environment: Mapping[str, str]) -> AsyncIterator[Server]:
    """A process that has been started; killed at the end, whatever became of it."""
    port = free_port()
    process = subprocess.Popen(
        [AXIOMPAY, "api"],
        env={**environment, "AXIOM_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield Server(process, session)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait, PATIENCE_S)


async def sell(
    server: Server, key: str, once: str, **fields: Any
) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, body and headers of a request for a payment by card."""
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": once}
    body = {"amount": "50", "token": "EGP", "provider": "paymob", **fields}
    async with server.session.post("/api/pay", json=body, headers=headers) as answer:
        return answer.status, await answer.read(), answer.headers.copy()
