"""`payments restore`: payments that a restored database has lost, from what others kept of them."""

import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from api.chain import Accounts
from indexer.cli.command import Command, CommandFailed, Commands, chain_of, clock, database_of
from indexer.cli.output import plain, say
from indexer.core import creation, ids
from indexer.core.account import is_key
from indexer.core.creation import NewPayment, Policy
from indexer.core.payment import Payment
from indexer.core.types import Provider, Status
from indexer.errors import InvalidInput
from indexer.settings import Settings
from store import restoring, watch_keys


_TEXT = """
    Puts back payments that were created after the backup that the database was restored from.
    FILE has a JSON object on each line: what `payments list --json` printed, what POST /api/pay
    answered, or the body of a `payment.created` webhook that a receiver kept. Each gets the id,
    the reference and the watch key that it had; the daemon then finds on the chain what was paid.

    Payments that are there already are passed over. If one line cannot be used, the numbers of all
    such lines are told and nothing is changed, unless --skip-bad is given. A webhook's body has no
    order_id and no metadata, and so has the payment then, unless another line tells them. None
    tells how long after its end late money settles by itself: that is as it is configured now.

    examples:
      axiompay payments restore kept.jsonl
      axiompay payments restore kept.jsonl --skip-bad
"""
#: Bytes of the file, and characters of one line.
FILE_BYTES_MAX: Final = 256 * 1024 * 1024
LINE_CHARS_MAX: Final = 64 * 1024
_LINES_SHOWN_MAX: Final = 50
#: Seconds by which the clock that made the payment may be ahead.
_AHEAD_S_MAX: Final = 60
_LOST: Final = frozenset({Status.CANCELED, Status.FAILED, Status.REFUNDED})


class _Token(msgspec.Struct):
    symbol: str
    mint: str | None
    decimals: int


class _Line(msgspec.Struct, kw_only=True):
    id: str
    status: str
    amount: str
    amount_base_units: str
    token: _Token
    recipient: str | None
    reference: str | None
    created_at: datetime
    expires_at: datetime
    provider: str = Provider.SOLANA.value
    url: str | None = None
    memo: str | None = None
    label: str | None = None
    message: str | None = None
    order_id: str | None = None
    metadata: dict[str, str] = {}


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add("restore", Command(_restore), "put lost payments back", _TEXT)
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON, a payment on each line")
    parser.add_argument("--skip-bad", action="store_true", help="put the others back all the same")


async def _restore(arguments: Namespace, settings: Settings) -> int:
    lines, now = _lines(arguments.file), int(clock())
    async with database_of(settings) as database, chain_of(settings, database) as rpc:
        accounts = Accounts(rpc, (), time.monotonic)
        keys = await watch_keys.listing(database)
        policy = settings.policy(keys[0].key if keys else "")
        lost: dict[str, Payment] = {}
        references: dict[str, str] = {}
        bad, there = [], 0
        for number, text in lines:
            try:
                payment = await read(text, policy, accounts, now=now)
                known = await restoring.look(database, payment)
                _refuse_contradiction(payment, known.contradiction, lost, references)
            except InvalidInput as error:
                bad.append(f"line {number}: {plain(str(error)):.200}")
                continue
            there += known.is_there
            if not known.is_there:
                earlier = lost.get(payment.terms.id, payment)
                lost[payment.terms.id] = max(earlier, payment, key=_told)
                references[payment.terms.reference] = payment.terms.id
        for sentence in bad[:_LINES_SHOWN_MAX]:
            say(sentence)
        if bad and not arguments.skip_bad:
            raise CommandFailed(f"{len(bad)} lines cannot be used: nothing was changed")
        await restoring.put_back(database, list(lost.values()), now=now)
    print(f"{len(lost)} payments put back, {there} were there, {len(bad)} lines left out")
    return 1 if bad else 0


def _refuse_contradiction(
    payment: Payment, stored: str | None, lost: dict[str, Payment], references: dict[str, str]
) -> None:
    terms = payment.terms
    if stored is not None:
        raise InvalidInput(terms.id, stored)
    other = lost.get(terms.id)
    # A webhook's body has no URL, and so no watch key.
    if other is not None and replace(other.terms, watch_key=terms.watch_key) != terms:
        raise InvalidInput(terms.id, "an earlier line tells it otherwise")
    if references.get(terms.reference, terms.id) != terms.id:
        raise InvalidInput(terms.id, "an earlier line has its reference")


