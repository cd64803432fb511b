"""`migrate`: brings the database's schema up to date, or says how it stands."""

from argparse import Namespace

from indexer.cli.command import Command, Commands, has_file
from indexer.cli.output import say
from indexer.settings import Settings
from store import migrate
from store.database import open_configured
from store.migrate import Standing


_TEXT = """
    Brings the database up to date with this release and prints what was applied. `up` does this
    by itself. Two at once do no harm. Processes of the release before may go on meanwhile, unless
    --check says that they must be stopped first.

    examples:
      axiompay migrate
      axiompay migrate --check       changes nothing; exit code 1 when something is missing
"""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add("migrate", Command(_migrate), "bring the database up to date", _TEXT)
    parser.add_argument("--check", action="store_true", help="only say what is missing")


async def _migrate(arguments: Namespace, settings: Settings) -> int:
    if arguments.check and not has_file(settings):
        return _show(Standing(version=0, missing=tuple(migrate.known())))
    database = await open_configured(settings)
    try:
        if arguments.check:
            return _show(await migrate.standing(database))
        for name in await migrate.migrate(database):
            print(name)
    finally:
        await database.close()
    return 0


def _show(standing: Standing) -> int:
    """Prints what is missing, and says who may run meanwhile; returns the exit code."""
    for migration in standing.missing:
        print(migration.name)
    if standing.newer:
        say(f"{', '.join(standing.newer)}: of a newer release; this one may run with it")
    if standing.contracting:
        names = ", ".join(standing.contracting)
        say(f"stop every process before you apply {names}: older releases cannot run on it")
    elif standing.missing and standing.version:
        say("the processes that run now may go on while this is applied, and after it")
    return 1 if standing.missing else 0
