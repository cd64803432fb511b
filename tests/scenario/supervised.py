"""Holds a listening socket and runs `axiompay` on it, as systemd does with a `.socket` unit."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.scenario.deployment import PATIENCE_S
from tests.scenario.serving import AXIOMPAY


#: Becomes the program, with the socket where it looks for it and its own number in the
#: environment.
_HAND_OVER: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Successive:
    """Runs one process after another, each with the same environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def _run(self, *command: str | Path, files: Sequence[int] = (), **more: str) -> None:
        self._process = subprocess.Popen(
            command,
            env={**self._environment, **more},
            pass_fds=files,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def stop(self) -> int:
        """Asks it to end (SIGTERM); its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, PATIENCE_S)

    def kill(self) -> None:
        """Ends it at once, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)


class Supervisor(Successive):
    """Runs one process after another on one socket.

    Attributes:
        port: of the socket.
    """

    def __init__(self, listening: socket.socket, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self._listening = listening
        self.port: int = listening.getsockname()[1]

    def start(self, **more: str) -> None:
        """Starts a process, with more in its environment."""
        file = self._listening.fileno()
        program = (sys.executable, "-c", _HAND_OVER, str(file), AXIOMPAY, "api")
        self._run(*program, files=[file], **more)


@contextmanager
def supervised(environment: Mapping[str, str]) -> Iterator[Supervisor]:
    """A socket on which nothing runs yet; whatever runs at the end is killed."""
    with socket.create_server(("127.0.0.1", 0), backlog=4_096) as listening:
        supervisor = Supervisor(listening, environment)
        try:
            yield supervisor
        finally:
            supervisor.kill()
