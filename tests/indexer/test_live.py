"""Doorbells: answered at once, settled when final, taken back when dropped."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from indexer import live as live_module
from indexer.errors import Conflict, StoreUnavailable
from indexer.live import AWAITED_MAX, DROPPED_AFTER_BLOCKS, SIGHT_ATTEMPTS_MAX, Live
from indexer.sources.doorbells import Doorbell, Doorbells
from store.database import Rows, Statement
from tests.indexer.living import answering, hasten, told
from tests.indexer.stage import (
    FINAL_SLOT,
    Stage,
    forged,
    stage,
)
from tests.servers.fake_rpc import eventually, null, rpc_error


SLOT = FINAL_SLOT + 20  # confirmed at the start, and not final


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


# ------------------------------------------------------------------------- the plain way


async def test_a_doorbell_is_shown_at_once_and_settled_when_final(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        doorbells.ring(found.signature, SLOT)
        await told(it, order, "detected")

        it.chain.finalize(SLOT - 1)
        await eventually(lambda: it.node.count("getSlot") > 5)
        assert await it.events(order) == ["created", "detected"]

        it.chain.finalize(SLOT)
        await told(it, order, "detected", "settled")
        assert await it.letters() == []


async def test_a_doorbell_for_what_is_final_already_settles_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        doorbells.ring(it.pay(order).signature)  # the source does not say where
        await eventually(it.fetched)
        async with asyncio.timeout(90):
            while (await it.events(order))[-1] != "settled":
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("said", [0, FINAL_SLOT], ids=["no_slot", "a_wrong_slot"])
async def test_a_doorbell_that_is_wrong_about_the_slot_settles_nothing_early(
    tmp_path: Path, said: int
) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        it.node.ignores_commitment = True
        order = await it.expect()
        doorbells.ring(it.pay(order, slot=SLOT).signature, said)
        await told(it, order, "detected")
        await eventually(lambda: len(it.fetched()) > 5)
        assert await it.events(order) == ["created", "detected"]

        it.chain.finalize(SLOT)
        await told(it, order, "detected", "settled")


async def test_a_false_doorbell_does_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (live, doorbells):
        order = await it.expect()
        doorbells.ring(forged("rumour"), FINAL_SLOT)
        await eventually(lambda: len(it.fetched()) > 3)
        it.chain.finalize(FINAL_SLOT + DROPPED_AFTER_BLOCKS)
        await eventually(lambda: not live._awaited)

        assert await it.events(order) == ["created"]
        assert await it.letters() == []


async def test_a_node_that_is_a_little_late_is_asked_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it, finality=False) as (_, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        it.node.behind = 50
        doorbells.ring(found.signature, SLOT)
        await eventually(lambda: it.node.count("getTransaction") == 2)

        it.node.behind = 0
        await told(it, order, "detected")


async def test_one_that_is_not_to_be_found_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it, answering(it, finality=False) as (_, doorbells):
        monkeypatch.setattr(live_module, "SIGHT_PAUSE_S", 60.0)
        order = await it.expect()
        doorbells.ring(forged("rumour"), SLOT)
        await eventually(lambda: it.node.count("getTransaction") == 1)

        doorbells.ring(it.pay(order, slot=SLOT).signature, SLOT)

        await told(it, order, "detected")


async def test_a_second_overflow_is_told_as_the_first_was(tmp_path: Path) -> None:
    missed: list[int] = []
    doorbells = Doorbells(waiting_max=2, on_overflow=missed.append)
    async with stage(tmp_path) as it:
        live = Live(it.database, it.rpc, it.pipeline, doorbells, clock=it.clock)
        for crowd in range(2):
            for n in range(3):
                doorbells.ring(forged(f"bell {crowd} {n}"), SLOT)
            task = asyncio.create_task(live.answer())
            await eventually(lambda: not len(doorbells))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    assert missed == [SLOT, SLOT]


async def test_what_was_sighted_before_a_restart_is_settled_after_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.pipeline.sight([it.pay(order, slot=SLOT)])
        it.chain.finalize(SLOT)

        async with answering(it):
            await told(it, order, "detected", "settled")


async def test_more_than_can_be_awaited_is_left_to_the_sweep(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        live = Live(it.database, it.rpc, it.pipeline, Doorbells(), clock=it.clock)

        for n in range(AWAITED_MAX + 5):
            live._await(str(n), SLOT)

        assert len(live._awaited) == AWAITED_MAX


# ------------------------------------------------------------------------------- failures


def failing_writes(it: Stage, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The next three writes fail."""
    write: Callable[..., Any] = it.database.write
    left = iter(range(3))

    async def fail_first(batch: Sequence[Statement]) -> list[Rows]:
        if next(left, None) is not None:
            raise error
        rows: list[Rows] = await write(batch)
        return rows

    monkeypatch.setattr(it.database, "write", fail_first)


