"""Puts a pinned package of npm into the cache folder, once for each version of the pin."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from indexer.errors import AxiomError


#: 20 MB over a slow line.
_TIMEOUT_S: Final = 300
_OUTPUT_MAX: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What is installed.

    Attributes:
        name: of its folder in the cache.
        what: for messages, such as `the Solana runtime`.
        package: the Python package that holds the files.
        files: what is installed from, `package.json` and its lock among them.
        error: what is raised.
    """

    name: str
    what: str
    package: str
    files: tuple[str, ...]
    error: type[AxiomError]

    def install(self, environ: Mapping[str, str] = os.environ) -> Path:
        """The folder that holds the files and the packages, made when it was not there yet.

        Several processes may do this at once: each installs into a folder of its own, the first
        puts its one in place, and the others take that.

        Raises:
            AxiomError: `error`; npm is missing or cannot fetch the package.
        """
        content = {file: self._packaged(file) for file in self.files}
        pin = hashlib.sha256(b"\0".join(content.values())).hexdigest()[:16]
        cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "axiompay"
        place = cache / f"{self.name}-{pin}"
        if place.is_dir():
            return place
        npm = self.program("npm")
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".installing-", dir=cache) as made:
                folder = Path(made) / self.name
                folder.mkdir()
                for file, raw in content.items():
                    (folder / file).write_bytes(raw)
                self._npm_ci(npm, folder)
                _put_in_place(folder, place)
        except OSError as error:
            raise self.error(f"cannot install {self.what} into {cache}: {error}") from error
        return place

    def program(self, name: str) -> str:
        """The path of Node or npm.

        Raises:
            AxiomError: `error`; it is missing.
        """
        path = shutil.which(name)
        if path is None:
            raise self.error(
                f"{name} is missing: {self.what} needs Node 18 or newer with npm. "
                "Install it, for instance with `apt install nodejs npm`"
            )
        return path

    def _packaged(self, name: str) -> bytes:
        return resources.files(self.package).joinpath(name).read_bytes()

    def _npm_ci(self, npm: str, folder: Path) -> None:
        # Without scripts: what is pinned is native and needs none. What npm has kept of it is as
        # good as what it would fetch: the lock file holds its checksum.
        command = [npm, "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise self.error(f"npm did not finish in {_TIMEOUT_S} s: is it online?") from error
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if not line.startswith("npm warn")]
            said = " ".join(errors)[-_OUTPUT_MAX:] or f"exit code {done.returncode}"
            raise self.error(f"npm cannot fetch {self.what}: {said}")


def _put_in_place(folder: Path, place: Path) -> None:
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():  # otherwise another process was first, with the same content
            raise
