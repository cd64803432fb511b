"""Sweeps: complete, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from indexer import sweep as sweep_module
from indexer.core.types import Status
from indexer.errors import SourceError, SourceUnavailable, StoreUnavailable
from indexer.sweep import OVERLAP_SLOTS, PAGE_SIZE, Sweeper
from store import payments
from tests.chain import signature_of, sol_transfer
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    EXPIRES_AT,
    FINAL_SLOT,
    SHOP,
    WATCH_KEY,
    Stage,
    forged,
    paying,
    payment,
    stage,
)
from tests.servers.fake_rpc import Call, Fault, eventually, hang_up, http, result, rpc_error


LISTING = "getSignaturesForAddress"


def junk(it: Stage, count: int, *, newest: int = FINAL_SLOT, carries: str = WATCH_KEY) -> list[str]:
    """Transactions that carry the key and concern nobody, ten to a slot; the newest first."""
    names = []
    for n in range(count):
        landed = sol_transfer(
            BUYER, SHOP, 1, references=[carries], name=f"{carries} {n}", slot=newest - n // 10
        )
        names.append(it.chain.add(landed))
    return names


def advance_final(it: Stage, slots: int) -> None:
    it.chain.finalize(it.chain.finalized + slots)


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


# ----------------------------------------------------------------------------- one sweep


async def test_a_sweep_settles_what_carries_the_key_and_moves_the_frontier(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=FINAL_SLOT - 300)

        assert await it.sweeper().sweep(WATCH_KEY) == FINAL_SLOT

        assert await it.events(order) == ["created", "settled"]
        frontier = await it.frontier()
        assert frontier is not None
        assert (frontier.slot, frontier.block_time) == (FINAL_SLOT, it.chain.block_time(FINAL_SLOT))


async def test_what_is_not_final_belongs_to_a_later_sweep(tmp_path: Path) -> None:
    """Also on nodes that list it all the same."""
    async with stage(tmp_path) as it:
        it.node.ignores_commitment = True
        order = await it.expect()
        found = it.pay(order, slot=FINAL_SLOT + 1)
        sweeper = it.sweeper()

        await sweeper.sweep(WATCH_KEY)
        assert it.fetched() == []
        it.chain.finalize(FINAL_SLOT + 1)
        await sweeper.sweep(WATCH_KEY)

        assert it.fetched() == [found.signature]
        assert await it.events(order) == ["created", "settled"]


async def test_everything_before_the_overlap_is_left_alone(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        old = it.pay(await it.expect(name="old"), slot=FINAL_SLOT - OVERLAP_SLOTS - 1)
        edge = it.pay(await it.expect(name="edge"), slot=FINAL_SLOT - OVERLAP_SLOTS)
        await it.sweeper().sweep(WATCH_KEY)
        it.node.calls.clear()
        advance_final(it, 1)

        await it.sweeper().sweep(WATCH_KEY)  # after a restart: nothing is remembered

        assert it.fetched() == [], "the overlap is counted from the frontier"
        assert old.signature != edge.signature


async def test_a_signature_that_is_listed_late_is_found_in_the_overlap(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        late = it.pay(order, slot=FINAL_SLOT - 1)
        it.node.hidden.add(late.signature)
        sweeper = it.sweeper()
        await sweeper.sweep(WATCH_KEY)
        assert await it.events(order) == ["created"]

        it.node.hidden.clear()
        advance_final(it, 1)
        await sweeper.sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "settled"]


async def test_each_signature_is_fetched_once_and_failed_ones_never(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        good = it.pay(order)
        err = {"InstructionError": [0, {"Custom": 1}]}
        for n in range(3):
            it.pay(order, name=f"failed {n}", slot=FINAL_SLOT - n, err=err)
        sweeper = it.sweeper()

        await sweeper.sweep(WATCH_KEY)
        advance_final(it, 1)
        await sweeper.sweep(WATCH_KEY)

        assert it.fetched() == [good.signature]
        assert it.node.count(LISTING) > 1


async def test_transactions_are_examined_in_the_order_of_the_chain(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = [
            it.pay(order, amount=1, name=f"{slot}/{index}", slot=slot, index=index)
            for slot, index in [(998, 0), (1_000, 5), (999, 1), (999, 0), (1_000, 2)]
        ]

        await it.sweeper().sweep(WATCH_KEY)

        assert it.fetched() == [found[n].signature for n in (0, 3, 2, 4, 1)]


# ------------------------------------------------------------------------------- paging


async def test_more_than_a_page_is_read_to_the_end(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=10)
        junk(it, 2 * PAGE_SIZE + 5)

        await it.sweeper().sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "settled"]
        assert len(it.fetched()) == 2 * PAGE_SIZE + 6


@pytest.mark.parametrize("count", [0, 1, 2, PAGE_SIZE - 1, PAGE_SIZE])
async def test_the_oldest_is_found_behind_any_number(tmp_path: Path, count: int) -> None:
    """A page that is exactly full may or may not be the last."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        oldest = it.pay(order, slot=10)
        junk(it, count)

        await it.sweeper().sweep(WATCH_KEY)

        assert it.fetched()[0] == oldest.signature
        assert await it.events(order) == ["created", "settled"]


def cut(it: Stage, rows_max: int) -> Fault:
    """Pages that are shorter than asked for, as some nodes cut them."""

    async def fault(call: Call) -> web.StreamResponse:
        return await result(it.node._signatures(*call.params)[:rows_max])(call)

    return fault


@pytest.mark.parametrize("rows_max", [1, 2, 7])
async def test_a_short_page_is_not_the_end(tmp_path: Path, rows_max: int) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=10)
        junk(it, 20)
        it.node.fail(LISTING, cut(it, rows_max), times=None)

        await it.sweeper().sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "settled"]


def forgetful(it: Stage, known: set[str], *, rows_max: int = PAGE_SIZE) -> Fault:
    """Answers with an empty page what it does not know as `before`, as older nodes do."""

    async def fault(call: Call) -> web.StreamResponse:
        before = call.params[1].get("before")
        rows = it.node._signatures(*call.params)[:rows_max]
        return await result(rows if before is None or before in known else [])(call)

    return fault


@pytest.mark.parametrize("rows_max", [1, 2, 10, PAGE_SIZE])
async def test_a_node_that_lost_its_place_is_not_at_the_end(tmp_path: Path, rows_max: int) -> None:
    """An empty page after a short one proves as little as after a full one."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=10)
        names = junk(it, PAGE_SIZE + 10)
        known = set(names) - {names[0], names[1], names[9], names[PAGE_SIZE - 1]}
        it.node.fail(LISTING, forgetful(it, known, rows_max=rows_max), times=None)
        sweeper = it.sweeper()

        if rows_max > 2:
            # It knows the row before the one that it forgot.
            with pytest.raises(SourceUnavailable, match="lost its place"):
                it.node.fail(LISTING, forgetful(it, set(), rows_max=rows_max), times=None)
                await sweeper.sweep(WATCH_KEY)
        else:
            with pytest.raises(SourceUnavailable, match="lost its place"):
                await sweeper.sweep(WATCH_KEY)
        assert await it.frontier() is None
        assert (await it.record(order)).payment.state.status is Status.PENDING

        it.node.heal()
        await sweeper.sweep(WATCH_KEY)
        assert await it.events(order) == ["created", "settled"]
