import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from indexer.cli import checks
from indexer.cli.checks import Finding, Grade, Node
from indexer.core.types import Commitment
from indexer.demo.instructions import sol_transfer
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from indexer.settings import Settings
from tests.servers.redis_server import RedisServer


NOW = 1_790_000_000
NODE = Node(
    name="a",
    genesis_hash="5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
    version="4.1.2",
    finalized_slot=1_000,
    block_time=NOW - 10,
    reads_version_1=True,
)


def bad(findings: list[Finding]) -> list[tuple[Grade, str]]:
    return [(f.grade, f.found) for f in findings if f.grade is not Grade.OK]


def test_a_node_in_order_is_ok_and_its_cluster_has_a_name() -> None:
    findings = checks.of_nodes([NODE], None, NOW)

    assert bad(findings) == []
    assert any("mainnet-beta" in finding.found for finding in findings)
    assert any("slot 1000, 10 s old" in finding.found for finding in findings)


@pytest.mark.parametrize(
    ("changes", "grade", "says"),
    [
        ({"finalized_slot": 849}, Grade.WARN, "151 slots behind"),
        ({"block_time": NOW - 61}, Grade.WARN, "61 s old"),
        ({"block_time": NOW + 61}, Grade.WARN, "made 61 s from now"),
        ({"block_time": None}, Grade.WARN, "unknown age"),
        ({"reads_version_1": False}, Grade.FAIL, "version 1"),
        ({"genesis_hash": "other"}, Grade.FAIL, "a cluster of its own"),
    ],
)
def test_a_node_out_of_order_is_found_beside_a_good_one(
    changes: dict[str, Any], grade: Grade, says: str
) -> None:
    (finding,) = bad(checks.of_nodes([NODE, replace(NODE, **changes)], None, NOW))

    assert finding[0] is grade
    assert says in finding[1]


def test_a_node_of_another_cluster_than_the_database_fails() -> None:
    stored = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG"

    (finding,) = [f for f in checks.of_nodes([NODE], stored, NOW) if f.grade is Grade.FAIL]

    assert "the database was filled from devnet" in finding.hint


def test_a_clock_that_is_behind_makes_no_negative_age() -> None:
    assert any("0 s old" in f.found for f in checks.of_nodes([NODE], None, NOW - 60))


def test_settings_that_may_not_be_meant_are_warned_of() -> None:
    few, many = Settings(), Settings(rpc_urls=("http://a", "http://b"), verify_quorum=2)

    assert [f.check for f in checks.of_settings(few) if f.grade is Grade.WARN] == [
        "recipient",
        "quorum",
    ]
    assert bad(checks.of_settings(replace(many, recipient="key"))) == []


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        (Settings(host="0.0.0.0"), "AXIOM_HOST is 0.0.0.0, and AXIOM_PUBLIC_URL is not set"),
        (Settings(host="::"), "AXIOM_HOST is ::, and AXIOM_PUBLIC_URL is not set"),
        (Settings(host="10.0.0.7"), "AXIOM_HOST is 10.0.0.7, and AXIOM_PUBLIC_URL is not set"),
        (Settings(host="0.0.0.0", public_url="https://pay.example"), None),
        (Settings(host="localhost"), None),
        (Settings(host="::1"), None),
        (Settings(database_url="http://db:8080"), "none is set, beside a libSQL server"),
        (Settings(database_url="libsql://db.example"), "none is set, beside a libSQL server"),
        (Settings(database_url="http://db:8080", redis_url="redis://redis"), None),
    ],
)
def test_what_several_machines_need_is_asked_for(settings: Settings, warns: str | None) -> None:
    known = replace(settings, recipient="key", rpc_urls=("http://a", "http://b"), verify_quorum=2)

    assert [found for _, found in bad(checks.of_settings(known))] == ([warns] if warns else [])


