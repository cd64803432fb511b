"""Results on standard output: tables for people, JSON for machines; all else on standard error."""

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text


#: Off a terminal a table is as wide as what it holds: whoever reads it cuts by itself.
_WIDTH_OFF_TERMINAL: Final = 10_000

#: JSON may hold these as they are, and a terminal obeys them: DEL and C1, what turns the direction
#: of writing, what ends a line or cannot be seen.
_OBEYED: Final = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def print_json(value: Any) -> None:
    """One line of JSON, in which everything that a terminal would obey is escaped."""
    text = msgspec.json.encode(value).decode()
    sys.stdout.write(_OBEYED.sub(lambda char: f"\\u{ord(char[0]):04x}", text) + "\n")


def plain(text: str, *, of_lines: bool = False) -> str:
    """What a stranger wrote, with nothing in it that a terminal would obey.

    Args:
        text: of whatever origin.
        of_lines: its ends of lines stay; otherwise it is one line.
    """
    kept = "\n\t" if of_lines else ""
    return "".join(
        char if char.isprintable() or char in kept else ascii(char)[1:-1] for char in text
    )


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Columns under heads; nothing is cut off, long cells are folded."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = _console()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """A name and a value on each line; values are never folded, so that they can be copied."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        _console().print(Text.assemble((name.ljust(width), "bold"), "  ", value), soft_wrap=True)


def say(message: str) -> None:
    """A line to whoever runs the command, beside its result."""
    sys.stderr.write(f"axiompay: {message}\n")


def _console() -> Console:
    terminal = sys.stdout.isatty()
    return Console(
        file=sys.stdout,
        width=None if terminal else _WIDTH_OFF_TERMINAL,
        highlight=False,
        emoji=False,
        markup=False,
    )
