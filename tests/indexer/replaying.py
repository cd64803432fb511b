"""Replays over a stage: what their tests act with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.core.ranges import Slots
from indexer.replay import Replay
from indexer.undertaking import Report, Strategy
from tests.chain import BLOCK_TIME
from tests.indexer.stage import FINAL_SLOT, Stage, stage


BOTH = pytest.mark.parametrize("strategy", list(Strategy))
SLOTS = Slots(900, 950)
#: Tables whose rows a replay may write.
TABLES = (
    "payments",
    "verdicts",
    "transfers",
    "events",
    "cursors",
    "coverage",
    "gaps",
    "replays",
    "dead_letters",
    "sightings",
    "reference_checks",
    "deployment",
    "health",
)


class Crash(BaseException):
    """The process is gone."""


@asynccontextmanager
async def staged(tmp_path: Path, **rest: Any) -> AsyncIterator[Stage]:
    async with stage(tmp_path, **rest) as it:
        it.chain.block_times.update({slot: BLOCK_TIME + slot for slot in range(FINAL_SLOT + 1)})
        yield it


def replay_of(it: Stage, **rest: Any) -> Replay:
    values: dict[str, Any] = {"clock": it.clock, "concurrency": 4}
    return Replay(it.database, it.rpc, it.pipeline, **(values | rest))


async def run(
    it: Stage,
    strategy: Strategy = Strategy.BLOCKS,
    slots: Slots = SLOTS,
    *,
    dry_run: bool = False,
    resume: bool = False,
    **rest: Any,
) -> Report:
    asked = {"dry_run": dry_run, "resume": resume}
    return await replay_of(it, **rest).slots(slots, strategy, **asked)


async def contents(it: Stage) -> dict[str, list[tuple[Any, ...]]]:
    return {name: await it.table(name) for name in TABLES}


async def states(it: Stage) -> list[tuple[Any, ...]]:
    columns = "id, status, paid, late, review, received, settled_at, canceled_at"
    return await it.table("payments", columns)


def counts(report: Report) -> dict[str, int]:
    return {name: count for name, count in report.tally.outcomes.items() if count}
