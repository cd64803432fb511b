"""What every command of the command line has in common."""

import os
import time
from argparse import (
    SUPPRESS,
    ArgumentParser,
    Namespace,
    RawDescriptionHelpFormatter,
    _SubParsersAction,
)
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

from indexer import cluster
from indexer.cli import typed
from indexer.errors import AxiomError
from indexer.pipeline import Pipeline
from indexer.settings import Settings
from indexer.sources.endpoint import Bounds
from indexer.sources.rpc import Rpc
from store import migrate
from store.database import Database, is_file, open_configured, path_of


#: Unix seconds. Everybody else is handed the clock.
clock: Final = time.time  # noqa: TID251 - the entry point is where it comes from


#: What is read where no file is named: plain, and encrypted (docs/secrets.md).
_ENV_FILES: Final = (Path(".env"), Path(".env.age"))


class CommandFailed(AxiomError):
    """What was asked for cannot be done as things are; the message says why."""


class Voice(Enum):
    """How much a command says while it runs."""

    ANSWERS = auto()  # and is done: what goes wrong is its answer, not a line of a log
    TELLS = auto()  # runs until it is stopped, and logs what it does


@dataclass(frozen=True, slots=True)
class Command:
    """One leaf of the command line.

    Attributes:
        run: takes the arguments and the settings, returns the exit code.
        configured: the environment is read; otherwise all settings have their defaults.
    """

    run: Callable[[Namespace, Settings], Coroutine[Any, Any, int]]
    voice: Voice = Voice.ANSWERS
    configured: bool = True


class Commands:
    """The commands on one level of the command line, to which more can be added."""

    def __init__(self, parser: ArgumentParser) -> None:
        self._subparsers: _SubParsersAction[ArgumentParser] = parser.add_subparsers(
            title="commands", metavar="COMMAND", required=True
        )

    def group(self, name: str, summary: str) -> "Commands":
        """A command that only has commands below it."""
        return Commands(self._add(name, summary, summary))

    def add(
        self, name: str, command: Command, summary: str, text: str, *, as_json: bool = False
    ) -> ArgumentParser:
        """A command that does something; returns its parser, for more arguments.

        Args:
            name: as it is typed.
            command: what it does.
            summary: a line in the list of commands.
            text: its help: what it does, and examples.
            as_json: it also has `--json`.
        """
        parser = self._add(name, summary, text)
        parser.set_defaults(command=command)
        if as_json:
            parser.add_argument("--json", action="store_true", help="for machines")
        add_env_file(parser)
        return parser

    def _add(self, name: str, summary: str, text: str) -> ArgumentParser:
        return self._subparsers.add_parser(
            name,
            help=summary,
            description=dedent(text).strip(),
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )


def add_env_file(parser: ArgumentParser) -> None:
    """`--env-file`, which may stand before the command or after it."""
    parser.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        default=SUPPRESS,
        help="settings to read beside the environment, which wins; encrypted if it is named .age "
        "(default: .env, and .env.age over it, as far as they are there)",
    )


def env_files(arguments: Namespace) -> tuple[Path, ...]:
    """The files of settings, the weakest first: the one that was named, or those that are there."""
    named: Path | None = getattr(arguments, "env_file", None)
    return (named,) if named is not None else tuple(filter(_is_there, _ENV_FILES))


def _is_there(path: Path) -> bool:
    """Whether the file is to be read.

    An encrypted one also where it cannot be, such as a link that leads nowhere, or the directory
    that a container is given in place of a missing file: its settings would be missed in silence.
    """
    return path.is_file() or (path.suffix == ".age" and os.path.lexists(path))


def add_limit(parser: ArgumentParser, default: int, maximum: int, *, what: str = "at most") -> None:
    """`--limit`, of a command that lists."""
    parser.add_argument(
        "--limit",
        type=typed.number(1, maximum),
        default=default,
        metavar="N",
        help=f"{what} (default: {default})",
    )


def has_file(settings: Settings) -> bool:
    """Whether the database exists; opening it would make it.

    Raises:
        ConfigError: its URL is none.
    """
    if not is_file(settings.database_url):
        return True  # whether it answers, the first question shows
    try:
        return path_of(settings.database_url).exists()
    except PermissionError:
        return True  # opening it will say whose permission is missing


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[Database]:
    """The store, open and with the schema that this code was written for.

    Raises:
        CommandFailed: there is no such database.
        SchemaMismatch: run `axiompay migrate`, or another release.
    """
    if not has_file(settings):
        raise CommandFailed(
            f"{settings.database_url} does not exist: `axiompay up` or `axiompay migrate` makes "
            "it; AXIOM_DATABASE_URL names another"
        )
    database = await open_configured(settings)
    try:
        await migrate.check(database)
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def chain_of(
    settings: Settings, database: Database, *, fills: bool = False
) -> AsyncIterator[Rpc]:
    """The endpoints, open, none of them known to serve another cluster than the database.

    Args:
        settings: name them.
        database: open.
        fills: what they say will be stored, so the database belongs to their cluster from now on.

    Raises:
        ConfigError: one of them serves another cluster.
        SourceError: nobody says which cluster it is that the database is to be filled from.
    """
    rpc = Rpc(settings.rpc_urls, bounds=bounds_of(settings), quorum=settings.verify_quorum)
    async with rpc:
        if fills:
            await cluster.know(database, rpc)
        await cluster.check_all(database, rpc)
        yield rpc


def pipeline_of(database: Database, rpc: Rpc) -> Pipeline:
    """The road, beside a daemon or without: readers of other processes see what it stores soon."""
    return Pipeline(database, rpc, clock=clock, wake=lambda: None)


def bounds_of(settings: Settings) -> Bounds:
    """How much is asked of one endpoint."""
    return Bounds(concurrency=settings.rpc_concurrency, rate=settings.rpc_rate)
