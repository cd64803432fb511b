import asyncio

from store import measures
from store.database import Database
from store.figures import Figures
from store.measures import Kind, Measure


async def test_writes_are_counted_by_batches_and_by_the_commits_they_shared(
    database: Database,
) -> None:
    before = database.figures
    gauges = [Measure(name="axiom_n", kind=Kind.GAUGE, value=n) for n in range(50)]
    await asyncio.gather(*(database.write(measures.report([each], 10)) for each in gauges))
    after = database.figures

    assert after.batches - before.batches == 50
    assert 1 <= after.groups - before.groups < 50
    assert (after.answers_lost, after.replica_reads) == (0, {})


async def test_they_become_figures_for_a_monitor(database: Database) -> None:
    database._figures = lambda: Figures(groups=2, batches=30, answers_lost=1)

    assert [(each.name, each.kind, each.value) for each in measures.of_writes(database)] == [
        ("axiom_write_groups_total", Kind.COUNTER, 2),
        ("axiom_write_batches_total", Kind.COUNTER, 30),
        ("axiom_write_answers_lost_total", Kind.COUNTER, 1),
    ]
