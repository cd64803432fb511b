"""Killed thirty times while people pay, with a WebSocket that breaks all the time.

The daemon is a process of its own, over a real runtime. What it has in its books in the end is
compared with the chain itself, which is read here without any code of the product. On a libSQL
server it is killed less often, and the server with it now and then.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from solders.pubkey import Pubkey

from indexer.core.creation import solana_pay_url
from indexer.core.payment import Payment
from indexer.core.types import Commitment, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from indexer.errors import StoreUnavailable
from store import cursors, events as event_log
from store.database import Statement
from store.payments import Record
from tests.scenario.conftest import Place
from tests.scenario.deployment import PATIENCE_S, Deployment
from tests.servers.proxy import Wire


ROOT = Path(__file__).resolve().parents[2]
SEED = 20261

KILLS = {"sqlite": 30, "libsql": 12}
#: After each so many of them the server is killed too.
SERVER_KILL_EVERY = 4
#: Seconds that the last life has for all that is left, and the daemon for anything to show.
LAST_LIFE_S = 90.0
#: Customers who pay at once, one payment after another, with a pause between.
PAYERS = 4
PAUSE_S = 0.8
PAYMENTS_MAX = 400
#: As lamports it opens an account; a wallet of this one has it already, so that dust may come.
AMOUNT = 10_000_000
EXPIRES_IN_S = 4

#: What the customers pay, transfer by transfer, in turn.
HABITS: dict[str, tuple[int, ...]] = {
    "exactly": (AMOUNT,),
    "dust first": (1, AMOUNT),
    "in parts": (AMOUNT // 2, AMOUNT // 4, AMOUNT // 4),
    "twice": (AMOUNT, AMOUNT),
    "nothing": (),
    "too little": (AMOUNT - 1,),
    "too much": (AMOUNT + 7,),
}
UNPAID = {"nothing", "too little"}


# -------------------------------------------------------------------------------------- people


@dataclass
class Town:
    """Customers who go on paying until they are told to stop.

    Attributes:
        paid: each payment with the habit of its customer.
        signatures: of all that was sent.
    """

    deployment: Deployment
    cluster: Cluster
    paid: list[tuple[Payment, str]] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self) -> None:
        habits = itertools.cycle(HABITS)
        async with asyncio.TaskGroup() as group:
            for wallet in await Wallet.many(self.cluster, PAYERS, 100 * 10**9):
                group.create_task(self._shop(wallet, habits), name="customer")

    async def _shop(self, wallet: Wallet, habits: "itertools.cycle[str]") -> None:
        while not self.closed.is_set() and len(self.paid) < PAYMENTS_MAX:
            habit = next(habits)
            expires_in_s = EXPIRES_IN_S if habit in UNPAID else None
            payment = await self._created(expires_in_s)
            self.paid.append((payment, habit))
            await self.cluster.fund_sol(Pubkey.from_string(payment.terms.recipient), AMOUNT)
            for amount in HABITS[habit]:
                signature = await wallet.pay(solana_pay_url(payment), amount=amount)
                self.signatures.append(signature)
            await asyncio.sleep(PAUSE_S)

    async def _created(self, expires_in_s: int | None) -> Payment:
        """A new payment, if need be after a server that is killed has started again."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(StoreUnavailable):
                    return await self.deployment.create("0.01", expires_in_s=expires_in_s)
                await asyncio.sleep(PAUSE_S)


