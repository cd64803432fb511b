"""`backup` and `restore`: the whole database as one file, and a database made of it."""

from argparse import Namespace
from pathlib import Path
from typing import Final

from indexer.cli.command import Command, CommandFailed, Commands, bounds_of, clock
from indexer.cli.output import print_fields, print_json, say
from indexer.cli.progress import Tell, progress
from indexer.core.events import format_time
from indexer.errors import ConfigError, SourceError
from indexer.settings import Settings
from indexer.sources.rpc import Rpc
from store import backup
from store.backup import Contents
from store.database import is_file, path_of


_BACKUP = """
    Writes the whole database, as it is at one moment, into one SQLite file: from a file and from
    a libSQL server alike, while everything runs. FILE appears when it is complete, examined and
    on the disk; its owner alone may read it.

    Not in it: settings, and the key that signs webhooks. Where AXIOM_WEBHOOK_SIGNING_KEYS is not
    set, that is the file beside the database that ends in .key: keep a copy of it elsewhere.

    examples:
      axiompay backup /backups/axiom-2026-11-23.db
      axiompay backup latest.db --replace --json
"""
_RESTORE = """
    Makes a database of a backup, where AXIOM_DATABASE_URL names none: a file that does not exist,
    or a libSQL server with an empty data folder. Stop every process before. The backup is examined
    first, and refused when it is damaged, of a newer release, or of another cluster than
    AXIOM_RPC_URLS serve. Events are numbered from a number on that no lost log has given, so that
    streams go on where they were.

    Afterwards: the replicas of a libSQL server must start with emptied data folders. `axiompay
    migrate`, if the backup is of an older release. Then start: what was paid since the backup is
    found on the chain. Payments that were created since are not: see `axiompay payments restore`.

    examples:
      axiompay restore /backups/axiom-2026-11-23.db
      axiompay restore latest.db --any-cluster      also where no endpoint says which one it serves
"""
_NOT_FOUND: Final = "none yet"


def add_to(commands: Commands) -> None:
    """Adds both commands."""
    taking = commands.add(
        "backup", Command(_backup), "copy the database into a file", _BACKUP, as_json=True
    )
    taking.add_argument("file", type=Path, metavar="FILE", help="the backup")
    taking.add_argument("--replace", action="store_true", help="FILE may exist; it gives way")
    giving = commands.add(
        "restore", Command(_restore), "make a database of a backup", _RESTORE, as_json=True
    )
    giving.add_argument("file", type=Path, metavar="FILE", help="the backup")
    giving.add_argument(
        "--any-cluster", action="store_true", help="do not ask which cluster the endpoints serve"
    )


async def _backup(arguments: Namespace, settings: Settings) -> int:
    with progress(_units(settings)) as tell:
        contents = await backup.take(
            settings.database_url,
            arguments.file,
            token=settings.database_token,
            replace=arguments.replace,
            tell=_counted(tell),
        )
    _show(contents, as_json=arguments.json)
    return 0


async def _restore(arguments: Namespace, settings: Settings) -> int:
    contents = backup.examine(arguments.file)
    if contents.cluster is not None and not arguments.any_cluster:
        await _refuse_another_cluster(settings, contents.cluster)
    with progress("rows" if not is_file(settings.database_url) else "bytes") as tell:
        contents = await backup.restore(
            arguments.file,
            settings.database_url,
            token=settings.database_token,
            now=int(clock()),
            tell=_counted(tell),
        )
    _show(contents, as_json=arguments.json)
    _say_what_is_left(settings, contents)
    return 0


async def _refuse_another_cluster(settings: Settings, stored: str) -> None:
    async with Rpc(settings.rpc_urls, bounds=bounds_of(settings)) as rpc:
        try:
            served = await rpc.genesis_hash()
        except SourceError as error:
            raise CommandFailed(
                f"no endpoint says which cluster it serves ({error}); "
                "--any-cluster restores without asking"
            ) from error
    if served != stored:
        problem = (
            f"AXIOM_RPC_URLS: serve the cluster with genesis hash {served}, but the backup was "
            f"filled from {stored}"
        )
        raise ConfigError((problem,))


def _say_what_is_left(settings: Settings, contents: Contents) -> None:
    if not is_file(settings.database_url):
        say("replicas of this server must start with emptied data folders")
    elif contents.receivers and not settings.webhook_signing_keys:
        path = path_of(settings.database_url)
        key = path.with_name(f"{path.name}.key")
        if not key.exists():
            say(
                f"put the key file {key} back before the start: receivers know it by its signatures"
            )
    say("payments that were created since the backup: `axiompay payments restore`")


def _units(settings: Settings) -> str:
    return "pages" if is_file(settings.database_url) else "rows"


def _counted(tell: Tell) -> backup.Tell:
    def told(done: int, total: int) -> None:
        tell(done, total)

    return told


def _show(contents: Contents, *, as_json: bool) -> None:
    newest = None if contents.newest_at is None else format_time(contents.newest_at)
    found = {
        "schema_version": contents.schema_version,
        "cluster": contents.cluster,
        "payments": contents.payments,
        "newest_payment_at": newest,
        "events": contents.events,
        "last_seq": contents.last_seq,
        "receivers": contents.receivers,
        "watch_keys": contents.watch_keys,
        "bytes": contents.bytes,
    }
    if as_json:
        print_json(found)
    else:
        print_fields([(k, _NOT_FOUND if v is None else str(v)) for k, v in found.items()])
