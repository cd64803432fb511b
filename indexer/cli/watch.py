"""`watch`: the keys that stand beside payments' references, and whom they are for."""

import secrets
from argparse import Namespace
from typing import Any

from indexer.cli.command import Command, Commands, clock, database_of
from indexer.cli.output import plain, print_json, print_table, say
from indexer.core import creation
from indexer.core.events import format_time
from indexer.errors import Conflict, InvalidInput, StoreUnavailable
from indexer.settings import Settings
from store import watch_keys, watching
from store.database import Database
from store.watch_keys import Purpose, Standing, WatchKey


_LIST = """
    Every watch key: whether new payments get it (in_use), or only those are watched that have it
    (watched), or nothing is any more (closed); how many of its payments are open, how old the
    last block is up to which everything is stored, and whose API keys it is reserved for.

    examples:
      axiompay watch list
      axiompay watch list --json
"""
_ADD = """
    Puts one more key to use, and prints it. Payments are spread evenly over the shared keys.
    A reserved key is for the API keys that name it: axiompay keys create … --watch NAME. Nobody
    needs a private key to any of them.

    examples:
      axiompay watch add east                 one more that is shared
      axiompay watch add coffee --reserved    the payments of one merchant by themselves
      axiompay watch add old --key <key>      of a database that was lost
"""
_ROTATE = """
    Puts a fresh key in the place of one in use, under the same name, and prints it. New payments
    get the fresh one within seconds, without a restart; the old one is watched until the grace
    time of every payment that has it is over.

    example:
      axiompay watch rotate east
"""
_RETIRE = """
    Ends the use of a key, for ever. It is watched until the grace time of every payment that has
    it is over. Whom it was reserved for gets shared keys. The last shared key cannot
    be retired: rotate it.

    example:
      axiompay watch retire east
"""


def add_to(commands: Commands) -> None:
    """Adds the four commands."""
    commands.add("list", Command(_list), "list them, and what hangs on them", _LIST, as_json=True)
    adding = commands.add("add", Command(_add), "put one more to use", _ADD)
    _named(adding.add_argument)
    adding.add_argument(
        "--reserved", action="store_true", help="only for API keys that name it (default: shared)"
    )
    adding.add_argument("--key", metavar="KEY", help="base58 of 32 bytes (default: a random one)")
    rotating = commands.add("rotate", Command(_rotate), "put a fresh one in its place", _ROTATE)
    _named(rotating.add_argument)
    retiring = commands.add("retire", Command(_retire), "give it to no new payment", _RETIRE)
    _named(retiring.add_argument)


def _named(add_argument: Any) -> None:
    add_argument("name", metavar="NAME", help="the key's name; of those in use each has another")


async def _list(arguments: Namespace, settings: Settings) -> int:
    now = int(clock())
    async with database_of(settings) as database:
        rows = await _rows(database, now)
    if arguments.json:
        for row in rows:
            print_json(row)
        return 0
    heads = ("name", "key", "purpose", "state", "open_payments", "frontier_age_s", "api_keys")
    print_table(heads, [[_cell(row[head]) for head in heads] for row in rows])
    return 0


async def _rows(database: Database, now: int) -> list[dict[str, Any]]:
    """Every key, also those that only payments know, with what hangs on it."""
    watched = await watching.watch_keys(database, now=now)
    known = await watch_keys.listing(database)
    nameless = sorted(set(watched) - {each.key for each in known})
    standings = await watch_keys.standings(database, [*(each.key for each in known), *nameless])
    shown = [
        _shown(each, standing, is_watched=each.key in watched, now=now)
        for each, standing in zip(known, standings, strict=False)
    ]
    of_payments = zip(nameless, standings[len(known) :], strict=True)
    return shown + [_nameless(key, standing, now) for key, standing in of_payments]


async def _add(arguments: Namespace, settings: Settings) -> int:
    purpose = Purpose.RESERVED if arguments.reserved else Purpose.SHARED
    key = _fresh() if arguments.key is None else arguments.key
    if key == settings.recipient or key in settings.tokens.values():
        raise InvalidInput("--key", "is the recipient or a mint, whose own business it would find")
    async with database_of(settings) as database:
        added = await watch_keys.add(database, key, arguments.name, purpose, now=int(clock()))
    print(added.key)
    return 0


async def _rotate(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        try:
            made = await watch_keys.rotate(database, arguments.name, _fresh(), now=int(clock()))
        except Conflict as error:
            raise StoreUnavailable(f"{error}; try again") from error
    print(made.key)
    return 0


async def _retire(arguments: Namespace, settings: Settings) -> int:
    now = int(clock())
    async with database_of(settings) as database:
        retired = await watch_keys.retire(database, arguments.name, now=now)
        [standing] = await watch_keys.standings(database, [retired.key])
    say(f"{retired.key} is retired; open payments that have it: {standing.open_payments}")
    return 0


def _fresh() -> str:
    return creation.reference(secrets.token_bytes(32))


def _shown(each: WatchKey, standing: Standing, *, is_watched: bool, now: int) -> dict[str, Any]:
    of_old = "watched" if is_watched else "closed"
    return {
        "name": each.name,
        "key": each.key,
        "purpose": each.purpose,
        "state": "in_use" if each.retired_at is None else of_old,
        "created_at": format_time(each.created_at),
        "retired_at": None if each.retired_at is None else format_time(each.retired_at),
        **_standing(standing, now),
    }


def _nameless(key: str, standing: Standing, now: int) -> dict[str, Any]:
    """A key that payments carry and nobody put to use here."""
    return {
        "name": None,
        "key": key,
        "purpose": None,
        "state": "watched",
        "created_at": None,
        "retired_at": None,
        **_standing(standing, now),
    }


def _standing(standing: Standing, now: int) -> dict[str, Any]:
    time = standing.block_time
    return {
        "open_payments": standing.open_payments,
        "frontier_slot": standing.slot,
        "frontier_age_s": None if time is None else now - time,
        "api_keys": list(standing.callers),
    }


def _cell(value: str | int | list[str] | None) -> str:
    if value is None or value == []:
        return "-"
    return plain(", ".join(value) if isinstance(value, list) else str(value))
