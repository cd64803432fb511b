"""The real server on a free port over a real database, and a chain of our own making."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from starlette.applications import Starlette

from api.app import create_app
from api.cards import CardDesk
from api.proxy import Partners
from api.server import serve_on
from api.sockets import listen
from api.wakeups import Wakeups
from indexer.core import events, settle
from indexer.core.account import Account
from indexer.core.events import Event
from indexer.core.payment import Payment
from indexer.core.standard_webhooks import signing_key
from indexer.core.types import SYSTEM_PROGRAM, TOKEN_PROGRAM, EventType
from indexer.core.verdict import Evidence, Sighting, Verdict
from indexer.settings import Settings
from store import events as stored_events, keys, migrate, payments, watch_keys
from store.database import Database, open_database
from store.limiter import Limiter
from store.shared import Shared
from tests.instructions import key, signature
from tests.rates import UNLIMITED, UNLIMITED_DOORS


NOW: Final = 1_795_377_600  # 2026-11-22T20:00:00Z
MERCHANT: Final = key("merchant")
USDC: Final = key("usdc")
WATCH_KEY: Final = key("watch key")
#: The first one makes new secrets; the other is one that was rotated out.
SIGNING_KEYS: Final = tuple(signing_key(name * 32) for name in "ab")
RENT_LAMPORTS: Final = 890_880
SOLD: Final = {"amount": "12.5", "token": "USDC", "order_id": "1042", "metadata": {"table": "7"}}


class Clock:
    """Unix seconds that move only when told."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class ChainDouble:
    """Accounts by key, as a node would tell; counts what it is asked.

    Attributes:
        error: raised instead of an answer.
        gate: an answer waits until it is set.
    """

    accounts: dict[str, Account] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    error: Exception | None = None
    gate: asyncio.Event | None = None

    async def account(self, key: str) -> Account | None:
        self.asked.append(key)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.accounts.get(key)

    async def rent_exempt_minimum(self) -> int:
        if self.error is not None:
            raise self.error
        return RENT_LAMPORTS


def wallet() -> Account:
    return Account(owner=SYSTEM_PROGRAM, lamports=10**9, executable=False, data=b"")


def mint(decimals: int = 6) -> Account:
    data = bytes(44) + bytes([decimals, 1]) + bytes(36)
    return Account(owner=TOKEN_PROGRAM, lamports=10**9, executable=False, data=data)


