"""`webhooks endpoints`: the receivers of events, for a person at the machine."""

import secrets
import sys
from argparse import ArgumentTypeError, Namespace
from textwrap import fill
from typing import Any, Final

import msgspec

from api.webhook_presentation import DELIVERY_PREFIX, shown, shown_with_secret
from indexer import keyring
from indexer.cli import typed
from indexer.cli.command import Command, CommandFailed, Commands, clock, database_of
from indexer.cli.output import plain, print_json, print_table, say
from indexer.core import ids, receiver
from indexer.core.types import EventType
from indexer.errors import Conflict, InvariantError
from indexer.settings import Settings
from store import deliveries, webhook_endpoints
from store.database import Database
from store.webhook_endpoints import WebhookEndpoint


_TYPES: Final = fill(
    f"types: {', '.join(EventType)}",
    width=80,
    initial_indent="    ",
    subsequent_indent="      ",
    break_on_hyphens=False,
)

_LIST = """
    The receivers of events, the oldest first: what waits for each, and what came of the last
    attempt there. Never a secret.

    examples:
      axiompay webhooks endpoints list
      axiompay webhooks endpoints list --json
"""
_CREATE = f"""
    Registers a receiver: from now on each event is posted there, signed by Standard Webhooks.
    Prints its secret, alone, on standard output, and its id on standard error. The secret is
    not stored: this is the one time that it can be seen.

    The URL begins with https:// and its host is public, unless AXIOM_WEBHOOK_PRIVATE_NETWORKS
    says otherwise.

{_TYPES}

    examples:
      axiompay webhooks endpoints create https://shop.example/hooks
      axiompay webhooks endpoints create https://shop.example/hooks --description "the shop" \\
          --event-types payment.settled,payment.expired
"""
_ROTATE = f"""
    Replaces a receiver's secret and prints the new one, alone, on standard output. The one
    before signs too for a while ({receiver.OVERLAP_S_DEFAULT} s unless --overlap-s says
    otherwise; 0 when it has leaked), and the one before that no longer.

    example:
      axiompay webhooks endpoints rotate we_01jd0000000000000000000000
"""
_ENABLE = """
    Sends a receiver events again, those from now on. Those that it missed are sent by
    `axiompay webhooks redeliver --endpoint … --since …`.

    example:
      axiompay webhooks endpoints enable we_01jd0000000000000000000000
"""
_DISABLE = """
    Sends a receiver nothing more. What waits for it is dropped.

    example:
      axiompay webhooks endpoints disable we_01jd0000000000000000000000
"""
_DELETE = """
    Takes a receiver away for good. What waits for it is dropped; what was sent stays on record.

    example:
      axiompay webhooks endpoints delete we_01jd0000000000000000000000
"""
_TEST = """
    Sends a receiver an event `webhook.test`, signed as all others, and prints the id of the
    delivery. The indexer sends it, as soon as it runs.

    example:
      axiompay webhooks show $(axiompay webhooks endpoints test we_01jd0000000000000000000000)
"""


def add_to(commands: Commands) -> None:
    """Adds the seven commands."""
    commands.add("list", Command(_list), "list the receivers", _LIST, as_json=True)
    create = commands.add("create", Command(_create), "register one, print its secret", _CREATE)
    create.add_argument("url", metavar="URL", help="where events are posted to")
    create.add_argument(
        "--event-types", type=_words, metavar="A,B", help="only these (default: every type)"
    )
    create.add_argument("--description", metavar="TEXT", help="a line of your own")
    rotate = commands.add("rotate", Command(_rotate), "replace its secret, print it", _ROTATE)
    rotate.add_argument(
        "--overlap-s",
        type=typed.number(0, receiver.OVERLAP_S_MAX),
        metavar="S",
        help="seconds for which the old one signs too",
    )
    enable = commands.add("enable", Command(_enable), "send to it again", _ENABLE)
    disable = commands.add("disable", Command(_disable), "send nothing to it", _DISABLE)
    delete = commands.add("delete", Command(_delete), "take it away for good", _DELETE)
    test = commands.add("test", Command(_test), "send it a test", _TEST)
    for parser in (rotate, enable, disable, delete, test):
        parser.add_argument("id", metavar="ID", type=endpoint_id)


def endpoint_id(text: str) -> str:
    """An argument that has the form of a receiver's id."""
    if not ids.ENDPOINT_ID.fullmatch(text):
        raise ArgumentTypeError(f"{text!r:.60} is no receiver's id: we_ and 26 characters")
    return text


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


