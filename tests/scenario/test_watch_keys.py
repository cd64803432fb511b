"""Several watch keys over a real runtime: changed under load, retired, and believed in too long."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from api import watch_keys as choosing
from indexer import references, sweep
from indexer.core.creation import reference, solana_pay_url
from indexer.core.types import Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import keys, watch_keys, watching
from store.database import Database, Statement
from store.watch_keys import Purpose
from tests.instructions import key
from tests.ports import free_port
from tests.scenario.deployment import PATIENCE_S, Deployment


#: Of each of two keys, while customers pay with such a pause between two payments.
ROTATIONS = 3
SHARED = 3
PAYERS = 4
PAUSE_S = 0.1
SECRET = keys.new_key(b"w" * 32)


@pytest.fixture(autouse=True)
def _frequent_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "SWEEP_INTERVAL_S", 0.2)


@pytest.fixture
def by_watch_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at a payment's own reference: what is found is found by its watch key."""
    monkeypatch.setattr(references, "CHECKS_PER_ROUND", 0)


@asynccontextmanager
async def served(
    surfnet: Surfnet, folder: Path
) -> AsyncIterator[tuple[Deployment, aiohttp.ClientSession]]:
    """Three shared keys, one API key, and a daemon that serves."""
    async with Deployment.over(surfnet, folder) as deployment:
        database = deployment.database
        for name in ("east", "west"):
            await watch_keys.add(database, fresh(name), name, Purpose.SHARED, now=1)
        scopes = ["payments:write", "payments:read"]
        await keys.create(database, "shop", scopes, key=SECRET, id="key_shop", now=1)
        settings = replace(deployment.settings, port=free_port())
        await deployment.start(api=True, settings=settings)
        headers = {"Authorization": f"Bearer {SECRET}"}
        url = f"http://127.0.0.1:{settings.port}"
        async with aiohttp.ClientSession(url, headers=headers) as session:
            yield deployment, session


def fresh(name: str) -> str:
    return reference(name.encode().ljust(32))


async def carried(database: Database, status: str = "%") -> dict[str, str]:
    """Which key each payment carries, by its id; of those in that status."""
    sql = "SELECT id, watch_key FROM payments WHERE status LIKE ?"
    [rows] = await database.read([Statement(sql, (status,))])
    return dict(rows)


async def sold(session: aiohttp.ClientSession, name: str) -> str:
    """The URL of a new payment."""
    order = {"amount": "0.01", "token": "SOL", "recipient": key("shop")}
    async with session.post("/api/pay", json=order, headers={"Idempotency-Key": name}) as answer:
        assert answer.status == 201, await answer.text()
        return str((await answer.json())["url"])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_keys_are_changed_under_load_and_nothing_is_lost(
    surfnet: Surfnet, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart; the old ones are watched as long as somebody may pay by them."""
    monkeypatch.setattr(choosing, "KEPT_S", 0.2)
    payers, is_over = await Wallet.many(cluster, PAYERS), asyncio.Event()
    async with served(surfnet, tmp_path) as (deployment, session):
        database = deployment.database

        async def each_is_carried() -> bool:
            return len(set((await carried(database)).values())) == SHARED

        async def customer(number: int) -> None:
            for turn in itertools.count():
                await payers[number].pay(await sold(session, f"{number}-{turn}"))
                if is_over.is_set():
                    return
                await asyncio.sleep(PAUSE_S)

        async def rotating() -> None:
            await until(each_is_carried)
            for turn, name in itertools.product(range(ROTATIONS), ("east", "west")):
                made = await watch_keys.rotate(database, name, fresh(f"{name} {turn}"), now=2)
                await until(partial(_is_carried, database, made.key))
            is_over.set()

        async with asyncio.TaskGroup() as group:
            for number in range(PAYERS):
                group.create_task(customer(number))
            group.create_task(rotating())
        by_key = await carried(database)

        async def all_settled() -> bool:
            return await carried(database, "settled") == by_key

        await until(all_settled)
        watched = await watching.watch_keys(database, now=int(time.time()))
        assert set(watched) == set(by_key.values()), "somebody may pay once more"
    assert len(set(by_key.values())) == SHARED + 2 * ROTATIONS, "each key was given to somebody"


async def _is_carried(database: Database, watch_key: str) -> bool:
    return watch_key in (await carried(database)).values()


@pytest.mark.usefixtures("by_watch_key_alone")
async def test_money_that_comes_late_by_a_retired_key_is_found(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Deployment.over(surfnet, tmp_path) as deployment:
        database, old = deployment.database, fresh("old")
        await watch_keys.add(database, old, "old", Purpose.SHARED, now=1)
        deployment.watch_key = old
        payment = await deployment.create("0.01", expires_in_s=1)
        await watch_keys.retire(database, "old", now=2)
        with monkeypatch.context() as for_now:  # its own reference has to be complete to expire
            for_now.setattr(references, "CHECKS_PER_ROUND", 200)
            await deployment.start()
            await deployment.until(payment, Status.EXPIRED)

        await wallet.pay(solana_pay_url(payment))
        record = await deployment.until(payment, Status.SETTLED)

        assert record.payment.state.late
        assert await watching.oldest_payable(database, old, now=int(time.time())) is None


@pytest.mark.usefixtures("by_watch_key_alone")
async def test_a_payment_made_while_its_key_was_retired_is_found(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path
) -> None:
    """The process that made it did not know yet, and nobody watched the key any more."""
    async with Deployment.over(surfnet, tmp_path) as deployment:
        database, old = deployment.database, fresh("believed in")
        await watch_keys.add(database, old, "old", Purpose.SHARED, now=1)
        await watch_keys.retire(database, "old", now=2)
        await deployment.start()
        await deployment.swept_past(0)
        deployment.watch_key = old

        payment = await deployment.create("0.01")
        await wallet.pay(solana_pay_url(payment))

        record = await deployment.until(payment, Status.SETTLED)
        assert record.payment.terms.watch_key == old
