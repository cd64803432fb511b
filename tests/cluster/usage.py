"""What each process takes of the machine: processor time and memory, by the kernel's own count."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final


_PAUSE_S: Final = 0.5
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Usage:
    """What was seen of processes, by name; one that was killed goes on under its name.

    Attributes:
        rss_bytes: the most memory that each had.
        seconds: for which they were looked at.
    """

    rss_bytes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    _first: dict[tuple[str, int], float] = field(default_factory=dict)
    _last: dict[tuple[str, int], float] = field(default_factory=dict)

    def cpu_s(self, name: str) -> float:
        """Seconds of processor time that it took while it was looked at, all lives together."""
        return sum(last - self._first[life] for life, last in self._last.items() if life[0] == name)

    async def run(self, processes: Callable[[], list[tuple[str, int | None, str]]]) -> None:
        """Looks for ever, at name and process id of what runs just then."""
        known: set[str] = set()
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            self.seconds = clock() - began
            for name, pid, _ in processes():
                if pid is not None:
                    self._look(name, pid, is_new=name in known)
                    known.add(name)
            await asyncio.sleep(_PAUSE_S)

    def _look(self, name: str, pid: int, *, is_new: bool) -> None:
        try:
            taken_s, rss_bytes = cpu_s(pid), _rss_bytes(pid)
        except OSError:  # it has just ended
            return
        # What a process took before it was first looked at counts when it came in the middle.
        self._first.setdefault((name, pid), 0.0 if is_new else taken_s)
        self._last[name, pid] = taken_s
        self.rss_bytes[name] = max(self.rss_bytes.get(name, 0), rss_bytes)


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has taken; 0.01 s at the finest.

    Raises:
        OSError: there is none.
    """
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_bytes(pid: int) -> int:
    return int(_stat(pid)[21]) * _PAGE_BYTES


def _stat(pid: int) -> list[str]:
    """What stands behind the name, which may hold anything: `man 5 proc`."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