def _told(payment: Payment) -> tuple[bool, bool, int]:
    """How much a line tells of its payment; of two the one that tells more is taken."""
    terms = payment.terms
    return terms.watch_key is not None, payment.order_id is not None, len(payment.metadata)


async def read(text: str, policy: Policy, accounts: Accounts, *, now: int) -> Payment:
    """The payment of one line, as it was created, checked as a new one is.

    Raises:
        InvalidInput: the line is none, is incomplete, or tells what cannot be.
        SourceError: the chain does not say what its addresses are.
    """
    line = _parsed(text)
    created_at, expires_at = _times(line, now)
    watch_key = _watch_key(line)
    asked = NewPayment(
        amount=line.amount,
        token=line.token.mint or line.token.symbol,
        recipient=line.recipient,
        label=line.label,
        message=line.message,
        memo=line.memo,
        expires_in_s=expires_at - created_at,
        metadata=line.metadata,
        order_id=line.order_id,
    )
    policy = replace(policy, watch_key=watch_key or "")
    payment, _ = creation.create(
        asked,
        policy,
        await accounts.read(creation.keys_to_read(asked, policy)),
        rent_exempt_minimum=await accounts.rent_exempt_minimum(),
        id=line.id,
        fresh_reference=line.reference or "",
        now=created_at,
    )
    if str(payment.terms.amount) != line.amount_base_units:
        raise InvalidInput("amount_base_units", "is not the amount")
    return replace(payment, terms=replace(payment.terms, watch_key=watch_key))


def _parsed(text: str) -> _Line:
    try:
        body: Any = msgspec.json.decode(text)
        for name in ("data", "payment"):
            if isinstance(body, dict) and isinstance(body.get(name), dict):
                body = body[name]
        line = msgspec.convert(body, _Line)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput("", f"is no payment: {error}") from error
    if line.provider != Provider.SOLANA:
        raise InvalidInput("provider", "only payments on the chain can be put back")
    if line.status in _LOST:
        raise InvalidInput("status", f"is {line.status}: it would wait for money again")
    if not ids.PAYMENT_ID.fullmatch(line.id):
        raise InvalidInput("id", "is none of a payment")
    keys = (line.reference, line.recipient)
    if not all(key is not None and is_key(key) for key in keys) or len(set(keys)) < len(keys):
        raise InvalidInput("reference", "and recipient must be two keys")
    return line


def _times(line: _Line, now: int) -> tuple[int, int]:
    if line.created_at.tzinfo is None or line.expires_at.tzinfo is None:
        raise InvalidInput("created_at", "and expires_at must have a zone")
    created_at, expires_at = int(line.created_at.timestamp()), int(line.expires_at.timestamp())
    if not 0 < created_at <= now + _AHEAD_S_MAX:
        raise InvalidInput("created_at", "is not in the past")
    return created_at, expires_at


def _watch_key(line: _Line) -> str | None:
    """The second reference of its URL; None: the URL is not known, or has none."""
    if line.url is None:
        return None
    try:
        found = parse_qs(urlsplit(line.url).query).get("reference", [])
    except ValueError as error:
        raise InvalidInput("url", f"is no Solana Pay URL: {error}") from error
    if not found or found[0] != line.reference:
        raise InvalidInput("url", "does not carry the reference first")
    if len(found) == 1:
        return None
    if len(found) > 2 or not is_key(found[1]) or found[1] in {line.reference, line.recipient}:
        raise InvalidInput("url", "carries something that is no watch key")
    return found[1]


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise InvalidInput("FILE", f"is larger than {FILE_BYTES_MAX} bytes: split it")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("FILE", f"cannot be read: {error}") from error
    return list(_numbered(text))


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > LINE_CHARS_MAX:
            raise InvalidInput("FILE", f"line {number} is too long to be a payment")
        if line.strip():
            yield number, line
