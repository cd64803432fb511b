"""`webhooks redeliver`: what came in is processed again, what went out is sent again."""

import re
from argparse import ArgumentTypeError, Namespace
from typing import Final

from indexer.cli import typed, webhook_endpoints
from indexer.cli.command import Command, CommandFailed, Commands, clock, database_of
from indexer.cli.output import print_json, say
from indexer.core import receiver
from indexer.core.types import WebhookVerdict
from indexer.errors import InvalidInput
from indexer.settings import Settings
from store import deliveries, webhook_events
from store.database import Database
from store.webhook_endpoints import EndpointState


#: At most 18 digits: every number with as many fits into a column.
_SUBJECT: Final = re.compile(r"(whe|dlv)_([1-9][0-9]{0,17})", re.ASCII)
INBOUND: Final = "whe"
OUTBOUND: Final = "dlv"

_REDELIVER = """
    Once more: what came in is processed again, a delivery is sent again, a receiver is sent all
    events since a time that it has not taken. The indexer does it soon after; it need not run
    now. Nothing is paid or counted twice.

    examples:
      axiompay webhooks redeliver whe_1042
      axiompay webhooks redeliver dlv_2077 dlv_2078
      axiompay webhooks redeliver --endpoint we_01jd0000000000000000000000 \\
          --since 2026-11-22T20:00:00Z
"""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add(
        "redeliver", Command(_redeliver), "process or send again", _REDELIVER, as_json=True
    )
    parser.add_argument("subjects", type=subject, metavar="whe_N|dlv_N", nargs="*")
    parser.add_argument(
        "--endpoint",
        type=webhook_endpoints.endpoint_id,
        metavar="ID",
        help="with --since: all that this receiver has not taken",
    )
    parser.add_argument(
        "--since", type=typed.unix_s, metavar="TIME", help="with --endpoint; RFC 3339 with a zone"
    )


def subject(text: str) -> tuple[str, int]:
    """An argument that names what came in or what went out: which of both, and its number."""
    match = _SUBJECT.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r:.60} is neither whe_N nor dlv_N: see `webhooks list`")
    return match[1], int(match[2])


def nothing(kind: str, number: int) -> CommandFailed:
    """There is none of that number."""
    listing = "list" if kind == INBOUND else "list --sent"
    return CommandFailed(f"there is no {kind}_{number}; see `axiompay webhooks {listing}`")


async def _redeliver(arguments: Namespace, settings: Settings) -> int:
    asks_since = arguments.endpoint is not None and arguments.since is not None
    is_half = (arguments.endpoint is None) != (arguments.since is None)
    if is_half or bool(arguments.subjects) == asks_since:
        raise InvalidInput("webhooks redeliver", "name ids, or --endpoint together with --since")
    async with database_of(settings) as database:
        if asks_since:
            return await _redeliver_since(arguments, settings, database)
        return await _redeliver_each(arguments, database)


async def _redeliver_since(arguments: Namespace, settings: Settings, database: Database) -> int:
    now = int(clock())
    receiver.check_since(arguments.since, retention_days=settings.webhook_retention_days, now=now)
    endpoint = await webhook_endpoints.found(database, arguments.endpoint)
    if endpoint.state is not EndpointState.ENABLED:
        raise CommandFailed(f"{endpoint.id} is disabled; enable it first")
    *_, [(count,)] = await database.write(
        deliveries.redeliver_since(endpoint.id, arguments.since, now)
    )
    if arguments.json:
        print_json({"endpoint_id": endpoint.id, "count": count})
    else:
        print(f"{endpoint.id}: {count} wait to be sent")
    return 0


async def _redeliver_each(arguments: Namespace, database: Database) -> int:
    """Each by itself: what cannot be done once more keeps the others from nothing."""
    code = 0
    for kind, number in dict.fromkeys(arguments.subjects):
        try:
            if kind == INBOUND:
                await _reopen(database, number)
            else:
                await _send_again(database, number)
        except CommandFailed as error:
            say(str(error))
            code = 1
            continue
        if arguments.json:
            print_json({"id": f"{kind}_{number}", "state": "waiting"})
        else:
            print(f"{kind}_{number}  waiting")
    return code


async def _reopen(database: Database, number: int) -> None:
    [reopened] = await database.write([webhook_events.reopen(number, int(clock()))])
    if reopened:
        return
    event = await webhook_events.get(database, number)
    if event is None:
        raise nothing(INBOUND, number)
    if event.verdict is WebhookVerdict.UNAUTHENTICATED:
        raise CommandFailed(f"whe_{number} was never authentic: there is nothing to process again")


async def _send_again(database: Database, number: int) -> None:
    [asked] = await database.write([deliveries.redeliver(number, int(clock()))])
    if asked:
        return
    delivery = await deliveries.get(database, number)
    if delivery is None:
        raise nothing(OUTBOUND, number)
    raise CommandFailed(
        f"dlv_{number} goes to {delivery.endpoint_id}, which is disabled or deleted"
    )
