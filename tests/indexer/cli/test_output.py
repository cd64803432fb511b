import json

import pytest
from rich.text import Text

from indexer.cli.output import plain, print_fields, print_json, print_table


def test_json_stands_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "ü\n", "b": 2**64 - 1})

    assert capsys.readouterr().out == '{"a":"ü\\n","b":18446744073709551615}\n'


def test_json_holds_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    """What it says is the same."""
    said = "\x1b[2J \x7f \x9b2J \u200b \u2028 \u202e \ufeff ü \U0001f355"

    print_json(said)

    out = capsys.readouterr().out
    assert json.loads(out) == said
    assert all(char.isprintable() for char in out.rstrip("\n"))


@pytest.mark.parametrize(
    ("text", "line", "lines"),
    [
        ("tea for 2, ü", "tea for 2, ü", "tea for 2, ü"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J", "\\x9b2J"),
        ("\u202egnp", "\\u202egnp", "\\u202egnp"),
        ("a\nb\tc", "a\\nb\\tc", "a\nb\tc"),
        ("a\rb", "a\\rb", "a\\rb"),
        ("\ud800", "\\ud800", "\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, line: str, lines: str) -> None:
    assert plain(text) == line
    assert plain(text, of_lines=True) == lines


def test_off_a_terminal_nothing_is_folded_coloured_or_padded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "x" * 500

    print_table(("one", "two"), [(long, Text("b", "red")), ("[bold]c", ":smile:")])

    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["one", "two"],
        [long, "b"],
        ["[bold]c", ":smile:"],
    ]
    assert all(line == line.rstrip() for line in lines)


def test_fields_are_aligned_and_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields([("id", "1"), ("reference", "y" * 300)])

    assert capsys.readouterr().out == f"id         1\nreference  {'y' * 300}\n"
