"""`doctor`: are the settings right, and is all that they name in reach?"""

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from indexer.cli.checks import (
    Finding,
    Grade,
    Node,
    of_database,
    of_node,
    of_nodes,
    of_redis,
    of_settings,
    of_websocket,
)
from indexer.cli.command import Command, Commands, clock
from indexer.cli.output import print_json, print_table
from indexer.settings import Settings


_TEXT = """
    Looks at the settings, the database, each RPC endpoint (in reach, same cluster, not behind,
    knows transactions of version 1), each WebSocket (announces slots) and Redis, if one is set
    (takes values). Changes nothing.
    Exit code 1 when something fails.

    examples:
      axiompay doctor
      axiompay --env-file production.env doctor --json
"""

_STYLES: Final = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


def add_to(commands: Commands) -> None:
    """Adds the command."""
    commands.add(
        "doctor", Command(_doctor), "are settings and chain in order?", _TEXT, as_json=True
    )


async def _doctor(arguments: Namespace, settings: Settings) -> int:
    return show(await examine(settings), as_json=arguments.json)


def show(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Prints them; returns the exit code that they come to."""
    if as_json:
        for finding in findings:
            print_json(finding._asdict())
    else:
        print_table(
            ("", "check", "found", "hint"),
            [(Text(f.grade, _STYLES[f.grade]), f.check, f.found, f.hint) for f in findings],
        )
    return 1 if any(finding.grade is Grade.FAIL for finding in findings) else 0


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which to read them."""
    (database, stored), redis, answers, websockets = await asyncio.gather(
        of_database(settings),
        of_redis(settings),
        asyncio.gather(*(of_node(url, settings) for url in settings.rpc_urls)),
        asyncio.gather(*(of_websocket(url) for url in settings.ws_urls)),
    )
    return [
        *of_settings(settings),
        *database,
        *redis,
        *(answer for answer in answers if isinstance(answer, Finding)),
        *of_nodes([answer for answer in answers if isinstance(answer, Node)], stored, clock()),
        *websockets,
    ]
