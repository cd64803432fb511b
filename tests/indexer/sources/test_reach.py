"""Who still has what: the old is asked of those who kept it, and waited for, and never made up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from indexer.errors import SourceUnavailable
from indexer.sources import reach as reach_module
from indexer.sources.endpoint import Bounds
from indexer.sources.reach import LATER_SLOTS, Choice, Reach
from indexer.sources.rpc import Rpc
from tests.chain import BLOCK_TIME
from tests.servers.fake_rpc import FakeChain, FakeNode, Fault, hang_up, http, result, rpc_error


FIRST_BLOCK = "getFirstAvailableBlock"


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach_module, "KEPT_S", -1.0)


@asynccontextmanager
async def cluster(
    *first_available: int, quorum: int = 1
) -> AsyncIterator[tuple[list[FakeNode], Reach]]:
    """Nodes that keep everything since these slots."""
    chain = FakeChain(finalized=1_000)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(FakeNode(chain)) for _ in first_available]
        for node, slot in zip(nodes, first_available, strict=True):
            node.first_available = slot
        urls, bounds = [node.url for node in nodes], Bounds(rate=0, timeout_s=5)
        rpc = Rpc(urls, bounds=bounds, quorum=quorum, draw=lambda: 0.0)
        yield nodes, Reach(await stack.enter_async_context(rpc))


def asked(nodes: list[FakeNode], choice: Choice) -> list[int] | None:
    """The numbers of the nodes that were chosen; None: all of them."""
    if choice.endpoints is None:
        return None
    names = [node.url for node in nodes]
    return [names.index(endpoint.name) for endpoint in choice.endpoints]


@pytest.mark.parametrize(
    ("first_available", "quorum", "wanted", "chosen", "reaches", "first_slot"),
    [
        # Nothing in particular is wanted.
        ([0], 1, None, None, True, 0),
        ([700], 1, None, None, True, 700),
        ([0, 700], 1, None, None, True, 700),
        # All have it.
        ([300, 200], 1, 300, None, True, 300),
        ([300, 200], 2, 300, None, True, 300),
        # Some have it.
        ([301, 200], 1, 300, [1], True, 200),
        ([200, 301], 1, 300, [0], True, 200),
        ([301, 200, 0], 1, 300, [1, 2], True, 200),
        ([301, 200, 0], 2, 300, [1, 2], True, 200),
        # Nobody has it: those who lack least.
        ([301], 1, 300, [0], False, 301),
        ([500, 400], 1, 300, [1], False, 400),
        ([500, 400, 600], 2, 300, [1, 0], False, 500),
        # One has it, and two must agree.
        ([500, 200], 2, 300, [1, 0], False, 500),
    ],
)
async def test_who_has_everything_since_a_slot(
    first_available: list[int],
    quorum: int,
    wanted: int | None,
    chosen: list[int] | None,
    reaches: bool,
    first_slot: int,
) -> None:
    async with cluster(*first_available, quorum=quorum) as (nodes, reach):
        choice = await reach.choose(slot=wanted)

        assert asked(nodes, choice) == chosen
        assert (choice.reaches, choice.first_slot) == (reaches, first_slot)


async def test_one_that_claims_to_have_nothing_is_not_asked() -> None:
    async with cluster(2**40, 200) as (nodes, reach):
        choice = await reach.choose(slot=1_000)

        assert asked(nodes, choice) == [1]


@pytest.mark.parametrize(
    ("time", "reaches"), [(BLOCK_TIME - 1, False), (BLOCK_TIME, True), (BLOCK_TIME + 1, True)]
)
async def test_who_has_everything_since_a_time(time: int, reaches: bool) -> None:
    async with cluster(700) as (nodes, reach):
        nodes[0].chain.block_times[700] = BLOCK_TIME

        choice = await reach.choose(time=time)

        assert choice.reaches is reaches
        assert choice.first_time == BLOCK_TIME


@pytest.mark.parametrize("fault", [result(None), rpc_error(-32009), rpc_error(-32001)])
async def test_a_time_that_nobody_knows_proves_nothing_missing(fault: Fault) -> None:
    async with cluster(700) as (nodes, reach):
        nodes[0].fail("getBlockTime", fault, times=None)

        choice = await reach.choose(time=0)

        assert (choice.reaches, choice.first_time) == (True, None)


@pytest.mark.parametrize("fault", [result(None), rpc_error(-32009), rpc_error(-32001)])
@pytest.mark.parametrize(("time", "reaches"), [(BLOCK_TIME, False), (BLOCK_TIME + 30, True)])
async def test_a_time_that_was_forgotten_meanwhile_is_bounded_by_a_later_one(
    fault: Fault, time: int, reaches: bool
) -> None:
    async with cluster(700) as (nodes, reach):
        nodes[0].chain.block_times |= {700: BLOCK_TIME, 700 + LATER_SLOTS[0]: BLOCK_TIME + 30}
        nodes[0].fail("getBlockTime", fault)

        choice = await reach.choose(time=time)

        assert (choice.reaches, choice.first_time) == (reaches, BLOCK_TIME + 30)


async def test_who_keeps_everything_need_not_say_since_when() -> None:
    async with cluster(0) as (nodes, reach):
        assert (await reach.choose(slot=0, time=0)).reaches
        assert nodes[0].count("getBlockTime") == 0


@pytest.mark.parametrize("code", [-32601, -32010, -32602])
async def test_one_that_refuses_to_say_is_believed_to_keep_all(code: int) -> None:
    async with cluster(700) as (nodes, reach):
        nodes[0].fail(FIRST_BLOCK, rpc_error(code), times=None)

        for _ in range(3):
            choice = await reach.choose(slot=5)
            assert (choice.reaches, choice.first_slot) == (True, None)
        assert nodes[0].count(FIRST_BLOCK) == 1, "it is not asked again at every turn"


SILENCES = {"dead": http(500), "gone": hang_up(), "garbled": result("a"), "impossible": result(-1)}


@pytest.mark.parametrize("fault", SILENCES.values(), ids=SILENCES)
async def test_one_that_is_silent_is_waited_for_and_then_counts_as_gone(
    monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    async with cluster(500, 0) as (nodes, reach):
        nodes[1].fail(FIRST_BLOCK, fault, times=None)

        with pytest.raises(SourceUnavailable, match="may have kept it"):
            await reach.choose(slot=300)
        assert (await reach.choose(slot=600)).reaches, "who answers has that"

        monkeypatch.setattr(reach_module, "PATIENCE_S", 0.0)
        choice = await reach.choose(slot=300)
        assert (asked(nodes, choice), choice.reaches) == ([0], False)


async def test_patience_is_counted_from_the_first_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach_module, "PATIENCE_S", 0.1)
    async with cluster(500, 0) as (nodes, reach):
        nodes[1].fail(FIRST_BLOCK, rpc_error(-32004), times=None)

        async with asyncio.timeout(90):
            while True:
                with suppress(SourceUnavailable):
                    choice = await reach.choose(slot=300)
                    break
                await asyncio.sleep(0.01)

        assert not choice.reaches


async def test_one_that_is_back_is_asked_again() -> None:
    async with cluster(500, 0) as (nodes, reach):
        nodes[1].fail(FIRST_BLOCK, result("a"), times=1)
        with pytest.raises(SourceUnavailable):
            await reach.choose(slot=300)
        reach._rpc.endpoints[1].health.answered(float("inf"), float("inf"))

        choice = await reach.choose(slot=300)

        assert (asked(nodes, choice), choice.reaches) == ([1], True)


async def test_where_nobody_ever_says_anything_they_are_asked_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cluster(500) as (nodes, reach):
        nodes[0].fail(FIRST_BLOCK, result("a"), times=None)
        with pytest.raises(SourceUnavailable):
            await reach.choose()

        monkeypatch.setattr(reach_module, "PATIENCE_S", 0.0)
        choice = await reach.choose(slot=3)

        assert (choice.endpoints, choice.reaches, choice.first_slot) == (None, True, None)


# ------------------------------------------------------------------------------ after the walk


async def test_what_was_forgotten_meanwhile_is_seen() -> None:
    async with cluster(200) as (nodes, reach):
        choice = await reach.choose(slot=300)
        assert await reach.again(choice) == choice

        nodes[0].first_available = 400
        assert (await reach.again(choice)).first_slot == 400


async def test_its_time_is_that_of_the_slot_that_is_first_now() -> None:
    async with cluster(200) as (nodes, reach):
        nodes[0].chain.block_times |= {200: BLOCK_TIME, 400: BLOCK_TIME + 9}
        choice = await reach.choose(time=BLOCK_TIME - 1)

        nodes[0].first_available = 400
        later = await reach.again(choice)

        assert (later.first_slot, later.first_time) == (400, BLOCK_TIME + 9)


async def test_one_of_the_few_that_falls_silent_cannot_be_relied_on() -> None:
    async with cluster(500, 200) as (nodes, reach):
        choice = await reach.choose(slot=300)
        nodes[1].fail(FIRST_BLOCK, result("a"), times=None)

        with pytest.raises(SourceUnavailable, match="fell silent"):
            await reach.again(choice)


async def test_one_of_many_that_falls_silent_changes_nothing() -> None:
    async with cluster(250, 200) as (nodes, reach):
        choice = await reach.choose(slot=300)
        nodes[0].fail(FIRST_BLOCK, result("a"), times=None)

        assert await reach.again(choice) == choice


async def test_what_was_said_a_moment_ago_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reach_module, "KEPT_S", 60.0)
    async with cluster(200) as (nodes, reach):
        for _ in range(5):
            await reach.again(await reach.choose(time=BLOCK_TIME))

        assert nodes[0].count(FIRST_BLOCK) == 1
        assert nodes[0].count("getBlockTime") == 1
