import pytest
from rich.text import Text

from indexer.cli.output import print_fields, print_json, print_table


def test_json_stands_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "ü\n", "b": 2**64 - 1})

    assert capsys.readouterr().out == '{"a":"ü\\n","b":18446744073709551615}\n'


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
