"""`payments create`, `show` and `cancel`: the merchant's side, for a person at the machine.

Works on the store and the chain directly, with the rules that the API applies too; no server
has to run.
"""

import re
import secrets
import time
from argparse import ArgumentTypeError, Namespace
from dataclasses import replace
from typing import Final

from api.chain import Accounts
from api.presentation import payment_body
from indexer.cli.command import Command, CommandFailed, Commands, bounds_of, clock, database_of
from indexer.cli.output import print_fields, print_json, say
from indexer.core import creation, events, settle
from indexer.core.creation import NewPayment, Policy
from indexer.core.types import Status
from indexer.daemon import the_watch_key
from indexer.errors import Conflict, InvalidInput, StoreUnavailable
from indexer.settings import Settings
from indexer.sources.rpc import Rpc
from store import payments
from store.database import Database
from store.payments import Record


_ID_BYTES: Final = 16
_REFERENCE_BYTES: Final = 32
_CANCEL_TRIES_MAX: Final = 5

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
_CANCEL = """
    Takes an offer back; only while nobody has begun to pay.

    example:
      axiompay payments cancel pay_01jd0000000000000000000000
"""


def add_to(commands: Commands) -> None:
    """Adds create, show and cancel."""
    create = commands.add(
        "create", Command(_create), "make a payment and its URL", _CREATE, as_json=True
    )
    create.add_argument("amount", metavar="AMOUNT", help="decimal, in units of the token")
    create.add_argument("token", metavar="TOKEN", help="a symbol or a mint of AXIOM_TOKENS")
    create.add_argument("--recipient", metavar="KEY", help="who is paid (AXIOM_RECIPIENT)")
    create.add_argument("--label", help="who asks, as the wallet shows it")
    create.add_argument("--message", help="what for, as the wallet shows it")
    create.add_argument("--memo", help="written to the chain, for everyone to read")
    create.add_argument(
        "--expires-in-s", type=int, metavar="S", help="seconds (AXIOM_EXPIRES_IN_S)"
    )
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
    show.add_argument("id", metavar="ID", type=payment_id)
    cancel = commands.add("cancel", Command(_cancel), "take an offer back", _CANCEL, as_json=True)
    cancel.add_argument("id", metavar="ID", type=payment_id)


async def _create(arguments: Namespace, settings: Settings) -> int:
    asked = NewPayment(
        amount=arguments.amount,
        token=arguments.token,
        recipient=arguments.recipient,
        label=arguments.label,
        message=arguments.message,
        memo=arguments.memo,
        expires_in_s=arguments.expires_in_s,
        metadata=dict(arguments.metadata),
        order_id=arguments.order_id,
        reference=arguments.reference,
    )
    async with (
        database_of(settings) as database,
        Rpc(settings.rpc_urls, bounds=bounds_of(settings)) as rpc,
    ):
        policy = Policy(
            recipient=settings.recipient,
            tokens=settings.tokens,
            expires_in_s=settings.expires_in_s,
            grace_s=settings.late_grace_s,
            watch_key=await the_watch_key(database, settings),
        )
        chain = Accounts(rpc, (), time.monotonic)
        now = int(clock())
        payment, warnings = creation.create(
            asked,
            policy,
            await chain.read(creation.keys_to_read(asked, policy)),
            rent_exempt_minimum=await chain.rent_exempt_minimum(),
            id=creation.payment_id(secrets.token_bytes(_ID_BYTES)),
            fresh_reference=creation.reference(secrets.token_bytes(_REFERENCE_BYTES)),
            now=now,
        )
        try:
            await database.write(payments.insert(payment, events.created(payment, now)))
        except Conflict as error:
            # The id is 128 random bits: what is taken is the reference that was given.
            raise InvalidInput(
                "--reference", f"{arguments.reference} belongs to another payment already"
            ) from error
    for warning in warnings:
        say(f"warning: {warning}")
    print_record(Record(payment=payment), as_json=arguments.json)
    return 0


async def _show(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        record = await _found(database, arguments.id)
    print_record(record, as_json=arguments.json)
    return 0


async def _cancel(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        for _ in range(_CANCEL_TRIES_MAX):
            record = await _found(database, arguments.id)
            status, now = record.payment.state.status, int(clock())
            if status is Status.CANCELED:
                break
            if status is not Status.PENDING:
                raise CommandFailed(
                    f"{arguments.id} is {status}; only a pending payment can be canceled"
                )
            canceled = settle.cancel(record.payment, now, decided=record.decided)
            change = events.of_change(record.payment, canceled, now)
            try:
                await database.write(
                    payments.save(record.payment, canceled, events=change, now=now)
                )
            except Conflict:
                continue  # it has changed since it was read: decide anew
            record = replace(record, payment=canceled)
            break
        else:
            raise StoreUnavailable(f"{arguments.id} kept changing; try again")
    print_record(record, as_json=arguments.json)
    return 0


async def _found(database: Database, id_: str) -> Record:
    record = await payments.get(database, id_)
    if record is None:
        raise CommandFailed(f"there is no payment {id_}; see `axiompay payments list`")
    return record


def print_record(record: Record, *, as_json: bool) -> None:
    """One payment, in full."""
    body = payment_body(record, private=True)
    if as_json:
        print_json(body)
        return
    state = [str(body.status), f"paid: {body.paid}"]
    state += ["late"] if body.late else []
    state += [f"review: {', '.join(body.review)}"] if body.review else []
    optional = {
        "label": body.label,
        "message": body.message,
        "memo": body.memo,
        "order_id": record.payment.order_id,
        "settled_at": body.settled_at,
    }
    print_fields(
        [
            ("id", body.id),
            ("status", ", ".join(state)),
            ("amount", f"{body.amount} {body.token.symbol}"),
            ("received", f"{body.received} {body.token.symbol}"),
            ("recipient", body.recipient),
            ("reference", body.reference),
            ("created_at", body.created_at),
            ("expires_at", body.expires_at),
            *((name, value) for name, value in optional.items() if value is not None),
            *((f"metadata {key}", value) for key, value in record.payment.metadata.items()),
            *(
                ("transfer", f"{t.amount} {body.token.symbol}, {t.commitment}, {t.signature}")
                for t in body.transfers
            ),
            ("url", body.url),
        ]
    )


def payment_id(text: str) -> str:
    """An argument that has the form of a payment's id."""
    if not _ID.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is no payment id: pay_ and 26 characters")
    return text


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value
