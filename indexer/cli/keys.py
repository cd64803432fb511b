"""`keys`: who may use the API."""

import secrets
import sys
from argparse import ArgumentTypeError, Namespace
from typing import Final

from indexer.cli import typed
from indexer.cli.command import Command, CommandFailed, Commands, clock, database_of
from indexer.cli.output import print_json, print_table
from indexer.core.events import format_time
from indexer.settings import Settings
from store import keys
from store.keys import SCOPES, ApiKey


_KEY_BYTES: Final = 32
_ID_BYTES: Final = 8

_CREATE = f"""
    Makes a key for the API and prints it, alone, on standard output. Only its hash is stored:
    this is the one time that it can be seen.

    scopes: {", ".join(sorted(SCOPES))}

    A key is changed for another without a pause: make the new one, hand it over, and revoke the
    old one when nobody uses it any more. What is repeated with the same
    `Idempotency-Key` must be repeated with the same key.

    examples:
      axiompay keys create shop --scopes payments:read,payments:write
      axiompay keys create shop-2027 --scopes payments:write --expires-in 90d --rate 100/10s
      axiompay keys create cafe --scopes payments:write --watch cafe     see axiompay watch add
      KEY=$(axiompay keys create ci --scopes payments:read)
      curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/api/pay
"""
_LIST = """
    Every key with its scopes, its end and its rate, also revoked ones. The keys themselves are
    not stored. A rate of `-` is that of the deployment (AXIOM_RATE_LIMIT).

    example:
      axiompay keys list
"""
_ASSIGN = """
    Has the payments that a key makes from now on carry a reserved watch key, or shared ones again.
    Each process of the API knows of it within two seconds. What was made before keeps its watch
    key, which is watched as long as money for it may count.

    examples:
      axiompay keys assign shop --watch shop      see axiompay watch add shop --reserved
      axiompay keys assign shop --shared
"""
_REVOKE = """
    Ends a key, by its name or its id, for ever. Every process of the API refuses it within two
    seconds, and ends the streams that were opened with it within five.

    example:
      axiompay keys revoke shop
"""


def add_to(commands: Commands) -> None:
    """Adds the four commands."""
    create = commands.add("create", Command(_create), "make a key and print it", _CREATE)
    create.add_argument("name", metavar="NAME", help="whose key it is; each name once")
    create.add_argument(
        "--scopes",
        type=_scopes,
        required=True,
        metavar="A,B",
        help="what it may do, commas between",
    )
    create.add_argument(
        "--expires-in",
        type=typed.duration_s,
        metavar="TIME",
        help="it ends by itself after so long, as 90d, 12h or 30m (default: never)",
    )
    create.add_argument(
        "--rate",
        type=typed.quota,
        metavar="N/TIME",
        help="how often it may call, as 100/10s (default: as AXIOM_RATE_LIMIT says)",
    )
    create.add_argument(
        "--watch",
        metavar="NAME",
        help="the reserved watch key that its payments carry (default: a shared one)",
    )
    commands.add("list", Command(_list), "list the keys", _LIST, as_json=True)
    assign = commands.add("assign", Command(_assign), "give a key another watch key", _ASSIGN)
    assign.add_argument("name", metavar="NAME", help="the key's name or id")
    whose = assign.add_mutually_exclusive_group(required=True)
    whose.add_argument("--watch", metavar="WATCH_KEY", help="the name of a reserved watch key")
    whose.add_argument("--shared", action="store_true", help="shared ones, as for all others")
    revoke = commands.add("revoke", Command(_revoke), "end a key", _REVOKE)
    revoke.add_argument("name", metavar="NAME", help="the key's name or id")


def _scopes(text: str) -> frozenset[str]:
    scopes = frozenset(part.strip() for part in text.split(","))
    if unknown := scopes - SCOPES:
        raise ArgumentTypeError(
            f"unknown: {', '.join(map(repr, sorted(unknown)))}; "
            f"there are {', '.join(sorted(SCOPES))}"
        )
    return scopes


async def _create(arguments: Namespace, settings: Settings) -> int:
    key = keys.new_key(secrets.token_bytes(_KEY_BYTES))
    now, lifetime_s = int(clock()), arguments.expires_in
    async with database_of(settings) as database:
        await keys.create(
            database,
            arguments.name,
            arguments.scopes,
            key=key,
            id=f"key_{secrets.token_hex(_ID_BYTES)}",
            now=now,
            expires_at=None if lifetime_s is None else now + lifetime_s,
            rate=arguments.rate,
            watch=arguments.watch,
        )
    print(key)
    if sys.stdout.isatty():
        print("Keep it now: it is not stored and cannot be shown again.", file=sys.stderr)
    return 0


async def _list(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        found = await keys.listing(database)
    if arguments.json:
        for key in found:
            print_json(_shown(key))
    else:
        shown = [_shown(key) for key in found]
        heads = ("id", "name", "scopes", "rate", "created_at", "expires_at", "revoked_at")
        print_table(heads, [[_cell(row[head]) for head in heads] for row in shown])
    return 0


async def _assign(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        await keys.assign(database, arguments.name, arguments.watch)
    return 0


async def _revoke(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        if not await keys.revoke(database, arguments.name, int(clock())):
            raise CommandFailed(
                f"there is no valid key {arguments.name!r}; see `axiompay keys list`"
            )
    return 0


def _shown(key: ApiKey) -> dict[str, str | list[str] | None]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "rate": None if key.rate is None else str(key.rate),
        "watch_key": key.watch_key,
        "created_at": format_time(key.created_at),
        "expires_at": None if key.expires_at is None else format_time(key.expires_at),
        "revoked_at": None if key.revoked_at is None else format_time(key.revoked_at),
    }


def _cell(value: str | list[str] | None) -> str:
    if value is None:
        return "-"
    return ",".join(value) if isinstance(value, list) else value
