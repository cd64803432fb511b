"""Whole daemons over the stage, whose pauses a test can wait for, and a look at their health."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from indexer import cluster, daemon, live, parked, parts, references, sweep
from indexer.core.payment import Payment
from indexer.settings import Settings
from indexer.sources import endpoint, pubsub
from indexer.sources.retry import backoff
from store import health
from store.database import Database
from tests.chain import BLOCK_TIME, key
from tests.indexer.stage import Stage
from tests.rates import UNLIMITED, UNLIMITED_DOORS
from tests.servers.fake_rpc import FakeNode


PATIENCE_S = 90.0

#: Seconds of the daemon's clock that go by in one of ours: its retries are rare.
HASTE = 10.0

#: Seconds by which it is ahead of the fake chain: tests let payments expire by the chain's time,
#: and `/readyz` complains of a clock that is far behind the chain. No more than that: the older a
#: payment is, the more rarely its reference is looked at.
AHEAD_S = 1_500.0


def hurry(replace_in: Callable[[Any, str, Any], object]) -> None:
    """Shortens every pause between two looks at something, by `setattr` or a fixture's."""
    for module, name in (
        (cluster, "PAUSE_S"),
        (parts, "REPORT_INTERVAL_S"),
        (live, "POLL_INTERVAL_S"),
        (live, "MISS_PAUSE_S"),
        (live, "PAUSE_S"),
        (parked, "INTERVAL_S"),
        (references, "INTERVAL_S"),
        (references, "PAUSE_S"),
        (sweep, "SWEEP_PAUSE_S"),
    ):
        replace_in(module, name, 0.05)
    replace_in(sweep, "SWEEP_INTERVAL_S", 0.3)
    replace_in(references, "FAILED_PAUSE_S", 0.3)
    for source in (endpoint, pubsub):
        replace_in(source, "backoff", partial(backoff, longest_s=0.5))


def running_clock(ahead_s: float = 0.0) -> Callable[[], float]:
    """Unix seconds that begin with the fake chain's, or so much later, and hurry."""
    begun = time.monotonic()
    return lambda: BLOCK_TIME + ahead_s + (time.monotonic() - begun) * HASTE


def settings_for(folder: Path | str, *nodes: FakeNode, **others: Any) -> Settings:
    """Settings of a daemon on these nodes, over the database of a stage in that folder."""
    values: dict[str, Any] = {
        "database_url": f"sqlite:///{folder}/axiom.db",
        "rpc_urls": tuple(node.url for node in nodes),
        "ws_urls": tuple(node.ws_url for node in nodes),
        "rpc_rate": 0,
        "watch_key": key("watch key"),
        "port": _free_port(),
        "rate_limit": UNLIMITED,
        "rate_limits": UNLIMITED_DOORS,
    }
    return replace(Settings(), **(values | others))


@dataclass
class Running:
    """A daemon under way."""

    settings: Settings
    task: asyncio.Task[None]
    stop: asyncio.Event
    ready: asyncio.Event

    async def ended(self) -> None:
        """Waits until it ends, and raises what it died of."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self.task)

    async def readiness(self) -> tuple[int, str, dict[str, str]]:
        """What `/readyz` says: HTTP status, its own word, the problem of each part."""
        url = f"http://127.0.0.1:{self.settings.port}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            body = await response.json()
        problems = {reason["component"]: reason["problem"] for reason in body["reasons"]}
        return response.status, body["status"], problems

    async def until_ready(self, status: str, *components: str) -> dict[str, str]:
        """The problems, once `/readyz` has that status and these parts have some; none: none."""
        said: tuple[int, str, dict[str, str]] | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    said = await self.readiness()
                    if said[1] == status and (
                        said[2].keys() >= set(components) if components else not said[2]
                    ):
                        return said[2]
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"it only said {said}") from None


@asynccontextmanager
async def running(
    settings: Settings, *, indexer: bool = True, api: bool = False
) -> AsyncIterator[Running]:
    """A daemon for the length of the block; it serves already, if it does at all."""
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        daemon.run(
            settings,
            clock=running_clock(AHEAD_S),
            indexer=indexer,
            api=api,
            stop=stop,
            on_ready=ready.set,
        )
    )
    try:
        waiting = asyncio.create_task(ready.wait())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        yield Running(settings, task, stop, ready)
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # what it died of is for the test to ask


async def until_told(
    database: Database, component: str, condition: Callable[[str | None], object]
) -> None:
    """Waits until the daemon says that of one of its parts."""
    problems: dict[str, str | None] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while component not in problems or not condition(problems[component]):
                await asyncio.sleep(0.01)
                problems = {r.component: r.problem for r in await health.all_of(database)}
    except TimeoutError:
        raise AssertionError(f"only {problems}") from None


async def until_swept(database: Database) -> None:
    """Waits until the daemon's last sweep was complete."""
    await until_told(database, "sweep", lambda problem: problem is None)


async def until_events(it: Stage, order: Payment, *wanted: str, also: str = "") -> None:
    """Waits until the payment's events are `created` and these; `also` may stand among them."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while [event for event in seen if event != also] != ["created", *wanted]:
                seen = await it.events(order)
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{seen} instead of {wanted}") from None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
