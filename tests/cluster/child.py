"""One process of the product, started as an operator starts it: a command and an environment."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from indexer.demo.sqld.launcher import die_with_parent
from indexer.errors import AxiomError


AXIOMPAY: Final = Path(sys.executable).with_name("axiompay")

#: What it says in its log once everything in it runs.
_READY: Final = b'"daemon.ready"'
_READY_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 20.0
_PAUSE_S: Final = 0.02
#: Of its log, when it does not start.
_SHOWN_MAX: Final = 1_000


class ChildError(AxiomError):
    """A process of the product did not start, or ended by itself."""


def environment(**settings: str) -> dict[str, str]:
    """That of this process, without what configures the product, and with these settings.

    Logs are JSON: `Child` looks there for what it waits for.
    """
    ours = {name: text for name, text in os.environ.items() if not name.startswith("AXIOM_")}
    values = {"log_format": "json", **settings}
    return {**ours, **{f"AXIOM_{name.upper()}": text for name, text in values.items()}}


def axiompay(environment: Mapping[str, str], folder: Path, *arguments: str) -> str:
    """What a command prints.

    Raises:
        ChildError: it failed, and says why.
    """
    done = subprocess.run(
        [AXIOMPAY, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_READY_TIMEOUT_S,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-_SHOWN_MAX:]
        raise ChildError(f"`axiompay {' '.join(arguments)}` failed: {said}")
    return done.stdout.strip()


class Child:
    """`axiompay api` or `axiompay indexer`, which may be ended, killed and started again.

    Attributes:
        name: for people, such as `api 1`.
        url: where it serves; empty: it does not.
        log: where it writes its log.
    """

    def __init__(
        self, name: str, command: str, environment: Mapping[str, str], folder: Path, url: str = ""
    ) -> None:
        self.name = name
        self.url = url
        self.log = folder / f"{name.replace(' ', '-')}.log"
        self._command = command
        self._environment = environment
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._began_at = 0

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def code(self) -> int | None:
        """With which it ended by itself; None: it runs, or was ended."""
        return None if self._process is None else self._process.poll()

    async def start(self) -> None:
        """Returns once everything in it runs.

        Raises:
            ChildError: it ended instead, or took too long.
        """
        self._began_at = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [AXIOMPAY, self._command],
                env=self._environment,
                cwd=self._folder,  # where no `.env` is
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the one that started it, who ends it in order
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
            )
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                while _READY not in self.said():
                    if self.code is not None:
                        raise ChildError(self._failed(f"ended with code {self.code}"))
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise ChildError(self._failed(f"is not ready after {_READY_TIMEOUT_S:g} s")) from None

    async def stop(self) -> int | None:
        """Asks it to end; its exit code, None when there was no process."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(process.wait, _STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return await asyncio.to_thread(process.wait, _STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Ends it as a crash would (signal 9)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None

    def said(self) -> bytes:
        """Its log since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._began_at)
            return log.read()

    def _failed(self, what: str) -> str:
        said = self.said()[-_SHOWN_MAX:].decode(errors="replace").strip()
        return f"{self.name} {what}: {said or 'it says nothing'}"
