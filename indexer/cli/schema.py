"""`migrate`: brings the database's schema up to date, or says whether it is."""

from argparse import Namespace

from indexer.cli.command import Command, Commands, has_file
from indexer.settings import Settings
from store import migrate
from store.database import open_configured


_TEXT = """
    Brings the database up to date with this release and prints what was applied. `up` does this
    by itself. Two at once do no harm.

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
        print(*(migration.name for migration in migrate.known()), sep="\n")
        return 1
    database = await open_configured(settings)
    try:
        names = await (migrate.pending if arguments.check else migrate.migrate)(database)
    finally:
        await database.close()
    for name in names:
        print(name)
    return 1 if arguments.check and names else 0
