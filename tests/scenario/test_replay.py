"""On a real runtime a replay from nothing ends where the daemon ended, row for row."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from indexer.core.creation import solana_pay_url
from indexer.core.types import Commitment, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from indexer.hearing import ROUNDED_S
from indexer.sources.rpc import Rpc
from store.database import Database, Statement, open_database
from tests.scenario.copies import NAMES, copied, opened
from tests.scenario.deployment import SIGNING_KEY, Deployment


ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 90
LAMPORTS = 10**9
#: Beside the others, each paid in full.
CROWD = 20

#: All that is stored of payments but the times and steps by which we learned of it.
TABLES = {
    "payments": "id, status, paid, late, review, received, canceled_at",
    "verdicts": "signature, payment_id, slot, transaction_index, credit, clean, reasons, evidence",
    "transfers": "*",
}
#: The times that follow from those of blocks. This runtime rounds the time of a block in one way
#: in a list of signatures, and in another when it is asked for the block's.
TIMES = (
    "SELECT id, settled_at FROM payments WHERE settled_at IS NOT NULL"
    " UNION ALL SELECT signature || payment_id, block_time FROM verdicts"
)


async def stored(url: str) -> dict[str, list[Any]]:
    batch = [Statement(f"SELECT {columns} FROM {table}") for table, columns in TABLES.items()]  # noqa: S608 - our own words
    async with read(url) as database:
        found = await database.read(batch)
    return {table: sorted(rows, key=repr) for table, rows in zip(TABLES, found, strict=True)}


async def times(url: str) -> dict[str, int]:
    async with read(url) as database:
        [rows] = await database.read([Statement(TIMES)])
    return {str(key): int(time) for key, time in rows}


@asynccontextmanager
async def read(url: str) -> AsyncIterator[Database]:
    database = await open_database(url, readers=1)
    try:
        yield database
    finally:
        await database.close()


async def replay(surfnet: Surfnet, url: str, *arguments: str) -> dict[str, Any]:
    inherited = {name: each for name, each in os.environ.items() if not name.startswith("AXIOM_")}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "indexer",
        "replay",
        *arguments,
        "--json",
        cwd=ROOT,
        env={
            **inherited,
            "AXIOM_DATABASE_URL": url,
            "AXIOM_RPC_URLS": surfnet.rpc_url,
            "AXIOM_RPC_RATE": "0",
            "AXIOM_WEBHOOK_SIGNING_KEYS": SIGNING_KEY,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, err = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise
    assert child.returncode == 0, err.decode()
    return dict(json.loads(out))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name_of_place", NAMES)
async def test_both_strategies_end_where_the_daemon_did(
    own_surfnet: Surfnet, own_cluster: Cluster, tmp_path: Path, name_of_place: str
) -> None:
    place = tmp_path / name_of_place
    async with (
        opened(place) as (url, _),
        Deployment.over(own_surfnet, tmp_path, database_url=url) as deployment,
    ):
        wallets = await Wallet.many(own_cluster, 5 + CROWD)  # each has one SOL
        plans = [
            (await deployment.create("0.1"), [LAMPORTS // 10]),
            (await deployment.create("0.2"), [LAMPORTS // 10, LAMPORTS // 10]),
            (await deployment.create("0.3"), [1, 3 * LAMPORTS // 10]),
            (await deployment.create("0.4"), [4 * LAMPORTS // 10, 4 * LAMPORTS // 10]),
            (await deployment.create("0.5"), [LAMPORTS // 10]),
            *[(await deployment.create("0.1"), [LAMPORTS // 10]) for _ in range(CROWD)],
        ]
        signatures = []
        for number, (payment, amounts) in enumerate(plans):
            # One lamport cannot open an account.
            await own_cluster.fund_sol(Pubkey.from_string(payment.terms.recipient), LAMPORTS)
            asked, wallet = solana_pay_url(payment), wallets[number]
            signatures += [await wallet.pay(asked, amount=amount) for amount in amounts]
        await own_cluster.landed(signatures, Commitment.FINALIZED)
    copies = {name: copied(place, tmp_path / name) for name in ("blocks", "signatures")}
    async with (
        opened(place) as (url, _),
        Deployment.over(own_surfnet, tmp_path, database_url=url) as deployment,
    ):
        await deployment.start()
        for number, (payment, _) in enumerate(plans):
            if number == 4:
                await deployment.until(payment, lambda r: r.payment.state.received > 0)
            else:
                await deployment.until(payment, Status.SETTLED)
        await deployment.stop()
        live, live_times = await stored(url), await times(url)

    async with Rpc([own_surfnet.rpc_url]) as rpc:
        first, last = await rpc.first_available_block(), await rpc.finalized_slot()
    slots = ("--from-slot", str(first), "--to-slot", str(last))
    reports = {}
    for name, copy in copies.items():
        async with opened(copy) as (url, _):
            dry = await replay(own_surfnet, url, *slots, "--strategy", name, "--dry-run")
            untouched = await stored(url)
            reports[name] = await replay(own_surfnet, url, *slots, "--strategy", name)
            healed, healed_times = await stored(url), await times(url)

        assert untouched["verdicts"] == []
        assert dry["outcomes"]["would_credit"] == len(signatures)
        assert reports[name]["outcomes"]["credited"] == len(signatures)
        assert healed == live, name
        assert healed_times == {
            what: pytest.approx(time, abs=ROUNDED_S) for what, time in live_times.items()
        }

    assert reports["blocks"]["blocks"] == last - first + 1
    assert reports["blocks"]["transactions"] >= len(signatures)
