"""A range of blocks is whole, proven by the chain itself, or it is an error that names a slot.

Every case runs over real HTTP against nodes that skip, hide, lie or forget.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from indexer import blocks as blocks_module
from indexer.blocks import Blocks
from indexer.core.ranges import Slots
from indexer.core.types import SYSTEM_PROGRAM
from indexer.core.watching import Block
from indexer.errors import SourceUnavailable
from indexer.sources import endpoint
from indexer.sources.endpoint import Bounds
from indexer.sources.rpc import Rpc
from tests.chain import key, signature_of, sol_transfer
from tests.servers.fake_chain import blockhash
from tests.servers.fake_rpc import Call, FakeChain, FakeNode, null, result, rpc_error


FINAL = 1_000
ORDER = key("order")
WATCHED = frozenset({ORDER})
SLOTS = Slots(900, 909)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "NEIGHBOUR_PAUSE_S", 0.01)


@asynccontextmanager
async def nodes(count: int = 1, quorum: int = 1, **chain: Any) -> AsyncIterator[tuple[Rpc, Any]]:
    """The open endpoints of nodes of one chain, and the nodes."""
    shared = FakeChain(finalized=FINAL, **chain)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(FakeNode(shared)) for _ in range(count)]
        bounds = Bounds(rate=0, timeout_s=5)
        rpc = Rpc([n.url for n in opened], bounds=bounds, quorum=quorum, draw=lambda: 0.0)
        await stack.enter_async_context(rpc)
        yield rpc, opened


async def read(rpc: Rpc, slots: Slots = SLOTS, *, concurrency: int = 4) -> list[Block]:
    return await Blocks(rpc, WATCHED, concurrency=concurrency).read(slots)


def produced(found: list[Block]) -> list[int]:
    return [block.slot for block in found]


def for_slot(slot: int, code: int = -32007) -> Callable[[FakeNode], None]:
    """Lets a node deny one block."""

    def deny(node: FakeNode) -> None:
        answer = node._answer

        def denying(call: Call) -> dict[str, Any]:
            if call.method == "getBlock" and call.params[0] == slot:
                error = {"code": code, "message": f"Slot {slot} was skipped, or missing"}
                return {"jsonrpc": "2.0", "id": call.id, "error": error}
            return answer(call)

        node._answer = denying  # type: ignore[method-assign]  # replaced for this test

    return deny


def unlisted(*slots: int) -> Callable[[FakeNode], None]:
    """Lets a node leave slots out of its lists."""

    def hide(node: FakeNode) -> None:
        answer = node._answer

        def hiding(call: Call) -> dict[str, Any]:
            told = answer(call)
            if call.method == "getBlocks" and "result" in told:
                told["result"] = [slot for slot in told["result"] if slot not in slots]
            return told

        node._answer = hiding  # type: ignore[method-assign]  # replaced for this test

    return hide


# ------------------------------------------------------------------------ what is as it must be


async def test_every_block_is_read_and_what_names_a_key_is_named() -> None:
    async with nodes() as (rpc, [node]):
        ours = sol_transfer(key("a"), key("b"), 5, references=[ORDER], slot=904, index=2)
        node.chain.add(ours)
        node.chain.add(sol_transfer(key("a"), key("b"), 5, slot=904, index=0))

        found = await read(rpc)

    assert produced(found) == list(range(900, 910))
    assert [block.named for block in found if block.named] == [(signature_of(ours),)]
    assert sum(block.transactions for block in found) == 3


@pytest.mark.parametrize(
    "skipped",
    [{904}, {900}, {909}, {899, 900}, {909, 910, 911}, {900, 901, 908, 909}, set(range(895, 915))],
    ids=repr,
)
async def test_slots_that_the_chain_passes_over_have_no_block(skipped: set[int]) -> None:
    async with nodes() as (rpc, [node]):
        node.chain.skipped |= skipped

        found = await read(rpc)

    assert produced(found) == [slot for slot in range(900, 910) if slot not in skipped]


async def test_a_range_of_one_slot_and_the_very_first_one() -> None:
    async with nodes() as (rpc, _):
        assert produced(await read(rpc, Slots(905, 905))) == [905]
        assert produced(await read(rpc, Slots(0, 2))) == [0, 1, 2]


async def test_the_last_final_slot_needs_nothing_after_it() -> None:
    async with nodes() as (rpc, _):
        assert produced(await read(rpc, Slots(995, FINAL))) == list(range(995, FINAL + 1))


async def test_the_block_after_the_range_is_fetched_once_for_two_ranges_in_a_row() -> None:
    async with nodes() as (rpc, [node]):
        reader = Blocks(rpc, WATCHED, concurrency=4)
        node.chain.skipped |= {910}

        first, second = await reader.read(SLOTS), await reader.read(Slots(910, 915))

        asked = [call.params[0] for call in node.calls if call.method == "getBlock"]
    assert produced(first + second) == [*range(900, 910), *range(911, 916)]
    # What lies beyond the first range is read for its proof and again for its transactions only
    # where the second one begins.
    assert [asked.count(slot) for slot in range(900, 910)] == [1] * 10


async def test_no_more_blocks_are_under_way_than_asked_for() -> None:
    async with nodes() as (rpc, [node]):
        under_way, most = 0, 0
        answer = node._answer_http

        async def counting(request: Any) -> Any:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return await answer(request)
            finally:
                under_way -= 1

        node._answer_http = counting
        await node.stop()
        await node.start()

        await read(rpc, Slots(800, 899), concurrency=3)

    assert 1 <= most <= 3


# --------------------------------------------------------------------------- nodes that are wrong


@pytest.mark.parametrize("code", [-32007, -32009, -32004, -32001])
async def test_what_one_node_denies_another_gives(code: int) -> None:
    async with nodes(2) as (rpc, [first, _]):
        for_slot(904, code)(first)

        found = await read(rpc)

    assert produced(found) == list(range(900, 910))


@pytest.mark.parametrize("code", [-32007, -32009, -32004, -32001])
@pytest.mark.parametrize("listed", [True, False])
async def test_a_block_that_all_deny_is_not_skipped(code: int, listed: bool) -> None:
    """The one after it names it as its parent, or the list has it."""
    async with nodes(2) as (rpc, both):
        for node in both:
            for_slot(904, code)(node)
            if not listed:
                unlisted(904)(node)

        with pytest.raises(SourceUnavailable, match="slot 904: no endpoint gives its block"):
            await read(rpc)


async def test_null_is_not_skipped_either() -> None:
    async with nodes() as (rpc, [node]):
        node.fail("getBlock", null(), times=None)

        with pytest.raises(SourceUnavailable, match=r"slot 90\d: no endpoint gives its block"):
            await read(rpc)


async def test_a_passing_refusal_is_asked_again() -> None:
    async with nodes() as (rpc, [node]):
        node.fail("getBlock", rpc_error(-32007), times=3)

        assert produced(await read(rpc)) == list(range(900, 910))


@pytest.mark.parametrize("hidden", [(900,), (904,), (904, 905, 906), (909,), (909, 910, 911)])
async def test_what_a_list_leaves_out_is_found_by_its_child(hidden: tuple[int, ...]) -> None:
    async with nodes() as (rpc, [node]):
        unlisted(*hidden)(node)
        ours = sol_transfer(key("a"), key("b"), 5, references=[ORDER], slot=min(hidden))
        node.chain.add(ours)

        found = await read(rpc)

    assert produced(found) == list(range(900, 910))
    assert [name for block in found for name in block.named] == [signature_of(ours)]


async def test_an_empty_list_hides_nothing() -> None:
    """The block after the range, far away, leads back through all of them."""
    async with nodes() as (rpc, [node]):
        unlisted(*range(900, 995))(node)

        assert produced(await read(rpc)) == list(range(900, 910))


async def test_a_list_that_begins_where_the_node_does_is_no_proof() -> None:
    async with nodes(2) as (rpc, [first, _]):
        first.first_available = 905

        assert produced(await read(rpc)) == list(range(900, 910))


async def test_what_nobody_keeps_is_an_error() -> None:
    async with nodes() as (rpc, [node]):
        node.first_available = 905

        with pytest.raises(SourceUnavailable, match=r"slot 904: .*First available block: 905"):
            await read(rpc)


def parent_is(slot: int) -> Callable[[dict[str, Any]], None]:
    def lie(block: dict[str, Any]) -> None:
        block["parentSlot"] = slot

    return lie


def is_block_of(node: FakeNode, slot: int) -> Callable[[dict[str, Any]], None]:
    def lie(block: dict[str, Any]) -> None:
        block.update(node.chain.block(slot))

    return lie


@pytest.mark.parametrize("wrong", [902, 0, 906, 950], ids=["older", "0", "own", "later"])
async def test_a_false_parent_is_contradicted_by_another_node(wrong: int) -> None:
    async with nodes(2) as (rpc, [first, _]):
        first.block_lies[906] = parent_is(wrong)

        assert produced(await read(rpc)) == list(range(900, 910))


@pytest.mark.parametrize("wrong", [902, 0, 906, 950], ids=["older", "0", "own", "later"])
async def test_a_false_parent_that_nobody_contradicts_skips_nothing(wrong: int) -> None:
    async with nodes() as (rpc, [node]):
        node.block_lies[906] = parent_is(wrong)

        with pytest.raises(
            SourceUnavailable, match="slot 906: no endpoint gives a block that fits"
        ):
            await read(rpc)


@pytest.mark.parametrize("slot", [900, 904, 909, 910])
async def test_the_block_of_another_slot_is_noticed(slot: int) -> None:
    """As a cache between us and the node may give it."""
    async with nodes() as (rpc, [node]):
        node.block_lies[slot] = is_block_of(node, slot - 3)

        with pytest.raises(SourceUnavailable, match=r"slot \d+: "):
            await read(rpc)


@pytest.mark.parametrize("slot", [900, 904, 909, 910])
async def test_the_block_of_another_slot_is_replaced_by_the_right_one(slot: int) -> None:
    async with nodes(2) as (rpc, [first, _]):
        first.block_lies[slot] = is_block_of(first, slot - 3)

        found = await read(rpc)

    assert [block.blockhash for block in found] == [blockhash(s) for s in range(900, 910)]


def hash_of_parent_is(text: str) -> Callable[[dict[str, Any]], None]:
    def lie(block: dict[str, Any]) -> None:
        block["previousBlockhash"] = text

    return lie


async def test_a_block_that_names_a_strange_parent_is_asked_for_elsewhere() -> None:
    """Its parent is right, and cannot fit: so it is this one that is wrong."""
    async with nodes(2) as (rpc, [first, _]):
        first.block_lies[906] = hash_of_parent_is(key("strange"))

        found = await read(rpc)

    assert [block.previous_blockhash for block in found] == [
        blockhash(slot) for slot in range(899, 909)
    ]


async def test_two_that_do_not_fit_are_an_error() -> None:
    async with nodes() as (rpc, [node]):
        node.block_lies[906] = hash_of_parent_is(key("strange"))

        with pytest.raises(SourceUnavailable, match=r"slot 90[56]: no endpoint gives a block that"):
            await read(rpc)


async def test_a_node_that_no_longer_knows_the_hash_of_the_parent_is_believed() -> None:
    async with nodes() as (rpc, [node]):
        node.block_lies[906] = hash_of_parent_is(SYSTEM_PROGRAM)

        assert produced(await read(rpc)) == list(range(900, 910))


async def test_an_unreadable_block_is_asked_for_elsewhere() -> None:
    async with nodes(2) as (rpc, [first, _]):
        first.chain.add(sol_transfer(key("a"), key("b"), 5, references=[ORDER], slot=904))
        first.block_lies[904] = lambda block: block["transactions"][0].update(meta=None)

        found = await read(rpc)

    assert [len(block.named) for block in found if block.named] == [1]


async def test_an_unreadable_block_that_all_give_is_an_error() -> None:
    async with nodes(2) as (rpc, both):
        both[0].chain.add(sol_transfer(key("a"), key("b"), 5, slot=904))
        for node in both:
            node.block_lies[904] = lambda block: block["transactions"][0].update(meta=None)

        with pytest.raises(SourceUnavailable, match=r"slot 904: .*transaction 0 lacks meta"):
            await read(rpc)


async def test_a_range_whose_end_is_not_proven_yet_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks_module, "NEIGHBOUR_PAUSE_S", 0.01)
    monkeypatch.setattr(endpoint, "FINALIZED_SLOT_KEPT_S", 0.01)
    async with nodes() as (rpc, [node]):
        unlisted(998, 999, 1_000)(node)
        async with node.chain.ticking(0.01):
            assert produced(await read(rpc, Slots(990, 999))) == list(range(990, 1_000))


async def test_a_range_whose_end_is_never_proven_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks_module, "NEIGHBOUR_WAIT_S", 0.05)
    async with nodes() as (rpc, [node]):
        # The node's last final slot is 1,000, and it hides that one of it.
        unlisted(*range(995, 1_001))(node)

        with pytest.raises(SourceUnavailable, match="no block after slot 999 is final yet"):
            await read(rpc, Slots(990, 999))


async def test_a_list_that_cannot_be_is_refused() -> None:
    async with nodes() as (rpc, [node]):
        node.fail("getBlocks", result([905, 904]), times=None)

        with pytest.raises(SourceUnavailable, match="getBlocks"):
            await read(rpc)


# ------------------------------------------------------------------------------------- quorum


async def test_where_two_must_agree_one_that_hides_a_transaction_hides_nothing() -> None:
    async with nodes(2, quorum=2) as (rpc, [first, _]):
        ours = sol_transfer(key("a"), key("b"), 5, references=[ORDER], slot=904)
        first.hidden.add(first.chain.add(ours))

        found = await read(rpc)

    assert [block.named for block in found if block.named] == [(signature_of(ours),)]


async def test_where_two_must_agree_a_third_outvotes_a_liar() -> None:
    async with nodes(3, quorum=2) as (rpc, [first, *_]):
        first.block_lies[904] = hash_of_parent_is(key("strange"))

        found = await read(rpc)

    assert found[4].previous_blockhash == blockhash(903)


async def test_where_two_must_agree_and_do_not_nothing_is_concluded() -> None:
    async with nodes(2, quorum=2) as (rpc, [first, _]):
        first.block_lies[904] = hash_of_parent_is(key("strange"))

        with pytest.raises(SourceUnavailable, match="slot 904: 2 endpoints give a block, and they"):
            await read(rpc)


async def test_where_two_must_agree_one_is_not_enough() -> None:
    async with nodes(2, quorum=2) as (rpc, [first, _]):
        for_slot(904)(first)

        with pytest.raises(SourceUnavailable, match="slot 904: 1 endpoints give a block"):
            await read(rpc)


# ------------------------------------------------------------------------- the local runtime


async def test_on_the_local_runtime_the_list_must_be_whole() -> None:
    """Parents are wrong there, and no slot is ever skipped."""
    async with nodes() as (rpc, [node]):
        node.fail("getVersion", result({"solana-core": "4.1.2", "surfnet-version": "1"}), times=1)
        node.block_lies[905] = parent_is(905)
        ours = sol_transfer(key("a"), key("b"), 5, references=[ORDER], slot=905)
        node.chain.add(ours)

        found = await read(rpc)
        unlisted(905)(node)
        with pytest.raises(SourceUnavailable, match="slot 905: getBlocks does not list it"):
            await read(rpc)

    assert produced(found) == list(range(900, 910))
    assert [block.named for block in found if block.named] == [(signature_of(ours),)]


@pytest.mark.parametrize("missing", [900, 909])
async def test_on_the_local_runtime_both_ends_count(missing: int) -> None:
    async with nodes() as (rpc, [node]):
        node.fail("getVersion", result({"solana-core": "4.1.2", "surfnet-version": "1"}), times=1)
        unlisted(missing)(node)

        with pytest.raises(SourceUnavailable, match=f"slot {missing}: "):
            await read(rpc)
