import io
import re

from rich.console import Console

from indexer.demo.screen import Row, Screen


def screen(*, terminal: bool) -> tuple[Screen, io.StringIO]:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=terminal, width=120, highlight=False, color_system=None
    )
    return Screen(lambda: 0.0, console), stream


def play(shown: Screen) -> None:
    row = Row(story="too late", asked="0.5 SOL")
    shown.rows = [row]
    with shown.showing():
        shown.changed(row)
        row.status, row.paid, row.received, row.late = "settled", "exact", "0.5", True
        row.seen_s, row.settled_s = 0.14, 3.26
        shown.changed(row)
        row.right = True
        shown.changed(row)


def test_off_a_terminal_each_change_is_a_line() -> None:
    shown, stream = screen(terminal=False)

    play(shown)

    assert stream.getvalue().splitlines() == [
        "  0.0 s  too late: pending, paid none, received 0 of 0.5 SOL",
        (
            "  0.0 s  too late: settled, paid exact, received 0.5 of 0.5 SOL, late, "
            "seen after 0.1 s, settled after 3.3 s"
        ),
        "  0.0 s  too late: as it must",
    ]


def test_on_a_terminal_a_table_stays_behind() -> None:
    shown, stream = screen(terminal=True)

    play(shown)

    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).splitlines()[-1]
    assert re.split(r"\s{2,}", last.strip()) == [
        "too late",
        "0.5 SOL",
        "settled, late",
        "exact",
        "0.5",
        "0.1 s",
        "3.3 s",
        "as it must",
    ]


def test_what_is_wrong_is_shouted() -> None:
    shown, stream = screen(terminal=False)

    shown.changed(Row(story="a story", asked="1 SOL", right=False))

    assert "a story: WRONG" in stream.getvalue()
