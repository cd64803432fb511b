"""`replay`: examines slots, a reference or a signature again."""

import asyncio
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import replace
from typing import Any, Final

import base58

from indexer.cli.command import Command, Commands, chain_of, clock, database_of
from indexer.cli.output import print_fields, print_json, print_table
from indexer.cli.progress import Tell, progress
from indexer.core.outcome import Outcome, Preview
from indexer.core.ranges import Slots
from indexer.errors import AxiomError, InvalidInput
from indexer.pipeline import Pipeline
from indexer.replay import Replay
from indexer.settings import Settings
from indexer.sources.rpc import Rpc
from indexer.sweep import Sweeper
from indexer.undertaking import Plan, Report, Strategy, Tally
from store import deployment
from store.database import Database


#: What a slot column can hold.
_SLOT_MAX: Final = 2**63 - 1
#: Requests or blocks at once.
_CONCURRENCY_DEFAULT: Final = 8
_CONCURRENCY_MAX: Final = 256
#: Lines of a table; `--json` has more.
_SHOWN_MAX: Final = 200

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
    parser.add_argument("--from-slot", type=_slot, metavar="A", help="the first slot")
    parser.add_argument("--to-slot", type=_slot, metavar="B", help="the last slot, included")
    parser.add_argument("--signature", type=_signature, metavar="S", help="one transaction")
    parser.add_argument("--reference", type=_key, metavar="K", help="of one payment")
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
        type=_concurrency,
        default=_CONCURRENCY_DEFAULT,
        metavar="N",
        help=f"requests at once to one endpoint (default: {_CONCURRENCY_DEFAULT})",
    )
    parser.add_argument(
        "--rps",
        type=_rate,
        metavar="N",
        help="requests a second to one endpoint (default and at most: AXIOM_RPC_RATE)",
    )


async def _replay(arguments: Namespace, settings: Settings) -> int:
    slots = _checked(arguments)
    bounded, began = _bounded(arguments, settings), time.monotonic()
    failure: BaseException | None = None
    async with database_of(settings) as database:
        if not arguments.dry_run:
            await _know_cluster(bounded, database)
        async with chain_of(bounded, database) as rpc:
            with progress("slots") as tell:
                replay = _replay_of(arguments, database, rpc, _Shown(tell))
                try:
                    watch_key = settings.watch_key or await deployment.get(database, "watch_key")
                    await _run(arguments, watch_key, replay, slots)
                except (AxiomError, asyncio.CancelledError) as error:
                    failure = error
    report, seconds = replay.report, round(time.monotonic() - began, 3)
    if report is not None:
        if arguments.json:
            print_json(_as_json(report, seconds, failure))
        elif failure is None:
            _show(report, seconds)
        if failure is not None or not report.complete:
            _say(_what_is_left(report, failure))
    if failure is not None:
        raise failure
    return 0 if report is None or report.complete else 1


def _replay_of(arguments: Namespace, database: Database, rpc: Rpc, shown: "_Shown") -> Replay:
    pipeline = Pipeline(database, rpc, clock=clock, wake=lambda: None)
    return Replay(
        database,
        rpc,
        pipeline,
        clock=clock,
        expire=Sweeper(database, rpc, pipeline, lambda: (), clock=clock).expire,
        concurrency=arguments.concurrency,
        on_plan=shown.plan,
        on_progress=shown.tally,
    )


async def _run(
    arguments: Namespace, watch_key: str | None, replay: Replay, slots: Slots | None
) -> None:
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
            watch_key,
            dry_run=arguments.dry_run,
            resume=arguments.resume,
        )


async def _know_cluster(settings: Settings, database: Database) -> None:
    """Notes which cluster the database is filled from, where no daemon has done so."""
    if await deployment.get(database, "genesis_hash") is None:
        async with chain_of(settings, database) as rpc:
            await deployment.put_once(database, "genesis_hash", await rpc.genesis_hash())


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


def _slot(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= _SLOT_MAX):
        raise ArgumentTypeError(f"{text!r:.60} is no slot: a number from 0 to {_SLOT_MAX}")
    return int(text)


