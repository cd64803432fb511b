"""Seeds, run and judged: one, or any number over several processes."""

import multiprocessing
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.simulation.judge import judge
from tests.simulation.loop import Stuck
from tests.simulation.world import World


#: Lines of the trace that are shown of a seed that failed.
TAIL_LINES: int = 40


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

    @property
    def story(self) -> str:
        """What is wrong, the last that happened, and how to see it again."""
        return "\n".join(
            [
                f"seed {self.seed} FAILED",
                *(f"  - {objection}" for objection in self.objections),
                "  the last that happened:",
                *(f"    {line}" for line in self.tail),
                f"  again: ./run simulate --seed {self.seed} --trace",
            ]
        )


def examine(seed: int, *, whole_trace: bool = False) -> Result:
    """Runs one world and judges it. A world that gets stuck is objected to as well."""
    try:
        outcome = World(seed).run()
    except Stuck as error:
        return Result(seed=seed, objections=[str(error)])
    except Exception:  # noqa: BLE001 - the top of a run: one seed that breaks must not hide the others
        return Result(seed=seed, objections=[traceback.format_exc()])
    objections = judge(outcome)
    is_shown = objections or whole_trace
    lines = list(outcome.trace)
    return Result(
        seed=seed,
        objections=objections,
        tail=(lines if whole_trace else lines[-TAIL_LINES:]) if is_shown else [],
        digest=outcome.digest,
        cpu_s=outcome.cpu_s,
        payments=len(outcome.payments),
        transactions=len(outcome.finalized),
        dropped=len(outcome.dropped),
        crashes=len(outcome.crashes),
        virtual_s=outcome.ended_at_s,
    )


def examine_all(seeds: Iterable[int], jobs: int) -> Iterator[Result]:
    """The results of many seeds, in any order, from that many processes."""
    if jobs == 1:
        yield from map(examine, seeds)
        return
    # Each process has another hash seed: what depends on it shows.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs) as pool:
        yield from pool.imap_unordered(examine, seeds, chunksize=4)
