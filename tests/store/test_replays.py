from indexer.core.ranges import Slots
from store import replays
from store.database import Database, Statement


SLOTS = Slots(5, 9)


async def test_a_run_that_did_not_finish_is_found_as_it_was_left(database: Database) -> None:
    number = await replays.begin(database, "blocks", ["b", "a"], SLOTS, {"n": 1}, 100)
    await database.write([replays.progress(number, 7, {"n": 2}, 110)])

    [run] = await replays.unfinished(database, "blocks", SLOTS)

    assert (run.id, run.keys, run.slots, run.done_to) == (number, ("a", "b"), SLOTS, 7)
    assert (run.report, run.started_at, run.strategy) == ({"n": 2}, 100, "blocks")


async def test_nothing_is_done_at_the_beginning(database: Database) -> None:
    await replays.begin(database, "blocks", [], SLOTS, {}, 100)

    [run] = await replays.unfinished(database, "blocks", SLOTS)

    assert run.done_to is None


async def test_a_finished_run_is_not_found(database: Database) -> None:
    number = await replays.begin(database, "blocks", [], SLOTS, {}, 100)
    await database.write([replays.finish(number, 9, {"n": 3}, 120)])

    assert await replays.unfinished(database, "blocks", SLOTS) == []
    [row] = (await database.read([Statement("SELECT done_to, report, finished_at FROM replays")]))[
        0
    ]
    assert row == (9, '{"n":3}', 120)


async def test_only_a_run_that_was_asked_the_same_is_found(database: Database) -> None:
    await replays.begin(database, "blocks", [], SLOTS, {}, 100)

    assert await replays.unfinished(database, "signatures", SLOTS) == []
    assert await replays.unfinished(database, "blocks", Slots(5, 10)) == []
    assert await replays.unfinished(database, "blocks", Slots(4, 9)) == []


async def test_the_newest_run_comes_first(database: Database) -> None:
    first = await replays.begin(database, "blocks", [], SLOTS, {}, 100)
    second = await replays.begin(database, "blocks", [], SLOTS, {}, 100)

    assert [r.id for r in await replays.unfinished(database, "blocks", SLOTS)] == [second, first]
