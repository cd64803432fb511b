import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from importlib import resources
from pathlib import Path

import pytest

from indexer.demo.sqld.launcher import Sqld, SqldError, executable


def healthy(server: Sqld) -> bool:
    try:
        with urllib.request.urlopen(f"{server.url}/health", timeout=1) as answer:  # noqa: S310 - of loopback
            return bool(answer.status == 200)
    except OSError:
        return False


async def test_it_runs_and_is_gone_afterwards(tmp_path: Path) -> None:
    async with Sqld.running(tmp_path / "sqld") as server:
        assert healthy(server)

    assert not healthy(server)
    assert server.pid is None


async def test_a_restart_keeps_its_place(tmp_path: Path) -> None:
    async with Sqld.running(tmp_path / "sqld") as server:
        before = server.url, server.grpc_url, server.pid
        server.restart()

        assert healthy(server)
        assert (server.url, server.grpc_url) == before[:2]
        assert server.pid != before[2]

        server.stop()
        assert not healthy(server)


async def test_a_paused_one_does_not_answer(tmp_path: Path) -> None:
    async with Sqld.running(tmp_path / "sqld") as server:
        server.pause()
        assert not healthy(server)
        server.resume()
        assert healthy(server)


async def test_a_replica_follows(tmp_path: Path) -> None:
    async with (
        Sqld.running(tmp_path / "primary") as primary,
        Sqld.running(tmp_path / "replica", primary=primary) as replica,
    ):
        assert healthy(replica)


_STARTS_AND_WAITS = """
import sys, time
from pathlib import Path
from indexer.demo.sqld.launcher import Sqld

server = Sqld(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_it_does_not_outlive_who_started_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STARTS_AND_WAITS, tmp_path / "sqld"], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and is_alive(pid):
        time.sleep(0.01)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_what_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    monkeypatch.setattr("indexer.demo.sqld.launcher._TRIES", 1)

    with pytest.raises(SqldError, match="does not start"):
        Sqld(tmp_path).start()


def test_another_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")

    with pytest.raises(SqldError, match="Linux on aarch64"):
        executable()


def test_the_program_is_installed() -> None:
    assert os.access(executable(), os.X_OK)


def test_the_pin_names_no_registry() -> None:
    lock = json.loads(
        resources.files("indexer.demo.sqld").joinpath("package-lock.json").read_text()
    )

    packages = [package for name, package in lock["packages"].items() if name]
    assert [package["version"] for package in packages] == ["0.24.1-pre.42"]
    assert all("resolved" not in package and "integrity" in package for package in packages)
