"""Seeds, run and judged: one, or any number over several processes."""

import multiprocessing
import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar

from tests.simulation.database import Disk
from tests.simulation.judge import judge
from tests.simulation.judge_shop import judge_shop
from tests.simulation.loop import Stuck
from tests.simulation.outcome import Outcome
from tests.simulation.profile import Profile
from tests.simulation.server import ServerDisk
from tests.simulation.shop import Shop
from tests.simulation.trade import Trade
from tests.simulation.world import World


T = TypeVar("T", Profile, Trade)

#: Lines of the trace that are shown of a seed that failed.
TAIL_LINES: int = 40

#: The highest chances that a write or a read goes wrong on its way to a server, in worlds where
#: they do: what the backend does about it is what these worlds are for.
WRITES_LOST_MAX: Final = 0.25
READS_LOST_MAX: Final = 0.05


class Backend(StrEnum):
    """Where a world's store is."""

    SQLITE = "sqlite"
    LIBSQL = "libsql"

    @property
    def disk(self) -> Callable[[], Disk]:
        """Makes an empty one."""
        return ServerDisk if self is Backend.LIBSQL else Disk

    def troubled(self, troubles: T, seed: int) -> T:
        """A world's troubles, and on a server those that only a server has."""
        if self is Backend.SQLITE:
            return troubles
        rng = random.Random(f"{seed} way to the server")
        is_lossy = rng.random() < 0.7
        writes, reads = WRITES_LOST_MAX * rng.random(), READS_LOST_MAX * rng.random()
        if not is_lossy:
            return troubles
        return replace(troubles, write_fails=writes, read_fails=reads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one seed.

    Attributes:
        objections: what is wrong, in sentences; none when all is well.
        tail: the last lines of the trace, of a seed that failed.
        digest: of all rows and the trace; equal for two runs of one seed.
        cpu_s: what it cost, the judge included.
        payments, transactions, dropped, crashes: how much happened.
        virtual_s: how long the world lasted.
        webhooks: how many came in, and how many times one was sent out.
        is_shop: it was a shop, not a cluster.
        backend: where its store was.
    """

    seed: int
    objections: list[str]
    tail: list[str] = field(default_factory=list)
    digest: str = ""
    cpu_s: float = 0.0
    payments: int = 0
    transactions: int = 0
    dropped: int = 0
    crashes: int = 0
    virtual_s: float = 0.0
    webhooks: tuple[int, int] = (0, 0)
    is_shop: bool = False
    backend: Backend = Backend.SQLITE

    @property
    def story(self) -> str:
        """What is wrong, the last that happened, and how to see it again."""
        options = " --shops" * self.is_shop
        options += " --backend libsql" * (self.backend is Backend.LIBSQL)
        return "\n".join(
            [
                f"seed {self.seed} FAILED",
                *(f"  - {objection}" for objection in self.objections),
                "  the last that happened:",
                *(f"    {line}" for line in self.tail),
                f"  again: ./run simulate{options} --seed {self.seed} --trace",
            ]
        )


def examine(seed: int, *, whole_trace: bool = False, backend: Backend = Backend.SQLITE) -> Result:
    """Runs one world and judges it. A world that gets stuck is objected to as well."""

    def run() -> Outcome:
        profile = backend.troubled(World(seed).profile, seed)
        return World(seed, profile, make_disk=backend.disk).run()

    result = _examined(seed, run, judge, whole_trace=whole_trace)
    return replace(result, backend=backend)


def examine_shop(
    seed: int, *, whole_trace: bool = False, backend: Backend = Backend.SQLITE
) -> Result:
    """The same with a shop."""

    def run() -> Outcome:
        trade = backend.troubled(Shop(seed).trade, seed)
        return Shop(seed, trade, make_disk=backend.disk).run()

    result = _examined(seed, run, judge_shop, whole_trace=whole_trace)
    return replace(result, is_shop=True, backend=backend)


def _examined(
    seed: int,
    run: Callable[[], Outcome],
    judge: Callable[[Outcome], list[str]],
    *,
    whole_trace: bool,
) -> Result:
    try:
        outcome = run()
        objections = judge(outcome)
    except Stuck as error:
        return Result(seed=seed, objections=[str(error)])
    except Exception:  # noqa: BLE001 - the top of a run: one seed that breaks must not hide the others
        return Result(seed=seed, objections=[traceback.format_exc()])
    is_shown = objections or whole_trace
    lines = list(outcome.trace)
    return Result(
        seed=seed,
        objections=objections,
        tail=(lines if whole_trace else lines[-TAIL_LINES:]) if is_shown else [],
        digest=outcome.digest,
        cpu_s=outcome.cpu_s,
        payments=len(outcome.rows["payments"]),
        transactions=len(outcome.finalized),
        dropped=len(outcome.dropped),
        crashes=len(outcome.crashes),
        virtual_s=outcome.ended_at_s,
        webhooks=(
            len(outcome.rows["webhook_events"]),
            sum(len(receiver.posts) for receiver in outcome.reached),
        ),
    )


def examine_all(
    seeds: Iterable[int], jobs: int, *, shops: bool = False, backend: Backend = Backend.SQLITE
) -> Iterator[Result]:
    """The results of many seeds, in any order, from that many processes."""
    one = partial(examine_shop if shops else examine, backend=backend)
    if jobs == 1:
        yield from map(one, seeds)
        return
    # Each process has another hash seed: what depends on it shows.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=4)
