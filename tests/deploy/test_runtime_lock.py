"""What is cut out of the lock is what the product needs, and nothing that only its tests do."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.deploy.composition import DEPLOY, ROOT


LOCK = """\
apart==1 \\
    --hash=sha256:aa
    # via axiompay (pyproject.toml:dev)
asked==2 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via axiompay (pyproject.toml)
below==3 ; sys_platform == 'linux' \\
    --hash=sha256:dd
    # via
    #   apart
    #   asked
both==4 \\
    --hash=sha256:ee
    # via
    #   axiompay (pyproject.toml)
    #   axiompay (pyproject.toml:dev)
lower==5 \\
    --hash=sha256:ff
    # via below
lost==6 \\
    --hash=sha256:00
    # via apart
"""


def cut(text: str, folder: Path) -> str:
    lock = folder / "lock"
    lock.write_text(text, encoding="utf-8")
    script = DEPLOY / "runtime_lock.py"
    return subprocess.run(
        [sys.executable, script, lock], capture_output=True, text=True, check=True, timeout=30
    ).stdout


def names(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))


def test_what_the_product_asks_for_is_kept_with_all_that_is_below(tmp_path: Path) -> None:
    kept = cut(LOCK, tmp_path)

    assert names(kept) == {"asked", "below", "both", "lower"}
    assert "--hash=sha256:bb \\\n    --hash=sha256:cc\n" in kept
    assert "below==3 ; sys_platform == 'linux' \\\n    --hash=sha256:dd" in kept


def test_of_our_own_lock_the_dependencies_are_kept_and_the_tools_are_not(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {re.split(r"[\[>]", each)[0] for each in project["project"]["dependencies"]}
    tools = {re.split(r"[\[>]", each)[0] for each in project["dependency-groups"]["dev"]}
    tools.remove("pyyaml")  # which uvicorn asks for as well

    kept = names(cut((ROOT / "requirements.lock").read_text(), tmp_path))

    assert wanted <= kept
    assert kept.isdisjoint(tools)