# ------------------------------------------------------------------------------------- secrets


async def _create(arguments: Namespace, settings: Settings) -> int:
    asked = receiver.new_receiver(
        arguments.url,
        arguments.event_types,
        arguments.description,
        private_networks=settings.webhook_private_networks,
    )
    id_ = ids.endpoint_id(secrets.token_bytes(ids.BYTES))
    async with database_of(settings) as database:
        keys = keyring.load(settings)
        if (problem := await keyring.missing(database, settings, keys)) is not None:
            say(f"warning: {problem}")
        statement = webhook_endpoints.create(
            id=id_,
            url=asked.url,
            event_types=asked.event_types,
            description=asked.description,
            key_id=keys[0].id,
            now=int(clock()),
            at_most=receiver.ENDPOINTS_MAX,
        )
        try:
            await database.write([statement])
        except Conflict as error:
            raise CommandFailed(
                f"there are {receiver.ENDPOINTS_MAX} receivers; delete one first"
            ) from error
        await _print_secret(database, settings, await found(database, id_))
    return 0


async def _rotate(arguments: Namespace, settings: Settings) -> int:
    overlap_s = receiver.check_overlap(arguments.overlap_s)
    async with database_of(settings) as database:
        endpoint = await found(database, arguments.id)
        key_id = keyring.load(settings)[0].id
        statement = webhook_endpoints.rotate(
            endpoint, key_id=key_id, overlap_s=overlap_s, now=int(clock())
        )
        try:
            await database.write([statement])
        except Conflict as error:
            raise CommandFailed(
                "another rotation came in between; look before you repeat it"
            ) from error
        await _print_secret(database, settings, await found(database, arguments.id))
    return 0


async def _print_secret(database: Database, settings: Settings, endpoint: WebhookEndpoint) -> None:
    keys, now = keyring.load(settings), int(clock())
    body = await shown_with_secret(database, endpoint, keys, now)
    if body is None:
        raise InvariantError(f"the secret of {endpoint.id} was made with a key that is gone")
    print(body.secret)
    say(f"{body.id} is sent {', '.join(body.event_types) or 'every event'} at {plain(body.url)}")
    if body.old_secret_until is not None:
        say(f"the secret before signs too until {body.old_secret_until}")
    if sys.stdout.isatty():
        say("keep the secret now: it is not stored and cannot be shown again")


# --------------------------------------------------------------------------------- as they are


async def _list(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        endpoints = await webhook_endpoints.listing(database)
        bodies = await shown(database, endpoints, int(clock()))
    if arguments.json:
        for body in bodies:
            print_json(body)
        return 0
    heads = ("id", "url", "events", "state", "waiting", "failed", "last attempt", "description")
    print_table(heads, [_row(msgspec.to_builtins(body)) for body in bodies])
    return 0


def _row(body: dict[str, Any]) -> list[str]:
    last, reason = body["last_attempt"], body["state_reason"]
    return [
        body["id"],
        plain(body["url"]),
        ",".join(body["event_types"]) or "all",
        body["state"] if reason is None else f"{body['state']}: {plain(reason)}",
        str(body["waiting"]),
        str(body["failed"]),
        "-" if last is None else f"{last['at']} {plain(last['problem'] or str(last['status']))}",
        plain(body["description"] or "-"),
    ]


async def _enable(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        await found(database, arguments.id)
        await database.write([webhook_endpoints.enable(arguments.id, int(clock()))])
    return 0


async def _disable(arguments: Namespace, settings: Settings) -> int:
    reason = "disabled from the command line"
    async with database_of(settings) as database:
        await found(database, arguments.id)
        await database.write(webhook_endpoints.disable(arguments.id, reason, int(clock())))
    return 0


async def _delete(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        await found(database, arguments.id)
        await database.write(webhook_endpoints.delete(arguments.id, int(clock())))
    return 0


async def _test(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        await found(database, arguments.id)
        [made] = await database.write([deliveries.test(arguments.id, int(clock()))])
    if not made:
        raise CommandFailed(f"{arguments.id} is disabled; enable it first")
    print(f"{DELIVERY_PREFIX}{made[0][0]}")
    return 0


async def found(database: Database, id_: str) -> WebhookEndpoint:
    """The receiver of that id.

    Raises:
        CommandFailed: there is none.
    """
    endpoint = await webhook_endpoints.get(database, id_)
    if endpoint is None:
        raise CommandFailed(f"there is no receiver {id_}; see `axiompay webhooks endpoints list`")
    return endpoint