async def cut_again_and_again(wire: Wire, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(chance.uniform(0.1, 0.9))
        wire.cut()


# ------------------------------------------------------------------------------- lives, deaths


class Nursery:
    """Bears daemons one after another (see `crash_child.py`)."""

    def __init__(self, process: asyncio.subprocess.Process, order: dict[str, Any]) -> None:
        self._process = process
        self._order = json.dumps(order).encode() + b"\n"

    @classmethod
    @asynccontextmanager
    async def open(cls, **order: Any) -> AsyncIterator[Self]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.scenario.crash_child",
            "--nursery",
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield cls(process, order)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()

    async def life(self, until: Callable[[], Awaitable[None]], end: signal.Signals) -> int:
        """One life, which that signal ends when `until` returns; the exit code."""
        assert self._process.stdin is not None
        self._process.stdin.write(self._order)
        pid = await self._said()
        try:
            await until()
        except BaseException:
            end = signal.SIGKILL
            raise
        finally:
            with suppress(ProcessLookupError):  # it may have died of itself: the code says why
                os.kill(pid, end)
            code = await self._said()
        return code

    async def _said(self) -> int:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return int(await self._process.stdout.readline())


@dataclass
class Deaths:
    """Chooses when a life ends: a moment after its beginning, or after it has done something."""

    deployment: Deployment
    chance: random.Random

    async def moment(self) -> None:
        if self.chance.random() < 0.3:
            await asyncio.sleep(self.chance.uniform(0.02, 0.5))
            return
        before = await self._done()
        async with asyncio.timeout(PATIENCE_S):
            while await self._done() == before:
                await asyncio.sleep(0.01)
        await asyncio.sleep(self.chance.uniform(0.0, 1.2))

    async def _done(self) -> tuple[int, int]:
        """How far the frontier came, and how many verdicts there are."""
        database = self.deployment.database
        frontier = await cursors.get(database, self.deployment.watch_key)
        [[(verdicts,)]] = await database.read([Statement("SELECT count(*) FROM verdicts")])
        return 0 if frontier is None else frontier.slot, verdicts


# --------------------------------------------------------------------------------------- books


async def arrived(cluster: Cluster, payment: Payment) -> dict[str, int]:
    """What the recipient got by each final transaction that names the reference, in lamports."""
    found: dict[str, int] = {}
    for row in await cluster.call("getSignaturesForAddress", payment.terms.reference):
        landed = await cluster.transaction(row["signature"], Commitment.FINALIZED)
        keys, meta = landed["transaction"]["message"]["accountKeys"], landed["meta"]
        place = keys.index(payment.terms.recipient)
        assert meta["err"] is None
        found[row["signature"]] = meta["postBalances"][place] - meta["preBalances"][place]
    return found


async def assert_true_books(town: Town) -> None:
    """Every payment stands where the chain says, and every event exists once."""
    deployment = town.deployment
    for payment, habit in town.paid:
        on_chain = await arrived(town.cluster, payment)
        assert sorted(on_chain.values()) == sorted(HABITS[habit])
        record = await deployment.record(payment)
        events = Counter(await deployment.events(payment))
        assert {v.signature: v.credit for v in record.verdicts} == on_chain, habit
        assert {v.signature: sum(leg.net for leg in v.legs) for v in record.verdicts} == on_chain
        state, received = record.payment.state, sum(on_chain.values())
        is_paid = received >= payment.terms.amount
        assert state.received == received, habit
        assert state.status is (Status.SETTLED if is_paid else Status.EXPIRED), habit
        assert events["payment.settled"] == int(is_paid), habit
        assert events["payment.expired"] == int(not is_paid), habit
        assert events["payment.created"] == 1
        assert record.sightings == ()
    await assert_sound(deployment)


async def assert_sound(deployment: Deployment) -> None:
    """The log has no gap, and no letter is left."""
    log = await event_log.after(deployment.database, 0, limit=100_000)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    [letters] = await deployment.database.read([Statement("SELECT signature FROM dead_letters")])
    assert letters == []


async def all_final(town: Town) -> None:
    """Returns once nothing is open any more."""

    def is_final(record: Record) -> bool:
        return record.payment.state.status in {Status.SETTLED, Status.EXPIRED}

    left: Sequence[Payment] = [payment for payment, _ in town.paid]
    async with asyncio.timeout(LAST_LIFE_S):
        while left:
            records = [await town.deployment.record(payment) for payment in left]
            left = [record.payment for record in records if not is_final(record)]
            await asyncio.sleep(0.1)
    # What came twice, or after it was settled, is found by a sweep if no doorbell rang.
    for payment, habit in town.paid:
        received = sum(HABITS[habit])
        await town.deployment.until(payment, lambda r, n=received: r.payment.state.received == n)  # type: ignore[misc]  # a default binds the number


@pytest.mark.timeout(300)
async def test_what_the_books_say_in_the_end_is_what_happened_on_the_chain(
    own_surfnet: Surfnet, own_cluster: Cluster, tmp_path: Path, place: Place
) -> None:
    chance = random.Random(SEED)
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(
            Deployment.over(own_surfnet, tmp_path, database_url=place.url)
        )
        wire = await stack.enter_async_context(Wire.to(own_surfnet.ws_url))
        nursery = await stack.enter_async_context(
            Nursery.open(
                database_url=place.url,
                rpc_url=own_surfnet.rpc_url,
                ws_url=wire.url,
                life_s=int(2 * LAST_LIFE_S),
            )
        )
        town, deaths = Town(deployment, own_cluster), Deaths(deployment, chance)
        living = asyncio.create_task(town.live())
        cutting = asyncio.create_task(cut_again_and_again(wire, chance))
        for number in range(KILLS["sqlite" if place.server is None else "libsql"]):
            assert await nursery.life(deaths.moment, signal.SIGKILL) == -signal.SIGKILL
            if place.server is not None and number % SERVER_KILL_EVERY == 0:
                await asyncio.to_thread(place.server.restart)
        town.closed.set()
        await living
        cutting.cancel()
        await own_cluster.landed(town.signatures, Commitment.FINALIZED)
        assert await nursery.life(lambda: all_final(town), signal.SIGTERM) == 0

        await assert_true_books(town)
        assert {habit for _, habit in town.paid} == set(HABITS)
    assert place.integrity() == "ok"
