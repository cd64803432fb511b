"""`dlq`: transactions that could not be examined, and what to do with them."""

import base64
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Final

from indexer.batches import in_batches
from indexer.cli.command import (
    Command,
    CommandFailed,
    Commands,
    Voice,
    add_limit,
    chain_of,
    clock,
    database_of,
    pipeline_of,
)
from indexer.cli.output import plain, print_fields, print_json, print_table, say
from indexer.core.amounts import format_amount
from indexer.core.events import format_time
from indexer.errors import InvalidInput
from indexer.log import get_logger
from indexer.pipeline import Found, Unread
from indexer.settings import Settings
from indexer.sources.priority import Priority, at
from indexer.sources.rpc import Rpc
from store import dead_letters
from store.database import Database
from store.dead_letters import DeadLetter, Outcome


log = get_logger(__name__)

#: Letters that are listed, unless more are asked for, and at most.
_LIST_DEFAULT: Final = 100
_LIST_MAX: Final = 100_000

_LIST = """
    Transactions of which nothing could be learned, the newest first. They are tried again by
    themselves at `next_try_at`; where that is empty, nobody could read them, and they wait for
    a person.

    examples:
      axiompay dlq list
      axiompay dlq list --json
"""
_SHOW = """
    Everything that is known of one of them, with the answer that could not be read.

    example:
      axiompay dlq show <signature>
"""
_RETRY = """
    Tries now, whether they are due or not, and says what came of it. Exit code 1 when one of
    them still cannot be read.

    examples:
      axiompay dlq retry <signature> <signature>
      axiompay dlq retry --all
"""
_DROP = """
    Takes one away for good, and prints all of it as JSON. If it paid something, nobody will
    know: the sweeps have passed it. `axiompay dlq retry` is what is wanted nearly always.

    example:
      axiompay dlq drop <signature> >> dropped.jsonl
"""


def add_to(commands: Commands) -> None:
    """Adds the four commands."""
    listing = commands.add("list", Command(_list), "list them", _LIST, as_json=True)
    add_limit(listing, _LIST_DEFAULT, _LIST_MAX)
    show = commands.add("show", Command(_show), "show one", _SHOW, as_json=True)
    show.add_argument("signature", metavar="SIGNATURE")
    retry = commands.add("retry", Command(_retry), "try again now", _RETRY, as_json=True)
    retry.add_argument("signatures", metavar="SIGNATURE", nargs="*")
    retry.add_argument("--all", action="store_true", help="every one there is")
    drop = commands.add("drop", Command(_drop, Voice.TELLS), "take one away for good", _DROP)
    drop.add_argument("signature", metavar="SIGNATURE")


