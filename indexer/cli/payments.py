"""`payments`: what the API offers to merchants, for a person at the machine.

Works on the store and the chain directly, with the rules that the API applies too; no server
has to run.
"""

import re
import secrets
import sys
import time
from argparse import ArgumentTypeError, Namespace
from datetime import datetime
from typing import Final

from api.chain import Accounts
from api.presentation import payment_body
from indexer.cli.command import Command, Commands, bounds_of, clock, database_of
from indexer.cli.output import print_fields, print_json, print_table
from indexer.core import creation, events, settle
from indexer.core.creation import NewPayment, Policy
from indexer.core.types import Status
from indexer.daemon import the_watch_key
from indexer.errors import Conflict, InvalidInput
from indexer.settings import Settings
from indexer.sources.rpc import Rpc
from store import payments
from store.database import Database
from store.payments import Record


_ID_BYTES: Final = 16
_REFERENCE_BYTES: Final = 32
_CANCEL_TRIES_MAX: Final = 5
_LIST_DEFAULT: Final = 20
_LIST_MAX: Final = 1_000

_ID: Final = re.compile(r"pay_[0-9a-z]{26}", re.ASCII)

_CREATE = """
    Stores a payment and prints it, with the Solana Pay URL to show to the payer.

    examples:
      axiompay payments create 12.5 USDC --label "Coffee House" --order-id 1042
      axiompay payments create 0.1 SOL --recipient <wallet> --expires-in-s 3600
      axiompay payments create 5 USDC --metadata table=7 --metadata waiter=ada --json
      axiompay payments create 5 USDC --reference <key>      its URL was made elsewhere
"""
_SHOW = """
    One payment: what was asked for, where it stands, and the transfers that pay it.

    example:
      axiompay payments show pay_01jd0000000000000000000000 --json
"""
_LIST = """
    Payments, the newest first. With --json one object on each line.

    examples:
      axiompay payments list --status pending
      axiompay payments list --created-after 2026-11-22T00:00:00Z --limit 500 --json
      axiompay payments list --reference <key>
"""
_CANCEL = """
    Takes an offer back; only while nobody has begun to pay.

    example:
      axiompay payments cancel pay_01jd0000000000000000000000
"""


def add_to(commands: Commands) -> None:
    """Adds create, show, list and cancel."""
    create = commands.add(
        "create", Command(_create), "make a payment and its URL", _CREATE, as_json=True
    )
    create.add_argument("amount", metavar="AMOUNT", help="decimal, in units of the token")
    create.add_argument("token", metavar="TOKEN", help="a symbol or a mint of AXIOM_TOKENS")
    create.add_argument("--recipient", metavar="KEY", help="who is paid (AXIOM_RECIPIENT)")
    create.add_argument("--label", help="who asks, as the wallet shows it")
    create.add_argument("--message", help="what for, as the wallet shows it")
    create.add_argument("--memo", help="written to the chain, for everyone to read")
    create.add_argument("--expires-in-s", type=int, metavar="S", help="seconds (AXIOM_EXPIRES_IN_S)")
    create.add_argument("--order-id", metavar="ID", help="your own number")
    create.add_argument(
        "--metadata",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="your own notes; may be repeated",
    )
    create.add_argument(
        "--reference", metavar="KEY", help="of a URL that was made elsewhere; each key once"
    )
    show = commands.add("show", Command(_show), "show one payment", _SHOW, as_json=True)
    show.add_argument("id", metavar="ID", type=_id)
    listing = commands.add("list", Command(_list), "list payments", _LIST, as_json=True)
    add_filters(listing.add_argument)
    listing.add_argument(
        "--limit", type=_limit, default=_LIST_DEFAULT, help=f"at most (default: {_LIST_DEFAULT})"
    )
    cancel = commands.add("cancel", Command(_cancel), "take an offer back", _CANCEL, as_json=True)
    cancel.add_argument("id", metavar="ID", type=_id)


def add_filters(add_argument: Callable[..., object]) -> None:
    """The filters of `list` and `export`."""
    add_argument("--status", type=Status, choices=list(Status), help="only these")
    add_argument("--order-id", metavar="ID", help="only of this order")
    add_argument("--reference", metavar="KEY", help="only with this reference")
    add_argument(
        "--created-after", type=_unix_s, metavar="TIME", help="only newer; RFC 3339 with a zone"
    )


async def pages(
    database: Database, arguments: Namespace, limit: int, size: int
) -> AsyncIterator[list[Record]]:
    """What the filters let through, newest first, a page at a time; `limit` in all."""
    before: tuple[int, str] | None = None
    while limit > 0:
        records = await payments.page(
            database,
            status=arguments.status,
            order_id=arguments.order_id,
            reference=arguments.reference,
            created_after=arguments.created_after,
            before=before,
            limit=min(size, limit),
        )
        if not records:
            return
        yield records
        limit -= len(records)
        last = records[-1].payment.terms
        before = (last.created_at, last.id)
