"""On both backends: what changes hands, and what is refused."""

from dataclasses import replace

import pytest

from indexer.errors import Conflict
from store import leases
from store.database import Database, Statement
from store.leases import NOBODY, Instance, Lease


def instance(id_: str) -> Instance:
    return Instance(
        id=id_, version="1.2.3", machine="here", process="7 1", started_at=900, beats=0, seen_at=0
    )


async def beat(database: Database, id_: str, now: int = 1_000) -> None:
    await database.write([leases.beat(instance(id_), now)])


async def take(database: Database, taker: str, *names: str, **absent: int) -> None:
    await database.write([leases.take(names, taker, absent)])


async def held(database: Database) -> dict[str, tuple[str, int]]:
    board = await leases.read(database)
    return {name: (lease.holder, lease.token) for name, lease in board.leases.items()}


async def test_a_beat_counts_up_and_says_when(database: Database) -> None:
    await beat(database, "one", 1_000)
    await beat(database, "one", 1_002)
    await beat(database, "two", 5)

    board = await leases.read(database)

    assert board.instances == {
        "one": replace(instance("one"), beats=2, seen_at=1_002),
        "two": replace(instance("two"), beats=1, seen_at=5),
    }
    assert board.leases == {}


async def test_what_nobody_does_is_taken_once(database: Database) -> None:
    await beat(database, "one")
    await beat(database, "two")

    await take(database, "one", "a", "b")
    await take(database, "two", "b", "c")

    assert await held(database) == {"a": ("one", 1), "b": ("one", 1), "c": ("two", 1)}


async def test_of_whom_left_no_row_everything_is_taken(database: Database) -> None:
    await take(database, "never said that it is there", "a")
    await beat(database, "two")

    await take(database, "two", "a")

    assert await held(database) == {"a": ("two", 2)}


async def test_of_whom_is_gone_everything_is_taken(database: Database) -> None:
    await beat(database, "one")
    await take(database, "one", "a")
    await beat(database, "two")

    await take(database, "two", "a", one=1)

    assert await held(database) == {"a": ("two", 2)}


async def test_whoever_gave_a_sign_meanwhile_keeps_what_it_has(database: Database) -> None:
    await beat(database, "one")
    await take(database, "one", "a")
    await beat(database, "one")  # after the other one had looked

    await take(database, "two", "a", one=1)

    assert await held(database) == {"a": ("one", 1)}


async def test_what_is_given_back_is_free_and_only_ones_own_can_be(database: Database) -> None:
    await beat(database, "one")
    await beat(database, "two")
    await take(database, "one", "a", "b")
    await take(database, "two", "c")

    await database.write([leases.give_back(["a", "c"], "one")])
    assert await held(database) == {"a": (NOBODY, 2), "b": ("one", 1), "c": ("two", 1)}

    await take(database, "two", "a")
    assert (await held(database))["a"] == ("two", 3)


async def test_an_end_in_order_gives_back_everything(database: Database) -> None:
    await beat(database, "one")
    await beat(database, "two")
    await take(database, "one", "a", "b")
    await take(database, "two", "c")

    await database.write(leases.leave("one"))

    board = await leases.read(database)
    assert set(board.instances) == {"two"}
    assert await held(database) == {"a": (NOBODY, 2), "b": (NOBODY, 2), "c": ("two", 1)}


async def test_whoever_is_gone_is_forgotten_once_its_work_is_taken(database: Database) -> None:
    for id_ in ("one", "two", "three"):
        await beat(database, id_)
    await beat(database, "three")
    await take(database, "one", "a")

    absent = {"one": 1, "two": 1, "three": 1}
    await database.write([leases.forget(absent)])
    assert set((await leases.read(database)).instances) == {"one", "three"}

    await take(database, "three", "a", one=1)
    await database.write([leases.forget(absent)])
    assert set((await leases.read(database)).instances) == {"three"}


NOTE = Statement("INSERT INTO deployment (name, value) VALUES ('note', 'written')")


@pytest.mark.parametrize(
    "lease",
    [
        Lease(name="a", holder="one", token=2),
        Lease(name="a", holder="one", token=0),
        Lease(name="a", holder="two", token=1),
    ],
    ids=str,
)
async def test_a_batch_with_an_old_token_is_refused_as_a_whole(
    database: Database, lease: Lease
) -> None:
    await beat(database, "one")
    await take(database, "one", "a")

    with pytest.raises(Conflict):
        await database.write([leases.guard(lease), NOTE])

    assert await database.read([Statement("SELECT 1 FROM deployment WHERE name = 'note'")]) == [[]]
    assert await held(database) == {"a": ("one", 1)}


async def test_a_batch_with_the_token_of_now_is_written(database: Database) -> None:
    await beat(database, "one")
    await take(database, "one", "a")

    await database.write([leases.guard(Lease(name="a", holder="one", token=1)), NOTE])

    found = await database.read([Statement("SELECT value FROM deployment WHERE name = 'note'")])
    assert found == [[("written",)]]


async def test_what_is_no_work_any_more_is_deleted_where_nobody_does_it(database: Database) -> None:
    for id_ in ("one", "two"):
        await beat(database, id_)
    await take(database, "one", "a", "b")
    await take(database, "two", "c")
    await database.write([leases.give_back(["a"], "one")])

    await database.write(leases.delete(["a", "b", "unknown"]))

    assert await held(database) == {"b": ("one", 1), "c": ("two", 1)}


async def test_a_token_never_goes_back_whatever_was_deleted(database: Database) -> None:
    for id_ in ("one", "two"):
        await beat(database, id_)
    old, tokens = Lease(name="a", holder="one", token=1), []
    for names in (["a"], ["a", "b"], ["b"], ["a"]):
        await take(database, "one", *names)
        tokens.append([token for _, token in (await held(database)).values()])
        await database.write([leases.give_back(names, "one")])
        await database.write(leases.delete(names))
        assert await held(database) == {}
        with pytest.raises(Conflict):
            await database.write([leases.guard(old)])
        await database.write(leases.delete([leases.DELETED]))

    assert tokens == [[1], [3, 3], [5], [7]]
    await take(database, "two", "a")
    await database.write([leases.guard(Lease(name="a", holder="two", token=9))])


@pytest.mark.parametrize(("holder", "token"), [("two", 1), ("two", 0), ("one", 0)], ids=str)
async def test_nobody_takes_work_without_a_higher_token(
    database: Database, holder: str, token: int
) -> None:
    await take(database, "one", "a")

    change = Statement("UPDATE leases SET holder = ?, token = ?", (holder, token))
    with pytest.raises(Conflict):
        await database.write([change])
