"""Sweeps: complete, or not at all."""

from pathlib import Path

import pytest
from aiohttp import web

from indexer.core.types import Status
from indexer.errors import SourceError, SourceUnavailable
from indexer.survey import OVERLAP_SLOTS
from tests.indexer.stage import (
    EXPIRES_AT,
    FINAL_SLOT,
    WATCH_KEY,
    Stage,
    forged,
    stage,
)
from tests.servers.fake_rpc import Call, Fault, hang_up, http, result, rpc_error


LISTING = "getSignaturesForAddress"


def advance_final(it: Stage, slots: int) -> None:
    it.chain.finalize(it.chain.finalized + slots)


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
        it.pay(await it.expect(name="old"), slot=FINAL_SLOT - OVERLAP_SLOTS - 1)
        edge = it.pay(await it.expect(name="edge"), slot=FINAL_SLOT - OVERLAP_SLOTS)
        await it.sweeper().sweep(WATCH_KEY)
        it.node.calls.clear()
        advance_final(it, 1)

        await it.sweeper().sweep(WATCH_KEY)  # after a restart: nothing is remembered

        assert it.fetched() == [edge.signature]


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


async def test_what_arrives_while_paging_is_found_by_the_next_sweep(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()

        async def arrive(call: Call) -> web.StreamResponse:
            rows = it.node._signatures(*call.params)
            it.pay(order, slot=FINAL_SLOT + 1)
            it.chain.finalize(FINAL_SLOT + 1)
            return await result(rows)(call)

        it.node.fail(LISTING, arrive)
        sweeper = it.sweeper()
        assert await sweeper.sweep(WATCH_KEY) == FINAL_SLOT
        assert await it.events(order) == ["created"]

        await sweeper.sweep(WATCH_KEY)
        assert await it.events(order) == ["created", "settled"]


# ---------------------------------------------------------------- the frontier and the truth


FAULTS = {
    "listing refused": (LISTING, rpc_error(-32601)),
    "listing dead": (LISTING, http(500)),
    "listing garbled": (LISTING, result([{"slot": "a"}])),
    "listing with an impossible slot": (
        LISTING,
        result([{"signature": forged("far"), "slot": 2**70, "err": None}]),
    ),
    "listing with an impossible time": (
        LISTING,
        result([{"signature": forged("far"), "slot": 9, "err": None, "blockTime": 2**70}]),
    ),
    "listing that turns in circles": (
        LISTING,
        result([{"signature": forged(f"far {n}"), "slot": 9, "err": None} for n in range(3)]),
    ),
    "head dead": ("getSlot", hang_up()),
    "head garbled": ("getSlot", result(-7)),
    "head impossible": ("getSlot", result(2**70)),
    "time garbled": ("getBlockTime", result(2**70)),
}


@pytest.mark.parametrize(("method", "fault"), FAULTS.values(), ids=FAULTS)
async def test_a_sweep_that_is_not_complete_moves_nothing(
    tmp_path: Path, method: str, fault: Fault
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order)
        it.node.fail(method, fault, times=None)

        with pytest.raises(SourceError):
            await it.sweeper().sweep(WATCH_KEY)

        assert await it.frontier() is None
        assert (await it.record(order)).payment.state.status is Status.PENDING


async def test_a_frontier_passes_what_is_parked_and_nothing_expires_meanwhile(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(name="order"), await it.expect(name="other")
        found = it.pay(order)
        it.node.fail("getTransaction", http(500), times=None)
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 1
        await it.check(other)

        assert await it.sweeper().sweep(WATCH_KEY) == FINAL_SLOT

        assert [letter.signature for letter in await it.letters()] == [found.signature]
        for each in (order, other):
            assert await it.events(each) == ["created"]

        it.node.heal()
        it.chain.block_times[FINAL_SLOT + 1] = EXPIRES_AT + 2
        advance_final(it, 1)
        await it.sweeper().sweep(WATCH_KEY)  # remembers nothing, so it finds it in the overlap
        assert await it.letters() == []
        assert await it.events(order) == ["created", "settled"]
        assert await it.events(other) == ["created", "expired"]


async def test_a_frontier_never_goes_back_and_grows_old_when_the_chain_stands_still(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        sweeper = it.sweeper()
        await sweeper.sweep(WATCH_KEY)
        before = await it.frontier()
        it.clock.now += 100

        assert await sweeper.sweep(WATCH_KEY) == FINAL_SLOT
        assert await it.frontier() == before

        it.node.behind = OVERLAP_SLOTS
        assert await sweeper.sweep(WATCH_KEY) == FINAL_SLOT
        assert await it.frontier() == before

        it.node.behind = OVERLAP_SLOTS + 1
        with pytest.raises(SourceUnavailable, match="far behind"):
            await sweeper.sweep(WATCH_KEY)
        assert await it.frontier() == before


# --------------------------------------------------------------------------- several nodes


async def test_a_node_that_stands_still_holds_nobody_up(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=2) as it:
        order = await it.expect()
        it.nodes[0].behind = 300
        it.pay(order)

        assert await it.sweeper().sweep(WATCH_KEY) == FINAL_SLOT

        assert await it.events(order) == ["created", "settled"]


async def test_a_node_that_runs_ahead_is_not_believed_alone(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=3, quorum=2) as it:
        order = await it.expect()
        it.pay(order)
        it.nodes[0].behind = -(10**9)

        assert await it.sweeper().sweep(WATCH_KEY) == FINAL_SLOT

        assert await it.events(order) == ["created", "settled"]


@pytest.mark.parametrize("hiding", [0, 1, 2])
async def test_what_one_node_hides_another_lists(tmp_path: Path, hiding: int) -> None:
    async with stage(tmp_path, nodes=3, quorum=2) as it:
        order = await it.expect()
        found = it.pay(order)
        it.nodes[hiding].hidden.add(found.signature)

        await it.sweeper().sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "settled"]


async def test_a_frontier_moves_only_when_enough_nodes_have_listed_the_key(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=3, quorum=2) as it:
        order = await it.expect()
        it.pay(order)
        for node in it.nodes[1:]:
            node.fail(LISTING, http(500), times=None)

        with pytest.raises(SourceUnavailable, match="1 of 2 endpoints listed"):
            await it.sweeper().sweep(WATCH_KEY)

        assert await it.frontier() is None
        assert await it.events(order) == ["created", "settled"], "found, but not complete"
        it.nodes[2].heal()
        it.rpc.endpoints[2].health.answered(float("inf"), float("inf"))
        await it.sweeper().sweep(WATCH_KEY)
        assert await it.frontier() is not None
