"""Puts the pinned runtime into the cache folder, once for each version of the pin."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

from indexer.errors import AxiomError


#: What is installed from, in the order in which it is hashed.
_FILES: Final = ("package.json", "package-lock.json", "surfnet.js")
#: 15 MB over a slow line.
_NPM_TIMEOUT_S: Final = 300
_OUTPUT_MAX: Final = 2_000


class SurfnetError(AxiomError):
    """The local Solana runtime cannot be installed, started or used; says how to fix it."""


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
    return _program("node")


def install(environ: os._Environ[str] = os.environ) -> Path:
    """The folder that holds the runtime and `surfnet.js`, installed when it was not there yet.

    Several processes may do this at once: each installs into a folder of its own, the first
    puts its one in place, and the others take that.

    Raises:
        SurfnetError: when npm is missing or cannot fetch the package.
    """
    files = {name: _packaged(name) for name in _FILES}
    pin = hashlib.sha256(b"\0".join(files.values())).hexdigest()[:16]
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "axiompay"
    place = cache / f"surfnet-{pin}"
    if place.is_dir():
        return place
    npm = _program("npm")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".installing-", dir=cache) as name:
            folder = Path(name) / "surfnet"
            folder.mkdir()
            for file, content in files.items():
                (folder / file).write_bytes(content)
            _npm_ci(npm, folder)
            _put_in_place(folder, place)
    except OSError as error:
        raise SurfnetError(f"cannot install the Solana runtime into {cache}: {error}") from error
    return place


def _packaged(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _npm_ci(npm: str, folder: Path) -> None:
    # Without scripts: the package is one native library and needs none. What npm has kept of it
    # is as good as what it would fetch: the lock file holds its checksum.
    command = [npm, "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_NPM_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise SurfnetError(f"npm did not finish in {_NPM_TIMEOUT_S} s: is it online?") from error
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("npm warn")]
        said = " ".join(errors)[-_OUTPUT_MAX:] or f"exit code {done.returncode}"
        raise SurfnetError(f"npm cannot fetch the Solana runtime: {said}")


def _put_in_place(folder: Path, place: Path) -> None:
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():  # otherwise another process was first, with the same content
            raise


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise SurfnetError(
            f"{name} is missing: the local Solana runtime needs Node 18 or newer with npm. "
            "Install it, for instance with `apt install nodejs npm`"
        )
    return path
