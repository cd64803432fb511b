"""Runs commands in this process, in an empty folder, with nothing in the environment."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from indexer.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Result]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs `axiompay` with these arguments; keywords are AXIOM_ variables for this one run."""
    for name in [name for name in os.environ if name.startswith("AXIOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(*arguments: str, **settings: str) -> Result:
        with monkeypatch.context() as for_now:
            for name, value in settings.items():
                for_now.setenv(f"AXIOM_{name}", value)
            try:
                code = main(list(arguments))
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else 1
        out, err = capfd.readouterr()
        return Result(code, out, err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def migrated(run: Run) -> Run:
    """The same, with a database in the folder."""
    assert run("migrate").code == 0
    return run
