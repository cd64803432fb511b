"""A database that lost its last minutes comes to the same states as the one that lost nothing.

What was paid since is on the chain: the daemon goes on from the frontier of the copy and finds it.
"""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from solders.keypair import Keypair

from api.presentation import payment_body
from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import Paid, Status
from indexer.demo.sqld.launcher import Sqld
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from indexer.settings import Settings
from store import backup, payments, watch_keys
from store.database import Database, Statement
from store.watch_keys import Purpose
from tests.scenario.deployment import SIGNING_KEY, Deployment


#: All that must not depend on when it was found: not versions, and not times of events.
COMPARED = (
    (
        "SELECT id, status, paid, late, review, received, canceled_at, amount, reference, "
        "watch_key, created_at, expires_at FROM payments ORDER BY id"
    ),
    (
        "SELECT signature, payment_id, slot, transaction_index, credit, clean, reasons, evidence "
        "FROM verdicts ORDER BY signature, payment_id"
    ),
    "SELECT * FROM transfers ORDER BY signature, outer_index, inner_index, sub_index",
    "SELECT payment_id, type FROM events WHERE type = 'payment.settled' ORDER BY payment_id",
)
#: Times of blocks. The local runtime tells that of one block in thirty a second earlier beside a
#: signature, where a sweep reads it, than when it is asked for the block's alone.
TIMES = (
    "SELECT settled_at FROM payments WHERE settled_at IS NOT NULL ORDER BY id",
    "SELECT block_time FROM verdicts ORDER BY signature, payment_id",
)


class Copies:
    """Where the database is, and how it is copied: a backup of a file, the folder of a server."""

    def __init__(self, folder: Path, *, on_server: bool) -> None:
        self._folder = folder
        self._server = Sqld(folder / "sqld") if on_server else None
        self.url = f"sqlite:///{folder}/axiom.db"
        if self._server is not None:
            self._server.start()
            self.url = self._server.url

    async def take(self) -> None:
        """As it is now."""
        if self._server is None:
            await backup.take(self.url, self._folder / "copy.db", tell=lambda *_: None)
            return
        self._server.stop()
        shutil.copytree(self._folder / "sqld" / "data", self._folder / "old" / "data")
        self._server.start()

    @asynccontextmanager
    async def put_back(self) -> AsyncIterator[str]:
        """The copy, beside the one that lost nothing."""
        if self._server is None:
            url = f"sqlite:///{self._folder}/old.db"
            now = int(time.time())
            await backup.restore(self._folder / "copy.db", url, now=now, tell=lambda *_: None)
            yield url
            return
        async with Sqld.running(self._folder / "old") as old:
            yield old.url

    def end(self) -> None:
        """The server is there no more."""
        if self._server is not None:
            self._server.kill()


@pytest.fixture(params=["sqlite", "libsql"])
def copies(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    copies = Copies(tmp_path, on_server=request.param == "libsql")
    yield copies
    copies.end()


async def pay(wallet: Wallet, payment: Payment, amount: str = "") -> str:
    url = solana_pay_url(payment)
    return await wallet.pay(url.replace("amount=0.1", f"amount={amount}") if amount else url)


async def states(database: Database) -> list[Any]:
    return await database.read([Statement(sql) for sql in COMPARED])


async def times(database: Database) -> list[Any]:
    found = await database.read([Statement(sql) for sql in TIMES])
    return [time for rows in found for (time,) in rows]


async def test_what_was_paid_since_the_copy_is_found_again(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, copies: Copies
) -> None:
    async with Deployment.over(surfnet, tmp_path, database_url=copies.url) as whole:
        before, after, twice, half, never = [await whole.create("0.1") for _ in range(5)]
        await whole.start()
        await pay(wallet, before)
        await whole.until(before, Status.SETTLED)
        await whole.stop()
        await copies.take()

        await whole.start()
        await pay(wallet, after)
        await pay(wallet, half, "0.04")
        for _ in range(2):
            await pay(wallet, twice)
        await until_all_is_known(whole, after, twice, half)
        await whole.stop()
        kept, kept_times = await states(whole.database), await times(whole.database)

    async with (
        copies.put_back() as url,
        Deployment.over(surfnet, tmp_path, database_url=url) as old,
    ):
        assert (await old.record(after)).payment.state.status is Status.PENDING
        assert await states(old.database) != kept
        await old.start()
        await until_all_is_known(old, after, twice, half)
        await old.stop()

        assert await states(old.database) == kept
        assert await times(old.database) == pytest.approx(kept_times, abs=1)
        audited = json.loads(await axiompay(old.settings, "audit", "--json"))
        assert (audited["payments"], audited["differences"]) == (5, [])
        assert (await old.record(before)).payment.state.status is Status.SETTLED
        assert (await old.record(never)).payment.state.status is Status.PENDING


async def test_a_payment_that_was_lost_as_a_whole_is_put_back_and_settles(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, copies: Copies
) -> None:
    """Created under a key of its time and paid after the copy; then told by its merchant."""
    async with Deployment.over(surfnet, tmp_path, database_url=copies.url) as whole:
        await copies.take()
        whole.watch_key = str(Keypair().pubkey())
        await watch_keys.add(
            whole.database, whole.watch_key, "later", Purpose.SHARED, now=int(time.time())
        )
        lost = await whole.create("0.1")
        await pay(wallet, lost)
        body = payment_body(await whole.record(lost), private=True)

    kept = tmp_path / "kept.jsonl"
    kept.write_bytes(msgspec.json.encode(body) + b"\n")
    async with (
        copies.put_back() as url,
        Deployment.over(surfnet, tmp_path, database_url=url) as old,
    ):
        assert await payments.get(old.database, lost.terms.id) is None
        await old.start()
        for said in ("1 payments put back, 0 were there", "0 payments put back, 1 were there"):
            assert said in await axiompay(old.settings, "payments", "restore", str(kept))
        record = await old.until(lost, Status.SETTLED)
        await old.stop()

        assert record.payment.terms == lost.terms
        assert (await old.events(lost))[0] == "payment.created"
        [known] = [
            each
            for each in await watch_keys.listing(old.database)
            if each.key == lost.terms.watch_key
        ]
        assert known.retired_at is not None


async def axiompay(settings: Settings, *arguments: str) -> str:
    """What a command says."""
    environment = {
        "PATH": os.environ["PATH"],
        "AXIOM_DATABASE_URL": settings.database_url,
        "AXIOM_RPC_URLS": ",".join(settings.rpc_urls),
        "AXIOM_WEBHOOK_SIGNING_KEYS": SIGNING_KEY,
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "indexer", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        out, _ = await child.communicate()
    return out.decode()


async def until_all_is_known(
    deployment: Deployment, after: Payment, twice: Payment, half: Payment
) -> None:
    await deployment.until(after, Status.SETTLED)
    await deployment.until(
        twice, lambda record: record.payment.state.received == 2 * twice.terms.amount
    )
    await deployment.until(half, lambda record: record.payment.state.paid is Paid.PARTIAL)
