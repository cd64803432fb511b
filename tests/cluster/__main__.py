"""`./run cluster`: a whole deployment of several processes on this machine.

Exit codes: 0 everything ended as it must, 1 something did not, 2 wrong usage.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.table import Table

from indexer.demo.screen import Screen
from indexer.errors import AxiomError
from tests.cluster import report, stories
from tests.cluster.fleet import WATCH_KEYS, Fleet, fleet
from tests.cluster.load import Load, LoadFailed, Plan
from tests.cluster.trouble import VICTIMS


DONE: Final = 0
FAILED: Final = 1

_TEXT: Final = """
Starts, on this machine alone: a libSQL server and a replica of it, Redis, two indexers, two APIs
and a local Solana runtime. Node 18 or newer with npm is needed; the first start fetches what is
missing. Then plays the demo's payments on it, made at one API and watched at the other.

With --load: many payments and clients of streams, while an indexer, an API, Redis, the replica and
the primary are killed in turn and started again. In the end the books are compared with the chain.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, runs, tells; returns the exit code."""
    parser = argparse.ArgumentParser(prog="./run cluster", description=_TEXT)
    parser.add_argument("--keep", action="store_true", help="stay up afterwards, until Ctrl-C")
    parser.add_argument("--load", action="store_true", help="many payments, and parts are killed")
    parser.add_argument("--rate", type=_positive, default=50.0, help="payments a second (50)")
    parser.add_argument("--seconds", type=_positive, default=60.0, help="for so long (60)")
    parser.add_argument("--clients", type=_count, default=200, help="of streams (200)")
    parser.add_argument("--calm", action="store_true", help="with --load: nothing is killed")
    options = parser.parse_args(arguments)
    if options.calm and not options.load:
        parser.error("--calm goes with --load")
    return uvloop.run(_until_signalled(options))  # as the product does


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 10000")
    return number


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 10000")
    return number


async def _until_signalled(options: argparse.Namespace) -> int:
    """Does it all; Ctrl-C and SIGTERM end it in order, at any moment."""
    console = Console(file=sys.stdout, highlight=False, emoji=False)
    screen = Screen(time.monotonic, console)
    work = asyncio.create_task(_work(options, screen, console))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        screen.say("stopped before everything was done")
        return FAILED


async def _work(options: argparse.Namespace, screen: Screen, console: Console) -> int:
    try:
        with _folder(screen) as folder:
            async with fleet(folder, screen.say, watch_keys=WATCH_KEYS) as up:
                console.print(_table(up))
                if options.load:
                    await _load(options, up, screen, console)
                else:
                    await stories.tell(up, screen)
                if options.keep:
                    await _stay(up, screen)
    except AxiomError as error:
        screen.say(f"FAILED: {error}")
        return FAILED
    return DONE


async def _load(options: argparse.Namespace, up: Fleet, screen: Screen, console: Console) -> None:
    plan = Plan(
        rate=options.rate,
        seconds=options.seconds,
        clients=options.clients,
        victims=() if options.calm else VICTIMS,
    )
    load = Load.on(up, plan, screen.say)
    await load.run()
    report.show(load, console)
    if problems := load.verdict.all:
        raise LoadFailed(f"{len(problems)} things are not as they must be")


async def _stay(up: Fleet, screen: Screen) -> None:
    """Until somebody ends it, which is how it is meant to end."""
    url = up.apis[0].url
    for text in (
        f"  all payments  curl -H 'Authorization: Bearer {up.key}' {url}/api/pay",
        f"  its health    curl {url}/readyz",
        f"  its figures   curl {url}/metrics",
        f"  data, logs    {up.folder}",
    ):
        screen.plain(text)
    screen.say("still up; Ctrl-C ends it")
    with suppress(asyncio.CancelledError):
        await up.watch()


def _table(up: Fleet) -> Table:
    """What runs where."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in ("what", "pid", "where"):
        table.add_column(head, no_wrap=True)
    for name, pid, url in up.rows():
        table.add_row(name, str(pid), url)
    return table


@contextmanager
def _folder(screen: Screen) -> Iterator[Path]:
    """A folder for data and logs; it stays only when something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="axiompay-cluster-"))
    try:
        yield folder
    except BaseException:
        screen.say(f"what happened is in {folder}")
        raise
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
