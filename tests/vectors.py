"""The collected responses of real clusters, where they are at hand; they are not in the tree."""

import json
from pathlib import Path
from typing import Any, Final

import pytest


_FOLDER: Final = Path(__file__).parents[2] / "shared" / "vectors"


def load(name: str) -> Any:
    """The JSON of one vector, such as `verify/06_sol_transfer_mainnet.json`."""
    path = _FOLDER / name
    if not path.exists():
        pytest.skip(f"no vector {name}")
    return json.loads(path.read_bytes())


def names(folder: str, pattern: str = "*.json") -> list[str]:
    """Names to parametrize a test by; none where the vectors are absent, which skips it."""
    return sorted(str(path.relative_to(_FOLDER)) for path in (_FOLDER / folder).glob(pattern))
