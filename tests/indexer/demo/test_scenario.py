"""The whole demo, with faster slots: what `./run demo` shows is true."""

import asyncio
import logging
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from indexer.core.types import Paid
from indexer.demo import scenario, stage
from indexer.demo.part import DemoFailed
from indexer.demo.stories import stories


@pytest.fixture(autouse=True)
def _fast_and_tidy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stage, "_SLOT_TIME_MS", 25)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


async def test_every_payment_ends_as_it_must_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await scenario.run(clock=time.time, keep=False) == 0

    out = capsys.readouterr().out
    assert out.count("as it must") == len(stories("T"))
    assert "ended exactly as they must" in out
    assert re.search(r"curl http://127\.0\.0\.1:\d+/api/pay/pay_\w{26}$", out, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


async def test_a_payment_that_ends_otherwise_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = replace(stories("T")[0], paid=Paid.OVER)
    monkeypatch.setattr(scenario, "stories", lambda _: (first,))

    with pytest.raises(DemoFailed, match="paid at once"):
        await scenario.run(clock=time.time, keep=False)

    (folder,) = tmp_path.iterdir()
    assert f"what happened is in {folder}/axiompay.log" in capsys.readouterr().out
    assert "daemon.stopped" in (folder / "axiompay.log").read_text()


async def test_a_demo_that_hangs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    late = stories("T")[-1]
    monkeypatch.setattr(scenario, "stories", lambda _: (replace(late, expires_in_s=600),))
    monkeypatch.setattr(scenario, "LIMIT_S", 1)

    with pytest.raises(DemoFailed, match="within 1 s"):
        await scenario.run(clock=time.time, keep=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_in_order(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    monkeypatch.setattr(scenario, "stories", lambda symbol: stories(symbol)[:1])
    demo = asyncio.create_task(scenario.run(clock=time.time, keep=True))
    out = ""
    async with asyncio.timeout(90):
        while "its health" not in out:
            await asyncio.sleep(0.1)
            out += capsys.readouterr().out
    assert not demo.done()

    os.kill(os.getpid(), number)

    async with asyncio.timeout(90):
        assert await demo == 0
    assert list(tmp_path.iterdir()) == []
