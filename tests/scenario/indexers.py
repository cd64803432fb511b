"""Indexer processes on one database, and how they share its work as seen from outside."""

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from indexer.core.creation import reference, solana_pay_url
from indexer.core.payment import Payment
from indexer.core.shares import SHARD_UNITS, key_unit
from indexer.core.standard_webhooks import signing_key
from indexer.core.types import EventType, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import deliveries, leases, watch_keys
from store.database import Database, Statement
from store.deliveries import Delivery, DeliveryState
from store.watch_keys import Purpose
from tests.scenario.deployment import SIGNING_KEY, Deployment
from tests.scenario.serving import settings
from tests.servers.receiver import Post, Receiver
from tests.store.sending import register


ROOT = Path(__file__).resolve().parents[2]
#: The longest that any of this waits for one thing, on a machine that is busy with others.
LIMIT_S = 60.0

#: Written by the database itself, so that no change of hands is missed between two looks.
_HISTORY = """
CREATE TABLE taken (name TEXT NOT NULL, holder TEXT NOT NULL, beats INTEGER NOT NULL) STRICT
"""
_ON_CHANGE = """
CREATE TRIGGER taken_{event} AFTER {event} ON leases WHEN NEW.holder <> ''
BEGIN
    INSERT INTO taken
    SELECT NEW.name, NEW.holder, beats FROM instances WHERE id = NEW.holder;
END
"""


