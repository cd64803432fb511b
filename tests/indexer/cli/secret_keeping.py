"""A folder with an encrypted file, what opens it, and editors that do as they are told."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from indexer import age


MINE, TO_ME = age.new_identity()
YOURS, TO_YOU = age.new_identity()

TEXT = "AXIOM_PORT=9000\nAXIOM_HELIUS_WEBHOOK_SECRETS=canary-secret-1\n"

LIMIT_S = 30


class Folder:
    """`.env.age` with its identity beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / ".env.age"
        self.memory = path / "memory"
        self.memory.mkdir()
        identity = path / "identity.txt"
        identity.write_text(f"{MINE}\n")
        identity.chmod(0o600)
        self.settings = {"AGE_IDENTITY_FILE": str(identity)}
        self.put(TEXT)

    def put(self, text: str, *recipients: str) -> None:
        self.file.write_bytes(age.encrypt(text, recipients or (TO_ME,)))

    def text(self, identity: str = MINE) -> str:
        """What the file holds, without the line that names its recipients."""
        return age.naming(age.decrypt(self.file.read_bytes(), [identity]), ()).partition("\n")[2]

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.path.iterdir()} - {"memory", "identity.txt"}

    def environ(self, editor: str) -> dict[str, str]:
        """Of a process that edits here."""
        plain = {name: text for name, text in os.environ.items() if not name.startswith("AXIOM_")}
        return plain | {
            "AXIOM_AGE_IDENTITY_FILE": self.settings["AGE_IDENTITY_FILE"],
            "XDG_RUNTIME_DIR": str(self.memory),
            "EDITOR": editor,
            "VISUAL": "",
        }

    def script(self, text: str) -> str:
        """An editor that is a program in Python; the file that it edits is `path`."""
        program = self.path / "memory" / "editor.py"
        program.write_text(
            "import os, signal, sys, time\nfrom pathlib import Path\n"
            f"path = Path(sys.argv[1])\nhere = Path({str(self.path)!r})\n{text}\n"
        )
        return shlex.join([sys.executable, str(program)])

    def start(
        self, editor: str, *, terminal: int | None = None, through: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """A real process that edits the file.

        Args:
            editor: that it starts.
            terminal: a person sits before it.
            through: a command that becomes the process.
        """
        return subprocess.Popen(
            [*through, sys.executable, "-m", "indexer", "secrets", "edit", str(self.file)],
            env=self.environ(editor),
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.DEVNULL if terminal is None else terminal,
            stderr=subprocess.PIPE if terminal is None else terminal,
            start_new_session=True,
        )

    @property
    def left_in_memory(self) -> list[Path]:
        return [path for path in self.memory.iterdir() if path.name != "editor.py"]


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
