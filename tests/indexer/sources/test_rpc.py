"""What the answers of nodes become."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from indexer.core.account import Account
from indexer.core.types import TOKEN_PROGRAM, Commitment
from indexer.errors import SourceRejected, SourceUnavailable
from indexer.sources.rpc import BLOCK_TIMES_MAX, Rpc, SignatureRow, SignatureStatus
from tests import vectors
from tests.chain import BLOCK_TIME, key, signature, sol_transfer
from tests.indexer.sources.asking import connect, one, two
from tests.servers.fake_rpc import (
    FakeChain,
    FakeNode,
    result,
    rpc_error,
)


WATCH = key("watch")


# ------------------------------------------------------------------------------ history


async def test_a_page_of_signatures_is_newest_first() -> None:
    async with one() as (node, rpc):
        names = [
            node.chain.add(
                sol_transfer(key("a"), key("b"), 1, references=[WATCH], slot=slot, index=index)
            )
            for slot, index in [(500, 3), (500, 7), (501, 0)]
        ]
        node.chain.add(sol_transfer(key("a"), key("b"), 1, references=[key("other")]))

        rows = await rpc.signatures_for_address(WATCH)

        assert rows == [
            SignatureRow(names[2], 501, failed=False, block_time=BLOCK_TIME, index=0),
            SignatureRow(names[1], 500, failed=False, block_time=BLOCK_TIME, index=7),
            SignatureRow(names[0], 500, failed=False, block_time=BLOCK_TIME, index=3),
        ]
        assert await rpc.signatures_for_address(WATCH, limit=1) == rows[:1]
        assert await rpc.signatures_for_address(WATCH, before=names[2], limit=1) == rows[1:2]
        assert await rpc.signatures_for_address(key("nobody")) == []


async def test_failed_transactions_are_listed_as_such() -> None:
    async with one() as (node, rpc):
        node.chain.add(
            sol_transfer(key("a"), key("b"), 1, references=[WATCH], err={"x": 1}, index=None)
        )

        (row,) = await rpc.signatures_for_address(WATCH)

    assert row.failed
    assert row.index is None


async def test_only_what_is_finalized_is_listed() -> None:
    async with one() as (node, rpc):
        node.chain.add(sol_transfer(key("a"), key("b"), 1, references=[WATCH], slot=1_001))

        assert await rpc.signatures_for_address(WATCH) == []


async def test_a_node_that_is_behind_is_not_believed() -> None:
    async with two() as (a, b, rpc):
        name = a.chain.add(sol_transfer(key("a"), key("b"), 1, references=[WATCH], slot=999))
        a.behind = 10

        assert await rpc.signatures_for_address(WATCH) == []
        (row,) = await rpc.signatures_for_address(WATCH, min_context_slot=1_000)

        assert row.signature == name
        assert b.count("getSignaturesForAddress") == 1
        assert rpc.endpoints[0].health.problem is None  # it is late, not ill


async def test_an_unknown_before_is_told_apart_from_the_end() -> None:
    async with one() as (_, rpc):
        with pytest.raises(SourceRejected) as caught:
            await rpc.signatures_for_address(WATCH, before=signature("unknown"))

    assert caught.value.code == -32020


async def test_the_real_page_of_signatures() -> None:
    live = vectors.load("stream/live_2026-09-28_getSignaturesForAddress_with_transactionIndex.json")
    async with one() as (node, rpc):
        node.fail("getSignaturesForAddress", result(live["response"]["result"]))

        rows = await rpc.signatures_for_address(WATCH)

    assert len(rows) == 5
    assert rows[0].slot == 451_431_054
    assert rows[0].index == 1_323
    assert rows[0].block_time == 1_790_628_543
    assert not rows[0].failed


async def test_statuses_come_in_the_order_asked_however_many() -> None:
    async with one() as (node, rpc):
        final = node.chain.add(sol_transfer(key("a"), key("b"), 1, slot=900))
        failed = node.chain.add(sol_transfer(key("a"), key("b"), 2, slot=901, err="x"))
        confirmed = node.chain.add(sol_transfer(key("a"), key("b"), 3, slot=node.chain.confirmed))
        processed = node.chain.add(sol_transfer(key("a"), key("b"), 4, slot=node.chain.tip))
        asked = [final, *[signature(f"{n}") for n in range(300)], failed, confirmed, processed]

        statuses = await rpc.signature_statuses(asked)

        assert statuses[0] == SignatureStatus(900, failed=False, commitment=Commitment.FINALIZED)
        assert statuses[1:301] == [None] * 300
        assert statuses[301:] == [
            SignatureStatus(901, failed=True, commitment=Commitment.FINALIZED),
            SignatureStatus(node.chain.confirmed, failed=False, commitment=Commitment.CONFIRMED),
            SignatureStatus(node.chain.tip, failed=False, commitment=None),
        ]
        assert node.count("getSignatureStatuses") == 2
        assert await rpc.signature_statuses([]) == []


async def test_history_is_searched_only_when_asked_for() -> None:
    async with one() as (node, rpc):
        await rpc.signature_statuses([signature("a")])
        await rpc.signature_statuses([signature("a")], search_history=True)

    assert [call.params[1] for call in node.calls] == [
        {"searchTransactionHistory": False},
        {"searchTransactionHistory": True},
    ]


async def test_too_few_statuses_are_no_answer() -> None:
    async with one() as (node, rpc):
        node.fail("getSignatureStatuses", result({"context": {"slot": 1}, "value": []}))

        with pytest.raises(SourceUnavailable, match="0 statuses for 1"):
            await rpc.signature_statuses([signature("a")])


# ------------------------------------------------------------------------- other reads


async def test_slots_at_each_commitment() -> None:
    async with one() as (node, rpc):
        assert await rpc.slot(Commitment.FINALIZED) == node.chain.finalized
        assert await rpc.slot(Commitment.CONFIRMED) == node.chain.confirmed


async def test_a_block_time_is_asked_once() -> None:
    async with one() as (node, rpc):
        node.chain.block_times[7] = BLOCK_TIME + 7

        assert [await rpc.block_time(7) for _ in range(3)] == [BLOCK_TIME + 7] * 3
        assert node.count("getBlockTime") == 1


async def test_a_block_time_that_is_not_known_yet_is_asked_again() -> None:
    async with one() as (node, rpc):
        node.chain.block_times[7] = None
        assert await rpc.block_time(7) is None
        node.chain.block_times[7] = BLOCK_TIME

        assert await rpc.block_time(7) == BLOCK_TIME


@pytest.mark.parametrize("code", [-32001, -32007, -32009, -32011])
async def test_a_block_that_is_not_kept_has_no_time(code: int) -> None:
    async with one() as (node, rpc):
        node.fail("getBlockTime", rpc_error(code))

        assert await rpc.block_time(7) is None


async def test_the_other_endpoint_may_know_the_block_time() -> None:
    async with two() as (a, _, rpc):
        a.fail("getBlockTime", rpc_error(-32001))
        a.chain.block_times[7] = BLOCK_TIME

        assert await rpc.block_time(7) == BLOCK_TIME


@asynccontextmanager
async def two_of_three() -> AsyncIterator[tuple[FakeNode, FakeNode, FakeNode, Rpc]]:
    chain = FakeChain()
    chain.block_times[7] = BLOCK_TIME
    async with (
        FakeNode(chain) as a,
        FakeNode(chain) as b,
        FakeNode(chain) as c,
        connect(a.url, b.url, c.url, quorum=2) as rpc,
    ):
        yield a, b, c, rpc


async def test_one_endpoint_alone_does_not_say_what_time_it_was() -> None:
    async with two_of_three() as (a, _, _, rpc):
        a.fail("getBlockTime", result(BLOCK_TIME + 86_400), times=None)

        assert await rpc.block_time(7) == BLOCK_TIME


async def test_endpoints_that_disagree_say_no_time() -> None:
    async with two_of_three() as (a, b, _, rpc):
        a.fail("getBlockTime", result(BLOCK_TIME + 86_400), times=None)
        b.fail("getBlockTime", rpc_error(-32001), times=None)

        assert await rpc.block_time(7) is None


async def test_a_time_that_too_few_can_tell_now_is_asked_again() -> None:
    async with two_of_three() as (a, b, _, rpc):
        a.fail("getBlockTime", rpc_error(-32004), times=None)
        b.fail("getBlockTime", rpc_error(-32004))

        assert await rpc.block_time(7) == BLOCK_TIME

        rpc._block_times.clear()
        b.fail("getBlockTime", rpc_error(-32004), times=None)
        with pytest.raises(SourceUnavailable, match="fewer than 2"):
            await rpc.block_time(7)


async def test_block_times_do_not_pile_up() -> None:
    async with one() as (_, rpc):
        rpc._block_times.update(dict.fromkeys(range(BLOCK_TIMES_MAX), 1))

        await rpc.block_time(BLOCK_TIMES_MAX + 7)

        assert len(rpc._block_times) == BLOCK_TIMES_MAX
        assert 0 not in rpc._block_times


async def test_an_account_is_read_with_its_data() -> None:
    async with one() as (node, rpc):
        node.chain.put_account(
            key("mint"),
            lamports=1_461_600,
            owner=TOKEN_PROGRAM,
            data_base64=base64.b64encode(b"\x00\xff mint").decode(),
        )

        assert await rpc.account(key("mint")) == Account(
            owner=TOKEN_PROGRAM, lamports=1_461_600, executable=False, data=b"\x00\xff mint"
        )
        assert await rpc.account(key("nobody")) is None


@pytest.mark.parametrize(
    "value",
    [
        {"value": {"owner": key("x"), "lamports": 1, "executable": False, "data": ["?", "base64"]}},
        {"value": {"owner": key("x"), "lamports": -0.5, "executable": False, "data": ["", ""]}},
        {"value": {"owner": None, "lamports": 1, "executable": False, "data": ["", "base64"]}},
        {},
        None,
    ],
)
async def test_an_account_of_another_shape_is_no_answer(value: Any) -> None:
    async with one() as (node, rpc):
        node.fail("getAccountInfo", result(value))

        with pytest.raises(SourceUnavailable, match="getAccountInfo"):
            await rpc.account(key("mint"))


async def test_the_rent_exempt_minimum_is_remembered_for_a_while() -> None:
    async with one() as (node, rpc):
        assert [await rpc.rent_exempt_minimum() for _ in range(3)] == [890_880] * 3
        assert node.count("getMinimumBalanceForRentExemption") == 1
        assert await rpc.rent_exempt_minimum(165) == 2_039_280


async def test_the_cluster_names_itself() -> None:
    async with one() as (node, rpc):
        assert await rpc.genesis_hash() == node.chain.genesis_hash
        assert await rpc.version() == "4.2.0"