@dataclass(kw_only=True)
class Api:
    """A running API, seen from outside (`session`) and from inside (the rest)."""

    session: aiohttp.ClientSession
    app: Starlette
    database: Database
    clock: Clock
    chain: ChainDouble
    wakeups: Wakeups
    stop: asyncio.Event
    served: asyncio.Task[None]
    port: int
    writer: Mapping[str, str]
    reader: Mapping[str, str]

    async def create(self, idempotency_key: str = "", **fields: Any) -> dict[str, Any]:
        """A payment, made through the API."""
        headers = {**self.writer, "Idempotency-Key": idempotency_key or signature(str(fields))}
        async with self.session.post("/api/pay", json=SOLD | fields, headers=headers) as response:
            assert response.status == 201, await response.text()
            body: dict[str, Any] = await response.json()
            return body

    async def get(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of what is there."""
        async with self.session.get(path, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        async with self.session.post(path, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def record(self, payment_id: str) -> payments.Record:
        record = await payments.get(self.database, payment_id)
        assert record is not None
        return record

    async def settle(self, payment_id: str, amount: int, name: str = "") -> Payment:
        """Money arrives, final: what the pipeline would write."""
        record = await self.record(payment_id)
        verdict = verdict_of(record.payment, amount, name=name)
        verdicts = (*record.verdicts, verdict)
        state = settle.fold(
            record.payment.terms, verdicts, frontier_time=None, sighted=False, canceled_at=None
        )
        return await self._save(record.payment, settle.advance(record.payment, state), [verdict])

    async def sight(self, payment_id: str, amount: int) -> Payment:
        """Money is seen, not final."""
        record = await self.record(payment_id)
        sighting = Sighting(
            payment_id=payment_id, signature=signature("seen"), slot=90, credit=amount
        )
        state = settle.fold(
            record.payment.terms, (), frontier_time=None, sighted=True, canceled_at=None
        )
        after = settle.advance(record.payment, state)
        return await self._save(record.payment, after, [], [sighting])

    async def expire(self, payment_id: str) -> Payment:
        """The frontier passes the deadline."""
        record = await self.record(payment_id)
        terms = record.payment.terms
        state = settle.fold(
            terms,
            record.verdicts,
            frontier_time=terms.expires_at + 1,
            sighted=False,
            canceled_at=None,
        )
        return await self._save(record.payment, settle.advance(record.payment, state), [])

    async def publish(self, payment_id: str, count: int, *, first: int = 1_000) -> None:
        """Writes events that change nothing: something to read."""
        now = int(self.clock())
        batch = [
            Event(
                type=EventType.REVIEW,
                payment_id=payment_id,
                version=number,
                ordinal=0,
                created_at=now,
                data={"payment": {"version": number, "padding": "x" * 1_000}, "signature": None},
            )
            for number in range(first, first + count)
        ]
        await self.database.write([stored_events.append(event) for event in batch])
        self.wakeups.wake()

    async def _save(
        self,
        before: Payment,
        after: Payment,
        verdicts: list[Verdict],
        sightings: list[Sighting] | None = None,
    ) -> Payment:
        now = int(self.clock())
        await self.database.write(
            payments.save(
                before,
                after,
                verdicts=verdicts,
                sightings=sightings or [],
                events=events.of_change(before, after, now),
                now=now,
            )
        )
        self.wakeups.wake()
        return after


def verdict_of(payment: Payment, amount: int, *, name: str = "", slot: int = 100) -> Verdict:
    """A clean credit, in a block before the deadline."""
    return Verdict(
        payment_id=payment.terms.id,
        signature=signature(name or f"pays {payment.terms.id}"),
        slot=slot,
        index=0,
        block_time=payment.terms.created_at + 30,
        credit=amount,
        clean=True,
        reasons=(),
        evidence=Evidence(bound=amount, delta=amount),
    )


async def make_key(
    database: Database, name: str, *scopes: str, expires_at: int | None = None
) -> dict[str, str]:
    """The headers of a caller that has the scopes."""
    api_key = keys.new_key(name.encode().ljust(32, b"."))
    id_ = f"key_{name}"
    await keys.create(database, name, scopes, key=api_key, id=id_, now=NOW, expires_at=expires_at)
    return {"Authorization": f"Bearer {api_key}"}


@asynccontextmanager
async def running(
    path: Path,
    *,
    send_buffer: int = 0,
    cards: CardDesk | None = None,
    partners: Partners | None = None,
    shared: Shared | None = None,
    limiter: Limiter | None = None,
    url: str | None = None,
    replica_urls: Sequence[str] = (),
    beside: Api | None = None,
    **settings: Any,
) -> AsyncIterator[Api]:
    """Serves until the block ends.

    Args:
        path: folder of the database.
        send_buffer: bytes that the kernel holds for a slow client; 0: as it likes.
        cards: makes orders that are paid by card; None: not set up.
        partners: who may be called for frontends; None: nobody.
        shared: the Redis of several processes; None: there is none.
        limiter: what counts requests; None: one of its own.
        url: of the database; None: a file in the folder.
        replica_urls: servers that answer reads in the place of that one.
        beside: another API on the same database, whose callers it shares; None: it is the first.
        settings: fields of Settings.
    """
    async with AsyncExitStack() as stack:
        database = await open_database(
            url or f"sqlite:///{path / 'axiom.db'}", replica_urls=replica_urls
        )
        stack.push_async_callback(database.close)
        await migrate.migrate(database)
        await watch_keys.ensure(database, configured=WATCH_KEY, fresh=WATCH_KEY, now=0)
        values = Settings(**(_SETTINGS | settings))
        api = await _start(
            database,
            values,
            send_buffer,
            beside,
            cards=cards,
            partners=partners,
            shared=shared,
            limiter=limiter,
        )
        stack.push_async_callback(_stop, api)
        yield api


_WRITES: Final = ("payments:write", "payments:read")

_SETTINGS: Final[dict[str, Any]] = {
    "recipient": MERCHANT,
    "tokens": {"SOL": None, "USDC": USDC},
    "public_url": "https://pay.example.com",
    "rate_limit": UNLIMITED,
    "rate_limits": UNLIMITED_DOORS,
}


async def _start(
    database: Database,
    settings: Settings,
    send_buffer: int,
    beside: Api | None,
    **parts: Any,
) -> Api:
    clock, chain, wakeups = Clock(), ChainDouble({MERCHANT: wallet(), USDC: mint()}), Wakeups()
    app = create_app(
        database=database,
        settings=settings,
        chain=chain,
        clock=clock,
        wakeups=wakeups,
        signing_keys=SIGNING_KEYS,
        **parts,
    )
    listening = listen("127.0.0.1", 0)
    if send_buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    port = listening.getsockname()[1]
    stop, ready = asyncio.Event(), asyncio.Event()
    served = asyncio.create_task(serve_on(app, listening, stop=stop, on_ready=ready.set))
    async with asyncio.timeout(30):
        await ready.wait()
    return Api(
        session=aiohttp.ClientSession(f"http://127.0.0.1:{port}"),
        app=app,
        database=database,
        clock=clock,
        chain=chain,
        wakeups=wakeups,
        stop=stop,
        served=served,
        port=port,
        writer=beside.writer if beside else await make_key(database, "writer", *_WRITES),
        reader=beside.reader if beside else await make_key(database, "reader", "payments:read"),
    )


async def _stop(api: Api) -> None:
    await api.session.close()
    api.stop.set()
    async with asyncio.timeout(30):
        await api.served
