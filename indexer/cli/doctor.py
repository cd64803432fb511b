"""`doctor`: are the settings right, and is all that they name in reach?"""

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from typing import Final, assert_never

from rich.text import Text

from indexer.cli.checks import (
    Finding,
    Grade,
    Node,
    of_node,
    of_nodes,
    of_redis,
    of_settings,
    of_websocket,
)
from indexer.cli.command import Command, Commands, clock
from indexer.cli.doctor_database import of_database
from indexer.cli.doctor_process import Process, of_api, of_indexer
from indexer.cli.output import print_json, print_table
from indexer.settings import Settings


_TEXT = """
    Looks at the settings, the database (in reach, token right, schema, clock; each replica and how
    far behind it is; watch keys; indexers), each RPC endpoint (in reach, same cluster, not behind,
    knows transactions of version 1), each WebSocket (announces slots) and Redis, if one is set
    (takes values). Changes nothing.
    Exit code 1 when something fails.

    With --process it asks one process of this machine alone, as a container's health check does:
    the API whether it answers, the indexer whether it lately told of itself in the database.

    examples:
      axiompay doctor
      axiompay --env-file production.env doctor --json
      axiompay doctor --process api
"""

_STYLES: Final = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add(
        "doctor", Command(_doctor), "are settings and chain in order?", _TEXT, as_json=True
    )
    parser.add_argument(
        "--process", type=Process, choices=list(Process), help="ask only that one, of this machine"
    )


async def _doctor(arguments: Namespace, settings: Settings) -> int:
    process: Process | None = arguments.process
    match process:
        case None:
            findings = await examine(settings)
        case Process.API:
            findings = [await of_api(settings)]
        case Process.INDEXER:
            findings = [await of_indexer(settings, now=int(clock()))]
        case _:
            assert_never(process)
    return show(findings, as_json=arguments.json)


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
        of_database(settings, clock=clock),
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
