"""What the demo shows: a table that lives on a terminal, a line for each change elsewhere."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text


_STYLES: Final = {
    "pending": "dim",
    "processing": "yellow",
    "settled": "bold green",
    "expired": "magenta",
}
_HEADS: Final = ("story", "asked for", "status", "paid", "received", "seen", "settled", "")


@dataclass(slots=True)
class Row:
    """One payment, as it is shown now.

    Attributes:
        seen_s: from the first transfer until the shop heard of it; None: not yet.
        settled_s: from the last transfer until it settled; None: not yet.
        right: it ended as it must; None while it goes on.
    """

    story: str
    asked: str
    status: str = "pending"
    paid: str = "none"
    late: bool = False
    received: str = "0"
    seen_s: float | None = None
    settled_s: float | None = None
    right: bool | None = None


class Screen:
    """Shows rows while they change.

    Attributes:
        rows: to be changed by the owner, who then calls `changed`.
    """

    def __init__(self, monotonic: Callable[[], float], console: Console | None = None) -> None:
        self.rows: list[Row] = []
        self._console = console or Console(file=sys.stdout, highlight=False, emoji=False)
        self._monotonic = monotonic
        self._began = monotonic()
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(f"{self._elapsed()}  {text}", markup=False, soft_wrap=True)

    def plain(self, text: str) -> None:
        """A line that can be copied."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Shows the table meanwhile, and leaves its last state behind."""
        if not self._console.is_terminal:
            yield
            return
        with Live(self._table(), console=self._console, auto_refresh=False) as self._live:
            yield
        self._live = None

    def changed(self, row: Row) -> None:
        """Shows what has become of a row."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif not self._console.is_terminal:
            facts = (
                [_verdict(row)]
                if row.right is not None
                else [
                    row.status,
                    f"paid {row.paid}",
                    f"received {row.received} of {row.asked}",
                    *(["late"] if row.late else []),
                    *([f"seen after {row.seen_s:.1f} s"] if row.seen_s is not None else []),
                    *(
                        [f"settled after {row.settled_s:.1f} s"]
                        if row.settled_s is not None
                        else []
                    ),
                ]
            )
            self.say(f"{row.story}: {', '.join(facts)}")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for head in _HEADS:
            table.add_column(head, no_wrap=True)
        for row in self.rows:
            table.add_row(*_cells(row))
        return table

    def _elapsed(self) -> str:
        return f"{self._monotonic() - self._began:5.1f} s"


def _cells(row: Row) -> Sequence[str | Text]:
    return (
        row.story,
        row.asked,
        Text(row.status + (", late" if row.late else ""), _STYLES.get(row.status, "")),
        row.paid,
        row.received,
        "" if row.seen_s is None else f"{row.seen_s:.1f} s",
        "" if row.settled_s is None else f"{row.settled_s:.1f} s",
        "" if row.right is None else Text(_verdict(row), "green" if row.right else "bold red"),
    )


def _verdict(row: Row) -> str:
    return "as it must" if row.right else "WRONG"
