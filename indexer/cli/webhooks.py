"""`webhooks list` and `show`: what came in, and what went out."""

from argparse import Namespace
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from api.webhook_events import event_body
from api.webhook_presentation import delivery_body
from api.webhook_schema import DeliveryBody, WebhookEventBody
from indexer.cli import typed, webhook_endpoints, webhooks_redeliver, webhooks_sync
from indexer.cli.command import (
    Command,
    Commands,
    add_limit,
    database_of,
)
from indexer.cli.output import plain, print_fields, print_json, print_table
from indexer.cli.payments import payment_id
from indexer.cli.webhooks_redeliver import INBOUND, nothing, subject
from indexer.core.types import WebhookSource, WebhookVerdict
from indexer.errors import InvalidInput
from indexer.settings import Settings
from store import deliveries, webhook_events
from store.database import Database
from store.deliveries import Delivery, DeliveryState
from store.webhook_events import Entry


_PAGE_SIZE: Final = 500
_LIST_DEFAULT: Final = 50
_LIST_MAX: Final = 100_000

_LIST = """
    Webhooks that came in, the newest first, and what became of them; among them one line for
    each source and hour in which something was turned away, with the count. With --sent: what
    was sent to the receivers of events, and what waits to be sent.

    examples:
      axiompay webhooks list --verdict failed
      axiompay webhooks list --payment pay_01jd0000000000000000000000 --json
      axiompay webhooks list --source helius --since 2026-11-22T00:00:00Z
      axiompay webhooks list --sent --endpoint we_01jd0000000000000000000000 --state failed
"""
_SHOW = """
    Everything that is known of one of them: of a webhook that came in its body, of a delivery
    each attempt.

    examples:
      axiompay webhooks show whe_1042
      axiompay webhooks show dlv_2077 --json
"""


def add_to(commands: Commands) -> None:
    """Adds both commands, and those that stand in modules of their own."""
    listing = commands.add("list", Command(_list), "what came in, or was sent", _LIST, as_json=True)
    listing.add_argument(
        "--source", type=WebhookSource, choices=list(WebhookSource), help="only from there"
    )
    listing.add_argument(
        "--verdict", type=WebhookVerdict, choices=list(WebhookVerdict), help="only these"
    )
    for name, help_ in (("--since", "then or later"), ("--until", "before")):
        listing.add_argument(
            name, type=typed.unix_s, metavar="TIME", help=f"{help_}; RFC 3339 with a zone"
        )
    listing.add_argument("--payment", type=payment_id, metavar="ID", help="about this one")
    listing.add_argument("--sent", action="store_true", help="what went out instead")
    listing.add_argument(
        "--endpoint",
        type=webhook_endpoints.endpoint_id,
        metavar="ID",
        help="with --sent: to this one",
    )
    listing.add_argument(
        "--state", type=DeliveryState, choices=list(DeliveryState), help="with --sent: only these"
    )
    add_limit(listing, _LIST_DEFAULT, _LIST_MAX)
    show = commands.add("show", Command(_show), "show one", _SHOW, as_json=True)
    show.add_argument("subject", type=subject, metavar="whe_N|dlv_N")
    webhooks_redeliver.add_to(commands)
    webhook_endpoints.add_to(commands.group("endpoints", "the receivers of events"))
    webhooks_sync.add_to(commands)


async def _list(arguments: Namespace, settings: Settings) -> int:
    wrong = _misused(arguments)
    if wrong:
        where = "of what was sent" if arguments.sent else "of what came in: add --sent"
        raise InvalidInput("webhooks list", f"{', '.join(wrong)} cannot be asked {where}")
    if arguments.sent:
        return await _list_sent(arguments, settings)
    rows = []
    async with database_of(settings) as database:
        async for entry in _entries(database, arguments):
            if arguments.json:
                print_json(event_body(entry))
            else:
                rows.append(_event_row(entry))
    if not arguments.json:
        heads = ("received_at", "id", "source", "kind", "verdict", "repeats", "payments", "detail")
        print_table(heads, rows)
    return 0