ERRORS = [StoreUnavailable("disk full"), Conflict("somebody was faster")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_a_store_that_fails_while_sighting_or_settling_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        failing_writes(it, monkeypatch, error)
        async with answering(it) as (_, doorbells):
            doorbells.ring(found.signature, SLOT)
            await told(it, order, "detected")
            failing_writes(it, monkeypatch, error)
            it.chain.finalize(SLOT)
            await told(it, order, "detected", "settled")


async def test_a_store_that_fails_at_the_start_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.pipeline.sight([it.pay(order, slot=SLOT)])
        it.chain.finalize(SLOT)
        read, left = it.database.read, iter(range(3))

        async def fail_first(batch: Sequence[Statement]) -> list[Rows]:
            if "sightings ORDER BY" in batch[0].sql and next(left, None) is not None:
                raise StoreUnavailable("locked")
            return await read(batch)

        monkeypatch.setattr(it.database, "read", fail_first)
        async with answering(it):
            await told(it, order, "detected", "settled")


async def test_a_chain_that_does_not_say_what_is_final_costs_time_only(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        it.node.fail("getSlot", rpc_error(-32602), times=20)
        doorbells.ring(it.pay(order, slot=SLOT).signature, SLOT)
        it.chain.finalize(SLOT)

        await told(it, order, "detected", "settled")


async def test_one_that_stays_unreadable_is_left_to_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it, answering(it) as (live, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        it.node.lies[found.signature] = lambda landed: landed["meta"].update(fee=-1)
        doorbells.ring(found.signature, SLOT)
        await eventually(lambda: live._awaited)
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)

        await eventually(lambda: not live._awaited)

        assert await it.letters() == [], "to park is the sweep's business"
        assert await it.events(order) == ["created"]


# ---------------------------------------------------------------------- looks that are waited for


async def test_a_look_returns_when_what_it_brought_is_stored(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (live, _):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)

        assert await live.look([Doorbell(found.signature, 0)]) == []
        assert await it.events(order) == ["created", "detected"]

        it.chain.finalize(SLOT)
        await told(it, order, "detected", "settled")


async def test_a_look_says_what_nobody_knows_yet_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (live, _):
        order = await it.expect()
        rumour = forged("rumour")

        [unread] = await live.look([Doorbell(rumour, 0), Doorbell(it.pay(order).signature, 0)])

        assert (unread.found.signature, unread.reason) == (rumour, "not_found")
        await told(it, order, "detected", "settled")
        assert not live._awaited
        assert await it.letters() == []


async def test_a_look_at_a_node_that_is_a_little_late_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it, answering(it, finality=False) as (live, _):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        it.node.fail("getTransaction", null(), times=SIGHT_ATTEMPTS_MAX - 1)

        assert await live.look([Doorbell(found.signature, 0)]) == []
        assert await it.events(order) == ["created", "detected"]


async def test_a_look_at_what_shows_nothing_waits_until_it_is_final(tmp_path: Path) -> None:
    """Too little to be shown, and yet it is to be in the books."""
    async with stage(tmp_path) as it, answering(it) as (live, _):
        order = await it.expect()
        dust = it.pay(order, slot=SLOT, amount=0)
        bells = [Doorbell(dust.signature, 0)]

        [unread] = await live.look(bells)
        assert unread.detail == "no node has it finalized"
        assert await it.letters() == []

        it.chain.finalize(SLOT)
        assert await live.look(bells) == []
        assert [v.signature for v in (await it.record(order)).verdicts] == [dust.signature]
        assert await it.events(order) == ["created"]


async def test_a_look_at_what_is_judged_already_asks_for_nothing_more(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it, finality=False) as (live, _):
        order = await it.expect()
        found = it.pay(order)
        await it.settle(found)
        asked = len(it.fetched())

        assert await live.look([Doorbell(found.signature, 0)]) == []
        assert len(it.fetched()) == asked
        assert not live._awaited


async def test_a_look_at_nothing_asks_nobody(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it, finality=False) as (live, _):
        assert await live.look([]) == []
        assert it.node.calls == []
