"""Blocks: which slots have one, what is in them, and every reason for not being told."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from indexer.errors import InvariantError, SourceError, SourceRejected, SourceUnavailable
from indexer.sources import rpc as rpc_module, wire
from indexer.sources.endpoint import Bounds, Endpoint
from indexer.sources.failover import VERSION_TRIES_MAX
from indexer.sources.rpc import Rpc
from tests.chain import key, signature_of, sol_transfer
from tests.servers.fake_rpc import FakeChain, FakeNode, Fault, garbage, http, null, rpc_error


def connect(*urls: str, **rest: Any) -> Rpc:
    return Rpc(urls, bounds=Bounds(rate=0, timeout_s=5), draw=lambda: 0.0, **rest)


@asynccontextmanager
async def one() -> AsyncIterator[tuple[FakeNode, Rpc]]:
    async with FakeNode() as node, connect(node.url) as rpc:
        yield node, rpc


def payment(slot: int, number: int = 0, **rest: Any) -> dict[str, Any]:
    name = f"{slot} {number}"
    return sol_transfer(key("a"), key("b"), 1 + number, slot=slot, name=name, **rest)


async def block(rpc: Rpc, slot: int, endpoint: Endpoint | None = None) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(await rpc.block(slot, endpoint=endpoint))
    return decoded


# ---------------------------------------------------------------------------------- which


async def test_the_slots_with_a_block_are_told_both_ends_included() -> None:
    async with one() as (node, rpc):
        node.chain.skipped |= {501, 503, 504}

        assert await rpc.blocks(500, 506) == [500, 502, 505, 506]
        assert await rpc.blocks(502, 502) == [502]
        assert await rpc.blocks(503, 504) == []

        (asked, *_) = [call for call in node.calls if call.method == "getBlocks"]
        assert asked.params == [500, 506, {"commitment": "finalized", "minContextSlot": 506}]


async def test_a_long_range_is_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_module, "BLOCKS_RANGE_MAX", 10)
    async with one() as (node, rpc):
        assert await rpc.blocks(100, 130) == list(range(100, 131))

        asked = [call.params[:2] for call in node.calls if call.method == "getBlocks"]
        assert asked == [[100, 109], [110, 119], [120, 129], [130, 130]]


async def test_the_widest_part_is_one_that_a_node_takes() -> None:
    async with FakeNode(FakeChain(finalized=500_010)) as node, connect(node.url) as rpc:
        assert len(await rpc.blocks(1, 500_002)) == 500_002


async def test_a_node_that_is_behind_the_range_is_not_believed() -> None:
    """It would leave out in silence what it does not know yet."""
    chain = FakeChain()
    async with FakeNode(chain) as a, FakeNode(chain) as b, connect(a.url, b.url) as rpc:
        a.behind = 10

        assert await rpc.blocks(985, 1_000) == list(range(985, 1_001))
        with pytest.raises(SourceUnavailable) as caught:
            await rpc.blocks(985, 1_000, endpoint=rpc.endpoints[0])

        assert caught.value.code in wire.NOT_YET_CODES
        assert b.count("getBlocks") == 1


async def test_what_is_pruned_is_left_out_and_the_first_that_is_kept_is_told() -> None:
    chain = FakeChain()
    async with FakeNode(chain) as a, FakeNode(chain) as b, connect(a.url, b.url) as rpc:
        a.first_available = 990

        assert await rpc.blocks(985, 992) == [990, 991, 992]
        assert [await rpc.first_available_block(endpoint=each) for each in rpc.endpoints] == [
            990,
            0,
        ]
        assert await rpc.blocks(985, 992, endpoint=rpc.endpoints[1]) == list(range(985, 993))


@pytest.mark.parametrize(("first", "last"), [(2, 1), (-1, 5), (-5, -1)])
async def test_a_range_that_is_none_is_a_mistake_of_ours(first: int, last: int) -> None:
    async with one() as (node, rpc):
        with pytest.raises(InvariantError, match="no range"):
            await rpc.blocks(first, last)

        assert node.count("getBlocks") == 0


class Answering(Endpoint):
    """Says one thing, whatever is asked."""

    def __init__(self, value: Any) -> None:
        super().__init__("http://127.0.0.1:9")
        self.raw = msgspec.json.encode(value)

    async def _ask(self, asked: wire.Asked, params: Sequence[Any]) -> bytes | wire.Fault:
        version = b'{"solana-core":"4.2.0"}'
        return version if asked.method == "getVersion" else self.raw


def answering(value: Any) -> Rpc:
    return Rpc(["http://127.0.0.1:9"], draw=lambda: 0.0, endpoint=lambda *_, **__: Answering(value))


@pytest.mark.parametrize(
    "value",
    [
        ["500", "501"],
        [500, -1],
        [500, 501.5],
        [501, 500],
        [500, 500],
        [499],
        [511],
        [500, 2**63],
        [500, 10**30],
        list(range(500, 512)),
        [[500]],
        {"slots": [500]},
        500,
        "500",
        None,
        True,
    ],
    ids=repr,
)
async def test_slots_that_cannot_be_are_no_answer(value: Any) -> None:
    rpc = answering(value)

    with pytest.raises(SourceUnavailable, match="getBlocks"):
        await rpc.blocks(500, 510)
    with pytest.raises(SourceUnavailable, match="getBlocks"):
        await rpc.blocks(500, 510, endpoint=rpc.endpoints[0])


_anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(value=_anything | st.lists(st.integers(-3, 20)))
async def test_whatever_a_node_says_is_a_list_of_those_slots_or_no_answer(value: Any) -> None:
    rpc = answering(value)
    try:
        slots = await rpc.blocks(0, 12)
    except SourceUnavailable:
        return

    assert slots == value
    assert slots == sorted(set(slots))
    assert set(slots) <= set(range(13))


# ----------------------------------------------------------------------------------- what


async def test_a_block_is_given_with_its_transactions_in_order() -> None:
    async with one() as (node, rpc):
        names = [node.chain.add(payment(700, n, index=index)) for n, index in [(0, 5), (1, 2)]]

        found = await block(rpc, 700)

        assert [
            signature_of(landed)
            for landed in found["transactions"]
            if signature_of(landed) in names
        ] == [names[1], names[0]]
        assert [signature_of(t) for t in found["transactions"]].index(names[0]) == 5
        (asked,) = [call for call in node.calls if call.method == "getBlock"]
        assert asked.params == [
            700,
            {
                "commitment": "finalized",
                "encoding": "json",
                "transactionDetails": "full",
                "rewards": False,
                "maxSupportedTransactionVersion": 1,
            },
        ]


async def test_blocks_name_the_one_before_them_across_skipped_slots() -> None:
    async with one() as (node, rpc):
        node.chain.skipped |= {501, 502}

        older, newer = await block(rpc, 500), await block(rpc, 503)

    assert newer["parentSlot"] == 500
    assert newer["previousBlockhash"] == older["blockhash"]
    assert newer["blockHeight"] == older["blockHeight"] + 1


@pytest.mark.parametrize("highest", [0, 1, 2, 5])
async def test_the_highest_version_in_a_block_is_learned_from_the_node(highest: int) -> None:
    async with one() as (node, rpc):
        rpc.version_max = 0
        for version in range(highest + 1):
            node.chain.add(payment(700, version, index=version, version=version))
        if highest >= VERSION_TRIES_MAX:
            with pytest.raises(SourceRejected, match=r"-32015"):
                await rpc.block(700)
            assert rpc.version_max == VERSION_TRIES_MAX - 1

        found = await block(rpc, 700)

        assert rpc.version_max == highest
        assert len(found["transactions"]) == highest + 1
        assert rpc.endpoints[0].health.problem is None


@pytest.mark.parametrize("named", ["128", "999", "one", ""])
async def test_a_version_that_cannot_be_is_not_learned(named: str) -> None:
    async with one() as (node, rpc):
        node.fail("getBlock", rpc_error(-32015, f'"maxSupportedTransactionVersion": {named}'))

        with pytest.raises(SourceRejected):
            await rpc.block(700)

        assert rpc.version_max == 1


async def test_why_there_is_no_block_is_told_apart() -> None:
    async with one() as (node, rpc):
        node.chain.skipped.add(500)
        node.first_available = 400

        for slot, kind, codes in [
            (500, SourceRejected, wire.SKIPPED_CODES),
            (399, SourceRejected, wire.PRUNED_CODES),
            (1_001, SourceUnavailable, wire.NOT_YET_CODES),
        ]:
            for endpoint in (None, rpc.endpoints[0]):
                with pytest.raises(SourceError) as caught:
                    await rpc.block(slot, endpoint=endpoint)

                assert isinstance(caught.value, kind)
                assert caught.value.code in codes  # type: ignore[attr-defined]  # both kinds have it
        assert rpc.endpoints[0].health.problem is None, "nothing is wrong with it"


@pytest.mark.parametrize("code", [-32001, -32004, -32007, -32009, -32011, -32014])
async def test_what_one_endpoint_cannot_give_another_may(code: int) -> None:
    chain = FakeChain()
    async with FakeNode(chain) as a, FakeNode(chain) as b, connect(a.url, b.url) as rpc:
        a.fail("getBlock", rpc_error(code), times=None)

        assert (await block(rpc, 700))["parentSlot"] == 699
        assert b.count("getBlock") == 1


async def test_null_is_no_block_and_no_proof_of_there_being_none() -> None:
    async with one() as (node, rpc):
        node.fail("getBlock", null(), times=None)

        with pytest.raises(SourceUnavailable, match="slot 700"):
            await rpc.block(700)
        with pytest.raises(SourceUnavailable, match="slot 700"):
            await rpc.block(700, endpoint=rpc.endpoints[0])


@pytest.mark.parametrize("fault", [garbage(), http(500), http(429)])
async def test_an_endpoint_that_is_named_is_asked_once_and_alone(fault: Fault) -> None:
    chain = FakeChain()
    async with FakeNode(chain) as a, FakeNode(chain) as b, connect(a.url, b.url) as rpc:
        a.fail("getBlock", fault, times=None)

        with pytest.raises(SourceUnavailable):
            await rpc.block(700, endpoint=rpc.endpoints[0])

        assert (a.count("getBlock"), b.count("getBlock")) == (1, 0)


async def test_a_block_of_another_slot_is_handed_on_and_shows_in_the_chain_of_hashes() -> None:
    """It does not name its own slot: whoever reads a range compares it with the next one."""
    async with one() as (node, rpc):
        node.block_lies[700] = lambda lied: lied.update(node.chain.block(650))

        lied, after = await block(rpc, 700), await block(rpc, 701)

    assert after["previousBlockhash"] != lied["blockhash"]
