import asyncio

from store import deployment
from store.database import Database


async def test_a_fact_is_written_once(database: Database) -> None:
    assert await deployment.get(database, "watch_key") is None
    assert await deployment.put_once(database, "watch_key", "first") == "first"
    assert await deployment.put_once(database, "watch_key", "second") == "first"
    assert await deployment.get(database, "watch_key") == "first"


async def test_of_many_at_once_all_get_the_same(database: Database) -> None:
    answers = await asyncio.gather(
        *(deployment.put_once(database, "watch_key", str(number)) for number in range(20))
    )

    assert set(answers) == {await deployment.get(database, "watch_key")}
