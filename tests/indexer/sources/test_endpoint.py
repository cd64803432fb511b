"""One URL: how it is asked, how its failures are told, when it rests."""

import asyncio
import gzip
import socket
from collections.abc import Callable, Sequence
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from indexer.errors import ConfigError, InvariantError, SourceRejected, SourceUnavailable
from indexer.sources import wire
from indexer.sources.endpoint import DOWN_LOGGED_EVERY_S, Bounds, Endpoint, Health
from indexer.sources.priority import Priority, at, present
from tests.servers.fake_rpc import (
    Call,
    FakeNode,
    Fault,
    eventually,
    garbage,
    hang,
    hang_up,
    http,
    result,
    rpc_error,
    wrong_id,
)


FINAL = [{"commitment": "finalized"}]


def endpoint(url: str, **bounds: Any) -> Endpoint:
    return Endpoint(url, bounds=Bounds(**{"rate": 0, "timeout_s": 5, **bounds}), draw=lambda: 1.0)


def packed(body: bytes) -> Fault:
    async def fault(_: Call) -> web.StreamResponse:
        return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})

    return fault


async def test_an_answer_is_the_json_of_its_result() -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        assert await asked.call("getSlot", FINAL) == b"1000"
        assert await asked.call("getTransaction", ["unknown", {}]) == b"null"


async def test_connections_are_kept_and_bounded() -> None:
    used: set[Any] = set()
    full = asyncio.Event()
    most = 0
    now = 0

    async def counting(call: Call) -> web.StreamResponse:
        nonlocal now, most
        assert call.request is not None
        used.add(call.request.transport)
        now += 1
        most = max(most, now)
        if now == 4:
            full.set()
        await full.wait()  # nobody leaves before all are there
        await asyncio.sleep(0.001)
        now -= 1
        return await result(1)(call)

    async with FakeNode() as node, endpoint(node.url, concurrency=4) as asked:
        node.fail("getSlot", counting, times=None)
        await asyncio.gather(*(asked.call("getSlot", []) for _ in range(40)))

    assert most == 4
    assert len(used) == 4


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (http(429), "HTTP 429"),
        (http(500), "HTTP 500"),
        (http(503), "HTTP 503"),
        (http(408), "HTTP 408"),
        (garbage(), "no JSON-RPC answer"),
        (garbage(b'{"jsonrpc":"2.0","id":1,"res'), "no JSON-RPC answer"),
        (garbage(b""), "no JSON-RPC answer"),
        (wrong_id(), "an answer to request -1"),
        (rpc_error(-32005, "Node is unhealthy"), "Node is unhealthy (-32005)"),
        (rpc_error(429, "Too many requests"), "Too many requests (429)"),
    ],
)
async def test_trouble_is_unavailable_and_the_endpoint_rests(fault: Fault, says: str) -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        node.fail("getSlot", fault, times=None)

        with pytest.raises(SourceUnavailable) as caught:
            await asked.call("getSlot", FINAL)

        assert str(caught.value).startswith(f"getSlot at {node.url}: ")
        assert says in str(caught.value)
        assert asked.health.problem == str(caught.value)
        assert asked.health.rest_s(asyncio.get_running_loop().time()) > 0


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (http(401), 401),
        (http(403), 403),
        (rpc_error(-32601), -32601),
        (rpc_error(-32602), -32602),
        (rpc_error(-32602, status=400), -32602),
        (http(302), 302),
    ],
)
async def test_a_refusal_says_why(fault: Fault, code: int) -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        node.fail("getSlot", fault)

        with pytest.raises(SourceRejected) as caught:
            await asked.call("getSlot", FINAL)

        assert caught.value.code == code


async def test_a_wrong_question_does_not_tell_against_the_endpoint() -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        node.fail("getSlot", rpc_error(-32602))
        node.fail("getSlot", rpc_error(-32014))

        with pytest.raises(SourceRejected):
            await asked.call("getSlot", FINAL)
        with pytest.raises(SourceUnavailable):
            await asked.call("getSlot", FINAL)

        assert asked.health.problem is None


