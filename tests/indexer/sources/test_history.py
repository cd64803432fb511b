"""What names a key: all of it, or an error."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, cycle, pairwise
from random import Random
from typing import Any

import pytest
from aiohttp import web

from indexer.errors import SourceError, SourceUnavailable
from indexer.sources import history as history_module
from indexer.sources.endpoint import Bounds
from indexer.sources.history import CHUNK_PAGES_MAX, PAGE_SIZE, history
from indexer.sources.rpc import Rpc
from tests.chain import BLOCK_TIME, key, signature, sol_transfer
from tests.servers.fake_rpc import Call, FakeChain, FakeNode, Fault, http, result, rpc_error


LISTING = "getSignaturesForAddress"
FINAL_SLOT = 1_000
KEY = key("watch key")


@dataclass(kw_only=True)
class Cluster:
    """Nodes of one chain, and an Rpc over them."""

    chain: FakeChain
    nodes: list[FakeNode]
    rpc: Rpc

    @property
    def node(self) -> FakeNode:
        return self.nodes[0]

    def land(self, name: str, slot: int, **rest: Any) -> str:
        landed = sol_transfer(key("buyer"), key("shop"), 1, references=[KEY], name=name, **rest)
        return self.chain.add(landed, slot=slot, block_time=BLOCK_TIME + slot)

    def junk(self, number: int, *, newest: int = FINAL_SLOT) -> list[str]:
        """Transactions that carry the key, ten to a slot; the newest first."""
        return [self.land(f"junk {n}", newest - n // 10) for n in range(number)]

    async def chunks(
        self, first_slot: int = 0, last_slot: int = FINAL_SLOT, since: int | None = None
    ) -> list[list[str]]:
        """The signatures of each chunk."""
        walk = history(self.rpc, KEY, first_slot=first_slot, last_slot=last_slot, since=since)
        return [[row.signature for row in rows] async for rows in walk]

    async def listed(
        self, first_slot: int = 0, last_slot: int = FINAL_SLOT, since: int | None = None
    ) -> list[str]:
        """All of them, in the order in which they come."""
        chunks = await self.chunks(first_slot, last_slot, since)
        return [name for chunk in chunks for name in chunk]


@asynccontextmanager
async def cluster(size: int = 1, *, quorum: int = 1) -> AsyncIterator[Cluster]:
    chain = FakeChain(finalized=FINAL_SLOT)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(FakeNode(chain)) for _ in range(size)]
        urls, bounds = [node.url for node in nodes], Bounds(rate=0, timeout_s=5)
        rpc = Rpc(urls, bounds=bounds, quorum=quorum, draw=lambda: 0.0)
        await stack.enter_async_context(rpc)
        yield Cluster(chain=chain, nodes=nodes, rpc=rpc)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> int:
    """Pages that are quickly filled; the size."""
    monkeypatch.setattr(history_module, "PAGE_SIZE", 20)
    return 20


# ------------------------------------------------------------------------------ what is listed


async def test_it_lists_what_lies_within_the_slots_and_nothing_else() -> None:
    async with cluster() as it:
        names = {slot: it.land(f"at {slot}", slot) for slot in (99, 100, 500, 900, 901)}

        assert await it.listed(100, 900) == [names[100], names[500], names[900]]
        assert await it.listed(0, 99) == [names[99]]
        assert await it.listed(902, 1_000) == []


async def test_failed_ones_are_listed_too() -> None:
    async with cluster() as it:
        failed = it.land("failed", 500, err={"InstructionError": [0, {"Custom": 1}]})

        assert await it.listed() == [failed]


async def test_a_chunk_is_in_the_order_of_the_chain() -> None:
    async with cluster() as it:
        places = [(998, 0), (1_000, 5), (999, 1), (999, 0), (1_000, 2)]
        names = {place: it.land(f"{place}", place[0], index=place[1]) for place in places}

        assert await it.listed() == [names[place] for place in sorted(places)]


async def test_of_a_slot_without_positions_the_last_listed_comes_first() -> None:
    async with cluster() as it:
        rows = [{"signature": signature(f"{n}"), "slot": 7, "err": None} for n in range(3)]
        for page in (rows, [], rows[-1:]):
            it.node.fail(LISTING, result(page))

        assert await it.listed() == [row["signature"] for row in reversed(rows)]


async def test_a_block_time_ends_the_walk_as_well(small_pages: int) -> None:
    async with cluster() as it:
        names = it.junk(100)

        listed = await it.listed(since=BLOCK_TIME + FINAL_SLOT - 3)

        assert set(names[:40]) <= set(listed), "everything as young as that"
        assert len(listed) == 50, "the page that holds the first that is too old is the last"


async def test_an_unknown_block_time_ends_no_walk(small_pages: int) -> None:
    async with cluster() as it:
        for slot in range(FINAL_SLOT - 10, FINAL_SLOT + 1):
            it.chain.block_times[slot] = None
        names = it.junk(100)

        assert set(await it.listed(since=2**40)) == set(names)


# ------------------------------------------------------------------------------------- paging


async def test_more_than_a_page_is_read_to_the_end() -> None:
    async with cluster() as it:
        names = it.junk(2 * PAGE_SIZE + 5)

        assert sorted(await it.listed()) == sorted(names)


@pytest.mark.parametrize("newer", [0, 1, 2, 18, 19, 20, 21, 38, 39, 40])
async def test_the_oldest_is_found_behind_any_number(small_pages: int, newer: int) -> None:
    """A page that is exactly full may or may not be the last."""
    async with cluster() as it:
        oldest = it.land("oldest", 10)
        it.junk(newer)

        listed = await it.listed()

        assert (listed[0], len(listed)) == (oldest, newer + 1)


async def test_a_long_list_comes_in_chunks_the_newest_first(
    small_pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "CHUNK_PAGES_MAX", 2)
    async with cluster() as it:
        names = it.junk(100)

        chunks = await it.chunks()

        assert sorted(name for chunk in chunks for name in chunk) == sorted(names)
        assert len(chunks) > 2
        places = [[names.index(name) // 10 for name in chunk] for chunk in chunks]
        assert all(max(newer) <= min(older) for newer, older in pairwise(places))
        assert all(len(chunk) <= 40 for chunk in chunks)


async def test_a_walk_never_holds_more_than_a_chunk() -> None:
    assert CHUNK_PAGES_MAX * PAGE_SIZE <= 20_000


async def test_nothing_older_than_the_first_slot_is_paged_for(small_pages: int) -> None:
    async with cluster() as it:
        it.junk(200)

        await it.listed(first_slot=FINAL_SLOT - 1)

        assert it.node.count(LISTING) == 2, "the second page holds the first that is too old"


def cut(it: Cluster, rows_max: int) -> Fault:
    """Pages that are shorter than asked for, as some nodes cut them."""

    async def fault(call: Call) -> web.StreamResponse:
        return await result(it.node._signatures(*call.params)[:rows_max])(call)

    return fault


@pytest.mark.parametrize("rows_max", [1, 2, 7])
async def test_a_short_page_is_not_the_end(rows_max: int) -> None:
    async with cluster() as it:
        names = [it.land("oldest", 10), *it.junk(20)]
        it.node.fail(LISTING, cut(it, rows_max), times=None)

        assert sorted(await it.listed()) == sorted(names)


def forgetful(it: Cluster, known: set[str], *, rows_max: int = PAGE_SIZE) -> Fault:
    """Answers with an empty page what it does not know as `before`, as older nodes do."""

    async def fault(call: Call) -> web.StreamResponse:
        before = call.params[1].get("before")
        rows = it.node._signatures(*call.params)[:rows_max]
        return await result(rows if before is None or before in known else [])(call)

    return fault


@pytest.mark.parametrize("rows_max", [2, 7, 20])
async def test_an_empty_page_is_not_the_end_where_the_row_before_has_a_successor(
    small_pages: int, rows_max: int
) -> None:
    async with cluster() as it:
        oldest = it.land("oldest", 10)
        names = it.junk(small_pages + 10)
        known = {*names, oldest} - {names[rows_max - 1]}  # it ends the first page
        it.node.fail(LISTING, forgetful(it, known, rows_max=rows_max), times=None)

        assert sorted(await it.listed()) == sorted([*names, oldest])


@pytest.mark.parametrize("rows_max", [2, 7, 20])
async def test_a_node_that_lost_its_place_is_not_believed(small_pages: int, rows_max: int) -> None:
    """An empty page after a short one proves as little as after a full one."""
    async with cluster() as it:
        names = it.junk(small_pages + 10)
        it.node.fail(LISTING, forgetful(it, set(), rows_max=rows_max), times=None)

        with pytest.raises(SourceUnavailable, match="lost its place"):
            await it.listed()

        it.node.heal()
        assert sorted(await it.listed()) == sorted(names)


def refusing(it: Cluster, node: FakeNode, *, times: int) -> Fault:
    """Refuses that often to go on anywhere, as newer nodes do with a place they do not know."""
    left = [times]

    async def fault(call: Call) -> web.StreamResponse:
        if call.params[1].get("before") and left[0]:
            left[0] -= 1
            return await rpc_error(-32020, "Filter transaction not found")(call)
        return await result(node._signatures(*call.params))(call)

    return fault


async def test_a_place_that_a_node_does_not_know_is_looked_for_from_the_top(
    small_pages: int,
) -> None:
    async with cluster() as it:
        names = it.junk(5 * small_pages)
        it.node.fail(LISTING, refusing(it, it.node, times=history_module.RESTARTS_MAX), times=None)

        assert set(await it.listed()) == set(names)


async def test_the_other_endpoint_may_know_the_place(small_pages: int) -> None:
    async with cluster(2) as it:
        names = it.junk(5 * small_pages)
        it.node.fail(LISTING, refusing(it, it.node, times=1_000), times=None)

        assert set(await it.listed()) == set(names)


@pytest.mark.parametrize("seed", range(10))
async def test_two_nodes_that_order_a_slot_differently_are_not_mixed(seed: int) -> None:
    """One cuts its pages within the slot, and fails; the other lists that slot in another order."""
    async with cluster(2) as it:
        names = [it.land(f"newer {n}", 900) for n in range(2)]
        names += [it.land(f"same slot {n}", 800) for n in range(4)] + [it.land("oldest", 10)]
        cutting = shuffled(it, cycle([seed]), 3)
        it.node.fail(LISTING, cutting, times=2)
        it.node.fail(LISTING, http(500), times=None)
        it.nodes[1].fail(LISTING, shuffled(it, cycle([seed + 1]), 3), times=None)

        assert set(await it.listed()) == set(names)


async def test_a_row_that_is_gone_from_the_next_page_is_looked_for_from_the_top(
    small_pages: int,
) -> None:
    """Whoever does not list it any more may lack others, too."""
    async with cluster() as it:
        names = it.junk(5 * small_pages)

        async def forgetting(call: Call) -> web.StreamResponse:
            answer = result(it.node._signatures(*call.params))
            it.node.hidden.add(names[small_pages - 1])  # the last row of the first page
            return await answer(call)

        it.node.fail(LISTING, forgetting, times=None)

        assert set(await it.listed()) == set(names)

        tops = [c for c in it.node.calls if c.method == LISTING and "before" not in c.params[1]]
        assert len(tops) == 2


async def test_a_node_that_always_lists_the_newest_gives_no_complete_list(
    small_pages: int,
) -> None:
    async with cluster() as it:
        it.junk(5 * small_pages, newest=FINAL_SLOT - 200)
        slots = count(FINAL_SLOT - 199)

        async def newest(call: Call) -> web.StreamResponse:
            slot = next(slots)
            it.land(f"new {slot}", slot)
            return await result(it.node._signatures(call.params[0], {"limit": small_pages}))(call)

        it.node.fail(LISTING, newest, times=None)

        with pytest.raises(SourceUnavailable, match="does not go on"):
            await it.listed()
        assert it.node.count(LISTING) <= 3 * (1 + history_module.RESTARTS_MAX)


async def test_a_place_that_nobody_knows_gives_no_complete_list(small_pages: int) -> None:
    async with cluster() as it:
        names = it.junk(small_pages + 10)
        it.node.fail(LISTING, refusing(it, it.node, times=1_000), times=None)

        with pytest.raises(SourceUnavailable, match="Filter transaction not found"):
            await it.listed()

        tops = [c for c in it.node.calls if c.method == LISTING and "before" not in c.params[1]]
        assert len(tops) == 1 + history_module.RESTARTS_MAX
        it.node.heal()
        assert sorted(await it.listed()) == sorted(names)


def shuffled(it: Cluster, seeds: Iterator[int], page_size: int) -> Fault:
    """Nodes behind one address that take turns, each with its own order within a slot."""

    async def fault(call: Call) -> web.StreamResponse:
        rows = it.node._signatures(call.params[0])
        draw = Random(next(seeds))
        places = {row["signature"]: (-row["slot"], draw.random()) for row in rows}
        rows.sort(key=lambda row: places[row["signature"]])
        before = call.params[1].get("before")
        start = 0 if before is None else [row["signature"] for row in rows].index(before) + 1
        return await result(rows[start : start + page_size])(call)

    return fault


@pytest.mark.parametrize("seed", range(20))
async def test_nodes_that_order_a_slot_differently_hide_nothing(
    small_pages: int, seed: int
) -> None:
    async with cluster() as it:
        names = [*it.junk(95), it.land("oldest", 10)]
        seeds = cycle(range(seed, seed + 3))
        it.node.fail(LISTING, shuffled(it, seeds, small_pages), times=None)

        assert set(await it.listed()) == set(names)


@pytest.mark.parametrize("seed", range(20))
async def test_an_end_that_nodes_do_not_agree_on_is_complete_or_an_error(
    small_pages: int, seed: int
) -> None:
    """The oldest slot holds several, and each node ends with another one."""
    async with cluster() as it:
        names = it.junk(95)
        seeds = cycle(range(seed, seed + 3))
        it.node.fail(LISTING, shuffled(it, seeds, small_pages), times=None)
        try:
            listed = await it.listed()
        except SourceUnavailable:
            pass
        else:
            assert set(listed) == set(names)

        assert it.node.count(LISTING) < 100


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("in_slot", [2, 3, 4])
async def test_a_newest_slot_that_is_cut_in_any_order_hides_nothing(
    in_slot: int, seed: int
) -> None:
    """The first page ends within the slot that the list begins with, in an order of its own."""
    async with cluster() as it:
        names = [it.land(f"newest {n}", 900) for n in range(in_slot)]
        names += [it.land(f"older {n}", 800 - n) for n in range(3)]
        it.node.fail(LISTING, shuffled(it, count(seed), in_slot - 1))
        it.node.fail(LISTING, shuffled(it, count(seed + 1), PAGE_SIZE), times=None)

        assert set(await it.listed()) == set(names)


async def test_what_is_listed_a_little_later_is_not_lost_to_a_walk_under_way(
    small_pages: int,
) -> None:
    """New signatures push the others down while the pages are read."""
    async with cluster() as it:
        names, number = it.junk(95, newest=FINAL_SLOT - 1), count()

        async def growing(call: Call) -> web.StreamResponse:
            it.land(f"new {next(number)}", FINAL_SLOT + 1 + next(number))
            it.chain.finalize(it.chain.finalized + 2)
            return await result(it.node._signatures(*call.params))(call)

        it.node.fail(LISTING, growing, times=None)

        assert sorted(await it.listed()) == sorted(names)


async def test_a_list_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "PAGES_MAX", 30)
    async with cluster() as it:
        names = (signature(f"name {n}") for n in count())

        async def endless(call: Call) -> web.StreamResponse:
            return await result([{"signature": next(names), "slot": 9, "err": {}}])(call)

        it.node.fail(LISTING, endless, times=None)

        with pytest.raises(SourceUnavailable, match="no end after 30 pages"):
            await it.listed()


FAR = [{"signature": signature(f"far {n}"), "slot": 9, "err": None} for n in range(3)]

FAULTS = {
    "refused": rpc_error(-32601),
    "dead": http(500),
    "garbled": result([{"slot": "a"}]),
    "an impossible slot": result([FAR[0] | {"slot": 2**70}]),
    "an impossible time": result([FAR[0] | {"blockTime": 2**70}]),
    "turning in circles": result(FAR),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_list_that_makes_no_sense_is_an_error(fault: Fault) -> None:
    async with cluster() as it:
        it.node.fail(LISTING, fault, times=None)

        with pytest.raises(SourceError):
            await it.listed()


async def test_a_node_that_is_behind_the_last_slot_is_not_believed() -> None:
    async with cluster() as it:
        it.land("paid", FINAL_SLOT)
        it.node.behind = 1

        with pytest.raises(SourceError):
            await it.listed()


# ---------------------------------------------------------------------------- several nodes


@pytest.mark.parametrize("hiding", [0, 1, 2])
async def test_what_one_node_hides_another_lists(hiding: int) -> None:
    async with cluster(3, quorum=2) as it:
        names = {it.land("one", 500), it.land("two", 501)}
        it.nodes[hiding].hidden |= names

        assert set(await it.listed()) == names


async def test_as_many_nodes_are_walked_as_must_agree() -> None:
    async with cluster(3, quorum=2) as it:
        name = it.land("paid", 500)
        it.nodes[0].fail(LISTING, http(500), times=None)

        assert await it.listed() == [name, name]


async def test_only_those_that_were_chosen_are_asked() -> None:
    async with cluster(3) as it:
        name = it.land("paid", 500)
        chosen = [it.rpc.endpoints[1], it.rpc.endpoints[2]]
        it.nodes[1].fail(LISTING, http(500), times=None)

        walk = history(it.rpc, KEY, first_slot=0, last_slot=FINAL_SLOT, endpoints=chosen)
        listed = [row.signature async for rows in walk for row in rows]

        assert listed == [name]
        assert [node.count(LISTING) for node in it.nodes[:2]] == [0, 1]


@pytest.mark.parametrize(("failures", "is_complete"), [(4, True), (5, False)])
async def test_a_walk_at_the_one_node_that_will_do_is_not_given_up_at_once(
    small_pages: int, failures: int, is_complete: bool
) -> None:
    """For it would begin again at the top."""
    async with cluster() as it:
        names, left = it.junk(50), [failures]

        async def fail_below(call: Call) -> web.StreamResponse:
            if call.params[1].get("before") == names[39] and left[0]:
                left[0] -= 1
                return await rpc_error(-32004)(call)
            return await result(it.node._signatures(*call.params))(call)

        it.node.fail(LISTING, fail_below, times=None)
        walk = history(it.rpc, KEY, first_slot=0, last_slot=FINAL_SLOT, endpoints=it.rpc.endpoints)
        seen: list[str] = []
        with nullcontext() if is_complete else pytest.raises(SourceUnavailable):
            seen += [row.signature async for rows in walk for row in rows]

        assert sorted(seen) == (sorted(names) if is_complete else [])


async def test_fewer_nodes_than_must_agree_give_no_complete_list() -> None:
    async with cluster(3, quorum=2) as it:
        name, seen = it.land("paid", 500), list[str]()
        for node in it.nodes[1:]:
            node.fail(LISTING, http(500), times=None)

        walk = history(it.rpc, KEY, first_slot=0, last_slot=FINAL_SLOT)
        seen += [row.signature for row in await anext(walk)]
        with pytest.raises(SourceUnavailable, match="1 of 2 endpoints listed"):
            await anext(walk)

        assert seen == [name], "found, but not complete"
