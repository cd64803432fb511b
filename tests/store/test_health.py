import pytest

from store import health, leases
from store.database import Database, Statement
from store.health import Report
from store.leases import Instance


async def there(database: Database, *names: str) -> None:
    """Processes of which the others know."""
    made = [
        Instance(id=name, version="1", machine="", process=name, started_at=0) for name in names
    ]
    await database.write([leases.beat(each, 0) for each in made])


async def test_since_moves_only_when_the_problem_changes(database: Database) -> None:
    said = [
        (None, 10, 10),
        (None, 20, 10),
        ("down", 30, 30),
        ("down", 40, 30),
        ("slow", 50, 50),
        (None, 60, 60),
    ]
    for problem, now, since in said:
        await database.write([health.report("rpc", problem, now)])

        assert await health.all_of(database) == [
            Report(component="rpc", problem=problem, since=since, updated_at=now)
        ]


async def test_each_part_speaks_for_itself(database: Database) -> None:
    await database.write([health.report("sweep", "behind", 10), health.report("rpc", None, 11)])

    assert await health.all_of(database) == [
        Report(component="rpc", problem=None, since=11, updated_at=11),
        Report(component="sweep", problem="behind", since=10, updated_at=10),
    ]


async def test_of_several_processes_the_worst_that_is_still_said_counts(
    database: Database,
) -> None:
    await database.write(
        [
            health.report("rpc", None, 100, instance="one"),
            health.report("rpc", "down", 90, instance="two"),
            health.report("rpc", "burning", 60, instance="gone"),
        ]
    )

    assert await health.all_of(database) == [
        Report(component="rpc", problem="down", since=90, updated_at=100)
    ]


@pytest.mark.parametrize("apart_s", [-7_200, -31, 0, 31, 7_200])
async def test_a_clock_that_is_wrong_hides_no_problem_of_another_process(
    database: Database, apart_s: int
) -> None:
    await there(database, "right", "wrong")
    await database.write(
        [
            health.report("rpc", "down", 10_000, instance="right"),
            health.report("rpc", None, 10_000 + apart_s, instance="wrong"),
        ]
    )

    [found] = await health.all_of(database)

    assert (found.problem, found.since) == ("down", 10_000)
    assert found.updated_at == max(10_000, 10_000 + apart_s)


async def test_who_is_gone_says_nothing_any_more_whatever_its_clock_was(
    database: Database,
) -> None:
    await there(database, "here", "gone")
    await database.write(
        [
            health.report("rpc", None, 100, instance="here"),
            health.report("rpc", "down", 100 + 3_600, instance="gone"),
            health.report("sweep", "behind", 100, instance="gone"),
        ]
    )

    await database.write(leases.leave("gone"))

    assert await health.all_of(database) == [
        Report(component="rpc", problem=None, since=100, updated_at=100),
        Report(component="sweep", problem="behind", since=100, updated_at=100),
    ]


async def test_a_part_that_its_process_does_not_speak_of_any_more_does_not_speak_for_others(
    database: Database,
) -> None:
    await there(database, "one", "two")
    later = 100 + health.SILENT_S
    await database.write(
        [
            health.report("rpc:1", "down", 100, instance="one"),
            health.report("rpc:1", None, later, instance="two"),
            health.report("rpc", None, later, instance="one"),
        ]
    )
    [_, of_part] = await health.all_of(database)
    assert of_part.problem == "down"

    await database.write([health.report("rpc", None, later + 1, instance="one")])

    [_, of_part] = await health.all_of(database)
    assert of_part == Report(component="rpc:1", problem=None, since=later, updated_at=later)
    await database.write(leases.leave("two"))
    [_, of_part] = await health.all_of(database)
    assert of_part == Report(component="rpc:1", problem="down", since=100, updated_at=100)


async def test_who_is_gone_is_forgotten_by_who_is_there(database: Database) -> None:
    now = health.KEPT_S + 100
    await database.write(
        [
            health.report("rpc", "down", 99, instance="gone"),
            health.report("sweep", "slow", 99, instance="here"),
            health.report("rpc", None, now, instance="here"),
            health.forget(now, instance="here"),
        ]
    )

    assert [each.component for each in await health.all_of(database)] == ["rpc", "sweep"]
    [found] = await database.read([Statement("SELECT instance FROM health")])
    assert {instance for (instance,) in found} == {"here"}


async def test_what_was_heard_of_a_machine_is_of_that_one_alone(database: Database) -> None:
    """Names that look alike, or would mean something to a search, are other machines."""
    for instance, at in (("web:1:aa", 10), ("web:2:bb", 20), ("web2:1:cc", 30), ("w_b:1:dd", 40)):
        await database.write([health.report("indexer", None, at, instance=instance)])
    await database.write([health.report("rpc", None, 50, instance="web:1:aa")])

    heard = {
        machine: await health.last_report(database, "indexer", machine=machine)
        for machine in ("web", "web2", "w_b", "we", "web:1", "%", "")
    }

    assert heard == {
        "web": 20,
        "web2": 30,
        "w_b": 40,
        "web:1": 10,
        "we": None,
        "%": None,
        "": None,
    }
