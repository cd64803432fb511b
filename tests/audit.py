"""`python -m tests.audit`: is a known vulnerability in what requirements.lock pins?

A dependency with one fails. Where nobody can tell (no network, an index that keeps no such list),
that is said in a line and passes: a machine without a way out must be able to check all else.
pip-audit itself says "none found" when it could ask nobody, so its own verdict is not taken.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final


LOCK: Final = Path(__file__).parents[1] / "requirements.lock"

_COMMAND: Final = (sys.executable, "-m", "pip_audit")
#: Hashed and complete: nothing is resolved, downloaded or built.
_OPTIONS: Final = ("--disable-pip", "--progress-spinner", "off", "--timeout", "5")
_ONE_S: Final = 30.0
_ALL_S: Final = 240.0


def main(lock: Path = LOCK, command: Sequence[str] = _COMMAND, *, one_s: float = _ONE_S) -> int:
    """Prints what is known and returns the exit code.

    Args:
        lock: requirements with hashes.
        command: pip-audit.
        one_s: seconds in which one dependency must be judged.
    """
    pins = [block for block in re.split(r"\n(?=[a-z0-9])", lock.read_text()) if "==" in block]
    # One that every platform needs, first: where nobody knows it, nobody is asked for the rest.
    first = next(pin for pin in pins if ";" not in pin.partition("\n")[0])
    for asked, limit_s in ((first, one_s), (lock.read_text(), _ALL_S)):
        found = _ask(asked, command, limit_s)
        judged = [each for each in found or () if "vulns" in each]
        if not judged:
            _say("audit: nobody here can tell whether a dependency is vulnerable")
            return 0
    bad = [(each, vulnerability) for each in judged for vulnerability in each["vulns"]]
    for each, vulnerability in bad:
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no release yet"
        _say(f"audit: {each['name']} {each['version']}: {vulnerability['id']}, fixed by {fixed}")
    _say(f"audit: {len(judged)} of {len(found or ())} dependencies judged, {len(bad)} problems")
    return 1 if bad else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _ask(requirements: str, command: Sequence[str], limit_s: float) -> list[dict[str, Any]] | None:
    """What pip-audit knows of each dependency; None when it came to no end."""
    with TemporaryDirectory() as place:
        asked, answer = Path(place, "asked.txt"), Path(place, "answer.json")
        asked.write_text(requirements)
        files = ("-r", str(asked), "-f", "json", "-o", str(answer))
        try:
            subprocess.run(
                [*command, *_OPTIONS, *files], capture_output=True, timeout=limit_s, check=False
            )
            found: list[dict[str, Any]] = json.loads(answer.read_text())["dependencies"]
        except (subprocess.TimeoutExpired, OSError, ValueError, KeyError):
            return None
    return found


if __name__ == "__main__":
    sys.exit(main())