@dataclass
class Worker:
    """One `axiompay indexer` (see `indexer_child.py`).

    Attributes:
        log: what it says, one JSON object a line.
    """

    process: subprocess.Popen[bytes]
    log: Path

    def is_it(self, instance: str) -> bool:
        """Whether an instance is this process."""
        return instance.split(":")[1] == str(self.process.pid)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.to_thread(self.process.wait, LIMIT_S)

    async def kill(self) -> None:
        """As a crash: no handler runs, nothing is given back."""
        self.process.kill()
        await self.ended()

    def said(self, event: str) -> list[dict[str, Any]]:
        """What it said of that, in order."""
        lines = [line for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [said for line in lines if (said := json.loads(line))["event"] == event]


def environment_for(surfnet: Surfnet, folder: Path, database_url: str) -> dict[str, str]:
    """Of every process over the database."""
    return settings(
        folder,
        AXIOM_DATABASE_URL=database_url,
        AXIOM_WEBHOOK_SIGNING_KEYS=SIGNING_KEY,
        AXIOM_WEBHOOK_PRIVATE_NETWORKS="127.0.0.0/8",
        AXIOM_RPC_URLS=surfnet.rpc_url,
        AXIOM_WS_URLS=surfnet.ws_url,
        AXIOM_RPC_RATE="0",
        AXIOM_TOKENS="SOL",
        AXIOM_LOG_FORMAT="json",
    )


@asynccontextmanager
async def working(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Worker]:
    """A process that has been started; killed at the end, whatever became of it."""
    number = len(list(folder.glob("indexer-*.log")))
    log = folder / f"indexer-{number}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.scenario.indexer_child"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    worker = Worker(process, log)
    try:
        yield worker
    finally:
        await worker.kill()


class Holder(Protocol):
    """Who may hold work."""

    def is_it(self, instance: str, /) -> bool:
        """Whether an instance is this one."""


async def until(condition: Callable[[], Awaitable[object]], *said_by: Holder) -> None:
    """Waits for it; shows what the processes said last when it does not come."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        tails = [each.log.read_text()[-2_000:] for each in said_by if isinstance(each, Worker)]
        raise AssertionError("\n\n".join(["it never came", *tails])) from None


# ----------------------------------------------------------------------------- who does what


async def remember(database: Database) -> None:
    """Has the database remember from now on who took what, and at which of its beats."""
    events = [Statement(_ON_CHANGE.format(event=event)) for event in ("INSERT", "UPDATE")]
    await database.write([Statement(_HISTORY), *events])


async def taken(database: Database) -> list[tuple[str, str, int]]:
    """Unit, who took it, and at which of its beats: since `remember`, in order."""
    [rows] = await database.read(
        [Statement("SELECT name, holder, beats FROM taken ORDER BY rowid")]
    )
    return [(name, holder, beats) for name, holder, beats in rows]


async def shares(database: Database, *holders: Holder) -> list[set[str]]:
    """The units of each of them."""
    board = await leases.read(database)
    return [
        {name for name, lease in board.leases.items() if lease.holder and each.is_it(lease.holder)}
        for each in holders
    ]


async def divided(database: Database, keys: Iterable[str], *holders: Holder) -> None:
    """Waits until these do everything, each as much as the others."""
    kinds = [{key_unit(key) for key in keys}, set(SHARD_UNITS)]

    async def is_even() -> bool:
        found = await shares(database, *holders)
        sizes = [[len(units & kind) for units in found] for kind in kinds]
        return all(
            sum(counts) == len(kind) and max(counts) - min(counts) <= 1
            for counts, kind in zip(sizes, kinds, strict=True)
        )

    await until(is_even, *holders)


async def figures(database: Database, name: str, *workers: Worker) -> list[float]:
    """What each of the processes told last of one figure, over all its labels."""
    sql = "SELECT instance, value FROM measures WHERE name = ?"
    [rows] = await database.read([Statement(sql, (name,))])
    return [sum(float(value) for id_, value in rows if w.is_it(id_)) for w in workers]


async def told(database: Database, name: str, total: int, *workers: Worker) -> list[float]:
    """A figure of each of the processes, once they told of so much together."""

    async def is_told() -> bool:
        return sum(await figures(database, name, *workers)) == total

    await until(is_told, *workers)
    return await figures(database, name, *workers)


# --------------------------------------------------------------------------------- a market


class Market:
    """Payments over several watch keys, and receivers that are told of them.

    Attributes:
        keys: the watch keys, the deployment's own among them.
        endpoints: ids of the receivers.
        payments: all that were made.
    """

    def __init__(self, deployment: Deployment, cluster: Cluster, receiver: Receiver) -> None:
        self.deployment = deployment
        self.database = deployment.database
        self.receiver = receiver
        self.keys = [deployment.watch_key]
        self.payments: list[Payment] = []
        self._cluster = cluster
        self.endpoints: list[str] = []

    async def add_key(self, name: str) -> None:
        """One more watch key."""
        key = reference(name.encode().ljust(32))
        await watch_keys.add(self.database, key, name, Purpose.SHARED, now=1)
        self.keys.append(key)

    async def add_endpoint(self, number: int) -> str:
        """One more receiver of webhooks; all are one server. Returns its id."""
        url = f"{self.receiver.url}&to={number}"
        id_ = await register(self.database, number, url=url, key=signing_key(SIGNING_KEY))
        self.endpoints.append(id_)
        return id_

    async def sell(self, count: int) -> list[Payment]:
        """That many payments, each on the next watch key, and each is paid at once."""
        payers = await Wallet.many(self._cluster, count)
        sold = []
        for number, payer in enumerate(payers):
            self.deployment.watch_key = self.keys[number % len(self.keys)]
            payment = await self.deployment.create("0.01")
            await payer.pay(solana_pay_url(payment))
            sold.append(payment)
        self.payments += sold
        return sold

    async def paid(self, *workers: Worker) -> None:
        """Waits until all that was sold is settled."""

        async def is_settled() -> bool:
            records = [await self.deployment.record(payment) for payment in self.payments]
            return all(record.payment.state.status is Status.SETTLED for record in records)

        await until(is_settled, *workers)

    async def settled(self, *workers: Worker) -> None:
        """Waits until all that was sold is settled, and each receiver has been told of it."""

        async def is_told() -> bool:
            counts = await deliveries.counts(self.database)
            return counts.waiting == 0

        await self.paid(*workers)
        await until(is_told, *workers)

    async def delivered(self) -> list[Delivery]:
        """Every delivery with its attempts."""
        found = await deliveries.page(self.database, limit=10_000)
        stored = [await deliveries.get(self.database, each.id) for each in found]
        return [each for each in stored if each is not None]

    async def judge(self) -> list[Delivery]:
        """Nothing was lost, nothing happened twice, all of it was told in order; the deliveries.

        A webhook may have been sent more than once; its first time counts.
        """
        await self.judge_payments()
        found = await self.delivered()
        for delivery in found:
            assert delivery.state is DeliveryState.DELIVERED
            numbers = [attempt.number for attempt in delivery.history]
            assert numbers == list(range(1, delivery.attempts + 1)), delivery
        self._judge_posts(found)
        return found

    async def judge_payments(self) -> None:
        """Each is settled, and nothing happened to it twice."""
        for payment in self.payments:
            events = Counter(await self.deployment.events(payment))
            assert events[EventType.SETTLED] == 1, events
            assert set(events.values()) == {1}, events

    def _judge_posts(self, found: list[Delivery]) -> None:
        order: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for post in firsts(self.receiver.posts):
            order[post.path, post.payment].append(post.version)
        assert len(order) == len(self.payments) * len(self.endpoints)
        assert all(versions == sorted(versions) for versions in order.values()), order
        assert sum(map(len, order.values())) == len(found)


def firsts(posts: Iterable[Post]) -> list[Post]:
    """The first post of each webhook to each receiver, in order."""
    first: dict[tuple[str, str], Post] = {}
    for post in posts:
        first.setdefault((post.path, post.id), post)
    return list(first.values())
