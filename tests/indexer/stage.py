"""A real store and the real road over a cluster in memory: what the tests of this folder act on.

    async with stage(tmp_path) as it:
        order = await it.expect(5_000)
        await it.settle(it.pay(order))
        assert (await it.record(order)).payment.state.status is Status.SETTLED

Slot 1,000 is final at the start; `pay` lands there, which is half an hour before the payment
expires. Only `it.clock` is not real: it says what the test says.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import base58

from indexer.core import events, ids, settle
from indexer.core.payment import Asset, Payment, Terms
from indexer.core.types import Commitment
from indexer.pipeline import Found, Pipeline, Unread
from indexer.references import References
from indexer.sources.endpoint import Bounds
from indexer.sources.rpc import Rpc
from indexer.sweep import Sweeper
from store import (
    cursors,
    dead_letters,
    events as event_log,
    migrate,
    payments,
    reference_checks,
    watch_keys,
)
from store.cursors import Frontier
from store.database import Database, Statement, open_database
from store.dead_letters import DeadLetter
from store.payments import Record
from tests.chain import BLOCK_TIME, key, signature_of, sol_transfer
from tests.servers.fake_rpc import FakeChain, FakeNode


FINAL_SLOT = 1_000
WATCH_KEY = key("watch key")
SHOP = key("shop")
BUYER = key("buyer")
AMOUNT = 5_000_000
EXPIRES_AT = BLOCK_TIME + 1_800
GRACE_S = 3_600
SOL = Asset(symbol="SOL", mint=None, decimals=9, token_program=None)


class Clock:
    """Unix seconds that move only when told."""

    def __init__(self, now: float = BLOCK_TIME) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def payment(name: str = "order", amount: int = AMOUNT, **terms: Any) -> Payment:
    """A payment in SOL that is always the same for the same name."""
    id_ = ids.payment_id(hashlib.sha256(name.encode()).digest()[:16])
    values: dict[str, Any] = {
        "asset": SOL,
        "recipient": SHOP,
        "token_account": None,
        "amount": amount,
        "reference": key(f"reference of {name}"),
        "watch_key": WATCH_KEY,
        "created_at": BLOCK_TIME - 100,
        "expires_at": EXPIRES_AT,
        "grace_s": GRACE_S,
    }
    return Payment(terms=Terms(id=id_, **(values | terms)))


def paying(*payments_: Payment, amount: int | None = None, **rest: Any) -> dict[str, Any]:
    """The transfer that pays a payment, carrying the keys of its URL; of several, one after all."""
    terms = [each.terms for each in payments_]
    references = [*(t.reference for t in terms), *(t.watch_key for t in terms[:1] if t.watch_key)]
    lamports = terms[0].amount if amount is None else amount
    values: dict[str, Any] = {"slot": FINAL_SLOT, "name": f"{references} {lamports}"} | rest
    return sol_transfer(BUYER, terms[0].recipient, lamports, references=references, **values)


def forged(name: str) -> str:
    """A well-formed signature of no transaction."""
    return base58.b58encode(hashlib.sha512(name.encode()).digest()).decode()


@dataclass(kw_only=True)
class Stage:
    """Everything a test may touch."""

    chain: FakeChain
    nodes: Sequence[FakeNode]
    rpc: Rpc
    database: Database
    pipeline: Pipeline
    clock: Clock
    woken: list[int] = field(default_factory=list)

    @property
    def node(self) -> FakeNode:
        return self.nodes[0]

    def wake(self) -> None:
        self.woken.append(1)

    # ------------------------------------------------------------------------------- acting

    async def expect(self, amount: int = AMOUNT, *, name: str = "order", **terms: Any) -> Payment:
        """A stored payment that waits for money."""
        return await self.put(payment(name, amount, **terms))

    async def put(self, expected: Payment) -> Payment:
        """Stores a payment, as its creation does."""
        created = events.created(expected, expected.terms.created_at)
        await self.database.write(payments.insert(expected, created))
        return expected

    def pay(self, *payments_: Payment, **rest: Any) -> Found:
        """Puts the transfer on the chain; what a sweep would say of it."""
        landed = paying(*payments_, **rest)
        self.chain.add(landed)
        return self.found(landed)

    def found(self, landed: dict[str, Any]) -> Found:
        """What a sweep says of a transaction."""
        block_time = self.chain.block_time(landed["slot"])
        return Found(signature=signature_of(landed), slot=landed["slot"], block_time=block_time)

    async def settle(self, *found: Found, park: bool = True) -> list[Unread]:
        return await self.pipeline.settle(found, park=park)

    async def cancel(self, expected: Payment) -> None:
        """The merchant takes the offer back, as the API does it."""
        before = (await self.record(expected)).payment
        now = int(self.clock())
        after = settle.cancel(before, now)
        change = events.of_change(before, after, now)
        await self.database.write(payments.save(before, after, events=change, now=now))

    async def advance(self, slot: int, block_time: int, *, watched: str = WATCH_KEY) -> None:
        """Moves a frontier, and expires nothing."""
        frontier = Frontier(key=watched, slot=slot, block_time=block_time, updated_at=block_time)
        await self.database.write([cursors.advance(frontier)])

    def sweeper(self, *keys: str) -> Sweeper:
        """A sweeper of the watch key, or of these keys."""
        turn = keys or (WATCH_KEY,)
        return Sweeper(self.database, self.rpc, self.pipeline, lambda: turn, clock=self.clock)

    def references(self) -> References:
        return References(self.database, self.rpc, self.pipeline, clock=self.clock)

    async def check(self, *expected: Payment) -> None:
        """Looks at each payment's own reference, completely."""
        due = await reference_checks.due(self.database, 2**40, 100_000)
        ids, references = {each.terms.id for each in expected}, self.references()
        for each in due:
            if each.payment_id in ids:
                await references.check(each)

    # -------------------------------------------------------------------------------- seeing

    async def record(self, expected: Payment) -> Record:
        record = await payments.get(self.database, expected.terms.id)
        assert record is not None
        return record

    async def events(self, expected: Payment) -> list[str]:
        """The types of the payment's events, without the word that all begin with."""
        stored = await event_log.after(self.database, 0, payment_id=expected.terms.id, limit=1_000)
        return [event.type.removeprefix("payment.") for event in stored]

    async def letters(self) -> list[DeadLetter]:
        return await dead_letters.listing(self.database, 1_000)

    async def frontier(self, watched: str = WATCH_KEY) -> Frontier | None:
        return await cursors.get(self.database, watched)

    async def table(self, name: str, columns: str = "*") -> list[tuple[Any, ...]]:
        """All rows of a table, sorted."""
        [rows] = await self.database.read([Statement(f"SELECT {columns} FROM {name}")])  # noqa: S608 - our own words
        return sorted(rows, key=repr)

    def fetched(self) -> list[str]:
        """The signatures that the nodes were asked for, in order, at `finalized`."""
        return [
            call.params[0]
            for node in self.nodes
            for call in node.calls
            if call.method == "getTransaction"
            and call.params[1]["commitment"] == Commitment.FINALIZED
        ]


@asynccontextmanager
async def stage(
    folder: Path, *, nodes: int = 1, quorum: int = 1, database_url: str = ""
) -> AsyncIterator[Stage]:
    """A migrated database, in the folder unless it is named, and nodes of one chain."""
    chain, clock = FakeChain(finalized=FINAL_SLOT), Clock()
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(FakeNode(chain)) for _ in range(nodes)]
        urls = [node.url for node in opened]
        bounds = Bounds(rate=0, timeout_s=5)
        rpc = Rpc(urls, bounds=bounds, quorum=quorum, draw=lambda: 0.0)
        await stack.enter_async_context(rpc)
        database = await open_database(database_url or f"sqlite:///{folder}/axiom.db")
        stack.push_async_callback(database.close)
        await migrate.migrate(database)
        await watch_keys.ensure(database, configured=WATCH_KEY, fresh=WATCH_KEY, now=BLOCK_TIME)
        woken: list[int] = []
        pipeline = Pipeline(database, rpc, clock=clock, wake=lambda: woken.append(1))
        yield Stage(
            chain=chain,
            nodes=opened,
            rpc=rpc,
            database=database,
            pipeline=pipeline,
            clock=clock,
            woken=woken,
        )
