"""From finalized payments on a real runtime to settled payments in the store.

    python -m bench settle

Pays 500 payments on a local Solana runtime and waits until all are final. Then, in turns: a
plain loop that only fetches the same transactions, and the product's sweep of the same payments
in a fresh copy of the database, which lists, fetches, decodes, judges, folds and stores them.
What the difference is, is what being right costs.
"""

import asyncio
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import structlog
import uvloop

from indexer.core import creation, events, ids
from indexer.core.creation import NewPayment, Policy, solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import Commitment, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from indexer.pipeline import Pipeline
from indexer.sources.endpoint import Bounds
from indexer.sources.rpc import Rpc
from indexer.sweep import Sweeper
from indexer.watch import Watched
from store import migrate, payments
from store.database import open_database


PAYMENTS = 500
WALLETS = 50
ROUNDS = 7
CONCURRENCY = 32
LISTED_POLLS_MAX = 300


def main() -> None:
    """Prints payments a second, ours and the plain loop's, and their ratio."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(_main())  # as the product does


async def _main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Surfnet.running() as surfnet, Cluster(surfnet.rpc_url) as cluster:
            watch_key = creation.reference(secrets.token_bytes(32))
            created = await _create(folder / "template.db", watch_key)
            print(f"paying {PAYMENTS} payments on {surfnet.rpc_url} …", file=sys.stderr)
            signatures = await _pay(cluster, created)
            await _all_are_listed(cluster, signatures, watch_key)
            plain, ours = [], []
            for number in range(ROUNDS):
                plain.append(await _plain(surfnet.rpc_url, signatures))
                copy = folder / f"{number}.db"
                shutil.copy(folder / "template.db", copy)
                ours.append(await _ours(surfnet.rpc_url, copy, watch_key))
    fetched, settled = statistics.median(plain), statistics.median(ours)
    print(f"plain loop that only fetches   {fetched:8.0f} transactions/s")
    print(f"sweep to settled in the store  {settled:8.0f} payments/s")
    print(f"ratio                          {settled / fetched:8.2f}")


async def _create(path: Path, watch_key: str) -> list[Payment]:
    """Pending payments in a fresh database."""
    database = await open_database(f"sqlite:///{path}")
    await migrate.migrate(database)
    now = int(time.time())
    policy = Policy(
        recipient=None, tokens={"SOL": None}, expires_in_s=86_400, grace_s=0, watch_key=watch_key
    )
    created = []
    for number in range(PAYMENTS):
        recipient = creation.reference(secrets.token_bytes(32))
        payment, _ = creation.create(
            NewPayment(amount=f"0.01{number:04}", token="SOL", recipient=recipient),  # noqa: S106 - a currency
            policy,
            {recipient: None},
            rent_exempt_minimum=0,
            id=ids.payment_id(secrets.token_bytes(16)),
            fresh_reference=creation.reference(secrets.token_bytes(32)),
            now=now,
        )
        created.append(payment)
    await asyncio.gather(
        *(database.write(payments.insert(p, events.created(p, now))) for p in created)
    )
    await database.close()
    return created


async def _pay(cluster: Cluster, created: Sequence[Payment]) -> list[str]:
    """Many payers: one alone becomes slow as its history grows."""
    wallets = await Wallet.many(cluster, WALLETS)
    signatures: list[str] = []
    for start in range(0, len(created), WALLETS):
        some = created[start : start + WALLETS]
        signatures += await asyncio.gather(
            *(
                wallet.pay(solana_pay_url(payment))
                for wallet, payment in zip(wallets, some, strict=False)
            )
        )
    return signatures


async def _all_are_listed(cluster: Cluster, signatures: Sequence[str], watch_key: str) -> None:
    """Waits until all are final and the runtime lists them, which it does a little later."""
    await cluster.landed(signatures, Commitment.FINALIZED)
    for _ in range(LISTED_POLLS_MAX):
        rows = await cluster.call("getSignaturesForAddress", watch_key, {"commitment": "finalized"})
        if len(rows) == len(signatures):
            return
        await asyncio.sleep(0.1)
    raise SystemExit("the runtime does not list what it finalized")


async def _plain(url: str, signatures: Sequence[str]) -> float:
    """Transactions a second of a loop that fetches and looks at nothing."""
    turn = asyncio.Semaphore(CONCURRENCY)
    options = {
        "commitment": "finalized",
        "encoding": "json",
        "maxSupportedTransactionVersion": 1,
    }

    async def fetch(session: aiohttp.ClientSession, signature: str) -> None:
        request = {"jsonrpc": "2.0", "id": 1, "method": "getTransaction"}
        async with (
            turn,
            session.post(url, json=request | {"params": [signature, options]}) as answer,
        ):
            await answer.read()

    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:
        began = time.perf_counter()
        await asyncio.gather(*(fetch(session, signature) for signature in signatures))
        return len(signatures) / (time.perf_counter() - began)


async def _ours(url: str, path: Path, watch_key: str) -> float:
    """Payments a second of one complete sweep, from a pending database to a settled one."""
    database = await open_database(f"sqlite:///{path}")
    bounds = Bounds(concurrency=CONCURRENCY, rate=0)
    async with Rpc([url], bounds=bounds) as rpc:
        pipeline = Pipeline(database, rpc, clock=time.time, wake=lambda: None)
        watched = Watched(database, [watch_key], clock=time.time)
        sweeper = Sweeper(database, rpc, pipeline, watched.next_to_sweep, clock=time.time)
        began = time.perf_counter()
        await sweeper.sweep(watch_key)
        rate = PAYMENTS / (time.perf_counter() - began)
    counts = await payments.counts(database)
    assert counts[Status.SETTLED] == PAYMENTS, counts
    await database.close()
    return rate


if __name__ == "__main__":
    main()