async def test_silence_is_unavailable() -> None:
    async with FakeNode() as node, endpoint(node.url, timeout_s=0.05) as asked:
        node.fail("getSlot", hang())

        with pytest.raises(SourceUnavailable, match=r"no answer within 0\.05 s"):
            await asked.call("getSlot", FINAL)


async def test_a_closed_port_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    async with endpoint(f"http://127.0.0.1:{port}/v2/SEKRIT") as asked:
        with pytest.raises(SourceUnavailable) as caught:
            await asked.call("getSlot", FINAL)

    assert "SEKRIT" not in str(caught.value)
    assert f"http://127.0.0.1:{port}: Client" in str(caught.value)


@pytest.mark.parametrize("fault", [garbage(b"x" * 2_000), packed(b"x" * 2_000_000)])
async def test_an_answer_that_is_too_long_is_refused_unpacked(fault: Fault) -> None:
    async with FakeNode() as node, endpoint(node.url, answer_bytes_max=1_000) as asked:
        node.fail("getSlot", fault)

        with pytest.raises(SourceUnavailable, match="more than 1000 bytes"):
            await asked.call("getSlot", FINAL)

        assert await asked.call("getSlot", FINAL) == b"1000"


async def test_a_redirect_is_not_followed() -> None:
    """It could lead anywhere, and the key in the URL with it."""

    async def elsewhere(_: Call) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("http://127.0.0.1:9/")

    async with FakeNode() as node, endpoint(node.url) as asked:
        node.fail("getSlot", elsewhere)

        with pytest.raises(SourceRejected) as caught:
            await asked.call("getSlot", FINAL)

    assert caught.value.code == 307


async def test_retry_after_is_kept_in_seconds() -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        node.fail("getSlot", http(429, retry_after="7"))
        clock = asyncio.get_running_loop().time
        asked_at = clock()

        with pytest.raises(SourceUnavailable) as caught:
            await asked.call("getSlot", FINAL)

        assert caught.value.retry_after_s == 7
        now = clock()
        assert 7 - (now - asked_at) <= asked.health.rest_s(now) <= 7


async def test_retry_after_as_a_date_is_counted_from_the_servers_own_clock() -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    later = format_datetime(parsedate_to_datetime(date).replace(minute=29), usegmt=True)
    async with FakeNode() as node, endpoint(node.url) as asked:
        node.fail("getSlot", http(503, retry_after=later, date=date))

        with pytest.raises(SourceUnavailable) as caught:
            await asked.call("getSlot", FINAL)

    assert caught.value.retry_after_s == 60


async def test_a_connection_that_the_server_closed_is_replaced_at_once() -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        await asked.call("getSlot", FINAL)
        node.fail("getSlot", hang_up())

        assert await asked.call("getSlot", FINAL) == b"1000"

        assert asked.health.problem is None
        assert node.count("getSlot") == 3


async def test_a_server_restart_is_not_noticed_by_the_next_read() -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        await asyncio.gather(*(asked.call("getSlot", FINAL) for _ in range(8)))
        await node.stop()
        await node.start()

        answers = await asyncio.gather(*(asked.call("getSlot", FINAL) for _ in range(8)))

    assert answers == [b"1000"] * 8


async def test_a_connection_that_fails_twice_is_trouble() -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        node.fail("getSlot", hang_up(), times=2)

        with pytest.raises(SourceUnavailable, match=r"Disconnected|reset"):
            await asked.call("getSlot", FINAL)


@pytest.mark.parametrize(
    "fault",
    [http(401), http(500), garbage(b"SEKRIT?"), rpc_error(-32602, "key SEKRIT is not valid")],
)
async def test_no_error_and_no_log_shows_the_key(fault: Fault) -> None:
    async with FakeNode() as node:
        url = node.url.replace("127.0.0.1", "user:SEKRIT@127.0.0.1") + "/v2/SEKRIT?api-key=SEKRIT"
        async with endpoint(url) as asked:
            node.fail("getSlot", fault)

            with capture_logs() as logs, pytest.raises((SourceUnavailable, SourceRejected)) as seen:
                await asked.call("getSlot", FINAL)

    assert "SEKRIT" not in f"{seen.value} {seen.value!r} {logs} {asked.name} {asked.health.problem}"


