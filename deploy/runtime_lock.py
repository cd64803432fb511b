"""Cuts out of requirements.lock what the product needs when it runs, with its hashes.

    python deploy/runtime_lock.py requirements.lock > runtime.lock

The lock says below each package which ones ask for it. Kept is what the project itself asks for,
and what that asks for in turn; what only its developers need is left out. Were something missing,
`pip install --require-hashes` would refuse to install it.
"""
# ruff: noqa: INP001 - a script for the image, no module of the product

import re
import sys
from pathlib import Path


#: How the lock names the project; its groups of developers stand behind a colon.
_PROJECT = "axiompay (pyproject.toml)"

_BLOCK = re.compile(r"^([a-z0-9-]+)==.*?(?=^[a-z0-9-]+==|\Z)", re.MULTILINE | re.DOTALL)
_ASKING = re.compile(r"^ +#(?: via)? +(\S.*)$", re.MULTILINE)


def cut(lock: str) -> str:
    """The part of the lock that belongs to the product."""
    blocks = {match[1]: match[0] for match in _BLOCK.finditer(lock)}
    asking = {name: set(_ASKING.findall(text)) for name, text in blocks.items()}
    kept: set[str] = set()
    wanted = {_PROJECT}
    while wanted:
        wanted = {name for name, by in asking.items() if by & wanted} - kept
        kept |= wanted
    return "".join(text for name, text in blocks.items() if name in kept)


if __name__ == "__main__":
    sys.stdout.write(cut(Path(sys.argv[1]).read_text(encoding="utf-8")))
