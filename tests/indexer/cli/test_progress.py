"""How far a long command has come goes to standard error, and never to the result."""

import pty
import subprocess
import sys
from os import close, read
from pathlib import Path

import pytest

from indexer.cli import progress as module
from indexer.cli.progress import progress


ROOT = Path(__file__).resolve().parents[3]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_off_a_terminal_a_line_comes_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with progress("payments", clock=clock) as tell:
        tell(0, 50)
        clock.now += module.LINE_EVERY_S
        tell(20, 50)
        tell(21, 50)
        clock.now += module.LINE_EVERY_S
        tell(30, 50)

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "20 of 50 payments, 2.0/s, 15 s left",
        "30 of 50 payments, 1.5/s, 13 s left",
    ]


def test_nothing_done_has_no_time_left_to_tell(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with progress("payments", clock=clock) as tell:
        clock.now += module.LINE_EVERY_S
        tell(0, 50)

    assert capsys.readouterr().err == "0 of 50 payments, 0.0/s\n"


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("payments", clock=Clock()) as tell:
        tell(5, 5)

    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar() -> None:
    code = (
        "from indexer.cli.progress import progress\n"
        "with progress('payments') as tell:\n"
        "    tell(3, 7)\n"
        "print('result')"
    )
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    ) as child:
        out, _ = child.communicate(timeout=60)
    close(slave)
    shown = read(master, 100_000).decode()
    close(master)

    assert out == "result\n"
    assert "payments" in shown
    assert "3/7" in shown