@pytest.mark.parametrize("url", ["", "ftp://x", "node.example", "https://", "ws://node.example"])
def test_what_is_no_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="must begin with http"):
        Endpoint(url)


async def test_an_endpoint_is_used_inside_its_context_only() -> None:
    with pytest.raises(InvariantError):
        await endpoint("http://127.0.0.1:9").call("getSlot", FINAL)


# ------------------------------------------------------------------------ finalized slot


async def test_the_finalized_slot_is_asked_once_for_many() -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        slots = await asyncio.gather(*(asked.finalized_slot(at_least=900) for _ in range(50)))

    assert set(slots) == {1_000}
    # The first one asks; what came while it asked may ask once more, together.
    assert node.count("getSlot") <= 2


async def test_the_finalized_slot_is_asked_again_when_it_is_too_low() -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        assert await asked.finalized_slot() == 1_000
        node.chain.finalize(1_005)

        assert await asked.finalized_slot(at_least=1_000) == 1_000
        assert await asked.finalized_slot(at_least=1_001) == 1_005
        assert await asked.finalized_slot(at_least=2_000) == 1_005


async def test_a_finalized_slot_that_was_not_answered_is_not_made_up() -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        assert await asked.finalized_slot() == 1_000
        node.fail("getSlot", http(500), times=None)

        outcomes = await asyncio.gather(
            *(asked.finalized_slot(at_least=1_001) for _ in range(5)), return_exceptions=True
        )

    assert {type(outcome) for outcome in outcomes} == {SourceUnavailable}


@pytest.mark.parametrize("value", [None, "1000", -1.5, {"slot": 1}])
async def test_a_slot_that_is_none_is_unavailable(value: Any) -> None:
    async with FakeNode() as node, endpoint(node.url) as asked:
        node.fail("getSlot", result(value))

        with pytest.raises(SourceUnavailable, match="unexpected result"):
            await asked.finalized_slot()


# ------------------------------------------------------------------------------- health


def health(draw: Callable[[], float] = lambda: 1.0) -> Health:
    return Health("https://node.example", draw)


BUSY = SourceUnavailable("busy")


def test_rests_grow_with_failures_and_end_with_an_answer() -> None:
    node = health()
    rests = []
    now = 100.0
    for _ in range(4):
        node.failed(now, now, BUSY)
        rests.append(node.rest_s(now))
        now += node.rest_s(now)
    assert rests == [0.25, 0.5, 1.0, 2.0]

    node.answered(now + 1, now)

    assert node.problem is None
    assert node.rest_s(now + 1) == 0
    node.failed(now + 2, now + 2, BUSY)
    assert node.rest_s(now + 2) == 0.25


def test_requests_that_fail_together_count_once() -> None:
    node = health()

    for _ in range(32):
        node.failed(100.0, 99.9, BUSY)

    assert node.rest_s(100.0) == 0.25


def test_the_longest_pause_that_was_asked_for_counts() -> None:
    node = health()

    node.failed(100.0, 99.9, SourceUnavailable("busy", retry_after_s=3))
    node.failed(100.1, 99.9, SourceUnavailable("busy", retry_after_s=9))
    node.failed(100.2, 99.9, BUSY)

    assert node.rest_s(100.2) == pytest.approx(8.9)


def test_an_answer_from_before_the_trouble_ends_nothing() -> None:
    node = health()
    node.failed(100.0, 99.0, BUSY)

    node.answered(100.1, 99.5)

    assert node.problem == "busy"
    assert node.rest_s(100.1) > 0


