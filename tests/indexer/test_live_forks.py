"""What a fork takes away is taken back, once nothing can bring it back, and never before."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer import live as live_module
from indexer.core.payment import Payment
from indexer.core.types import Status
from indexer.errors import Conflict, StoreUnavailable
from indexer.live import DROPPED_AFTER_BLOCKS, MISSES_MIN
from indexer.pipeline import Found
from indexer.sources.doorbells import Doorbells
from store.database import Rows, Statement
from tests.chain import moved_to
from tests.indexer.living import answering, hasten, told
from tests.indexer.stage import (
    EXPIRES_AT,
    FINAL_SLOT,
    WATCH_KEY,
    Stage,
    paying,
    stage,
)
from tests.servers.fake_rpc import Fault, eventually, http, null, result, rpc_error


SLOT = FINAL_SLOT + 20  # confirmed at the start, and not final


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


# ---------------------------------------------------------------------------------- forks


def drop(it: Stage, found: Found) -> None:
    """A fork takes the transaction away, and time goes by."""
    it.chain.drop(found.signature)
    it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)


async def test_a_dropped_transaction_is_taken_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (live, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        doorbells.ring(found.signature, SLOT)
        await told(it, order, "detected")

        drop(it, found)

        await told(it, order, "detected", "reverted")
        record = await it.record(order)
        assert (record.payment.state.status, record.sightings) == (Status.PENDING, ())
        await eventually(lambda: not live._awaited)


async def test_a_dropped_transaction_may_land_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        landed = paying(order, slot=SLOT)
        found = it.found(landed)
        it.chain.add(landed)
        doorbells.ring(found.signature, SLOT)
        await told(it, order, "detected")
        drop(it, found)
        await told(it, order, "detected", "reverted")

        later = SLOT + DROPPED_AFTER_BLOCKS + 5
        it.chain.add(moved_to(landed, later))
        it.chain.confirm(later)
        doorbells.ring(found.signature, later)
        await told(it, order, "detected", "reverted", "detected")
        it.chain.finalize(later)

        await told(it, order, "detected", "reverted", "detected", "settled")
        assert (await it.record(order)).verdicts[0].slot == later


async def test_one_that_moved_to_a_later_slot_is_awaited_there(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        landed = paying(order, slot=SLOT)
        found = it.found(landed)
        it.chain.add(landed)
        doorbells.ring(found.signature, SLOT)
        await told(it, order, "detected")

        later = SLOT + DROPPED_AFTER_BLOCKS + 5
        it.chain.drop(found.signature)
        it.chain.add(moved_to(landed, later))
        it.chain.confirm(later)
        it.chain.finalize(later - 1)
        await eventually(lambda: it.node.count("getSignatureStatuses") > 2)
        assert await it.events(order) == ["created", "detected"]

        it.chain.finalize(later)
        await told(it, order, "detected", "settled")


async def test_a_null_is_no_fork_while_the_cluster_knows_the_signature(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        doorbells.ring(found.signature, SLOT)
        await told(it, order, "detected")
        it.node.hidden.add(found.signature)
        known = {"slot": SLOT, "err": None, "confirmationStatus": "finalized"}
        answer = {"context": {"slot": SLOT}, "value": [known]}
        it.node.fail("getSignatureStatuses", result(answer), times=None)
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)

        await eventually(lambda: it.node.count("getSignatureStatuses") > 3)
        assert await it.events(order) == ["created", "detected"]

        it.node.hidden.clear()
        await told(it, order, "detected", "settled")


async def test_one_endpoint_alone_does_not_keep_a_sighting_alive(tmp_path: Path) -> None:
    """It may be the one that made it up."""
    async with stage(tmp_path, nodes=3, quorum=2) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        doorbells.ring(found.signature, SLOT)
        await told(it, order, "detected")
        known = {"slot": SLOT, "err": None, "confirmationStatus": "confirmed"}
        answer = {"context": {"slot": SLOT}, "value": [known]}
        for node in it.nodes[:2]:
            node.fail("getSignatureStatuses", result(answer), times=None)

        drop(it, found)
        await eventually(lambda: it.nodes[2].count("getSignatureStatuses") > 2)
        assert await it.events(order) == ["created", "detected"]

        it.nodes[1].heal()
        await told(it, order, "detected", "reverted")


@pytest.mark.parametrize("fault", [http(500), rpc_error(-32005), rpc_error(-32001)])
async def test_no_answer_is_no_fork(tmp_path: Path, fault: Fault) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        doorbells.ring(found.signature, SLOT)
        await told(it, order, "detected")
        it.node.fail("getTransaction", fault, times=None)
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)

        await eventually(lambda: len(it.fetched()) > 10)
        assert await it.events(order) == ["created", "detected"]

        it.node.heal()
        it.node.hidden.clear()
        await told(it, order, "detected", "settled")


async def sighted_and_dropped(it: Stage, doorbells: Doorbells, slot: int = SLOT) -> Payment:
    """A payment that was detected by what a fork then took away."""
    order = await it.expect()
    found = it.pay(order, slot=slot)
    doorbells.ring(found.signature, slot)
    await told(it, order, "detected")
    it.chain.drop(found.signature)
    return order


async def looked_for(it: Stage, times: int = 6) -> None:
    """Waits until what is missing was looked for so often that nothing hangs on one more time."""
    it.node.calls.clear()
    await eventually(lambda: len(it.fetched()) > times)


async def test_time_and_slots_alone_drop_nothing(tmp_path: Path) -> None:
    """A blockhash grows old by blocks: while slots stay empty, it may land again."""
    async with stage(tmp_path) as it, answering(it) as (live, doorbells):
        order = await sighted_and_dropped(it, doorbells)
        empty = range(it.chain.tip + 1, it.chain.tip + 301)
        it.chain.skipped.update(empty)
        enough = SLOT + len(empty) + DROPPED_AFTER_BLOCKS
        it.chain.finalize(enough - 1)
        await looked_for(it)
        assert await it.events(order) == ["created", "detected"]

        it.chain.finalize(enough)
        await told(it, order, "detected", "reverted")
        await eventually(lambda: not live._awaited)


async def test_a_null_or_two_drop_nothing(tmp_path: Path) -> None:
    """However long ago it was, and whatever is said of its status."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.pipeline.sight([it.pay(order, slot=SLOT)])
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)
        unknown = result({"context": {"slot": SLOT}, "value": [None]})
        it.node.fail("getSignatureStatuses", unknown, times=None)
        it.node.fail("getTransaction", null(), times=MISSES_MIN - 1)

        async with answering(it):
            await told(it, order, "detected", "settled")


