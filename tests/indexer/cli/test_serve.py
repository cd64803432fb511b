"""The long-running commands as processes of their own: they start, serve, and end on a signal."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from indexer.demo.surfnet.launcher import Surfnet
from tests.indexer.cli.conftest import Run
from tests.ports import free_port
from tests.rates import UNLIMITED


ROOT = Path(__file__).parents[3]
PATIENCE_S = 90


@contextmanager
def running(
    command: str, folder: Path, surfnet: Surfnet, port: int
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "indexer", command],
        cwd=folder,
        env={
            **{name: text for name, text in os.environ.items() if not name.startswith("AXIOM_")},
            "PYTHONPATH": str(ROOT),
            "AXIOM_RPC_URLS": surfnet.rpc_url,
            "AXIOM_WS_URLS": surfnet.ws_url,
            "AXIOM_TOKENS": "SOL",
            "AXIOM_PORT": str(port),
            "AXIOM_RATE_LIMIT": str(UNLIMITED),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def until(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Reads the log up to this event."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        said: dict[str, Any] = json.loads(line)
        if said["event"] == event:
            return said
    raise AssertionError(f"never came to {event}: {''.join(lines)}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_serves_until_it_is_told_to_stop(
    tmp_path: Path, surfnet: Surfnet, number: signal.Signals
) -> None:
    port = free_port()
    with running("up", tmp_path, surfnet, port) as process:
        ready = until(process, "daemon.ready")
        with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as http:
            http.request("GET", "/livez")
            alive = json.load(http.getresponse())

        process.send_signal(number)
        stopping = until(process, "daemon.stopping")
        out, err = process.communicate(timeout=PATIENCE_S)

    assert ready["api"] == f"http://127.0.0.1:{port}"
    assert alive == {"status": "ok"}
    assert stopping["signal"] == number.name
    assert process.returncode == 0
    assert out == ""
    assert "Traceback" not in err


def test_indexer_and_api_run_side_by_side(migrated: Run, tmp_path: Path, surfnet: Surfnet) -> None:
    port = free_port()
    with (
        running("indexer", tmp_path, surfnet, port) as indexer,
        running("api", tmp_path, surfnet, port) as api,
    ):
        assert until(indexer, "daemon.ready")["api"] is None
        until(api, "daemon.ready")
        for process in (indexer, api):
            process.send_signal(signal.SIGTERM)
        for process in (indexer, api):
            process.communicate(timeout=PATIENCE_S)

        assert (indexer.returncode, api.returncode) == (0, 0)


@pytest.mark.parametrize("command", ["indexer", "api"])
def test_one_of_them_alone_does_not_migrate(run: Run, command: str) -> None:
    result = run(command)

    assert result.code == 1
    assert "run `axiompay migrate`" in result.err


def test_a_port_that_is_taken_is_said(run: Run, surfnet: Surfnet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run(
            "up",
            RPC_URLS=surfnet.rpc_url,
            WS_URLS=surfnet.ws_url,
            PORT=str(taken.getsockname()[1]),
        )

    assert result.code == 2
    assert any(
        line.startswith("axiompay: AXIOM_") and "taken" in line for line in result.err.splitlines()
    )
