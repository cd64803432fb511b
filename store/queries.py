"""The statements of `queries.sql`, by name."""

import re
from importlib.resources import files
from typing import Final

from indexer.errors import InvariantError


_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def _load(text: str) -> dict[str, str]:
    parts = _NAME.split(text)[1:]
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise InvariantError("queries.sql names a statement twice")
    return {
        name: "\n".join(line for line in body.splitlines() if not line.startswith("--"))
        .strip()
        .removesuffix(";")
        for name, body in zip(names, bodies, strict=True)
    }


QUERIES: Final = _load(files("store").joinpath("queries.sql").read_text(encoding="utf-8"))
