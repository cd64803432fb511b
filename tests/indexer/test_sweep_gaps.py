"""What was covered, what may have been missed, and what nobody kept: written down, and closed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from indexer import sweep as sweep_module
from indexer.core.ranges import Slots
from indexer.errors import SourceError, StoreUnavailable
from indexer.sources import reach as reach_module
from indexer.survey import OVERLAP_SLOTS
from indexer.sweep import Sweeper
from store import coverage, gaps
from store.database import Rows, Statement
from store.gaps import GapReason
from tests.chain import BLOCK_TIME, key
from tests.indexer.stage import EXPIRES_AT, FINAL_SLOT, GRACE_S, WATCH_KEY, Stage, stage
from tests.servers.fake_rpc import Call, Fault, eventually, http, result, rpc_error


FIRST_BLOCK = "getFirstAvailableBlock"
#: A frontier from before a long pause.
OLD = 300


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test can wait for; what nodes keep is asked each time."""
    for name in ("SWEEP_INTERVAL_S", "SWEEP_SOON_S", "SWEEP_PAUSE_S"):
        monkeypatch.setattr(sweep_module, name, 0.01)
    monkeypatch.setattr(reach_module, "KEPT_S", -1.0)


@asynccontextmanager
async def running(sweeper: Sweeper) -> AsyncIterator[None]:
    task = asyncio.create_task(sweeper.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def covered(it: Stage, watched: str = WATCH_KEY) -> list[tuple[int, int]]:
    return [(slots.first, slots.last) for slots in await coverage.of(it.database, watched)]


async def noted(it: Stage, *, only_open: bool = False) -> list[tuple[str, int, int, str]]:
    """Reason, slots and source of the gaps, the oldest first."""
    found = await gaps.listing(it.database, 100, only_open=only_open)
    return sorted((gap.reason.value, gap.slots.first, gap.slots.last, gap.source) for gap in found)


async def open_gaps(it: Stage) -> list[tuple[str, int, int, str]]:
    return await noted(it, only_open=True)


# --------------------------------------------------------------------------------- coverage


async def test_frontier_coverage_and_closed_gaps_are_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        await it.advance(OLD, BLOCK_TIME)
        batches: list[str] = []
        write = it.database.write

        async def listen(batch: Sequence[Statement]) -> list[Rows]:
            batches.append(" ".join(statement.sql.split("(")[0] for statement in batch))
            return await write(batch)

        monkeypatch.setattr(it.database, "write", listen)
        await it.sweeper().sweep(WATCH_KEY)

        [batch] = [each for each in batches if "cursors" in each]
        assert "INTO coverage" in batch
        assert "UPDATE gaps" in batch


@pytest.mark.parametrize(
    ("first_available", "expected"), [(0, 0), (31, 31), (FINAL_SLOT, FINAL_SLOT)]
)
async def test_a_first_sweep_covers_what_the_node_keeps(
    tmp_path: Path, first_available: int, expected: int
) -> None:
    async with stage(tmp_path) as it:
        it.node.first_available = first_available

        await it.sweeper().sweep(WATCH_KEY)

        assert await covered(it) == [(expected, FINAL_SLOT)]
        assert await noted(it) == []


@pytest.mark.parametrize("fault", [rpc_error(-32601), rpc_error(-32010), http(403)])
async def test_where_the_node_does_not_say_it_covers_what_was_listed(
    tmp_path: Path, fault: Fault
) -> None:
    async with stage(tmp_path) as it:
        it.node.fail(FIRST_BLOCK, fault, times=None)
        order = await it.expect()
        it.pay(order, slot=700)
        it.pay(order, slot=800, name="again")

        await it.sweeper().sweep(WATCH_KEY)

        assert await covered(it) == [(700, FINAL_SLOT)]
        assert await noted(it) == []


async def test_where_nothing_was_listed_and_nothing_said_it_covers_its_own_slot(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        it.node.fail(FIRST_BLOCK, rpc_error(-32601), times=None)

        await it.sweeper().sweep(WATCH_KEY)
        assert await covered(it) == [(FINAL_SLOT, FINAL_SLOT)]

        it.chain.finalize(FINAL_SLOT + 7)
        await it.sweeper().sweep(WATCH_KEY)
        assert await covered(it) == [(FINAL_SLOT - OVERLAP_SLOTS, FINAL_SLOT + 7)]


async def test_sweeps_leave_no_hole_between_them(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.node.first_available = 10
        sweeper = it.sweeper()
        for slots in (0, 1, 700, 5_000):
            it.chain.finalize(it.chain.finalized + slots)
            await sweeper.sweep(WATCH_KEY)

        assert await covered(it) == [(10, FINAL_SLOT + 5_701)]


async def test_a_sweep_that_fails_covers_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.node.fail("getSignaturesForAddress", http(500), times=None)

        with pytest.raises(SourceError):
            await it.sweeper().sweep(WATCH_KEY)

        assert await covered(it) == []


# ---------------------------------------------------------------------- what nobody kept


async def test_a_hole_before_what_the_node_keeps_is_noted(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, lost = await it.expect(name="order"), await it.expect(name="lost")
        await it.advance(OLD, BLOCK_TIME - 500)
        await it.database.write(coverage.add(WATCH_KEY, Slots(0, OLD), 0))
        it.pay(order, slot=900)
        it.pay(lost, slot=400)
        it.node.first_available = 600

        assert await it.sweeper().sweep(WATCH_KEY) == FINAL_SLOT

        assert await it.events(order) == ["created", "settled"]
        assert await it.events(lost) == ["created"]
        assert await covered(it) == [(0, OLD), (600, FINAL_SLOT)]
        assert await open_gaps(it) == [("pruned", OLD + 1, 599, "")]


@pytest.mark.parametrize(
    ("first_available", "is_hole"), [(OLD + 1, False), (OLD + 2, True), (OLD - 100, False)]
)
async def test_a_frontier_that_the_node_reaches_has_no_hole(
    tmp_path: Path, first_available: int, is_hole: bool
) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        await it.advance(OLD, BLOCK_TIME)
        it.node.first_available = first_available

        await it.sweeper().sweep(WATCH_KEY)

        assert bool(await noted(it)) is is_hole


async def test_a_hole_is_closed_when_it_matters_to_no_payment(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, sweeper = await it.expect(), it.sweeper()
        await it.advance(OLD, BLOCK_TIME)
        it.node.first_available = 600
        it.chain.block_times[600] = BLOCK_TIME
        await sweeper.sweep(WATCH_KEY)
        it.chain.finalize(FINAL_SLOT + 1)
        await sweeper.sweep(WATCH_KEY)
        assert len(await open_gaps(it)) == 1

        await it.expect(name="younger", created_at=BLOCK_TIME)
        await it.settle(it.pay(order))
        it.chain.finalize(FINAL_SLOT + 2)
        await sweeper.sweep(WATCH_KEY)

        assert await open_gaps(it) == []
        assert len(await noted(it)) == 1


async def test_a_hole_is_swept_when_a_node_turns_up_that_kept_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        lost, sweeper = await it.expect(), it.sweeper()
        await it.advance(OLD, BLOCK_TIME)
        it.pay(lost, slot=400)
        it.node.first_available = 600
        await sweeper.sweep(WATCH_KEY)
        assert await it.events(lost) == ["created"]

        it.node.first_available = 0
        it.chain.finalize(FINAL_SLOT + 1)
        await sweeper.sweep(WATCH_KEY)

        assert await it.events(lost) == ["created", "settled"]
        assert await open_gaps(it) == []
        assert await covered(it) == [(OLD + 1, FINAL_SLOT + 1)]


async def test_a_node_that_kept_it_is_asked_where_another_did_not(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=2) as it:
        order = await it.expect()
        await it.advance(OLD, BLOCK_TIME)
        it.pay(order, slot=400)
        it.nodes[0].first_available = 600

        await it.sweeper().sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "settled"]
        assert await noted(it) == []
        assert it.nodes[0].count("getSignaturesForAddress") == 0


async def test_one_that_is_silent_and_may_have_kept_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path, nodes=2) as it:
        order, sweeper = await it.expect(), it.sweeper()
        await it.advance(OLD, BLOCK_TIME)
        it.pay(order, slot=400)
        it.nodes[0].first_available = 600
        it.nodes[1].fail(FIRST_BLOCK, http(500), times=None)

        with pytest.raises(SourceError, match="may have kept it"):
            await sweeper.sweep(WATCH_KEY)
        frontier = await it.frontier()
        assert frontier is not None
        assert frontier.slot == OLD

        monkeypatch.setattr(reach_module, "PATIENCE_S", 0.0)
        await sweeper.sweep(WATCH_KEY)
        assert await open_gaps(it) == [("pruned", OLD + 1, 599, "")]


@pytest.mark.parametrize(("created_at", "is_noted"), [(BLOCK_TIME - 1, True), (BLOCK_TIME, False)])
async def test_a_first_sweep_notes_what_a_payment_may_have_got_before_the_node_remembers(
    tmp_path: Path, created_at: int, is_noted: bool
) -> None:
    async with stage(tmp_path) as it:
        await it.expect(created_at=created_at)
        it.node.first_available = 600
        it.chain.block_times[600] = BLOCK_TIME

        await it.sweeper().sweep(WATCH_KEY)

        assert await open_gaps(it) == ([("pruned", 0, 599, "")] if is_noted else [])
        assert await covered(it) == [(600, FINAL_SLOT)]


async def test_payments_that_are_closed_are_no_reason_to_note_anything(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.cancel(await it.expect(name="canceled"))
        await it.settle(it.pay(await it.expect(name="settled")))
        it.node.first_available = 600
        it.chain.block_times[600] = EXPIRES_AT + GRACE_S

        await it.sweeper().sweep(WATCH_KEY)

        assert await noted(it) == []


async def test_what_is_cleaned_up_while_it_is_read_is_not_passed_over(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.advance(OLD, BLOCK_TIME)
        it.node.first_available = OLD

        async def forget(call: Call) -> web.StreamResponse:
            rows = it.node._signatures(*call.params)
            it.node.first_available = 700
            return await result(rows)(call)

        it.node.fail("getSignaturesForAddress", forget)
        with pytest.raises(SourceError, match="cleaned up while it was read"):
            await it.sweeper().sweep(WATCH_KEY)
        assert await noted(it) == []


# ------------------------------------------------------------------- what may have been missed


async def test_the_time_without_a_daemon_is_a_gap_until_it_is_swept(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.advance(OLD, BLOCK_TIME)
        sweeper = it.sweeper()
        sweeper.subscribed(FINAL_SLOT + 30, "one")
        async with running(sweeper):
            await eventually(lambda: sweeper.problem is None)
            assert await open_gaps(it) == [("start", OLD + 1, FINAL_SLOT + 30, "")]

            it.chain.finalize(FINAL_SLOT + 29)
            await frontier_at(it, FINAL_SLOT + 29)
            assert len(await open_gaps(it)) == 1

            it.chain.finalize(FINAL_SLOT + 30)
            await frontier_at(it, FINAL_SLOT + 30)
            assert await open_gaps(it) == []
        assert len(await noted(it)) == 1


async def test_it_is_a_gap_too_when_the_first_sweep_comes_before_the_first_subscription(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        await it.advance(OLD, BLOCK_TIME)
        sweeper = it.sweeper()
        async with running(sweeper):
            await frontier_at(it, FINAL_SLOT)
            await eventually(lambda: sweeper.problem is None)
            assert await noted(it) == [("start", OLD + 1, it.chain.confirmed, "")]

            sweeper.subscribed(it.chain.confirmed + 5)
            it.chain.finalize(it.chain.confirmed + 5)
            await frontier_at(it, it.chain.finalized)
        assert await open_gaps(it) == []
        assert ("start", OLD + 1, FINAL_SLOT + 31, "") in await noted(it)


async def test_before_the_first_sweep_nothing_can_have_been_missed(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        sweeper = it.sweeper()
        sweeper.subscribed(FINAL_SLOT + 30)
        async with running(sweeper):
            await eventually(lambda: sweeper.problem is None)

        assert await noted(it) == []


async def test_only_the_first_subscription_of_a_process_ends_its_start(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.advance(OLD, BLOCK_TIME)
        sweeper = it.sweeper()
        for slot, source in ((1_020, "one"), (1_025, "other"), (1_030, "one")):
            sweeper.subscribed(slot, source)

        await sweeper._note_missed()

        assert await noted(it) == [("start", OLD + 1, 1_020, "")]


async def test_a_connection_that_was_lost_leaves_a_gap_of_its_endpoint(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.advance(FINAL_SLOT, BLOCK_TIME)
        sweeper = it.sweeper()
        for source in ("one", "other"):
            sweeper.subscribed(1_001, source)
        await sweeper._note_missed()

        sweeper.lost(1_010, "one")
        sweeper.lost(1_012, "other")
        sweeper.subscribed(1_020, "one")
        await sweeper._note_missed()
        assert [gap for gap in await noted(it) if gap[0] == "reconnect"] == [
            ("reconnect", 1_010, 1_020, "one")
        ]

        sweeper.subscribed(1_030, "other")
        sweeper.subscribed(1_040, "other")  # a key more, nothing was lost
        await sweeper._note_missed()
        assert [gap for gap in await noted(it) if gap[0] == "reconnect"] == [
            ("reconnect", 1_010, 1_020, "one"),
            ("reconnect", 1_012, 1_030, "other"),
        ]


async def test_what_did_not_fit_is_a_gap_up_to_where_the_chain_is(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.advance(FINAL_SLOT, BLOCK_TIME)
        sweeper = it.sweeper()
        for slot in (1_015, 1_012, 1_020):
            sweeper.missed(slot, None, GapReason.OVERFLOW)

        await sweeper._note_missed()

        assert await noted(it) == [("overflow", 1_012, it.chain.confirmed, "")]


async def test_what_is_complete_already_was_not_missed(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.advance(FINAL_SLOT, BLOCK_TIME)
        sweeper = it.sweeper()
        sweeper.missed(100, FINAL_SLOT, GapReason.RECONNECT, "one")
        sweeper.missed(100, FINAL_SLOT + 5, GapReason.RECONNECT, "other")

        await sweeper._note_missed()

        assert await noted(it) == [("reconnect", FINAL_SLOT + 1, FINAL_SLOT + 5, "other")]


async def test_every_shared_key_with_a_frontier_has_the_gap(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        old, fresh, reference = key("old watch key"), key("fresh"), key("one payment's")
        for watched in (WATCH_KEY, old, reference):
            await it.advance(FINAL_SLOT, BLOCK_TIME, watched=watched)
        sweeper = Sweeper(
            it.database,
            it.rpc,
            it.pipeline,
            lambda: (WATCH_KEY, old, fresh, reference),
            clock=it.clock,
            shared=lambda: (WATCH_KEY, old, fresh),
        )
        sweeper.subscribed(FINAL_SLOT + 9)

        await sweeper._note_missed()

        found = await gaps.listing(it.database, 10)
        assert {gap.key for gap in found} == {WATCH_KEY, old}


@pytest.mark.parametrize("is_store", [True, False], ids=["the_store", "the_node"])
async def test_a_gap_that_cannot_be_stored_stops_the_round_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_store: bool
) -> None:
    async with stage(tmp_path) as it:
        await it.advance(OLD, BLOCK_TIME)
        sweeper, write = it.sweeper(), it.database.write
        failing = [True]

        async def fail(batch: Sequence[Statement]) -> list[Rows]:
            if failing and "INTO gaps" in batch[0].sql:
                raise StoreUnavailable("disk full")
            return await write(batch)

        if is_store:
            monkeypatch.setattr(it.database, "write", fail)
        else:
            it.node.fail("getSlot", rpc_error(-32601, "disk full"), times=None)
        sweeper.missed(FINAL_SLOT + 1, None, GapReason.OVERFLOW)
        async with running(sweeper):
            await eventually(lambda: "disk full" in (sweeper.problem or ""))
            assert it.node.count("getSignaturesForAddress") == 0
            sweeper.missed(FINAL_SLOT + 9, None, GapReason.OVERFLOW)
            failing.clear()
            it.node.heal()
            await eventually(lambda: sweeper.problem is None)

        assert [gap for gap in await noted(it) if gap[0] == "overflow"] == [
            ("overflow", FINAL_SLOT + 1, it.chain.confirmed, "")
        ]


async def test_a_gap_outlives_its_process(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.advance(FINAL_SLOT, BLOCK_TIME)
        dying = it.sweeper()
        dying.missed(1_005, 1_009, GapReason.RECONNECT, "one")
        await dying._note_missed()
        del dying

        assert await open_gaps(it) == [("reconnect", 1_005, 1_009, "one")]
        it.chain.finalize(1_009)
        await it.sweeper().sweep(WATCH_KEY)

        assert await open_gaps(it) == []


async def frontier_at(it: Stage, slot: int) -> None:
    """Waits until the sweeps have come so far."""
    async with asyncio.timeout(90):
        while True:
            frontier = await it.frontier()
            if frontier is not None and frontier.slot >= slot:
                return
            await asyncio.sleep(0.005)