async def _list(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        letters = await dead_letters.listing(database, arguments.limit)
        count = await dead_letters.count(database)
    now = int(clock())
    if arguments.json:
        for letter in letters:
            print_json(_head(letter, now))
        return 0
    heads = ("signature", "reason", "attempts", "age", "next try", "detail")
    print_table(heads, [_row(letter, now) for letter in letters])
    if count > len(letters):
        say(f"{count - len(letters)} more; see --limit")
    return 0


async def _show(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        letter = await _found(database, arguments.signature)
    if arguments.json:
        print_json(_whole(letter, int(clock())))
        return 0
    head = _head(letter, int(clock()))
    print_fields(
        [(name, "-" if value is None else plain(str(value))) for name, value in head.items()]
    )
    if letter.payload is not None:
        print()
        print(plain(letter.payload.decode(errors="backslashreplace"), of_lines=True))
    return 0


async def _retry(arguments: Namespace, settings: Settings) -> int:
    if bool(arguments.signatures) == arguments.all:
        raise InvalidInput("dlq retry", "name signatures, or --all for every one there is")
    async with database_of(settings) as database, chain_of(settings, database) as rpc:
        if arguments.all:
            letters = await dead_letters.listing(database, _LIST_MAX)
        else:
            names = dict.fromkeys(arguments.signatures)
            letters = [await _found(database, signature) for signature in names]
        with at(Priority.REPLAY):
            unread = await _retried(database, rpc, letters)
        outcomes = await dead_letters.outcomes(database, [letter.signature for letter in letters])
    for letter in letters:
        _tell(letter, unread.get(letter.signature), outcomes, as_json=arguments.json)
    return 1 if unread else 0


async def _drop(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        letter = await _found(database, arguments.signature)
        # Printed before it goes: should nobody be able to read it, it is still there.
        print_json(_whole(letter, int(clock())))
        sys.stdout.flush()
        dropped = await dead_letters.drop(database, arguments.signature)
    if dropped is not None:
        log.warning(
            "dead_letter.dropped",
            signature=dropped.signature,
            reason=dropped.reason,
            attempts=dropped.attempts,
        )
    return 0


async def _found(database: Database, signature: str) -> DeadLetter:
    letter = await dead_letters.get(database, signature)
    if letter is None:
        raise CommandFailed(f"there is no dead letter {signature!r}; see `axiompay dlq list`")
    return letter


# ------------------------------------------------------------------------------------ trying


async def _retried(database: Database, rpc: Rpc, letters: list[DeadLetter]) -> dict[str, Unread]:
    """Takes them down the road that every signature takes; what still cannot be read."""
    pipeline = pipeline_of(database, rpc)
    unread: dict[str, Unread] = {}

    async def retry(batch: Sequence[DeadLetter]) -> None:
        for each in await pipeline.settle([Found.parked(letter) for letter in batch]):
            unread[each.found.signature] = each

    await in_batches(letters, retry)
    return unread


def _tell(
    letter: DeadLetter, unread: Unread | None, outcomes: list[Outcome], *, as_json: bool
) -> None:
    paid = [outcome for outcome in outcomes if outcome.signature == letter.signature]
    if as_json:
        print_json(
            {
                "signature": letter.signature,
                "read": unread is None,
                "reason": None if unread is None else unread.reason,
                "detail": None if unread is None else unread.detail,
                "payments": [
                    {"id": o.payment_id, "credit_base_units": str(o.credit), "status": o.status}
                    for o in paid
                ],
            }
        )
    elif unread is not None:
        print(f"{letter.signature}  still not read: {unread.reason}: {plain(unread.detail)}")
    elif not paid:
        print(f"{letter.signature}  read: it concerns no payment")
    for outcome in () if as_json or unread is not None else paid:
        amount = f"{format_amount(outcome.credit, outcome.decimals)} {outcome.symbol}"
        print(f"{letter.signature}  read: {amount} for {outcome.payment_id}, now {outcome.status}")


# ----------------------------------------------------------------------------------- showing


def _row(letter: DeadLetter, now: int) -> tuple[str, ...]:
    next_try = "-" if letter.next_try_at is None else f"in {max(0, letter.next_try_at - now)} s"
    return (
        letter.signature,
        letter.reason,
        str(letter.attempts),
        f"{max(0, now - letter.created_at)} s",
        next_try,
        plain(letter.detail),
    )


def _head(letter: DeadLetter, now: int) -> dict[str, Any]:
    """All but the payload."""
    next_try_at = letter.next_try_at
    return {
        "signature": letter.signature,
        "reason": letter.reason,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "age_s": max(0, now - letter.created_at),
        "next_try_at": None if next_try_at is None else format_time(next_try_at),
        "slot": letter.slot,
        "key": letter.key,
        "created_at": format_time(letter.created_at),
        "updated_at": format_time(letter.updated_at),
        "payload_bytes": None if letter.payload is None else len(letter.payload),
    }


def _whole(letter: DeadLetter, now: int) -> dict[str, Any]:
    """All of it: the payload as text where it is some, and byte for byte."""
    payload = letter.payload
    text = None if payload is None else payload.decode(errors="replace")
    exact = None if payload is None else base64.b64encode(payload).decode()
    return _head(letter, now) | {"payload": text, "payload_base64": exact}
