"""Runs the local Solana runtime as a child process that cannot outlive this one."""

import asyncio
import json
import subprocess
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO, Final, Self

from solders.keypair import Keypair

from indexer.demo.surfnet.install import SurfnetError, install, node


SLOT_TIME_MS: Final = 50

#: It boots in a fraction of a second; a busy machine may take longer.
_START_TIMEOUT_S: Final = 30
_STOP_TIMEOUT_S: Final = 10
_LAST_LINES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Surfnet:
    """A running runtime. Usable from any thread and any event loop, or from none.

    Attributes:
        rpc_url, ws_url: where it listens, on loopback.
        payer: a wallet that has 10 SOL.
    """

    rpc_url: str
    ws_url: str
    payer: Keypair = field(repr=False)
    _process: subprocess.Popen[str] = field(repr=False)

    @classmethod
    def start(cls, *, slot_time_ms: int = SLOT_TIME_MS) -> Self:
        """Installs the runtime if need be, starts it and waits until it listens.

        Args:
            slot_time_ms: time between slots. A transaction is final 31 slots after it was
                confirmed: 1.6 s at the default of 50.

        Raises:
            SurfnetError: when it cannot be installed or does not start.
        """
        program, folder = node(), install()
        process = subprocess.Popen(
            [program, "surfnet.js", json.dumps({"slotTimeMs": slot_time_ms})],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            ready = _first_line(process)
            secret = bytes.fromhex(ready["payerSecretKey"])
            return cls(
                rpc_url=ready["rpcUrl"],
                ws_url=ready["wsUrl"],
                payer=Keypair.from_bytes(secret),
                _process=process,
            )
        except BaseException:
            _end(process)
            raise

    @classmethod
    @asynccontextmanager
    async def running(cls, *, slot_time_ms: int = SLOT_TIME_MS) -> AsyncIterator[Self]:
        """A runtime for the length of an `async with` block."""
        surfnet = await asyncio.to_thread(cls.start, slot_time_ms=slot_time_ms)
        try:
            yield surfnet
        finally:
            await asyncio.shield(asyncio.to_thread(surfnet.stop))

    @property
    def pid(self) -> int:
        """The Node process."""
        return self._process.pid

    def stop(self) -> None:
        """Ends it. May be called again."""
        _end(self._process)


def _first_line(process: subprocess.Popen[str]) -> dict[str, str]:
    """What it prints when it listens; afterwards both its outputs are read and forgotten."""
    said: deque[str] = deque(maxlen=_LAST_LINES)
    lines: list[str] = []
    printed = threading.Event()

    def read_output(stream: IO[str]) -> None:
        with stream:
            for line in stream:
                if not printed.is_set():
                    lines.append(line)
                    printed.set()
        printed.set()

    def read_errors(stream: IO[str]) -> None:
        with stream:
            said.extend(stream)

    for stream, read in ((process.stdout, read_output), (process.stderr, read_errors)):
        threading.Thread(target=read, args=(stream,), daemon=True).start()
    if not printed.wait(_START_TIMEOUT_S):
        raise SurfnetError(f"the Solana runtime did not start in {_START_TIMEOUT_S} s")
    try:
        ready: dict[str, str] = json.loads(lines[0])
    except (IndexError, ValueError):
        _end(process)
        reason = "".join([*lines, *said]).strip() or f"exit code {process.returncode}"
        raise SurfnetError(f"the Solana runtime does not start: {reason}") from None
    return ready


def _end(process: subprocess.Popen[str]) -> None:
    """Closes its standard input, which it takes as the request to stop; insists if it must."""
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_TIMEOUT_S)
