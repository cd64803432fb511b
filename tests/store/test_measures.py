from store import measures
from store.database import Database
from store.measures import Kind, Measure


def measure(value: float, **labels: str) -> Measure:
    return Measure(name="axiom_things_total", kind=Kind.COUNTER, value=value, labels=labels)


async def test_a_later_figure_replaces_the_one_before_it(database: Database) -> None:
    await database.write(measures.report([measure(1, b="x", a="y"), measure(5, a="z", b="")], 10))
    await database.write(measures.report([measure(2, a="y", b="x")], 20))

    assert await measures.told_since(database, 0) == [
        measure(2, a="y", b="x"),
        measure(5, a="z", b=""),
    ]


async def test_what_was_told_long_ago_is_left_out(database: Database) -> None:
    await database.write(measures.report([measure(1, a="old")], 10))
    await database.write(measures.report([measure(0.1, a="new")], 20))

    assert await measures.told_since(database, 11) == [measure(0.1, a="new")]


async def test_each_process_has_figures_of_its_own(database: Database) -> None:
    await database.write(measures.report([measure(1, a="x")], 10, instance="one"))
    await database.write(measures.report([measure(2, a="x")], 10, instance="two"))

    assert await measures.told_since(database, 0) == [
        measure(1, a="x", process="one"),
        measure(2, a="x", process="two"),
    ]


async def test_the_figures_of_who_is_gone_are_forgotten(database: Database) -> None:
    await database.write(measures.report([measure(1, a="x")], 10, instance="gone"))
    await database.write(measures.report([measure(2, a="x")], 10 + measures.KEPT_S + 1))

    assert await measures.told_since(database, 0) == [measure(2, a="x")]