async def test_redis_is_asked_whether_it_takes_values() -> None:
    assert await checks.of_redis(Settings()) == []
    async with RedisServer("--requirepass", "canary-7d3f") as redis:
        url = f"redis://:canary-7d3f@127.0.0.1:{redis.port}/0"
        [there] = await checks.of_redis(Settings(redis_url=url))
        [refused] = await checks.of_redis(Settings(redis_url=url.replace("7d3f", "0000")))
        redis.kill()
        [away] = await checks.of_redis(Settings(redis_url=url))

    assert [each.grade for each in (there, refused, away)] == [Grade.OK, Grade.FAIL, Grade.FAIL]
    assert "canary" not in f"{there}{refused}{away}"


async def test_a_real_node_answers_everything(wallet: Wallet) -> None:
    await wallet.run(sol_transfer(wallet.key, wallet.key, 1), commitment=Commitment.FINALIZED)

    node = await checks.of_node(wallet.cluster.rpc_url, Settings())

    assert isinstance(node, Node)
    assert node.version == "4.1.2"
    assert node.reads_version_1
    assert node.block_time is not None


async def test_a_node_that_is_away_fails() -> None:
    finding = await checks.of_node("http://127.0.0.1:1/v2/SECRET", Settings())

    assert isinstance(finding, Finding)
    assert finding.grade is Grade.FAIL
    assert "SECRET" not in str(finding)


@asynccontextmanager
async def node(answer: Callable[[str], dict[str, Any]]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        asked = await request.json()
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], **answer(asked["method"])})

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


async def test_an_old_node_does_not_know_version_1() -> None:
    answers: dict[str, dict[str, Any]] = {
        "getSlot": {"result": 5},
        "getGenesisHash": {"result": "abc"},
        "getVersion": {"result": {"solana-core": "2.0.0"}},
        "getBlockTime": {"error": {"code": -32004, "message": "Block not available"}},
        "getTransaction": {"error": {"code": -32602, "message": "Invalid params"}},
    }
    async with node(lambda method: answers[method]) as url:
        found = await checks.of_node(url, Settings())
    answers["getBlockTime"] = {"result": None}
    async with node(lambda method: answers[method]) as url:
        later = await checks.of_node(url, Settings())

    assert isinstance(found, Finding)  # the block's time may come any moment: asked too early
    assert isinstance(later, Node)
    assert (later.reads_version_1, later.block_time) == (False, None)


async def test_a_real_websocket_announces_slots(surfnet: Surfnet) -> None:
    finding = await checks.of_websocket(surfnet.ws_url)

    assert finding.grade is Grade.OK
    assert "announces slot" in finding.found


async def test_a_websocket_that_is_away_fails_without_its_key() -> None:
    finding = await checks.of_websocket("ws://127.0.0.1:1/?api-key=SECRET")

    assert finding.grade is Grade.FAIL
    assert "SECRET" not in str(finding)


async def _silent(socket: ServerConnection) -> None:
    await socket.wait_closed()


async def _refuses(socket: ServerConnection) -> None:
    await socket.recv()
    await socket.send(json.dumps({"id": 1, "error": {"code": -32601, "message": "no"}}))
    await socket.wait_closed()


async def _babbles(socket: ServerConnection) -> None:
    await socket.send("hello")
    await socket.wait_closed()


async def _hangs_up(socket: ServerConnection) -> None:
    await socket.close()


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (_silent, "no slot within"),
        (_refuses, "-32601"),
        (_babbles, "JSONDecodeError"),
        (_hangs_up, "ConnectionClosed"),
    ],
)
async def test_a_websocket_that_does_not_announce_slots_fails(
    behaviour: Callable[[ServerConnection], Awaitable[None]],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "HEARTBEAT_S_MAX", 0.3)
    async with serve(behaviour, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        finding = await checks.of_websocket(f"ws://127.0.0.1:{port}")
        await asyncio.sleep(0)

    assert finding.grade is Grade.FAIL
    assert says in finding.found
