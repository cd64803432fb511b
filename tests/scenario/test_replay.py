"""On a real runtime a replay from nothing ends where the daemon ended, row for row."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest
from solders.pubkey import Pubkey

from indexer.core.creation import solana_pay_url
from indexer.core.types import Commitment, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from indexer.hearing import ROUNDED_S
from indexer.sources.rpc import Rpc
from tests.scenario.deployment import Deployment


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


def stored(path: Path) -> dict[str, list[Any]]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}"), key=repr)  # noqa: S608 - our own words
            for table, columns in TABLES.items()
        }
    finally:
        connection.close()


def times(path: Path) -> dict[str, int]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return {str(key): int(time) for key, time in connection.execute(TIMES)}
    finally:
        connection.close()


async def replay(surfnet: Surfnet, path: Path, *arguments: str) -> dict[str, Any]:
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
            "AXIOM_DATABASE_URL": f"sqlite:///{path}",
            "AXIOM_RPC_URLS": surfnet.rpc_url,
            "AXIOM_RPC_RATE": "0",
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
async def test_both_strategies_end_where_the_daemon_did(
    own_surfnet: Surfnet, own_cluster: Cluster, tmp_path: Path
) -> None:
    async with Deployment.over(own_surfnet, tmp_path) as deployment:
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
            url = solana_pay_url(payment)
            wallet = wallets[number]
            signatures += [await wallet.pay(url, amount=amount) for amount in amounts]
        await own_cluster.landed(signatures, Commitment.FINALIZED)
    for name in ("blocks", "signatures"):
        shutil.copy(tmp_path / "axiom.db", tmp_path / f"{name}.db")
    async with Deployment.over(own_surfnet, tmp_path) as deployment:
        await deployment.start()
        for number, (payment, _) in enumerate(plans):
            if number == 4:
                await deployment.until(payment, lambda r: r.payment.state.received > 0)
            else:
                await deployment.until(payment, Status.SETTLED)
        await deployment.stop()
        live, live_times = stored(tmp_path / "axiom.db"), times(tmp_path / "axiom.db")

    async with Rpc([own_surfnet.rpc_url]) as rpc:
        first, last = await rpc.first_available_block(), await rpc.finalized_slot()
    slots = ("--from-slot", str(first), "--to-slot", str(last))
    reports = {}
    for name in ("blocks", "signatures"):
        path = tmp_path / f"{name}.db"
        dry = await replay(own_surfnet, path, *slots, "--strategy", name, "--dry-run")
        untouched = stored(path)
        reports[name] = await replay(own_surfnet, path, *slots, "--strategy", name)

        assert untouched["verdicts"] == []
        assert dry["outcomes"]["would_credit"] == len(signatures)
        assert reports[name]["outcomes"]["credited"] == len(signatures)
        assert stored(path) == live, name
        assert times(path) == {
            what: pytest.approx(time, abs=ROUNDED_S) for what, time in live_times.items()
        }

    assert reports["blocks"]["blocks"] == last - first + 1
    assert reports["blocks"]["transactions"] >= len(signatures)
