"""`payments list` and `export`: many payments, read a page at a time."""

import csv
import os
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

import msgspec

from api.presentation import payment_body
from indexer.cli import typed
from indexer.cli.command import Command, CommandFailed, Commands, add_limit, database_of
from indexer.cli.output import print_json, print_table
from indexer.core.types import Status
from indexer.settings import Settings
from store import everything
from store.database import Database
from store.everything import AnyRecord


_PAGE_SIZE: Final = 500
_LIST_DEFAULT: Final = 20
_LIST_MAX: Final = 100_000

_LIST = """
    Payments, the newest first. With --json one object on each line.

    examples:
      axiompay payments list --status pending
      axiompay payments list --created-after 2026-11-22T00:00:00Z --limit 500 --json
      axiompay payments list --reference <key>
"""
_EXPORT = """
    Payments as CSV (RFC 4180, UTF-8), the newest first. Read and written a page at a time, so
    that there may be any number of them. Payments made meanwhile may or may not be in it.

    examples:
      axiompay payments export --output payments.csv
      axiompay payments export --status settled --created-after 2026-11-01T00:00:00Z | less -S
"""

#: The columns of an export that stand in a payment's JSON by themselves.
_PLAIN: Final = (
    "id",
    "status",
    "paid",
    "late",
    "amount",
    "amount_base_units",
    "received",
    "received_base_units",
    "recipient",
    "reference",
    "order_id",
    "label",
    "message",
    "memo",
    "created_at",
    "expires_at",
    "settled_at",
)
COLUMNS: Final = (
    *_PLAIN,
    "symbol",
    "mint",
    "review",
    "signatures",
    "metadata",
    "provider",
    "charges",
)


def add_to(commands: Commands) -> None:
    """Adds both commands."""
    listing = commands.add("list", Command(_list), "list payments", _LIST, as_json=True)
    _add_filters(listing)
    add_limit(listing, _LIST_DEFAULT, _LIST_MAX)
    export = commands.add("export", Command(_export), "payments as CSV", _EXPORT)
    _add_filters(export)
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="replaced once complete (default: print)"
    )


def _add_filters(parser: ArgumentParser) -> None:
    parser.add_argument("--status", type=Status, choices=list(Status), help="only these")
    parser.add_argument("--order-id", metavar="ID", help="only of this order")
    parser.add_argument("--reference", metavar="KEY", help="only with this reference")
    parser.add_argument(
        "--created-after",
        type=typed.unix_s,
        metavar="TIME",
        help="only newer; RFC 3339 with a zone",
    )


async def _list(arguments: Namespace, settings: Settings) -> int:
    rows = []
    async with database_of(settings) as database:
        async for record in _records(database, arguments, arguments.limit):
            if arguments.json:
                print_json(payment_body(record, private=True))
            else:
                rows.append(_row(record))
    if not arguments.json:
        print_table(("created_at", "id", "status", "paid", "amount", "received", "order_id"), rows)
    return 0


async def _export(arguments: Namespace, settings: Settings) -> int:
    with _target(arguments.output) as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        async with database_of(settings) as database:
            async for record in _records(database, arguments, sys.maxsize):
                writer.writerow(_cells(record))
    return 0


async def _records(
    database: Database, arguments: Namespace, limit: int
) -> AsyncIterator[AnyRecord]:
    """What the filters let through, the newest first, `limit` in all."""
    before: tuple[int, str] | None = None
    while limit > 0:
        page = await everything.page(
            database,
            status=arguments.status,
            order_id=arguments.order_id,
            reference=arguments.reference,
            created_after=arguments.created_after,
            before=before,
            limit=min(_PAGE_SIZE, limit),
        )
        for record in page:
            yield record
        if len(page) < _PAGE_SIZE:
            return
        limit -= len(page)
        last = page[-1].payment.terms
        before = (last.created_at, last.id)


def _row(record: AnyRecord) -> list[str]:
    body = payment_body(record, private=True)
    marks = ["late"] * body.late + ["review"] * bool(body.review)
    return [
        body.created_at,
        body.id,
        " ".join((body.status, *marks)),
        body.paid,
        f"{body.amount} {body.token.symbol}",
        body.received,
        record.payment.order_id or "-",
    ]


def _cells(record: AnyRecord) -> list[str]:
    body = msgspec.to_builtins(payment_body(record, private=True))
    plain = ["" if body[name] is None else body[name] for name in _PLAIN]
    return [
        *(str(cell).lower() if isinstance(cell, bool) else str(cell) for cell in plain),
        body["token"]["symbol"],
        body["token"]["mint"] or "",
        " ".join(body["review"]),
        " ".join(transfer["signature"] for transfer in body["transfers"]),
        msgspec.json.encode(body["metadata"], order="sorted").decode(),
        body["provider"],
        " ".join(charge["id"] for charge in body.get("charges", ())),
    ]


@contextmanager
def _target(path: Path | None) -> Iterator[TextIO]:
    """Where an export goes. A file appears when it is complete, or stays as it was."""
    if path is None:
        yield sys.stdout
        return
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from error
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            yield stream
        partial.replace(path)
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
