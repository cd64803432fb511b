"""How far a long command has come: a bar on a terminal, a line now and then elsewhere.

Goes to standard error: standard output is for the result.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


#: Seconds between two lines, off a terminal.
LINE_EVERY_S: Final = 10.0


class Tell(Protocol):
    """Is told how far it is."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """How many are done, how many there are, and what else is to be shown."""


@contextmanager
def progress(what: str, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Tell]:
    """Shows what it is told, with the rate and the time that is left.

    Args:
        what: is counted, in the plural.
        clock: seconds.
    """
    begun = clock()
    if not sys.stderr.isatty():
        yield _lines(what, clock, begun)
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=None, rate="", note="")

        def tell(done: int, total: int, note: str = "") -> None:
            rate = f"{_rate(done, clock() - begun):.1f}/s"
            bar.update(task, completed=done, total=total, rate=rate, note=note)

        yield tell


def _lines(what: str, clock: Callable[[], float], begun: float) -> Tell:
    said_at = begun

    def tell(done: int, total: int, note: str = "") -> None:
        nonlocal said_at
        now = clock()
        if now - said_at < LINE_EVERY_S:
            return
        said_at = now
        rate = _rate(done, now - begun)
        left = f", {(total - done) / rate:.0f} s left" if rate else ""
        more = f", {note}" if note else ""
        print(f"{done} of {total} {what}, {rate:.1f}/s{left}{more}", file=sys.stderr)

    return tell


def _rate(done: int, seconds: float) -> float:
    return done / seconds if seconds > 0 else 0.0
