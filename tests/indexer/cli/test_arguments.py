import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.cli.arguments import build_parser
from indexer.cli.command import Command


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


LEAVES = [p for p in parsers(build_parser()) if isinstance(p.get_default("command"), Command)]


def test_these_are_the_commands() -> None:
    assert [leaf.prog.removeprefix("axiompay ") for leaf in LEAVES] == [
        "up",
        "indexer",
        "api",
        "migrate",
        "doctor",
        "backup",
        "restore",
        "payments create",
        "payments show",
        "payments cancel",
        "payments list",
        "payments export",
        "payments restore",
        "review list",
        "review match",
        "review accept",
        "review refuse",
        "audit",
        "replay",
        "gaps list",
        "gaps repair",
        "dlq list",
        "dlq show",
        "dlq retry",
        "dlq drop",
        "webhooks list",
        "webhooks show",
        "webhooks redeliver",
        "webhooks endpoints list",
        "webhooks endpoints create",
        "webhooks endpoints rotate",
        "webhooks endpoints enable",
        "webhooks endpoints disable",
        "webhooks endpoints delete",
        "webhooks endpoints test",
        "webhooks sync",
        "keys create",
        "keys list",
        "keys assign",
        "keys revoke",
        "watch list",
        "watch add",
        "watch rotate",
        "watch retire",
        "secrets encrypt",
        "secrets edit",
        "secrets check",
        "secrets keygen",
        "demo",
    ]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.prog)
def test_the_help_of_a_command_teaches_by_example(leaf: argparse.ArgumentParser) -> None:
    text = leaf.format_help()

    assert "example" in text
    assert text.count(leaf.prog) >= 2  # the usage and an example
    assert all(action.help for action in leaf._actions if action.option_strings)


def test_the_env_file_is_a_path_wherever_it_stands() -> None:
    parse = build_parser().parse_args

    assert parse(["--env-file", "a", "up"]).env_file == Path("a")
    assert parse(["up", "--env-file", "a"]).env_file == Path("a")
    assert not hasattr(parse(["up"]), "env_file")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        build_parser().parse_args(["--version"])

    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith("axiompay 0.")
