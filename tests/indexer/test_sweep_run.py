"""Sweeping for ever: what fails is shown, waited out and begun again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from indexer import sweep as sweep_module
from indexer.errors import Conflict, StoreUnavailable
from indexer.sweep import Sweeper
from store.database import Rows, Statement
from tests.chain import key
from tests.indexer.stage import (
    FINAL_SLOT,
    stage,
)
from tests.servers.fake_rpc import Call, eventually, result, rpc_error


LISTING = "getSignaturesForAddress"


@asynccontextmanager
async def running(sweeper: Sweeper) -> AsyncIterator[None]:
    task = asyncio.create_task(sweeper.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test can wait for."""
    for name in ("SWEEP_INTERVAL_S", "SWEEP_SOON_S", "SWEEP_PAUSE_S"):
        monkeypatch.setattr(sweep_module, name, 0.01)


async def test_a_failure_is_shown_waited_out_and_forgotten(tmp_path: Path, brisk: None) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order)
        it.node.fail(LISTING, rpc_error(-32601, "turned off"), times=None)
        sweeper = it.sweeper()
        assert sweeper.problem == "no sweep is complete yet"

        async with running(sweeper):
            await eventually(lambda: "turned off" in (sweeper.problem or ""))
            it.node.heal()
            await eventually(lambda: sweeper.problem is None)

        assert await it.events(order) == ["created", "settled"]


@pytest.mark.parametrize("error", [StoreUnavailable("disk full"), Conflict("again")])
async def test_a_store_that_fails_in_the_middle_costs_time_only(
    tmp_path: Path, brisk: None, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order)
        write, sweeper = it.database.write, it.sweeper()
        failures = iter(range(3))

        async def fail_first(batch: Sequence[Statement]) -> list[Rows]:
            if next(failures, None) is not None:
                raise error
            return await write(batch)

        monkeypatch.setattr(it.database, "write", fail_first)
        async with running(sweeper):
            await eventually(lambda: sweeper.problem is None)

        assert await it.events(order) == ["created", "settled"]


async def test_one_key_that_cannot_be_listed_does_not_hold_up_the_others(
    tmp_path: Path, brisk: None
) -> None:
    async with stage(tmp_path) as it:
        sick, order = key("sick"), await it.expect(watch_key=None)
        it.pay(order)

        async def fault(call: Call) -> web.StreamResponse:
            if call.params[0] == sick:
                return await rpc_error(-32602, "cannot list this one")(call)
            return await result(it.node._signatures(*call.params))(call)

        it.node.fail(LISTING, fault, times=None)
        sweeper = it.sweeper(sick, order.terms.reference)
        async with running(sweeper):
            await eventually(lambda: "cannot list" in (sweeper.problem or ""))
            async with asyncio.timeout(90):
                while await it.events(order) != ["created", "settled"]:
                    await asyncio.sleep(0.01)

        assert "cannot list" in (sweeper.problem or "")


async def test_a_fresh_subscription_is_swept_after_until_its_slot_is_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not see what was executed before it, and that may be final only later."""
    async with stage(tmp_path) as it:
        monkeypatch.setattr(sweep_module, "SWEEP_SOON_S", 0.01)
        monkeypatch.setattr(sweep_module, "SWEEP_INTERVAL_S", 3_600.0)
        order = await it.expect()
        sweeper = it.sweeper()
        async with running(sweeper):
            await eventually(lambda: sweeper.problem is None)
            it.pay(order, slot=FINAL_SLOT + 30)
            sweeper.subscribed(FINAL_SLOT + 31)
            await eventually(lambda: it.node.count("getSlot") > 5)
            assert await it.events(order) == ["created"]
            it.chain.finalize(FINAL_SLOT + 31)
            async with asyncio.timeout(90):
                while await it.events(order) != ["created", "settled"]:
                    await asyncio.sleep(0.01)


async def test_it_ends_when_it_is_cancelled_at_the_moment_it_is_asked(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        sweeper = it.sweeper()
        task = asyncio.create_task(sweeper.run())
        await eventually(lambda: sweeper.problem is None)

        sweeper.ask()
        task.cancel()

        ended, _ = await asyncio.wait({task}, timeout=30)
        task.cancel()
        assert ended == {task}
