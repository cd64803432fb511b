"""A thousand payments are made while the daemon is down: nothing is lost, and nobody has to help.

The gap is found, noted and closed by the daemon that starts again. A copy of the database from
before the first of those payments was paid is repaired in another way, from the blocks alone, and
must come to hold the same.
"""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from solders.keypair import Keypair

from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import Commitment
from indexer.demo.cluster import Cluster, Landed
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import cursors, gaps
from store.cursors import Frontier
from store.database import Statement
from store.gaps import Gap, GapReason
from tests.scenario.deployment import PATIENCE_S, Deployment
from tests.servers.proxy import undated_node


AXIOMPAY = Path(sys.executable).with_name("axiompay")

PAYMENTS = 1_000
#: One payer alone becomes slow as its history grows.
PAYERS = 200
AT_ONCE = 20
#: Seconds that settling a thousand, or replaying them, may take on a machine that is busy.
SETTLING_S_MAX = 60.0

#: Everything that must not depend on how it was found: all but versions and times of events.
DUMPED = {
    "payments": (
        "id, status, paid, late, review, received, settled_at, canceled_at, amount, reference",
        "id",
    ),
    "verdicts": ("*", "signature, payment_id"),
    "transfers": ("*", "signature, outer_index, inner_index, sub_index"),
}


async def create_all(deployment: Deployment, recipient: str) -> list[Payment]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def create() -> Payment:
        async with turn:
            return await deployment.create("0.001", recipient=recipient)

    return await asyncio.gather(*(create() for _ in range(PAYMENTS)))


async def pay_all(cluster: Cluster, payments: Sequence[Payment]) -> list[Landed]:
    """Each payer pays some, one after another; returns where they landed, once all are final."""
    wallets = await Wallet.many(cluster, PAYERS)
    turn = asyncio.Semaphore(AT_ONCE)

    async def pay(wallet: Wallet, some: Sequence[Payment]) -> list[str]:
        signatures = []
        for payment in some:
            async with turn:
                signatures.append(await wallet.pay(solana_pay_url(payment)))
        return signatures

    shares = [payments[number::PAYERS] for number in range(PAYERS)]
    paid = await asyncio.gather(*map(pay, wallets, shares))
    landed = await cluster.landed([s for each in paid for s in each], Commitment.FINALIZED)
    assert all(each.error is None for each in landed)
    return landed


def copy_of(path: Path, name: str) -> Path:
    """The database as it is now, in a file of its own."""
    copied = path.with_name(name)
    source, target = apsw.Connection(str(path)), apsw.Connection(str(copied))
    with target.backup("main", source, "main") as backup:
        backup.step()
    source.close()
    target.close()
    return copied


def dump(path: Path) -> str:
    """The rows that matter, in order, as text."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    lines = []
    for table, (columns, order) in DUMPED.items():
        rows = connection.execute(f"SELECT {columns} FROM {table} ORDER BY {order}")  # noqa: S608 - our own words
        lines += [f"{table} {row!r}" for row in rows]
    connection.close()
    return "\n".join(lines)


async def until_settled(deployment: Deployment, count: int) -> None:
    counted = Statement("SELECT status, count(*) FROM payments GROUP BY status")
    async with asyncio.timeout(SETTLING_S_MAX):
        while True:
            [rows] = await deployment.database.read([counted])
            if dict(rows) == {"settled": count}:
                return
            await asyncio.sleep(0.1)


async def until_closed(deployment: Deployment, first_slot: int) -> Gap:
    """The gap of the start that begins there, once it is closed."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for gap in await gaps.listing(deployment.database, 100):
                is_it = gap.reason is GapReason.START and gap.slots.first == first_slot
                if is_it and gap.closed_at is not None:
                    return gap
            await asyncio.sleep(0.1)


async def frontier_of(deployment: Deployment) -> Frontier:
    frontier = await cursors.get(deployment.database, deployment.watch_key)
    assert frontier is not None
    return frontier


async def replay(path: Path, url: str, first_slot: int, last_slot: int) -> None:
    """Runs the command on that database; fails the test when it fails."""
    slots = ["--from-slot", str(first_slot), "--to-slot", str(last_slot)]
    settings = {
        "AXIOM_DATABASE_URL": f"sqlite:///{path}",
        "AXIOM_RPC_URLS": url,
        "AXIOM_RPC_RATE": "0",
        "AXIOM_TOKENS": "SOL",
    }
    others = {name: text for name, text in os.environ.items() if not name.startswith("AXIOM_")}
    process = await asyncio.create_subprocess_exec(
        AXIOMPAY,
        "replay",
        *slots,
        "--strategy",
        "blocks",
        env=others | settings,
        stdout=DEVNULL,
        stderr=PIPE,
    )
    async with asyncio.timeout(SETTLING_S_MAX):
        _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


@pytest.mark.timeout(300)
async def test_a_thousand_payments_in_a_gap_settle_by_themselves_and_by_replay_alike(
    own_surfnet: Surfnet, own_cluster: Cluster, tmp_path: Path
) -> None:
    path, merchant = tmp_path / "axiom.db", Keypair().pubkey()
    await own_cluster.fund_sol(merchant, 10**9)
    async with (
        Deployment.over(own_surfnet, tmp_path) as deployment,
        undated_node(own_surfnet.rpc_url) as url,
    ):
        settings = replace(deployment.settings, rpc_urls=(url,))
        created = await create_all(deployment, str(merchant))
        await deployment.start(settings=settings)
        await deployment.listening()
        await deployment.swept_past(0)
        await deployment.stop()
        before = await frontier_of(deployment)
        empty = copy_of(path, "empty.db")

        landed = await pay_all(own_cluster, created)
        await deployment.start(settings=settings)
        await until_settled(deployment, PAYMENTS)
        gap = await until_closed(deployment, before.slot + 1)
        await deployment.stop()
        last = max(each.slot for each in landed)
        after = await frontier_of(deployment)
        await replay(empty, url, before.slot + 1, last)

        assert before.slot < min(each.slot for each in landed)
        assert gap.key == deployment.watch_key
        assert gap.slots.last >= last
        assert after.slot >= gap.slots.last

    assert dump(empty) == dump(path)
    assert dump(path).count("'settled', 'exact'") == PAYMENTS
