"""What a stored range proves, and no more: coverage, frontiers, gaps, expiry."""

from pathlib import Path

import pytest

from indexer.core.ranges import Slots
from indexer.core.types import Status
from indexer.expiry import Expiry
from indexer.references import References
from indexer.undertaking import Strategy
from store import coverage, gaps, reference_checks
from store.gaps import GapReason
from tests.chain import BLOCK_TIME
from tests.indexer.replaying import BOTH, SLOTS, run, staged, states
from tests.indexer.stage import (
    AMOUNT,
    EXPIRES_AT,
    FINAL_SLOT,
    WATCH_KEY,
    Stage,
)
from tests.servers.fake_rpc import null


# -------------------------------------------------------------- coverage, frontiers, gaps, expiry


@BOTH
async def test_the_range_is_covered_when_all_of_it_is_stored(
    strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        report = await run(it, strategy)

        assert await coverage.of(it.database, WATCH_KEY) == [SLOTS]
    assert report.coverage == {WATCH_KEY: SLOTS}


@BOTH
@pytest.mark.parametrize(
    ("frontier", "after"),
    [(898, 898), (899, 950), (920, 950), (950, 950), (960, 960)],
    ids=["a hole between", "next to it", "inside", "at its end", "beyond"],
)
async def test_a_frontier_moves_only_over_what_is_covered(
    frontier: int, after: int, strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        await it.advance(frontier, BLOCK_TIME)

        report = await run(it, strategy)

        moved = await it.frontier()
    assert moved is not None
    assert (moved.slot, report.frontiers[WATCH_KEY]) == (after, after)
    if after == 950 > frontier:
        assert moved.block_time == BLOCK_TIME + 950


@BOTH
async def test_a_frontier_moves_over_what_others_covered_before(
    strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        await it.advance(500, BLOCK_TIME)
        await it.database.write(coverage.add(WATCH_KEY, Slots(450, 899), 1))

        await run(it, strategy)

        moved = await it.frontier()
    assert moved is not None
    assert moved.slot == 950


@BOTH
@pytest.mark.parametrize(
    ("created_at", "begins"),
    [(BLOCK_TIME + 900 + 60, True), (BLOCK_TIME + 900 + 59, False), (BLOCK_TIME - 100, False)],
)
async def test_a_frontier_begins_where_no_payment_is_older(
    created_at: int, begins: bool, strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        it.clock.now = created_at
        await it.expect(created_at=created_at)

        await run(it, strategy)

        frontier = await it.frontier()
    assert (frontier is not None) is begins


@BOTH
async def test_a_frontier_begins_with_the_first_slot_whatever_is_open(
    strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        await it.expect()

        await run(it, strategy, Slots(0, 950))

        frontier = await it.frontier()
    assert frontier is not None
    assert (frontier.slot, frontier.block_time) == (950, BLOCK_TIME + 950)


@BOTH
async def test_a_reference_made_elsewhere_may_have_been_paid_before(
    strategy: Strategy, tmp_path: Path
) -> None:
    """Its frontier begins with nothing but the first slot."""
    async with staged(tmp_path) as it:
        it.clock.now = BLOCK_TIME + 5_000
        order = await it.expect(watch_key=None, created_at=BLOCK_TIME + 1_200)

        await run(it, strategy)
        before = await it.frontier(order.terms.reference)
        await run(it, strategy, Slots(0, 950))
        after = await it.frontier(order.terms.reference)

    assert before is None
    assert after is not None


@BOTH
async def test_skipped_slots_at_the_end_do_not_make_the_frontier_younger(
    strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        it.chain.skipped |= set(range(930, 960))
        await it.advance(899, BLOCK_TIME)

        await run(it, strategy)

        moved = await it.frontier()
    assert moved is not None
    assert (moved.slot, moved.block_time) == (950, BLOCK_TIME + 929)


@BOTH
async def test_gaps_that_are_covered_are_closed(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        for slots, reason in (
            (Slots(910, 920), GapReason.OVERFLOW),
            (Slots(900, 950), GapReason.PRUNED),
            (Slots(940, 951), GapReason.RECONNECT),
        ):
            await it.database.write([gaps.note(WATCH_KEY, slots, reason, 1)])

        await run(it, strategy)

        [left] = await gaps.listing(it.database, 10, only_open=True)
    assert left.slots == Slots(940, 951)


async def test_blocks_prove_that_nobody_paid(tmp_path: Path) -> None:
    """A payment whose whole life lies in the range expires, and a longer one does not."""
    async with staged(tmp_path) as it:
        it.clock.now = EXPIRES_AT + 10_000
        short = await it.expect(expires_at=BLOCK_TIME + 949)
        long = await it.expect(name="long", expires_at=BLOCK_TIME + 950)

        await run(it, Strategy.BLOCKS, Slots(0, 950))

        status = [(await it.record(each)).payment.state.status for each in (short, long)]
        assert await it.events(short) == ["created", "expired"]
    assert status == [Status.EXPIRED, Status.PENDING]


async def test_signatures_prove_nothing_of_references(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        it.clock.now = EXPIRES_AT + 10_000
        order = await it.expect(expires_at=BLOCK_TIME + 949)

        await run(it, Strategy.SIGNATURES, Slots(0, 950))

        assert (await it.record(order)).payment.state.status is Status.PENDING
        assert await it.frontier(order.terms.reference) is None


@pytest.mark.parametrize(
    ("created_at", "expires"), [(BLOCK_TIME + 960, True), (BLOCK_TIME + 959, False)]
)
async def test_a_payment_that_may_be_older_than_the_range_does_not_expire(
    created_at: int, expires: bool, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        it.clock.now = EXPIRES_AT + 10_000
        it.chain.block_times[950] = BLOCK_TIME + 2_000
        await it.advance(899, BLOCK_TIME)
        order = await it.expect(created_at=created_at, expires_at=BLOCK_TIME + 1_999)

        await run(it)

        status = (await it.record(order)).payment.state.status
    assert status is (Status.EXPIRED if expires else Status.PENDING)


async def test_a_payment_that_is_made_meanwhile_was_not_looked_for(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        it.clock.now = BLOCK_TIME + 500
        order = await it.expect(created_at=BLOCK_TIME + 500, expires_at=BLOCK_TIME + 900)

        await run(it, Strategy.BLOCKS, Slots(0, 950))

        assert (await it.record(order)).payment.state.status is Status.PENDING


async def test_nothing_expires_while_something_is_parked(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        it.clock.now = EXPIRES_AT + 10_000
        order = await it.expect(expires_at=BLOCK_TIME + 949)
        it.pay(order, slot=910)
        it.node.fail("getTransaction", null(), times=None)

        await run(it, Strategy.BLOCKS, Slots(0, 950))

        assert (await it.record(order)).payment.state.status is Status.PENDING


async def test_from_an_empty_database_blocks_end_where_sweeps_did(tmp_path: Path) -> None:
    """The same states as the daemon's, byte for byte."""
    folders = [tmp_path / name for name in ("swept", "replayed")]
    ends = []
    for folder in folders:
        folder.mkdir()
        async with staged(folder) as it:
            it.clock.now = EXPIRES_AT + 10_000
            await crowd(it)
            if folder.name == "swept":
                await it.sweeper().sweep(WATCH_KEY)
                await check_references(it)
                await Expiry(it.database, it.pipeline, clock=it.clock).expire(WATCH_KEY)
            else:
                await run(it, Strategy.BLOCKS, Slots(0, FINAL_SLOT))
            ends.append((await states(it), await it.table("verdicts"), await it.table("transfers")))

    assert ends[1] == ends[0]
    assert {row[1] for row in ends[0][0]} == {"settled", "expired", "canceled", "pending"}


async def crowd(it: Stage) -> None:
    """Paid, paid in parts, twice, late, too little, not at all, after it was canceled."""
    plans: list[tuple[str, list[tuple[int, int]]]] = [
        ("exact", [(910, AMOUNT)]),
        ("parts", [(911, 1), (912, AMOUNT - 1)]),
        ("twice", [(913, AMOUNT), (940, AMOUNT)]),
        ("late", [(960, AMOUNT)]),
        ("little", [(914, 1)]),
        ("never", []),
        ("canceled", [(915, AMOUNT)]),
    ]
    for name, transfers in plans:
        order = await it.expect(name=name, expires_at=BLOCK_TIME + 950)
        for number, (slot, amount) in enumerate(transfers):
            it.pay(order, slot=slot, amount=amount, name=f"{name} {number}", index=number)
        if name == "canceled":
            await it.cancel(order)
    await it.expect(name="still open", expires_at=BLOCK_TIME + 100_000)


async def check_references(it: Stage) -> None:
    """What the daemon does beside its sweeps."""
    references = References(it.database, it.rpc, it.pipeline, clock=it.clock)
    for due in await reference_checks.due(it.database, int(it.clock()), 1_000):
        await references.check(due)
