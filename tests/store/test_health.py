from store import health
from store.database import Database
from store.health import Report


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