def test_one_line_a_minute_while_down_and_one_when_back() -> None:
    node = health(lambda: 0.0)
    with capture_logs() as logs:
        now = 100.0
        while now <= 100.0 + 2 * DOWN_LOGGED_EVERY_S:
            node.failed(now, now, BUSY)
            now += 0.5
        node.answered(now, now)
        node.answered(now, now)

    assert [entry["event"] for entry in logs] == [*["endpoint.down"] * 3, "endpoint.back"]
    assert logs[-1]["down_s"] == 120.5


# --------------------------------------------------------------------------------- gate


async def test_requests_wait_for_their_turn() -> None:
    """Twenty-six of them are within the burst; the last must wait for 140 ms at the least."""
    clock = asyncio.get_running_loop().time
    async with FakeNode() as node, endpoint(node.url, rate=100.0) as asked:
        started = clock()
        answers = await asyncio.gather(*(asked.call("getSlot", FINAL) for _ in range(40)))

        assert answers == [b"1000"] * 40
        assert clock() - started >= 0.13


async def test_a_finality_check_overtakes_a_thousand_waiting_replay_requests() -> None:
    opened = asyncio.Event()

    async def slowly(call: Call) -> web.StreamResponse:
        await opened.wait()
        return await result(7)(call)

    async with FakeNode() as node, endpoint(node.url, concurrency=4) as asked:
        node.fail("getBlock", slowly, times=None)
        with at(Priority.REPLAY):
            replay = [asyncio.create_task(asked.call("getBlock", [n])) for n in range(1_000)]
        await eventually(lambda: node.count("getBlock") == 4)
        with at(Priority.FINALITY):
            finality = asyncio.create_task(asked.call("getSlot", FINAL))
        await asyncio.sleep(0)
        opened.set()

        await asyncio.gather(finality, *replay)

    place = [call.method for call in node.calls].index("getSlot")
    assert place < 12  # four were under way, and four more may have been let in before it asked


async def test_what_waits_is_not_sent_to_a_server_that_asks_for_a_pause() -> None:
    async with FakeNode() as node, endpoint(node.url, concurrency=1) as asked:
        node.fail("getSlot", http(429, retry_after="60"))

        outcomes = await asyncio.gather(
            *(asked.call("getSlot", FINAL) for _ in range(100)), return_exceptions=True
        )

        assert {type(outcome) for outcome in outcomes} == {SourceUnavailable}
        assert all(50 < outcome.retry_after_s <= 60 for outcome in outcomes)  # type: ignore[union-attr]  # see the line above
        assert node.count("getSlot") == 1


async def test_what_waits_is_sent_though_the_one_before_failed() -> None:
    """One failure is a reason to ask others first, not to give up what nobody refused."""
    async with FakeNode() as node, endpoint(node.url, concurrency=1) as asked:
        node.fail("getSlot", http(500))

        outcomes = await asyncio.gather(
            *(asked.call("getSlot", FINAL) for _ in range(3)), return_exceptions=True
        )

        assert outcomes[1:] == [b"1000"] * 2
        assert asked.health.problem is None


async def test_a_finalized_slot_is_asked_for_at_the_highest_priority() -> None:
    """Who waits for the answer may be more urgent than who asked."""
    seen = []

    class Noting(Endpoint):
        async def _ask(self, asked: wire.Asked, params: Sequence[Any]) -> bytes | wire.Fault:
            seen.append(present())
            return b"7"

    with at(Priority.REPLAY):
        assert await Noting("http://127.0.0.1:9").finalized_slot() == 7

    assert seen == [Priority.FINALITY]


# ------------------------------------------------------------------------- cancellation


async def test_a_cancelled_request_frees_its_place() -> None:
    async with FakeNode() as node, endpoint(node.url, concurrency=1) as asked:
        node.fail("getSlot", hang())
        waiting = asyncio.create_task(asked.call("getSlot", FINAL))
        await eventually(lambda: node.count("getSlot"))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        assert await asked.call("getSlot", FINAL) == b"1000"