async def test_a_sighting_is_taken_back_however_long_nobody_could_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks no more at what was sighted leaves its payment detected until the next start."""
    monkeypatch.setattr(live_module, "MISSES_MAX", 3)
    async with stage(tmp_path) as it, answering(it) as (live, doorbells):
        order = await sighted_and_dropped(it, doorbells)
        it.node.fail("getTransaction", rpc_error(-32602), times=20)
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)

        await told(it, order, "detected", "reverted")
        await eventually(lambda: not live._awaited)


async def test_one_block_too_few_drops_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await sighted_and_dropped(it, doorbells)
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS - 1)
        await looked_for(it)
        assert await it.events(order) == ["created", "detected"]
        assert it.node.count("getBlocks") == 0, "there are no more blocks than slots"

        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)
        await told(it, order, "detected", "reverted")


async def test_nothing_is_dropped_where_finality_comes_with_confirmation(tmp_path: Path) -> None:
    """As with Alpenglow: what is confirmed is final, and a node may give it a little later."""
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        await it.pipeline.sight([found])
        it.node.hidden.add(found.signature)
        it.chain.finalize(SLOT)
        doorbells.ring(found.signature, SLOT)
        await looked_for(it)
        assert await it.events(order) == ["created", "detected"]

        it.node.hidden.clear()
        await told(it, order, "detected", "settled")


@pytest.mark.parametrize(
    ("fault", "is_refusal"), [(rpc_error(-32601), True), (rpc_error(-32004), False)]
)
async def test_where_no_blocks_are_listed_only_very_many_slots_will_do(
    tmp_path: Path, fault: Fault, is_refusal: bool
) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await sighted_and_dropped(it, doorbells)
        it.node.fail("getBlocks", fault, times=None)
        it.chain.finalize(SLOT + 4 * DROPPED_AFTER_BLOCKS - 1)
        await looked_for(it)
        assert await it.events(order) == ["created", "detected"]

        other = await it.expect(name="other")
        doorbells.ring(it.pay(other).signature, FINAL_SLOT)
        async with asyncio.timeout(90):
            while (await it.record(other)).payment.state.status is not Status.SETTLED:
                await asyncio.sleep(0.005)

        it.chain.finalize(SLOT + 4 * DROPPED_AFTER_BLOCKS)
        if is_refusal:
            await told(it, order, "detected", "reverted")
            return
        await looked_for(it)
        assert await it.events(order) == ["created", "detected"]
        it.node.heal()
        await told(it, order, "detected", "reverted")


async def test_a_node_that_forgets_blocks_early_does_not_hide_that_they_are_many(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, nodes=2) as it, answering(it) as (_, doorbells):
        order = await sighted_and_dropped(it, doorbells)
        it.node.fail("getBlocks", result([SLOT + DROPPED_AFTER_BLOCKS]), times=None)
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)

        await told(it, order, "detected", "reverted")


KNOWN = {"slot": SLOT, "err": None, "confirmationStatus": "confirmed"}


@pytest.mark.parametrize(
    "fault",
    [result({"context": {"slot": SLOT}, "value": [KNOWN]}), http(500), rpc_error(-32011)],
    ids=["remembers", "is_down", "keeps_no_history"],
)
async def test_a_second_node_must_say_so_too(tmp_path: Path, fault: Fault) -> None:
    async with stage(tmp_path, nodes=2) as it, answering(it) as (_, doorbells):
        order = await sighted_and_dropped(it, doorbells)
        it.nodes[1].fail("getSignatureStatuses", fault, times=None)
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)
        await looked_for(it)
        assert await it.events(order) == ["created", "detected"]

        it.nodes[1].heal()
        it.rpc.endpoints[1].health.answered(float("inf"), float("inf"))
        await told(it, order, "detected", "reverted")


async def test_a_node_that_has_not_come_so_far_says_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=2) as it, answering(it) as (_, doorbells):
        order = await sighted_and_dropped(it, doorbells)
        it.nodes[1].behind = DROPPED_AFTER_BLOCKS + 1
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)
        await looked_for(it)
        assert await it.events(order) == ["created", "detected"]

        it.nodes[1].behind = DROPPED_AFTER_BLOCKS
        await told(it, order, "detected", "reverted")


@pytest.mark.parametrize("said", [0, FINAL_SLOT], ids=["no_slot", "a_wrong_slot"])
async def test_blocks_are_counted_from_where_it_was_sighted(tmp_path: Path, said: int) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        doorbells.ring(found.signature, said)
        await told(it, order, "detected")
        it.chain.drop(found.signature)
        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS - 1)
        await looked_for(it)
        assert await it.events(order) == ["created", "detected"]

        it.chain.finalize(SLOT + DROPPED_AFTER_BLOCKS)
        await told(it, order, "detected", "reverted")


async def test_an_expired_payment_whose_sighting_was_dropped_stays_expired(
    tmp_path: Path,
) -> None:
    """Its deadline passed while the block of the sighting was still to become final."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        await it.pipeline.sight([found])
        it.chain.block_times[SLOT - 1] = EXPIRES_AT + 1
        it.chain.finalize(SLOT - 1)
        await it.check(order)
        await it.sweeper().sweep(WATCH_KEY)
        await told(it, order, "detected", "expired")
        drop(it, found)

        async with answering(it), asyncio.timeout(90):
            while (await it.record(order)).sightings:
                await asyncio.sleep(0.005)

        assert (await it.record(order)).payment.state.status is Status.EXPIRED
        assert await it.events(order) == ["created", "detected", "expired"]


async def test_one_of_two_sightings_that_was_dropped_leaves_the_other(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        dropped, other = it.pay(order, slot=SLOT), it.pay(order, slot=SLOT, name="again")
        for found in (dropped, other):
            doorbells.ring(found.signature, SLOT)
        async with asyncio.timeout(90):
            while len((await it.record(order)).sightings) != 2:
                await asyncio.sleep(0.005)

        drop(it, dropped)

        await told(it, order, "detected", "settled")
        async with asyncio.timeout(90):
            while (await it.record(order)).sightings:
                await asyncio.sleep(0.005)


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
async def test_a_store_that_fails_while_taking_back_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with stage(tmp_path) as it, answering(it) as (_, doorbells):
        order = await it.expect()
        found = it.pay(order, slot=SLOT)
        doorbells.ring(found.signature, SLOT)
        await told(it, order, "detected")

        failing_writes(it, monkeypatch, error)
        drop(it, found)

        await told(it, order, "detected", "reverted")
