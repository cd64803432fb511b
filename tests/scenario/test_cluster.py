"""Several processes on a libSQL server, a replica and Redis; two of them are killed.

`./run cluster` is the large form of it, with and without `--load`.
"""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from indexer.demo import scenario
from indexer.demo.screen import Screen
from indexer.demo.stories import stories
from tests.cluster import stories as told
from tests.cluster.fleet import fleet
from tests.cluster.load import Load, Plan
from tests.cluster.trouble import INDEXER, PRIMARY


#: Faster than real slots: what is waited for is finality.
SLOT_TIME_MS = 50
#: Of the demo's stories, those that do not wait for anything else.
QUICK = ("paid at once", "paid in a token", "a failing transfer first")


async def test_payments_end_as_they_must_over_both_apis_and_none_is_lost_or_doubled_by_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    those = tuple(story for story in stories("DUSD") if story.name in QUICK)
    monkeypatch.setattr(scenario, "stories", lambda _symbol: those)
    plan = Plan(rate=16, seconds=2.5, clients=10, victims=(INDEXER, PRIMARY))
    out = io.StringIO()
    screen = Screen(time.monotonic, Console(file=out, width=200))
    async with fleet(tmp_path, screen.say, slot_time_ms=SLOT_TIME_MS) as up:
        names = [name for name, pid, _ in up.rows() if pid is not None]
        await told.tell(up, screen)
        load = Load.on(up, plan, screen.say)
        await load.run()

    assert len(set(names)) == 8
    assert all(child.pid is None for child in (*up.apis, *up.indexers))
    assert out.getvalue().count("as it must") == len(those) == len(QUICK)
    assert load.verdict.all == []
    assert [death.name.split()[0] for death in load.deaths] == ["indexer", "sqld"]
    assert all(death.up_at is not None for death in load.deaths)
    assert len(load.crowd.orders) == 40
    due = {order.id for order in load.crowd.orders if order.will_settle}
    assert due <= load.settled.at.keys()
    assert all(each.began_after is not None for each in load.listeners)
