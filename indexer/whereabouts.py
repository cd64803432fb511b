"""Where a process runs, so that another one on the same machine can tell at once that it is gone.

A process is told from a later one with the same number by the time at which it began. Containers
have numbers of their own: what sees other processes is another machine.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """A process, and where it is.

    Attributes:
        machine: the same for processes that can see each other; empty where nothing is known.
        process: which one there.
    """

    machine: str = ""
    process: str = ""

    @classmethod
    def here(cls) -> Self:
        """This process. Nothing is known where there is no /proc, or one that hides others."""
        pid = os.getpid()
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
            namespace = Path("/proc/self/ns/pid").readlink()
            began, first_began = _began(pid), _began(1)
        except (OSError, UnicodeDecodeError):
            return cls()
        # Everybody has a first process. Where it is not to be seen, others that run are not, too.
        if began is None or first_began is None:
            return cls()
        return cls(machine=f"{boot} {namespace}", process=f"{pid} {began}")

    def is_gone(self, other: "Whereabouts") -> bool:
        """Whether the other process certainly runs no more, as far as can be seen from this one."""
        if not self.machine or other.machine != self.machine:
            return False
        pid, _, began = other.process.partition(" ")
        if not pid.isascii() or not pid.isdigit():
            return False
        try:
            return _began(int(pid)) != began
        except OSError:
            return False


def _began(pid: int) -> str | None:
    """When it began, in ticks since the machine did; None when there is none, or a dead one.

    Raises:
        OSError: it cannot be told.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses, and may hold some itself. See proc(5).
    fields = text.rpartition(")")[2].split()
    state, began = fields[0], fields[19]
    return None if state in {"Z", "X"} else began
