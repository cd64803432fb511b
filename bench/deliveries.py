"""From events in the store to webhooks that a receiver took and that are on record as delivered.

    python -m bench deliveries

The receivers are a process of their own. In turns: a plain loop that only posts the same bodies,
as many at once; the product with one receiver, which is well; and the product with the same one
beside two more, of which one takes 50 to 200 ms for an answer and one refuses connections. The
product reads what is due, signs, posts, and writes each attempt durably. How much of its pace the
well receiver keeps beside the others is what they cost it.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_network
from typing import Final

import aiohttp
import msgspec
import structlog
import uvloop
from aiohttp import web

from api.wakeups import Wakeups
from indexer.core import creation, events as published, ids
from indexer.core.creation import NewPayment, Policy
from indexer.core.events import Event
from indexer.core.payment import Payment
from indexer.core.standard_webhooks import SigningKey
from indexer.core.types import EventType
from indexer.courier import AT_ONCE
from indexer.deliveries import Deliveries
from indexer.sources.outside import Outside
from store import events, migrate, payments, webhook_endpoints
from store.database import Database, open_database


PAYMENTS: Final = 1_000
EVENTS_EACH: Final = (EventType.CREATED, EventType.DETECTED, EventType.REVERTED)
EVENTS: Final = PAYMENTS * len(EVENTS_EACH)
ROUNDS: Final = 5
ROUND_S_MAX: Final = 120

WELL, SLOW, DEAD = "we_1", "we_2", "we_3"
NOBODY = "http://127.0.0.1:1/"
KEY = SigningKey("bench", b"of a benchmark, and of nothing else")


def main() -> None:
    """Prints deliveries a second, ours and the plain loop's, and the ratios."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(_main())  # as the product does


async def _main() -> None:
    plain, alone, beside = [], [], []
    async with _receiving() as url:
        for _ in range(ROUNDS):
            plain.append(await _plain(f"{url}/well"))
            alone.append(await _ours({WELL: f"{url}/well"}))
            receivers = {WELL: f"{url}/well", SLOW: f"{url}/slow", DEAD: NOBODY}
            beside.append(await _ours(receivers))
    posted, one, three = map(statistics.median, (plain, alone, beside))
    print(f"plain loop that only posts        {posted:8.0f} posts/s")
    print(f"one receiver                      {one:8.0f} deliveries/s")
    print(f"the same beside a slow, a dead    {three:8.0f} deliveries/s")
    print(f"ratio to the plain loop           {one / posted:8.2f}")
    print(f"ratio to being alone              {three / one:8.2f}")


# ------------------------------------------------------------------------------- the product


async def _ours(receivers: Mapping[str, str]) -> float:
    """Deliveries a second to the first of these receivers, all of them in a fresh database."""
    with tempfile.TemporaryDirectory() as name:
        database = await open_database(f"sqlite:///{name}/axiom.db")
        await migrate.migrate(database)
        await _fill(database, receivers)
        async with Outside([ip_network("127.0.0.0/8")]) as sender:
            couriers = Deliveries(
                database, sender, [KEY], clock=time.time, wait=Wakeups().wait, draw=random.random
            )
            began = time.perf_counter()
            task = asyncio.create_task(couriers.run())
            try:
                await _all_are_delivered(database, next(iter(receivers)))
                return EVENTS / (time.perf_counter() - began)
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                await database.close()


async def _fill(database: Database, receivers: Mapping[str, str]) -> None:
    """The receivers, and after them the events: with each event come its deliveries."""
    now = int(time.time())
    for id_, url in receivers.items():
        receiver = webhook_endpoints.create(
            id=id_, url=url, event_types=(), description=None, key_id=KEY.id, now=now, at_most=9
        )
        await database.write([receiver])
    for payment, told in _payments(now):
        await database.write([*payments.insert(payment, told[0]), *map(events.append, told[1:])])


async def _all_are_delivered(database: Database, endpoint_id: str) -> None:
    async with asyncio.timeout(ROUND_S_MAX):
        while True:
            found = await webhook_endpoints.get(database, endpoint_id)
            assert found is not None
            assert not found.failed
            if not found.waiting:
                return
            await asyncio.sleep(0.02)


def _payments(now: int) -> list[tuple[Payment, list[Event]]]:
    """Payments, each with its events."""
    recipient, watch_key = (creation.reference(bytes([byte]) * 32) for byte in b"rw")
    policy = Policy(
        recipient=None, tokens={"SOL": None}, expires_in_s=86_400, grace_s=0, watch_key=watch_key
    )
    created = []
    for number in range(PAYMENTS):
        payment, _ = creation.create(
            NewPayment(amount=f"0.01{number:04}", token="SOL", recipient=recipient),  # noqa: S106 - a currency
            policy,
            {recipient: None},
            rent_exempt_minimum=0,
            id=ids.payment_id(number.to_bytes(16, "big")),
            fresh_reference=creation.reference(number.to_bytes(32, "big")),
            now=now,
        )
        first = published.created(payment, now)
        told = [
            replace(first, type=type_, version=version)
            for version, type_ in enumerate(EVENTS_EACH, start=1)
        ]
        created.append((payment, told))
    return created


# ---------------------------------------------------------------------------- the plain loop


async def _plain(url: str) -> float:
    """Posts a second of a loop that stores and signs nothing."""
    body = msgspec.json.encode(_payments(int(time.time()))[0][1][0].data)
    left = iter(range(EVENTS))

    async def post(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post(url, data=body) as answer:
                await answer.read()

    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        await asyncio.gather(*(post(session) for _ in range(AT_ONCE)))
        return EVENTS / (time.perf_counter() - began)


# -------------------------------------------------------------------------------- receivers


@asynccontextmanager
async def _receiving() -> AsyncIterator[str]:
    """A process that receives; where it is."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.deliveries", "receive", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        yield (await child.stdout.readline()).decode().strip()
    finally:
        child.terminate()
        await child.wait()


async def _receive() -> None:
    """Serves until it is terminated."""

    async def at_once(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    async def slowly(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - no secret
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/well", at_once), web.post("/slow", slowly)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["receive"]:
        uvloop.run(_receive())
    else:
        main()
