"""Doorbells that are answered as the daemon does it: what the tests of `live` act on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from indexer import live as live_module
from indexer.core.payment import Payment
from indexer.live import Live
from indexer.sources.doorbells import Doorbells
from tests.indexer.stage import Stage


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test can wait for."""
    for name in ("POLL_INTERVAL_S", "PAUSE_S", "SIGHT_PAUSE_S", "MISS_PAUSE_S"):
        monkeypatch.setattr(live_module, name, 0.01)


@asynccontextmanager
async def answering(it: Stage, *, finality: bool = True) -> AsyncIterator[tuple[Live, Doorbells]]:
    """Doorbells that are answered, and what they point at settled, as the daemon does it."""
    doorbells = Doorbells()
    live = Live(it.database, it.rpc, it.pipeline, doorbells, clock=it.clock)
    tasks = [asyncio.create_task(live.answer())]
    if finality:
        tasks.append(asyncio.create_task(live.settle()))
    try:
        yield live, doorbells
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def told(it: Stage, order: Payment, *events: str) -> None:
    """Waits until the payment's events are these."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(90):
            while seen != ["created", *events]:
                seen = await it.events(order)
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{seen} instead of {events}") from None
