"""Several endpoints as one, and what their answers become."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from indexer.core.account import Account
from indexer.core.types import TOKEN_PROGRAM, Commitment
from indexer.errors import ConfigError, SourceRejected, SourceUnavailable
from indexer.sources import rpc as rpc_module
from indexer.sources.endpoint import Bounds
from indexer.sources.rpc import BLOCK_TIMES_MAX, Rpc, SignatureRow, SignatureStatus
from tests import vectors
from tests.chain import BLOCK_TIME, key, signature, sol_transfer
from tests.servers.fake_rpc import (
    FakeChain,
    FakeNode,
    Fault,
    garbage,
    hang,
    http,
    result,
    rpc_error,
)


WATCH = key("watch")


def connect(*urls: str, quorum: int = 1, draw: float = 0.0) -> Rpc:
    return Rpc(urls, bounds=Bounds(rate=0, timeout_s=5), quorum=quorum, draw=lambda: draw)


@asynccontextmanager
async def one() -> AsyncIterator[tuple[FakeNode, Rpc]]:
    async with FakeNode() as node, connect(node.url) as rpc:
        yield node, rpc


@asynccontextmanager
async def two(*, draw: float = 0.0) -> AsyncIterator[tuple[FakeNode, FakeNode, Rpc]]:
    chain = FakeChain()
    async with FakeNode(chain) as a, FakeNode(chain) as b, connect(a.url, b.url, draw=draw) as rpc:
        yield a, b, rpc


# ----------------------------------------------------------------------------- fail-over


async def test_the_first_endpoint_is_asked_first() -> None:
    async with two() as (a, b, rpc):
        assert await rpc.slot(Commitment.FINALIZED) == 1_000

        assert (a.count("getSlot"), b.count("getSlot")) == (1, 0)


@pytest.mark.parametrize(
    "fault",
    [
        http(429, retry_after="1"),
        http(500),
        http(401),
        http(403),
        garbage(),
        rpc_error(-32005),
        rpc_error(-32014),
        rpc_error(-32016),
        rpc_error(-32019),
        rpc_error(-32601),
        rpc_error(-32011),
    ],
)
async def test_the_second_endpoint_answers_where_the_first_does_not(fault: Fault) -> None:
    async with two() as (a, b, rpc):
        a.fail("getSlot", fault, times=None)

        assert await rpc.slot(Commitment.FINALIZED) == 1_000

        assert (a.count("getSlot"), b.count("getSlot")) == (1, 1)


async def test_an_endpoint_that_rests_is_not_asked() -> None:
    async with two() as (a, b, rpc):
        a.fail("getSlot", http(429, retry_after="60"))

        for _ in range(3):
            assert await rpc.slot(Commitment.FINALIZED) == 1_000

        assert (a.count("getSlot"), b.count("getSlot")) == (1, 3)
        assert rpc.problem is None


async def test_an_endpoint_that_is_down_comes_back() -> None:
    async with two() as (a, b, rpc):
        await a.stop()
        assert await rpc.slot(Commitment.FINALIZED) == 1_000
        await a.start()

        assert await rpc.slot(Commitment.FINALIZED) == 1_000

        assert (a.count("getSlot"), b.count("getSlot")) == (1, 1)
        assert rpc.endpoints[0].health.problem is None


async def test_a_wrong_question_is_asked_once() -> None:
    async with two() as (a, b, rpc):
        a.fail("getSlot", rpc_error(-32602, "Invalid params"))

        with pytest.raises(SourceRejected) as caught:
            await rpc.slot(Commitment.FINALIZED)

        assert caught.value.code == -32602
        assert b.calls == []


async def test_what_no_endpoint_serves_is_rejected() -> None:
    async with two() as (a, b, rpc):
        with pytest.raises(SourceRejected) as caught:
            await rpc.call("getAgGenesisCert", [])

        assert caught.value.code == -32601
        assert (len(a.calls), len(b.calls)) == (1, 1)


async def test_an_endpoint_that_refused_is_not_asked_again_in_the_same_call() -> None:
    async with two() as (a, b, rpc):
        a.fail("getSlot", rpc_error(-32601), times=None)
        b.fail("getSlot", http(500), times=2)

        assert await rpc.slot(Commitment.FINALIZED) == 1_000

        assert (a.count("getSlot"), b.count("getSlot")) == (1, 3)


async def test_trouble_is_asked_again_until_it_passes() -> None:
    async with one() as (node, rpc):
        node.fail("getSlot", http(500), times=2)
        node.fail("getSlot", rpc_error(-32014), times=2)

        assert await rpc.slot(Commitment.FINALIZED) == 1_000


async def test_trouble_that_stays_is_told_after_a_bounded_number_of_rounds() -> None:
    async with two() as (a, b, rpc):
        for node in (a, b):
            node.fail("getSlot", http(503), times=None)

        with pytest.raises(SourceUnavailable, match="HTTP 503"):
            await rpc.slot(Commitment.FINALIZED)

        assert (a.count("getSlot"), b.count("getSlot")) == (5, 5)


async def test_a_long_pause_of_every_endpoint_is_told_at_once() -> None:
    async with two() as (a, b, rpc):
        a.fail("getSlot", http(429, retry_after="90"))
        b.fail("getSlot", http(429, retry_after="60"))

        with pytest.raises(SourceUnavailable, match="every endpoint rests") as caught:
            await rpc.slot(Commitment.FINALIZED)

        assert caught.value.retry_after_s is not None
        assert 50 < caught.value.retry_after_s <= 60
        assert rpc.problem is not None
        assert a.url in rpc.problem
        assert b.url in rpc.problem
        assert (a.count("getSlot"), b.count("getSlot")) == (1, 1)


async def test_a_short_pause_of_every_endpoint_is_waited_for() -> None:
    async with one() as (node, _), connect(node.url, draw=0.2) as rpc:
        node.fail("getSlot", http(500), times=2)

        assert await rpc.slot(Commitment.FINALIZED) == 1_000


async def test_one_call_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_module, "CALL_S_MAX", 0.1)
    async with one() as (node, rpc):
        node.fail("getSlot", hang(), times=None)

        with pytest.raises(SourceUnavailable, match=r"no answer within 0\.1 s"):
            await rpc.slot(Commitment.FINALIZED)


@pytest.mark.parametrize(("urls", "quorum"), [(0, 1), (1, 2), (2, 3), (2, 0)])
def test_a_quorum_must_be_possible(urls: int, quorum: int) -> None:
    with pytest.raises(ConfigError, match="quorum"):
        connect(*["http://127.0.0.1:9"] * urls, quorum=quorum)


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


async def test_many_calls_at_once_share_the_connections() -> None:
    async with one() as (node, rpc):
        slots = await asyncio.gather(*(rpc.slot(Commitment.FINALIZED) for _ in range(300)))

    assert set(slots) == {1_000}
    assert node.count("getSlot") == 300
