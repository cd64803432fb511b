"""`replay`: examines slots, a reference or a signature again."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import Final

from indexer.cli import replay_report, typed
from indexer.cli.command import (
    Command,
    Commands,
    chain_of,
    clock,
    database_of,
    pipeline_of,
)
from indexer.cli.output import print_json, say
from indexer.cli.progress import Tell, progress
from indexer.core.ranges import Slots
from indexer.errors import AxiomError, InvalidInput
from indexer.replay import Replay
from indexer.settings import Settings
from indexer.sources.rpc import Rpc
from indexer.undertaking import Plan, Strategy, Tally
from store.database import Database


#: Requests or blocks at once.
_CONCURRENCY_DEFAULT: Final = 8
_CONCURRENCY_MAX: Final = 256

_TEXT = """
    Examines what is on the chain again, and stores what was missed. Safe at any time: beside the
    daemon, twice, killed half-way. With --dry-run it only says what it would find.

    what:
      --from-slot A --to-slot B   everything of these slots, which must be final
      --reference K               everything that carries the reference of one payment
      --signature S               one transaction

    how (--strategy, of slots):
      signatures   list what names the watch keys; few requests; what auto takes
      blocks       read every block and prove that none is missing; many requests, and the only
                   way that relies on no index of the nodes

    exit code 0: done.
    exit code 1: it failed, or transactions could not be read (they wait in `axiompay dlq list`).
    A range that was interrupted goes on with the same command and --resume.

    examples:
      axiompay replay --from-slot 447120000 --to-slot 447130000
      axiompay replay --from-slot 447120000 --to-slot 447121000 --strategy blocks --rps 20
      axiompay replay --signature <signature> --dry-run
      axiompay replay --reference <key> --json
"""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add(
        "replay", Command(_replay), "examine slots, a reference, a signature", _TEXT, as_json=True
    )
    parser.add_argument("--from-slot", type=typed.slot, metavar="A", help="the first slot")
    parser.add_argument("--to-slot", type=typed.slot, metavar="B", help="the last slot, included")
    parser.add_argument("--signature", type=typed.signature, metavar="S", help="one transaction")
    parser.add_argument("--reference", type=typed.key, metavar="K", help="of one payment")
    parser.add_argument(
        "--strategy",
        choices=("auto", *Strategy),
        default="auto",
        help="how slots are examined (default: auto)",
    )
    parser.add_argument("--dry-run", action="store_true", help="judge, and write nothing")
    parser.add_argument(
        "--resume", action="store_true", help="go on where the same range was interrupted"
    )
    _add_bounds(parser)


def _add_bounds(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--concurrency",
        type=typed.number(1, _CONCURRENCY_MAX),
        default=_CONCURRENCY_DEFAULT,
        metavar="N",
        help=f"requests at once to one endpoint (default: {_CONCURRENCY_DEFAULT})",
    )
    parser.add_argument(
        "--rps",
        type=typed.rate,
        metavar="N",
        help="requests a second to one endpoint (default and at most: AXIOM_RPC_RATE)",
    )


async def _replay(arguments: Namespace, settings: Settings) -> int:
    slots = _checked(arguments)
    bounded, began = _bounded(arguments, settings), time.monotonic()
    failure: BaseException | None = None
    async with (
        database_of(settings) as database,
        chain_of(bounded, database, fills=not arguments.dry_run) as rpc,
    ):
        with progress("slots") as tell:
            replay = _replay_of(arguments, database, rpc, _Shown(tell))
            try:
                await _run(arguments, replay, slots)
            except (AxiomError, asyncio.CancelledError) as error:
                failure = error
    report, seconds = replay.report, round(time.monotonic() - began, 3)
    if report is not None:
        if arguments.json:
            print_json(replay_report.as_json(report, seconds, failure))
        elif failure is None:
            replay_report.show(report, seconds)
        if failure is not None or not report.complete:
            say(replay_report.what_is_left(report, failure))
    if failure is not None:
        raise failure
    return 0 if report is None or report.complete else 1


def _replay_of(arguments: Namespace, database: Database, rpc: Rpc, shown: "_Shown") -> Replay:
    return Replay(
        database,
        rpc,
        pipeline_of(database, rpc),
        clock=clock,
        concurrency=arguments.concurrency,
        on_plan=shown.plan,
        on_progress=shown.tally,
    )


async def _run(arguments: Namespace, replay: Replay, slots: Slots | None) -> None:
    if arguments.signature is not None:
        await replay.signature(arguments.signature, dry_run=arguments.dry_run)
    elif slots is None:
        await replay.reference(arguments.reference, dry_run=arguments.dry_run)
    else:
        chosen = arguments.strategy
        await replay.slots(
            slots,
            # Watch keys are indexed wherever signatures are listed at all.
            Strategy.SIGNATURES if chosen == "auto" else Strategy(chosen),
            dry_run=arguments.dry_run,
            resume=arguments.resume,
        )


def _bounded(arguments: Namespace, settings: Settings) -> Settings:
    """The settings, with the tighter of two bounds on requests; a rate of 0 is none."""
    rates = [rate for rate in (settings.rpc_rate, arguments.rps) if rate]
    return replace(
        settings,
        rpc_concurrency=min(settings.rpc_concurrency, arguments.concurrency),
        rpc_rate=min(rates, default=0),
    )


# ------------------------------------------------------------------------------- what is asked


def _checked(arguments: Namespace) -> Slots | None:
    """The range; None where a signature or a reference is asked for.

    Raises:
        InvalidInput: it is not exactly one of the three, or something does not go with it.
    """
    first, last = arguments.from_slot, arguments.to_slot
    ways = [first is not None or last is not None]
    ways += [arguments.signature is not None, arguments.reference is not None]
    if sum(ways) != 1:
        raise InvalidInput(
            "replay", "give --from-slot and --to-slot, or --signature, or --reference"
        )
    if not ways[0]:
        if arguments.strategy == Strategy.BLOCKS:
            raise InvalidInput("--strategy", "blocks needs --from-slot and --to-slot")
        if arguments.resume:
            raise InvalidInput("--resume", "only slots are resumed; the others begin anew")
        return None
    if first is None or last is None:
        raise InvalidInput("replay", "--from-slot and --to-slot go together")
    if first > last:
        raise InvalidInput("--to-slot", f"slot {last} comes before --from-slot {first}")
    if arguments.resume and arguments.dry_run:
        raise InvalidInput("--resume", "a dry run records nothing that could be resumed")
    return Slots(first, last)


# ------------------------------------------------------------------------------- on its way


class _Shown:
    """The plan, then how far it is."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._total = 1
        self._before = 0
        self._began = time.monotonic()

    def plan(self, plan: Plan) -> None:
        keys = f"{len(plan.keys)} keys"
        if plan.strategy is Strategy.BLOCKS:
            keys += f" and {plan.references} references"
        run = "" if plan.run is None else f" (run {plan.run})"
        say(
            f"{plan.strategy}{run}: slots {plan.from_slot} to {plan.slots.last} "
            f"({plan.slots.last - plan.from_slot + 1}), {keys}, "
            f"at least {plan.calls} requests and those for what is found"
        )
        self._total = len(plan.slots)
        self._before = plan.from_slot - plan.slots.first
        self._began = time.monotonic()

    def tally(self, tally: Tally) -> None:
        seconds = max(time.monotonic() - self._began, 1e-3)
        note = f"{tally.examined} examined"
        if tally.transactions:
            note = f"{tally.transactions / seconds:.0f} tx/s, {note}"
        self._tell(tally.slots - self._before, self._total - self._before, note)