def _misused(arguments: Namespace) -> list[str]:
    """Filters of the other list."""
    inbound = ("source", "verdict", "since", "until")
    outbound = ("endpoint", "state")
    names = inbound if arguments.sent else outbound
    return [f"--{name}" for name in names if getattr(arguments, name) is not None]


async def _entries(database: Database, arguments: Namespace) -> AsyncIterator[Entry]:
    """What the filters let through, the newest first, a page at a time."""
    left, before = arguments.limit, None
    while left > 0:
        page = await webhook_events.page(
            database,
            source=arguments.source,
            verdict=arguments.verdict,
            since=arguments.since,
            until=arguments.until,
            payment_id=arguments.payment,
            before=before,
            limit=min(_PAGE_SIZE, left),
        )
        for entry in page:
            yield entry
        if len(page) < _PAGE_SIZE:
            return
        left -= len(page)
        before = page[-1].id


async def _list_sent(arguments: Namespace, settings: Settings) -> int:
    rows = []
    async with database_of(settings) as database:
        async for delivery in _deliveries(database, arguments):
            if arguments.json:
                print_json(delivery_body(delivery))
            else:
                rows.append(_delivery_row(delivery))
    if not arguments.json:
        heads = ("created_at", "id", "endpoint", "type", "payment", "state", "attempts", "next try")
        print_table(heads, rows)
    return 0


async def _deliveries(database: Database, arguments: Namespace) -> AsyncIterator[Delivery]:
    left, before = arguments.limit, None
    while left > 0:
        page = await deliveries.page(
            database,
            endpoint_id=arguments.endpoint,
            state=arguments.state,
            payment_id=arguments.payment,
            before=before,
            limit=min(_PAGE_SIZE, left),
        )
        for delivery in page:
            yield delivery
        if len(page) < _PAGE_SIZE:
            return
        left -= len(page)
        before = page[-1].id


def _event_row(entry: Entry) -> list[str]:
    body = event_body(entry)
    return [
        body.received_at,
        body.id,
        body.source,
        plain(body.kind),
        body.verdict,
        str(body.repeats),
        " ".join(body.payments) or "-",
        plain(body.detail or "-"),
    ]


def _delivery_row(delivery: Delivery) -> list[str]:
    body = delivery_body(delivery)
    return [
        body.created_at,
        body.id,
        body.endpoint_id,
        body.type,
        body.payment_id or "-",
        body.state,
        str(body.attempts),
        body.next_try_at or "-",
    ]


# --------------------------------------------------------------------------------------- one


async def _show(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        body = await _whole(database, *arguments.subject)
    if arguments.json:
        print_json(body)
        return 0
    shown = msgspec.to_builtins(body)
    text, history = shown.pop("body", None), shown.pop("history", [])
    print_fields([(name, _cell(value)) for name, value in shown.items()])
    if history:
        print()
        heads = ("at", "duration_ms", "status", "problem", "response")
        print_table(heads, [[_cell(attempt[head]) for head in heads] for attempt in history])
    if text is not None:
        print()
        print(plain(text, of_lines=True))
    return 0


async def _whole(database: Database, kind: str, number: int) -> WebhookEventBody | DeliveryBody:
    if kind == INBOUND:
        event = await webhook_events.get(database, number)
        if event is not None:
            return event_body(event)
    else:
        delivery = await deliveries.get(database, number)
        if delivery is not None:
            return delivery_body(delivery, whole=True)
    raise nothing(kind, number)


def _cell(value: object) -> str:
    """A value as a line: whoever sent it may have written anything."""
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, list):
        return plain(" ".join(map(str, value)))
    if isinstance(value, dict):
        return plain(", ".join(f"{name}: {each}" for name, each in value.items()))
    return plain(str(value))
