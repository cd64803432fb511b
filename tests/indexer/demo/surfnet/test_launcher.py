import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.install import SurfnetError
from indexer.demo.surfnet.launcher import Surfnet


ROOT = Path(__file__).parents[4]
ORPHAN_MAKER = """
import sys
from indexer.demo.surfnet.launcher import Surfnet
print(Surfnet.start().pid, flush=True)
sys.stdin.read()
"""


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def gone(pid: int) -> None:
    async with asyncio.timeout(90):
        while runs(pid):
            await asyncio.sleep(0.05)


async def test_it_answers_until_it_is_stopped() -> None:
    async with Surfnet.running() as surfnet, Cluster(surfnet.rpc_url) as cluster:
        assert await cluster.lamports(surfnet.payer.pubkey()) == 10 * 10**9
        assert "127.0.0.1" in surfnet.ws_url
        assert runs(surfnet.pid)

    assert not runs(surfnet.pid)
    with pytest.raises(SurfnetError, match="does not answer"):
        async with Cluster(surfnet.rpc_url) as cluster:
            await cluster.slot()


async def test_slots_pass_at_the_pace_that_was_asked_for() -> None:
    async with (
        Surfnet.running(slot_time_ms=400) as slow,
        Surfnet.running() as fast,
        Cluster(slow.rpc_url) as slow_cluster,
        Cluster(fast.rpc_url) as fast_cluster,
    ):
        first = await slow_cluster.slot(), await fast_cluster.slot()
        await slow_cluster.slot_after(first[0] + 2)
        passed = await fast_cluster.slot() - first[1]

    assert passed > 5  # 400 ms hold eight slots of 50 ms


async def test_it_outlives_the_events_that_nobody_reads() -> None:
    async with Surfnet.running(slot_time_ms=2) as surfnet, Cluster(surfnet.rpc_url) as cluster:
        assert await cluster.slot_after(await cluster.slot() + 1_500) > 1_500


def test_stopping_twice_is_fine() -> None:
    surfnet = Surfnet.start()

    surfnet.stop()
    surfnet.stop()

    assert not runs(surfnet.pid)


async def test_it_does_not_outlive_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN_MAKER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs(pid)

        parent.kill()

        await gone(pid)


async def test_ctrl_c_is_left_to_the_parent() -> None:
    async with Surfnet.running() as surfnet, Cluster(surfnet.rpc_url) as cluster:
        os.kill(surfnet.pid, signal.SIGINT)

        assert await cluster.slot_after(await cluster.slot()) > 0


async def test_why_it_does_not_start_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node").write_text("#!/bin/sh\necho 'no such library' >&2\nexit 3\n")
    (tmp_path / "node").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(SurfnetError, match="does not start"):
        Surfnet.start()


async def test_its_secret_key_is_not_shown() -> None:
    async with Surfnet.running() as surfnet:
        assert "payer" not in repr(surfnet)


async def test_the_websocket_is_open(surfnet: Surfnet) -> None:
    async with aiohttp.ClientSession() as http, http.ws_connect(surfnet.ws_url) as socket:
        await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe"})
        assert "jsonrpc" in await socket.receive_json(timeout=30)
