"""`./run simulate`: any number of simulated worlds, each with the real daemon in it.

    ./run simulate --seeds 1000                  clusters, payments, and all that goes wrong
    ./run simulate --seeds 1000 --shops          days of cards and webhooks instead
    ./run simulate --seeds 50 --backend libsql   on a real libSQL server each, which fails as well
    ./run simulate --seed 7 --trace              one of them again, with all that happened

Exit codes: 0 every world ended as it should, 1 some did not, 2 wrong usage.
"""

# ruff: noqa: T201 - a command prints

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation.seeds import Backend, Result, examine, examine_all, examine_shop


#: Seconds between two lines of progress where there is no terminal.
LINE_EVERY_S = 15.0
#: Failures that are shown in full; of more, only the number.
SHOWN_MAX = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, runs, tells; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="./run simulate",
        description="Runs the real daemon in seeded worlds in which everything goes wrong, "
        "and checks each against what was true in it.",
    )
    parser.add_argument("--seeds", type=_count, default=1_000, help="how many (default 1000)")
    parser.add_argument("--from", type=_seed, default=0, dest="first", help="the first seed (0)")
    parser.add_argument(
        "--jobs", type=_count, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--seed", type=_seed, help="this one seed alone")
    parser.add_argument(
        "--shops", action="store_true", help="cards and webhooks over days, instead of clusters"
    )
    parser.add_argument(
        "--backend",
        type=Backend,
        choices=list(Backend),
        default=Backend.SQLITE,
        help="where the store is: a file in memory (default), or a real libSQL server for each "
        "world, with lost answers and kills of the server; about 2 s a seed",
    )
    parser.add_argument("--trace", action="store_true", help="with --seed: all that happened")
    options = parser.parse_args(arguments)
    if options.seed is None and options.trace:
        parser.error("--trace goes with --seed")
    if options.seed is not None:
        run = partial(examine_shop if options.shops else examine, backend=options.backend)
        return _one(options.seed, run, whole_trace=options.trace)
    seeds = range(options.first, options.first + options.seeds)
    jobs = min(options.jobs, len(seeds))
    return _many(
        examine_all(seeds, jobs, shops=options.shops, backend=options.backend), len(seeds), jobs
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return number


def _one(seed: int, run: Callable[..., Result], *, whole_trace: bool) -> int:
    """One seed, twice: it must come out the same."""
    first, second = run(seed, whole_trace=whole_trace), run(seed)
    if whole_trace and not first.objections:
        print("\n".join(first.tail))
    if first.digest != second.digest:
        first.objections.append(f"two runs differ: {first.digest} and {second.digest}")
    if first.objections:
        print(first.story, flush=True)
        return 1
    print(f"seed {seed}: all is well; {_figures([first])}; digest {first.digest}")
    return 0


def _many(examined: Iterable[Result], count: int, jobs: int) -> int:
    console = Console(highlight=False)
    began, results, failed = time.monotonic(), list[Result](), list[Result]()
    columns = (
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s, {task.fields[failed]} failed, ETA"),
        TimeRemainingColumn(),
    )
    line_at = began + LINE_EVERY_S
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=count, rate=0.0, failed=0)
        for result in examined:
            results.append(result)
            if result.objections:
                failed.append(result)
                if len(failed) <= SHOWN_MAX:
                    print(result.story, flush=True)
            rate = len(results) / (time.monotonic() - began)
            progress.update(bar, advance=1, rate=rate, failed=len(failed))
            if not console.is_terminal and time.monotonic() >= line_at:
                line_at += LINE_EVERY_S
                eta_s = (count - len(results)) / rate
                print(
                    f"{len(results)} of {count} seeds, {rate:.1f}/s, {len(failed)} failed, "
                    f"{eta_s:.0f} s left",
                    flush=True,
                )
    took_s = time.monotonic() - began
    numbers = " ".join(str(result.seed) for result in sorted(failed, key=lambda r: r.seed)[:50])
    print(
        f"{len(results)} seeds in {took_s:.1f} s ({len(results) / took_s:.1f}/s, {jobs} jobs), "
        f"{len(failed)} failed{f': {numbers}' if failed else ''}\n{_figures(results)}"
    )
    return 1 if failed else 0


def _figures(results: Sequence[Result]) -> str:
    virtual_s, cpu_s = sum(r.virtual_s for r in results), sum(r.cpu_s for r in results)
    return (
        f"{sum(r.payments for r in results)} payments, "
        f"{sum(r.transactions for r in results)} finalized transactions, "
        f"{sum(r.dropped for r in results)} dropped by forks, "
        f"{sum(r.webhooks[0] for r in results)} webhooks in, "
        f"{sum(r.webhooks[1] for r in results)} out, "
        f"{sum(r.crashes for r in results)} crashes, {virtual_s / 3600:.2f} h of virtual time, "
        f"{cpu_s / max(1, len(results)):.3f} s of CPU a seed"
    )


if __name__ == "__main__":
    sys.exit(main())
