"""The pinned runtime, and what it takes to run it."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from indexer.demo.npm import Pinned
from indexer.errors import AxiomError


class SurfnetError(AxiomError):
    """The local Solana runtime cannot be installed, started or used; says how to fix it."""


_PINNED: Final = Pinned(
    name="surfnet",
    what="the local Solana runtime",
    package=__package__ or "",
    files=("package.json", "package-lock.json", "surfnet.js"),
    error=SurfnetError,
)


def node() -> str:
    """The path of Node.

    Raises:
        SurfnetError: when this machine cannot run the runtime at all.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SurfnetError(
            "the local Solana runtime is built for Linux on x86-64 with glibc; this machine is "
            f"{platform.system()} on {platform.machine()}"
        )
    return _PINNED.program("node")


def install(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that holds the runtime and `surfnet.js`, installed when it was not there yet.

    Raises:
        SurfnetError: when npm is missing or cannot fetch the package.
    """
    return _PINNED.install(environ)
