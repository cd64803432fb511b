import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from indexer import whereabouts
from indexer.whereabouts import Whereabouts


SLEEPS = [sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(600)"]


def of(pid: int) -> Whereabouts:
    """Where another process of this machine is, as it would say itself."""
    began = whereabouts._began(pid)
    return replace(Whereabouts.here(), process=f"{pid} {began}")


def test_this_process_is_not_gone() -> None:
    here = Whereabouts.here()

    assert here.machine
    assert here.process.startswith(f"{os.getpid()} ")
    assert not here.is_gone(here)
    assert here == Whereabouts.here()


def test_a_process_that_was_killed_is_gone_also_before_its_parent_takes_notice() -> None:
    here = Whereabouts.here()
    with subprocess.Popen(SLEEPS, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        other = of(child.pid)
        assert not here.is_gone(other)

        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still on the list
        assert here.is_gone(other)

        child.wait()
        assert here.is_gone(other)


def test_another_process_with_the_same_number_is_another() -> None:
    here = Whereabouts.here()

    assert here.is_gone(replace(here, process=f"{os.getpid()} 1"))


@pytest.mark.parametrize(
    "other",
    [
        Whereabouts(),
        Whereabouts(machine="another one", process="999999999 1"),
        Whereabouts(machine="", process="999999999 1"),
    ],
    ids=str,
)
def test_of_what_cannot_be_seen_nothing_is_said(other: Whereabouts) -> None:
    assert not Whereabouts.here().is_gone(other)
    assert not Whereabouts().is_gone(other)


@pytest.mark.parametrize("process", ["", "x 1", "-1 1", "../1 1", "٣ 1"])
def test_what_no_process_ever_said_of_itself_is_not_gone(process: str) -> None:
    here = Whereabouts.here()

    assert not here.is_gone(replace(here, process=process))


def test_nothing_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)

    assert Whereabouts.here() == Whereabouts()


def test_a_name_with_parentheses_and_spaces_does_not_confuse(tmp_path: Path) -> None:
    script = tmp_path / ") R 1 (x"
    script.symlink_to(sys.executable)
    with subprocess.Popen([script, *SLEEPS[1:]], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            began = whereabouts._began(child.pid)
            assert began is not None
            assert abs(int(began) - int(whereabouts._began(os.getpid()) or 0)) < 10**9
            assert not Whereabouts.here().is_gone(of(child.pid))
        finally:
            child.kill()
