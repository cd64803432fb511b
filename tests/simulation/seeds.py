"""Seeds, run and judged: one, or any number over several processes."""

import multiprocessing
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from tests.simulation.judge import judge
from tests.simulation.judge_shop import judge_shop
from tests.simulation.loop import Stuck
from tests.simulation.outcome import Outcome
from tests.simulation.shop import Shop
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
        webhooks: how many came in, and how many times one was sent out.
        is_shop: it was a shop, not a cluster.
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

    @property
    def story(self) -> str:
        """What is wrong, the last that happened, and how to see it again."""
        return "\n".join(
            [
                f"seed {self.seed} FAILED",
                *(f"  - {objection}" for objection in self.objections),
                "  the last that happened:",
                *(f"    {line}" for line in self.tail),
                f"  again: ./run simulate{' --shops' * self.is_shop} --seed {self.seed} --trace",
            ]
        )


def examine(seed: int, *, whole_trace: bool = False) -> Result:
    """Runs one world and judges it. A world that gets stuck is objected to as well."""
    return _examined(seed, lambda: World(seed).run(), judge, whole_trace=whole_trace)


def examine_shop(seed: int, *, whole_trace: bool = False) -> Result:
    """The same with a shop."""
    result = _examined(seed, lambda: Shop(seed).run(), judge_shop, whole_trace=whole_trace)
    return replace(result, is_shop=True)


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


def examine_all(seeds: Iterable[int], jobs: int, *, shops: bool = False) -> Iterator[Result]:
    """The results of many seeds, in any order, from that many processes."""
    one = examine_shop if shops else examine
    if jobs == 1:
        yield from map(one, seeds)
        return
    # Each process has another hash seed: what depends on it shows.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=4)
