import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from api.wakeups import Wakeups
from indexer import parts
from indexer.parts import Indexer
from indexer.settings import Settings
from indexer.sources.outside import Outside
from store import health, measures
from store.measures import Measure
from tests.indexer.stage import WATCH_KEY, Stage, stage


def indexer(it: Stage) -> Indexer:
    settings = replace(Settings(), rpc_urls=(it.node.url,), ws_urls=(it.node.ws_url,))
    return Indexer(
        settings,
        it.database,
        it.rpc,
        [WATCH_KEY],
        Wakeups(),
        time.time,
        sender=Outside(),
        keys=(),
    )


def value(told: list[Measure], name: str, **labels: str) -> float:
    [found] = [each.value for each in told if (each.name, each.labels) == (name, labels)]
    return found


async def test_each_part_that_runs_says_how_it_is(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        whole = indexer(it)

        tasks, problems = whole.tasks(), whole.problems()

    assert {"watch", "sweep", "references", "recipients", "finality", "pubsub:0"} < set(tasks)
    assert problems.keys() >= {"indexer", "rpc", "rpc:0", "chain", "sweep", "pubsub:0"}
    assert problems["indexer"] is None
    assert problems["pubsub:0"] == "not connected yet"


async def test_what_it_counts_is_told_to_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "REPORT_INTERVAL_S", 0.02)
    async with stage(tmp_path) as it:
        whole = indexer(it)
        name = it.rpc.endpoints[0].name
        await it.rpc.genesis_hash()
        reporting = asyncio.create_task(whole._report())
        async with asyncio.timeout(90):
            while not (told := await measures.told_since(it.database, 0)):
                await asyncio.sleep(0.01)
        reporting.cancel()

        assert value(told, "axiom_rpc_requests_total", endpoint=name, outcome="answered") == 1
        assert value(told, "axiom_doorbells_waiting") == 0
        said = {report.component for report in await health.all_of(it.database)}
        assert said == whole.problems().keys()