def _concurrency(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _CONCURRENCY_MAX):
        raise ArgumentTypeError(f"{text!r:.60} is no number from 1 to {_CONCURRENCY_MAX}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.01 <= rate <= 100_000:
        raise ArgumentTypeError(f"{text!r:.60} is no number of requests from 0.01 to 100000")
    return rate


def _signature(text: str) -> str:
    return _base58(text, 64, "signature")


def _key(text: str) -> str:
    return _base58(text, 32, "key")


def _base58(text: str, size: int, what: str) -> str:
    """Base58 of that many bytes, as it was typed."""
    try:
        # Decoding takes time with the square of the length; nothing right is longer than this.
        length = len(base58.b58decode(text)) if len(text) <= 2 * size else 0
    except ValueError:
        length = 0
    if length != size:
        raise ArgumentTypeError(f"{text!r:.120} is no {what}: base58 of {size} bytes")
    return text


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
        _say(
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


def _say(message: str) -> None:
    print(f"axiompay: {message}", file=sys.stderr)


def _what_is_left(report: Report, failure: BaseException | None) -> str:
    """What is stored when not all is well, and what to do next."""
    if report.dry_run:
        return "nothing was written; some of it could not be examined"
    if failure is None:
        unread = report.tally.outcomes[Outcome.UNREADABLE]
        return f"{unread} transactions could not be read and are kept: see `axiompay dlq list`"
    if report.run is None:
        return f"{report.tally.examined} transactions were examined; the same command begins anew"
    stored = f"{report.tally.examined} transactions"
    if report.done_to is not None:
        stored = f"everything up to slot {report.done_to}"
    return (
        f"run {report.run} is incomplete; {stored} examined and stored; "
        "the same command with --resume goes on"
    )


# ------------------------------------------------------------------------------- its results


def _show(report: Report, seconds: float) -> None:
    if report.dry_run:
        _show_named(report)
    counts = {name: count for name, count in _outcomes(report).items() if count}
    fields = [
        ("strategy", f"{report.strategy}{' (dry run)' if report.dry_run else ''}"),
        ("slots", f"{report.slots.first} to {report.slots.last}"),
        ("examined", str(report.tally.examined)),
        *((name, str(count)) for name, count in counts.items()),
    ]
    if report.strategy is Strategy.BLOCKS:
        fields.insert(2, ("blocks", f"{report.tally.blocks}"))
        fields.insert(3, ("transactions", f"{report.tally.transactions}"))
    for key, slots in report.coverage.items():
        complete = report.frontiers.get(key)
        to = "" if complete is None else f", complete to slot {complete}"
        fields.append(("covered", f"{key} {slots.first} to {slots.last}{to}"))
    print_fields([*fields, ("seconds", f"{seconds:.1f}")])


def _show_named(report: Report) -> None:
    if not report.named:
        return
    rows = [
        (
            each.signature,
            "-" if each.slot is None else str(each.slot),
            each.outcome,
            " ".join(f"{id_}:{credit}" for id_, credit in each.credits.items()) or "-",
            ", ".join(filter(None, (*each.reasons, each.detail))) or "-",
        )
        for each in report.named[:_SHOWN_MAX]
    ]
    print_table(("signature", "slot", "outcome", "credits", "reasons"), rows)
    if report.tally.examined > len(rows):
        _say(f"{report.tally.examined - len(rows)} more are only counted; --json has more of them")
    print()


def _outcomes(report: Report) -> dict[str, int]:
    """Counts by outcome; what would be credited was credited, unless it is a dry run."""
    counts = {str(name): count for name, count in report.tally.outcomes.items()}
    if not report.dry_run:
        counts = {"credited": counts.pop(Outcome.WOULD_CREDIT), **counts}
    return counts


def _as_json(report: Report, seconds: float, failure: BaseException | None) -> dict[str, Any]:
    return {
        "run": report.run,
        "strategy": report.strategy,
        "dry_run": report.dry_run,
        "resumed": report.resumed,
        "complete": failure is None and report.complete,
        "failure": None if failure is None else str(failure) or type(failure).__name__,
        "first_slot": report.slots.first,
        "last_slot": report.slots.last,
        "done_to": report.done_to,
        "keys": list(report.keys),
        "slots": report.tally.slots,
        "blocks": report.tally.blocks,
        "transactions": report.tally.transactions,
        "examined": report.tally.examined,
        "outcomes": _outcomes(report),
        "coverage": [
            {"key": key, "first_slot": slots.first, "last_slot": slots.last}
            for key, slots in report.coverage.items()
        ],
        "frontiers": report.frontiers,
        "seconds": seconds,
        "named": [_named_json(each) for each in report.named] if report.dry_run else [],
    }


def _named_json(preview: Preview) -> dict[str, Any]:
    credits_ = [
        {"payment_id": id_, "credit_base_units": str(credit)}
        for id_, credit in preview.credits.items()
    ]
    return {
        "signature": preview.signature,
        "slot": preview.slot,
        "outcome": preview.outcome,
        "credits": credits_,
        "reasons": list(preview.reasons),
        "detail": preview.detail or None,
    }
