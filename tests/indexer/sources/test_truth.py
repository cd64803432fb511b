"""Transactions as they are: proven final, agreed on, and never concluded from nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from indexer.core.transaction import Missing, Transaction, Undecided
from indexer.core.types import Commitment
from indexer.errors import DecodeError, SourceRejected, SourceUnavailable
from indexer.sources.endpoint import Bounds
from indexer.sources.failover import ROUNDS_MAX
from indexer.sources.rpc import Rpc
from indexer.sources.truth import Absent, QuorumNotReached, read_transaction
from tests import vectors
from tests.chain import BLOCK_TIME, key, moved_to, signature, sol_transfer
from tests.servers.fake_rpc import (
    Call,
    FakeChain,
    FakeNode,
    Fault,
    garbage,
    http,
    null,
    result,
    rpc_error,
)


FINALIZED, CONFIRMED = Commitment.FINALIZED, Commitment.CONFIRMED


def payment(number: int = 0, **rest: Any) -> dict[str, Any]:
    return sol_transfer(key("buyer"), key("shop"), 5_000 + number, name=f"tx {number}", **rest)


def connect(*nodes: FakeNode, quorum: int, draw: float) -> Rpc:
    urls = [node.url for node in nodes]
    return Rpc(urls, bounds=Bounds(rate=0, timeout_s=5), quorum=quorum, draw=lambda: draw)


@asynccontextmanager
async def cluster(
    size: int = 1, *, quorum: int = 1, draw: float = 0.0
) -> AsyncIterator[tuple[FakeChain, list[FakeNode], Rpc]]:
    """Nodes of one chain whose slot 1,000 is final, and an Rpc over them."""
    chain = FakeChain(finalized=1_000)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(FakeNode(chain)) for _ in range(size)]
        rpc = connect(*nodes, quorum=quorum, draw=draw)
        yield chain, nodes, await stack.enter_async_context(rpc)


# ---------------------------------------------------------------------------- reading


async def test_a_final_transaction_is_read() -> None:
    async with cluster() as (chain, (node,), rpc):
        name = chain.add(payment(slot=1_000, index=4))

        found = await read_transaction(rpc, name, FINALIZED)

        assert isinstance(found, Transaction)
        assert (found.signature, found.slot, found.index) == (name, 1_000, 4)
        assert found.block_time == BLOCK_TIME
        (asked,) = [call for call in node.calls if call.method == "getTransaction"]
        assert asked.params == [
            name,
            {
                "commitment": "finalized",
                "encoding": "json",
                "maxSupportedTransactionVersion": 1,
            },
        ]


@pytest.mark.parametrize("version", ["legacy", 0, 1])
async def test_every_version_is_read(version: Any) -> None:
    async with cluster() as (chain, _, rpc):
        name = chain.add(payment(version=version))

        found = await read_transaction(rpc, name, FINALIZED)

    assert isinstance(found, Transaction)
    assert found.version == version


async def test_a_failed_transaction_is_read_too() -> None:
    async with cluster() as (chain, _, rpc):
        found = await read_transaction(rpc, chain.add(payment(err={"x": 1})), FINALIZED)

    assert isinstance(found, Transaction)
    assert found.failed


async def test_what_nobody_knows_is_absent() -> None:
    async with cluster(2) as (_, nodes, rpc):
        assert await read_transaction(rpc, signature("?"), FINALIZED) == Absent(
            signature("?"), None
        )
        assert [node.count("getTransaction") for node in nodes] == [1, 1]


async def test_a_null_from_one_endpoint_lets_the_other_speak() -> None:
    async with cluster(2) as (chain, (a, _), rpc):
        name = chain.add(payment())
        a.hidden.add(name)

        assert isinstance(await read_transaction(rpc, name, FINALIZED), Transaction)


async def test_null_is_told_and_later_it_is_there() -> None:
    async with cluster() as (chain, (node,), rpc):
        name = chain.add(payment())
        node.fail("getTransaction", null(), times=2)

        found = [await read_transaction(rpc, name, FINALIZED) for _ in range(3)]

    assert found[:2] == [Absent(name, None)] * 2
    assert isinstance(found[2], Transaction)


# --------------------------------------------------------------------------- finality


@pytest.mark.parametrize("ignores_commitment", [True, False])
async def test_what_is_not_final_is_not_given(ignores_commitment: bool) -> None:
    async with cluster() as (chain, (node,), rpc):
        node.ignores_commitment = ignores_commitment
        name = chain.add(payment(slot=1_001))

        seen = await read_transaction(rpc, name, FINALIZED)
        assert seen == Absent(name, 1_001 if ignores_commitment else None)

        chain.finalize(1_001)
        assert isinstance(await read_transaction(rpc, name, FINALIZED, min_slot=1_001), Transaction)


async def test_finality_is_that_of_the_same_endpoint() -> None:
    """The first is behind and gives what is not final; the second cannot prove it for the first."""
    async with cluster(2) as (chain, (a, b), rpc):
        a.ignores_commitment, a.behind = True, 10
        name = chain.add(payment(slot=995))
        b.hidden.add(name)

        assert await read_transaction(rpc, name, FINALIZED) == Absent(name, 995)


async def test_a_lagging_endpoint_lets_the_other_prove_it() -> None:
    async with cluster(2) as (chain, (a, b), rpc):
        a.behind = 10
        name = chain.add(payment(slot=995))

        found = await read_transaction(rpc, name, FINALIZED)

        assert isinstance(found, Transaction)
        assert b.count("getTransaction") == 1


async def test_a_fork_that_drops_between_answer_and_proof_is_noticed() -> None:
    """The transaction is read on a fork; by the time its slot is final, the fork is gone."""
    async with cluster() as (chain, (node,), rpc):
        node.ignores_commitment = True
        name = chain.add(payment(slot=1_005))

        async def lose_the_fork(call: Call) -> web.StreamResponse:
            chain.drop(name)
            chain.finalize(1_010)
            return await result(chain.finalized)(call)

        node.fail("getSlot", result(1_000))
        node.fail("getSlot", lose_the_fork)

        assert await read_transaction(rpc, name, FINALIZED) == Absent(name, None)


async def test_a_transaction_that_landed_again_is_read_where_it_landed() -> None:
    async with cluster() as (chain, (node,), rpc):
        node.ignores_commitment = True
        first = payment(slot=1_005)
        name = chain.add(first)

        async def land_elsewhere(call: Call) -> web.StreamResponse:
            chain.add(moved_to(first, 1_008))
            chain.finalize(1_008)
            return await result(chain.finalized)(call)

        node.fail("getSlot", result(1_000))
        node.fail("getSlot", land_elsewhere)

        found = await read_transaction(rpc, name, FINALIZED)

    assert isinstance(found, Transaction)
    assert found.slot == 1_008


async def test_a_known_slot_saves_the_second_read() -> None:
    async with cluster() as (chain, (node,), rpc):
        await rpc.endpoints[0].finalized_slot()
        name = chain.add(payment(slot=1_005))
        chain.finalize(1_005)

        assert isinstance(await read_transaction(rpc, name, FINALIZED, min_slot=1_005), Transaction)

        assert node.count("getTransaction") == 1


async def test_a_wrong_slot_does_no_harm() -> None:
    async with cluster() as (chain, _, rpc):
        name = chain.add(payment())

        found = await read_transaction(rpc, name, FINALIZED, min_slot=10**12)

    assert isinstance(found, Transaction)


async def test_confirmed_needs_no_proof_and_no_quorum() -> None:
    async with cluster(2, quorum=2) as (chain, (a, b), rpc):
        name = chain.add(payment(slot=chain.confirmed))
        unseen = chain.add(payment(1, slot=chain.tip))

        assert isinstance(await read_transaction(rpc, name, CONFIRMED), Transaction)
        assert await read_transaction(rpc, unseen, CONFIRMED) == Absent(unseen, None)

        assert (a.count("getSlot"), b.count("getSlot")) == (0, 0)
        assert a.calls[0].params[1]["commitment"] == "confirmed"


# ----------------------------------------------------------------------------- trouble


@pytest.mark.parametrize(
    "fault", [http(429), http(500), garbage(), rpc_error(-32005), rpc_error(-32004), http(401)]
)
async def test_the_other_endpoint_tells_where_one_fails(fault: Fault) -> None:
    async with cluster(2) as (chain, (a, _), rpc):
        name = chain.add(payment())
        a.fail("getTransaction", fault, times=None)

        assert isinstance(await read_transaction(rpc, name, FINALIZED), Transaction)


async def test_trouble_is_asked_again_until_it_passes() -> None:
    async with cluster() as (chain, (node,), rpc):
        name = chain.add(payment())
        node.fail("getTransaction", rpc_error(-32005), times=2)
        node.fail("getSlot", http(500), times=2)

        assert isinstance(await read_transaction(rpc, name, FINALIZED), Transaction)


async def test_trouble_that_stays_is_told() -> None:
    async with cluster() as (_, (node,), rpc):
        node.fail("getTransaction", rpc_error(-32005), times=None)

        with pytest.raises(SourceUnavailable, match="-32005"):
            await read_transaction(rpc, signature("a"), FINALIZED)

        assert node.count("getTransaction") == ROUNDS_MAX


async def test_a_wrong_question_is_told_at_once() -> None:
    async with cluster() as (_, (node,), rpc):
        node.fail("getTransaction", rpc_error(-32602, "Invalid param: WrongSize"))

        with pytest.raises(SourceRejected, match="WrongSize"):
            await read_transaction(rpc, "no signature", FINALIZED)

        assert node.count("getTransaction") == 1


def unreadable(landed: dict[str, Any]) -> None:
    landed["meta"]["fee"] = "5000"


def another(landed: dict[str, Any]) -> None:
    landed["transaction"]["signatures"] = [signature("another")]


@pytest.mark.parametrize("lie", [unreadable, another])
async def test_what_cannot_be_read_is_kept_for_a_person(lie: Any) -> None:
    async with cluster() as (chain, (node,), rpc):
        name = chain.add(payment())
        node.lies[name] = lie

        with pytest.raises(DecodeError) as caught:
            await read_transaction(rpc, name, FINALIZED)

        assert caught.value.payload is not None
        assert json.loads(caught.value.payload)["slot"] == 100


@pytest.mark.parametrize("lie", [unreadable, another])
async def test_the_other_endpoint_may_be_readable(lie: Any) -> None:
    async with cluster(2) as (chain, (a, _), rpc):
        name = chain.add(payment())
        a.lies[name] = lie

        assert isinstance(await read_transaction(rpc, name, FINALIZED), Transaction)


def without_inner(landed: dict[str, Any]) -> None:
    landed["meta"]["innerInstructions"] = None


async def test_what_a_node_left_out_is_undecided_unless_another_has_it() -> None:
    async with cluster(2) as (chain, (a, b), rpc):
        name = chain.add(payment())
        a.lies[name] = without_inner
        assert isinstance(await read_transaction(rpc, name, FINALIZED), Transaction)

        b.lies[name] = without_inner
        assert await read_transaction(rpc, name, FINALIZED) == Undecided(
            name, Missing.INNER_INSTRUCTIONS
        )


# ---------------------------------------------------------------------------- versions


async def test_a_version_that_is_named_by_the_node_is_asked_for() -> None:
    async with cluster() as (chain, (node,), rpc):
        name = chain.add(payment(version=2))

        with capture_logs() as logs:
            found = [await read_transaction(rpc, name, FINALIZED) for _ in range(2)]

        assert all(isinstance(one, Transaction) and one.version == 2 for one in found)
        assert node.count("getTransaction") == 3  # refused, read, and read again
        assert [entry["event"] for entry in logs] == ["transaction_version.raised"]
        assert rpc.version_max == 2


async def test_the_words_of_a_real_node_are_understood() -> None:
    live = vectors.load("stream/live_2026-09-28_getTransaction_error_v1_not_supported.json")
    async with cluster() as (chain, (node,), rpc):
        name = chain.add(payment(version=1))
        rpc.version_max = 0
        node.fail("getTransaction", rpc_error(**live["response"]["error"]))

        assert isinstance(await read_transaction(rpc, name, FINALIZED), Transaction)

        assert rpc.version_max == 1


@pytest.mark.parametrize(
    "message",
    [
        "Transaction version is not supported",
        'with "maxSupportedTransactionVersion": 128',
        'with "maxSupportedTransactionVersion": 99999999999',
    ],
)
async def test_a_version_that_is_not_named_is_for_a_person(message: str) -> None:
    async with cluster() as (_, (node,), rpc):
        node.fail("getTransaction", rpc_error(-32015, message), times=None)

        with pytest.raises(SourceRejected) as caught:
            await read_transaction(rpc, signature("a"), FINALIZED)

        assert caught.value.code == -32015
        assert rpc.version_max == 1


# ------------------------------------------------------------------------------ quorum


def more(landed: dict[str, Any]) -> None:
    landed["meta"]["postBalances"][1] += 1


async def test_a_quorum_that_agrees_is_enough() -> None:
    async with cluster(3, quorum=2) as (chain, nodes, rpc):
        name = chain.add(payment())

        assert isinstance(await read_transaction(rpc, name, FINALIZED), Transaction)

        assert [node.count("getTransaction") for node in nodes] == [1, 1, 0]


async def test_estimates_and_what_old_nodes_leave_out_need_no_agreement() -> None:
    def differently(landed: dict[str, Any]) -> None:
        landed["blockTime"] = None
        del landed["transactionIndex"]

    async with cluster(2, quorum=2) as (chain, (_, b), rpc):
        name = chain.add(payment(index=3))
        b.lies[name] = differently

        found = await read_transaction(rpc, name, FINALIZED)

    assert isinstance(found, Transaction)
    assert (found.index, found.block_time) == (3, BLOCK_TIME)


async def test_endpoints_that_disagree_are_named_and_not_believed() -> None:
    async with cluster(2, quorum=2) as (chain, (a, b), rpc):
        name = chain.add(payment())
        a.lies[name] = more

        with capture_logs() as logs, pytest.raises(QuorumNotReached, match="disagree"):
            await read_transaction(rpc, name, FINALIZED)

        (entry,) = [entry for entry in logs if entry["event"] == "quorum.disagreement"]
        assert entry["signature"] == name
        assert entry["sides"] == [[a.url], [b.url]]


async def test_the_third_outvotes_the_liar() -> None:
    async with cluster(3, quorum=2) as (chain, (a, _, c), rpc):
        name = chain.add(payment())
        truth = await read_transaction(connect_to(rpc, 1), name, FINALIZED)
        a.lies[name] = more

        assert await read_transaction(rpc, name, FINALIZED) == truth
        assert c.count("getTransaction") == 1


def connect_to(rpc: Rpc, position: int) -> Rpc:
    """The same endpoint alone, already open."""
    alone = Rpc(["http://127.0.0.1:9"], draw=lambda: 0.0)
    alone.endpoints = (rpc.endpoints[position],)
    return alone


async def test_a_quorum_waits_for_the_one_that_is_behind() -> None:
    async with cluster(2, quorum=2) as (chain, (_, b), rpc):
        name = chain.add(payment(slot=995))
        b.behind = 10
        assert await read_transaction(rpc, name, FINALIZED) == Absent(name, 995)

        b.behind = 0
        assert isinstance(await read_transaction(rpc, name, FINALIZED, min_slot=995), Transaction)


@pytest.mark.parametrize("fault", [http(500), http(401), garbage()])
async def test_a_quorum_is_not_reached_without_the_other(fault: Fault) -> None:
    async with cluster(2, quorum=2) as (chain, (_, b), rpc):
        name = chain.add(payment())
        b.fail("getTransaction", fault, times=None)

        with pytest.raises(QuorumNotReached, match="1 of 2"):
            await read_transaction(rpc, name, FINALIZED)


async def test_a_quorum_is_not_reached_while_the_other_rests() -> None:
    async with cluster(2, quorum=2) as (chain, (_, b), rpc):
        name = chain.add(payment())
        b.fail("getTransaction", http(429, retry_after="200"))

        with pytest.raises(QuorumNotReached):
            await read_transaction(rpc, name, FINALIZED)


async def test_a_quorum_waits_for_a_short_rest_to_end() -> None:
    async with cluster(2, quorum=2, draw=0.5) as (chain, _, rpc):
        name = chain.add(payment())
        now = asyncio.get_running_loop().time()
        rpc.endpoints[1].health.failed(now, now, SourceUnavailable("busy", retry_after_s=0.2))

        assert isinstance(await read_transaction(rpc, name, FINALIZED), Transaction)


async def test_a_quorum_outlives_a_short_failure() -> None:
    async with cluster(2, quorum=2) as (chain, (_, b), rpc):
        name = chain.add(payment())
        b.fail("getTransaction", http(500), times=2)

        assert isinstance(await read_transaction(rpc, name, FINALIZED), Transaction)


# ------------------------------------------------------------------------------- many


async def test_each_of_many_costs_one_request() -> None:
    async with cluster() as (chain, (node,), rpc):
        names = [chain.add(payment(number, slot=900 + number % 100)) for number in range(500)]

        found = await asyncio.gather(
            *(read_transaction(rpc, name, FINALIZED, min_slot=1_000) for name in names)
        )

        assert [one.signature for one in found if isinstance(one, Transaction)] == names
        assert node.count("getTransaction") == 500
        assert node.count("getSlot") <= 2
