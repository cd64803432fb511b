"""The audit of dependencies fails for what is known, and passes where nobody knows."""

import json
import sys
from pathlib import Path

import pytest

from tests import audit


LOCK = """\
# pinned
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:00
one==1.0 \\
    --hash=sha256:01
two==2.0 \\
    --hash=sha256:02
"""

CLEAN = [{"name": "one", "version": "1.0", "vulns": []}]
UNKNOWN = [{"name": "one", "skip_reason": "not found"}]
FLAW = {"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": [], "description": ""}
BAD = [*CLEAN, {"name": "two", "version": "2.0", "vulns": [FLAW]}]


class Auditor:
    """Stands for pip-audit: answers the first question, then the second, as told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lock = folder / "lock"
        self.lock.write_text(LOCK)

    def run(self, *answers: str, one_s: float = 30.0) -> int:
        program = self._folder / "program.py"
        program.write_text(
            "import pathlib, sys, time\n"
            f"folder = pathlib.Path({str(self._folder)!r})\n"
            "given = dict(zip(sys.argv, sys.argv[1:]))\n"
            "number = len(list(folder.glob('asked*')))\n"
            "(folder / f'asked{number}').write_text(pathlib.Path(given['-r']).read_text())\n"
            f"exec({list(answers)!r}[number])\n"
        )
        return audit.main(self.lock, (sys.executable, str(program)), one_s=one_s)

    @property
    def asked(self) -> list[str]:
        return [path.read_text() for path in sorted(self._folder.glob("asked*"))]


def answering(dependencies: object) -> str:
    text = json.dumps({"dependencies": dependencies, "fixes": []})
    return f"pathlib.Path(given['-o']).write_text({text!r})"


@pytest.fixture
def auditor(tmp_path: Path) -> Auditor:
    return Auditor(tmp_path)


def test_a_known_vulnerability_fails(auditor: Auditor, capsys: pytest.CaptureFixture[str]) -> None:
    assert auditor.run(answering(CLEAN), answering(BAD) + "; sys.exit(1)") == 1

    said = capsys.readouterr().out
    assert "two 2.0: PYSEC-1, fixed by 2.1" in said
    assert "2 of 2 dependencies judged, 1 problems" in said


def test_nothing_known_passes_after_everything_was_asked(
    auditor: Auditor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auditor.run(answering(CLEAN), answering(CLEAN + UNKNOWN)) == 0

    assert auditor.asked == ["one==1.0 \\\n    --hash=sha256:01", LOCK]
    assert "1 of 2 dependencies judged, 0 problems" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "one_s"),
    [
        (answering(UNKNOWN), 30.0),
        (answering([]), 30.0),
        (answering("?")[:-9], 30.0),
        ("sys.exit(1)", 30.0),
        ("pathlib.Path(given['-o']).write_text('{}')", 30.0),
        ("pathlib.Path(given['-o']).write_text('no json')", 30.0),
        ("time.sleep(600)", 3.0),
    ],
)
def test_where_nobody_can_tell_one_is_asked_and_it_is_said_in_a_line(
    answer: str, one_s: float, auditor: Auditor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auditor.run(answer, one_s=one_s) == 0

    assert len(auditor.asked) <= 1
    assert capsys.readouterr().out.count("\n") == 1


def test_an_answer_that_does_not_come_for_all_is_no_answer(
    auditor: Auditor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auditor.run(answering(CLEAN), "sys.exit(1)") == 0

    assert "nobody here can tell" in capsys.readouterr().out
