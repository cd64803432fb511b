"""`gaps`: slots in which something may have been missed, and having them examined now."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Final

from indexer.cli.command import (
    Command,
    Commands,
    chain_of,
    clock,
    database_of,
    pipeline_of,
)
from indexer.cli.output import print_json, print_table, say
from indexer.cli.progress import progress
from indexer.core.events import format_time
from indexer.core.ranges import Slots, merged
from indexer.errors import SourceError
from indexer.replay import Replay, ReplayRefused
from indexer.settings import Settings
from indexer.sources.rpc import Rpc
from indexer.undertaking import Strategy, Tally
from store import gaps
from store.database import Database
from store.gaps import Gap


#: Gaps that are listed or repaired at once.
_GAPS_MAX: Final = 10_000
#: Requests at once.
_CONCURRENCY: Final = 8

_LIST = """
    Slots in which something may have been missed, and why: the daemon was not running (start),
    a connection was lost (reconnect), notifications came too fast (overflow), or no endpoint
    keeps the slots any more (pruned). Sweeps close all but the last kind by themselves.

    examples:
      axiompay gaps list
      axiompay gaps list --all --json      also those that are closed, the newest first
"""
_REPAIR = """
    Examines the slots of every open gap now, and closes it. What is not final yet is left to the
    daemon. Exit code 1 when a gap stays open.

    examples:
      axiompay gaps repair
      axiompay gaps repair --strategy blocks      relies on no index of the nodes
"""


def add_to(commands: Commands) -> None:
    """Adds both commands."""
    listing = commands.add("list", Command(_list), "list them", _LIST, as_json=True)
    listing.add_argument("--all", action="store_true", help="also those that are closed")
    repair = commands.add("repair", Command(_repair), "examine and close them", _REPAIR)
    repair.add_argument(
        "--strategy",
        type=Strategy,
        choices=list(Strategy),
        default=Strategy.SIGNATURES,
        help="how (default: signatures)",
    )


async def _list(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database:
        found = await gaps.listing(database, _GAPS_MAX, only_open=not arguments.all)
    if arguments.json:
        for gap in found:
            print_json(_shown(gap))
        return 0
    heads = ("key", "first_slot", "last_slot", "reason", "source", "opened_at", "closed_at")
    shown = [_shown(gap) for gap in found]
    print_table(heads, [[_cell(row[head]) for head in heads] for row in shown])
    return 0


async def _repair(arguments: Namespace, settings: Settings) -> int:
    async with database_of(settings) as database, chain_of(settings, database) as rpc:
        found = await gaps.listing(database, _GAPS_MAX, only_open=True)
        finalized = await rpc.finalized_slot()
        for slots in _final(found, finalized):
            say(f"examining slots {slots.first} to {slots.last}")
            await _examine(arguments.strategy, database, rpc, slots)
        left = await gaps.listing(database, _GAPS_MAX, only_open=True)
    ids = {gap.id for gap in left}
    say(f"closed {sum(gap.id not in ids for gap in found)} of {len(found)} gaps")
    for gap in left:
        say(f"open: slots {gap.slots.first} to {gap.slots.last} of {gap.key} ({gap.reason})")
    return 1 if left else 0


async def _examine(strategy: Strategy, database: Database, rpc: Rpc, slots: Slots) -> None:
    """One range; what cannot be examined is said, and the next one gets its turn."""
    with progress("slots") as tell:

        def told(tally: Tally) -> None:
            tell(tally.slots, len(slots))

        replay = Replay(
            database,
            rpc,
            pipeline_of(database, rpc),
            clock=clock,
            concurrency=_CONCURRENCY,
            on_progress=told,
        )
        try:
            await replay.slots(slots, strategy, dry_run=False, resume=True)
        except (ReplayRefused, SourceError) as error:
            say(str(error))


def _final(found: Sequence[Gap], finalized: int) -> list[Slots]:
    """The slots of all gaps, as far as they are final."""
    ranges = [gap.slots for gap in found if gap.slots.first <= finalized]
    return merged(Slots(each.first, min(each.last, finalized)) for each in ranges)


def _shown(gap: Gap) -> dict[str, Any]:
    return {
        "key": gap.key,
        "first_slot": gap.slots.first,
        "last_slot": gap.slots.last,
        "reason": gap.reason,
        "source": gap.source,
        "opened_at": format_time(gap.opened_at),
        "closed_at": None if gap.closed_at is None else format_time(gap.closed_at),
    }


def _cell(value: str | int | None) -> str:
    return "-" if value is None or value == "" else str(value)
