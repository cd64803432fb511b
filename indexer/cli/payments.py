"""`payments create`, `show` and `cancel`: the merchant's side, for a person at the machine.

Works on the store, and on the chain or Paymob, directly, with the rules that the API applies too;
no server has to run.
"""

import time
from argparse import ArgumentTypeError, Namespace

from api import cards, offers
from api.chain import Accounts
from api.presentation import payment_body
from api.schema import CUSTOMER_FIELDS, ChargeBody, PaymentBody
from api.watch_keys import WatchKeys
from indexer.cli.command import Command, CommandFailed, Commands, bounds_of, clock, database_of
from indexer.cli.output import print_fields, print_json, say
from indexer.core.card_creation import Customer
from indexer.core.creation import NewPayment, Policy
from indexer.core.ids import PAYMENT_ID
from indexer.core.types import Provider, Status
from indexer.daemon import ensure_watch_key
from indexer.errors import Conflict, InvalidInput, StoreUnavailable
from indexer.settings import Settings
from indexer.sources.paymob import Paymob
from indexer.sources.paymob_wire import Account
from indexer.sources.rpc import Rpc
from store import everything
from store.database import Database
from store.everything import AnyRecord


_CREATE = """
    Stores a payment and prints it, with the Solana Pay URL to show to the payer, or with the
    page at Paymob to send a customer to who pays by card.

    examples:
      axiompay payments create 12.5 USDC --label "Coffee House" --order-id 1042
      axiompay payments create 0.1 SOL --recipient <wallet> --expires-in-s 3600
      axiompay payments create 5 USDC --metadata table=7 --metadata waiter=ada --json
      axiompay payments create 5 USDC --reference <key>      its URL was made elsewhere
      axiompay payments create 50 EGP --provider paymob --customer email=amal@example.com
"""
_SHOW = """
    One payment: what was asked for, where it stands, and the transfers or charges that pay it.

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
    create.add_argument(
        "token", metavar="TOKEN", help="a symbol or a mint of AXIOM_TOKENS; by card the currency"
    )
    create.add_argument(
        "--provider",
        choices=[provider.value for provider in Provider],
        default=Provider.SOLANA.value,
        help="who moves the money (default: solana)",
    )
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
    create.add_argument(
        "--customer",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"who pays by card: {', '.join(CUSTOMER_FIELDS)}; not kept",
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
    customer = _customer(dict(arguments.customer))
    record: AnyRecord
    async with database_of(settings) as database:
        if arguments.provider == Provider.PAYMOB:
            record = await _create_by_card(database, settings, asked, customer)
        elif arguments.customer:
            raise InvalidInput("--customer", "is for payments by card: --provider paymob")
        else:
            record = await _create_on_chain(database, settings, asked)
    print_record(record, as_json=arguments.json)
    return 0


async def _create_by_card(
    database: Database, settings: Settings, asked: NewPayment, customer: Customer
) -> AnyRecord:
    if not settings.takes_cards:
        raise InvalidInput("--provider", "paymob is not set up: see AXIOM_PAYMOB_… in .env.example")
    policy = await _policy(database, settings)
    async with Paymob(Account.of(settings)) as desk:
        made = await cards.make(
            desk, policy, asked, customer, id=offers.fresh_id(), now=int(clock())
        )
    await database.write(made.statements)
    return made.record


async def _create_on_chain(database: Database, settings: Settings, asked: NewPayment) -> AnyRecord:
    policy = await _policy(database, settings)
    async with Rpc(settings.rpc_urls, bounds=bounds_of(settings)) as rpc:
        made = await offers.make(Accounts(rpc, (), time.monotonic), policy, asked, clock=clock)
    try:
        await database.write(made.statements)
    except Conflict as error:
        # The id is 128 random bits: what is taken is the reference that was given.
        raise InvalidInput(
            "--reference", f"{asked.reference} belongs to another payment already"
        ) from error
    for warning in made.warnings:
        say(f"warning: {warning}")
    return made.record


async def _policy(database: Database, settings: Settings) -> Policy:
    """With a shared watch key, which is made where no daemon has come to it yet."""
    await ensure_watch_key(database, settings, clock)
    known = WatchKeys(database, settings.policy, monotonic=time.monotonic)
    return await known.policy()


def _customer(given: dict[str, str]) -> Customer:
    for name in given:
        if name not in CUSTOMER_FIELDS:
            known = ", ".join(CUSTOMER_FIELDS)
            raise InvalidInput("--customer", f"{name!r} is no field of a customer: {known}")
    return Customer(**given)


async def _show(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        record = await _found(database, arguments.id)
    print_record(record, as_json=arguments.json)
    return 0


async def _cancel(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        try:
            taken_back = await offers.take_back(database, arguments.id, clock=clock)
        except Conflict as error:
            raise StoreUnavailable(f"{error}; try again") from error
    if taken_back is None:
        raise _no_such_payment(arguments.id)
    record, _ = taken_back
    status = record.payment.state.status
    if status is not Status.CANCELED:
        raise CommandFailed(f"{arguments.id} is {status}; only a pending payment can be canceled")
    print_record(record, as_json=arguments.json)
    return 0


async def _found(database: Database, id_: str) -> AnyRecord:
    record = await everything.get(database, id_)
    if record is None:
        raise _no_such_payment(id_)
    return record


def _no_such_payment(id_: str) -> CommandFailed:
    return CommandFailed(f"there is no payment {id_}; see `axiompay payments list`")


def print_record(record: AnyRecord, *, as_json: bool) -> None:
    """One payment, in full."""
    body = payment_body(record, private=True)
    if as_json:
        print_json(body)
        return
    state = [str(body.status), f"paid: {body.paid}"]
    state += ["late"] if body.late else []
    state += [f"review: {', '.join(body.review)}"] if body.review else []
    keys = {"recipient": body.recipient, "reference": body.reference}
    urls = {"url": body.url, "checkout_url": body.checkout_url}
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
            ("provider", body.provider),
            *((name, value) for name, value in keys.items() if value is not None),
            ("created_at", body.created_at),
            ("expires_at", body.expires_at),
            *((name, value) for name, value in optional.items() if value is not None),
            *((f"metadata {key}", value) for key, value in record.payment.metadata.items()),
            *(
                ("transfer", f"{t.amount} {body.token.symbol}, {t.commitment}, {t.signature}")
                for t in body.transfers
            ),
            *(("charge", _charge_line(each, body)) for each in body.charges or ()),
            *((name, value) for name, value in urls.items() if value is not None),
        ]
    )


def _charge_line(charge: ChargeBody, body: PaymentBody) -> str:
    back = f", {charge.refunded} of it refunded" if charge.refunded != "0" else ""
    return f"{charge.amount} {body.token.symbol}, {charge.state}{back}, {charge.id}"


def payment_id(text: str) -> str:
    """An argument that has the form of a payment's id."""
    if not PAYMENT_ID.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is no payment id: pay_ and 26 characters")
    return text


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value
