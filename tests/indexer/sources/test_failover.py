"""Several endpoints as one."""

import asyncio

import pytest

from indexer.core.types import Commitment
from indexer.errors import ConfigError, SourceRejected, SourceUnavailable
from indexer.sources import failover
from tests.indexer.sources.asking import connect, one, two
from tests.servers.fake_rpc import (
    Fault,
    garbage,
    hang,
    http,
    rpc_error,
)


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
    monkeypatch.setattr(failover, "CALL_S_MAX", 0.1)
    async with one() as (node, rpc):
        node.fail("getSlot", hang(), times=None)

        with pytest.raises(SourceUnavailable, match=r"no answer within 0\.1 s"):
            await rpc.slot(Commitment.FINALIZED)


@pytest.mark.parametrize(("urls", "quorum"), [(0, 1), (1, 2), (2, 3), (2, 0)])
def test_a_quorum_must_be_possible(urls: int, quorum: int) -> None:
    with pytest.raises(ConfigError, match="quorum"):
        connect(*["http://127.0.0.1:9"] * urls, quorum=quorum)


async def test_many_calls_at_once_share_the_connections() -> None:
    async with one() as (node, rpc):
        slots = await asyncio.gather(*(rpc.slot(Commitment.FINALIZED) for _ in range(300)))

    assert set(slots) == {1_000}
    assert node.count("getSlot") == 300
