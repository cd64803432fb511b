import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from indexer import tenure as module
from indexer.core.shares import SHARD_UNITS, SHARDS, key_unit, unit_of
from indexer.errors import Conflict, StoreUnavailable
from indexer.tenure import Everything, Tenure, while_ours
from indexer.whereabouts import Whereabouts
from store import leases
from store.connection import Rows, Statement
from store.database import Database, open_database
from store.leases import Instance
from store.migrate import migrate
from tests.builders import NOW


PATIENCE_S = 60.0


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    yield database
    await database.close()


def tenure_of(database: Database, id_: str = "me", *, now: float = NOW) -> Tenure:
    instance = Instance(id=id_, version="1.2.3", machine="", process="", started_at=NOW)
    return Tenure(database, instance, clock=lambda: now, here=Whereabouts())


async def test_whoever_is_alone_has_everything_after_two_beats(database: Database) -> None:
    tenure = tenure_of(database)
    assert list(tenure.shards()) == []

    await tenure.beat(["k"])
    await tenure.beat(["k"])

    assert list(tenure.shards()) == list(range(SHARDS))
    assert tenure.does("retention")
    assert tenure.does_key("k")
    assert tenure.keeps_key("k")
    assert not tenure.does_key("another")


async def test_two_with_clocks_far_apart_come_to_half_each(database: Database) -> None:
    one, two = tenure_of(database, "one"), tenure_of(database, "two", now=NOW + 86_400)
    for _ in range(5):
        await one.beat(["k", "l"])
        await two.beat(["k", "l"])

    assert (len(one.shards()), len(two.shards())) == (SHARDS // 2, SHARDS // 2)
    assert not set(one.shards()) & set(two.shards())
    assert [one.does_key(key) for key in "kl"] == [not two.does_key(key) for key in "kl"]
    assert one.others == two.others == 1


async def test_what_is_left_is_not_begun_any_more_and_given_back_one_beat_later(
    database: Database,
) -> None:
    one, two = tenure_of(database, "one"), tenure_of(database, "two")
    await one.beat([])
    await one.beat([])
    await two.beat([])

    await one.beat([])
    held = [each.holder for each in (await leases.read(database)).leases.values()]
    assert len(one.shards()) == SHARDS // 2
    assert held.count("one") == SHARDS

    await one.beat([])
    held = [each.holder for each in (await leases.read(database)).leases.values()]
    assert held.count("one") == SHARDS // 2


async def test_what_is_under_way_is_waited_for_before_its_work_is_given_back(
    database: Database,
) -> None:
    one, two = tenure_of(database, "one"), tenure_of(database, "two")
    await one.beat([])
    await one.beat([])
    await two.beat([])
    with ExitStack() as stack:
        for name in map(str, range(100)):  # of every shard
            stack.enter_context(one.under_way(name))
        for _ in range(3):
            await one.beat([])
            await two.beat([])
        assert (len(one.shards()), len(two.shards())) == (SHARDS // 2, 0)
        assert await count_held(database, "one") == SHARDS

    await one.beat([])

    assert await count_held(database, "one") == SHARDS // 2


async def test_what_is_under_way_for_long_is_given_back_all_the_same(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENDING_S", 0.3)
    one, two = tenure_of(database, "one"), tenure_of(database, "two")
    await one.beat([])
    await one.beat([])
    await two.beat([])
    with ExitStack() as stack:
        for name in map(str, range(100)):
            stack.enter_context(one.under_way(name))
        async with asyncio.timeout(PATIENCE_S):
            while await count_held(database, "one") > SHARDS // 2:
                await one.beat([])
                await asyncio.sleep(0.05)


async def count_held(database: Database, holder: str) -> int:
    board = await leases.read(database)
    return [each.holder for each in board.leases.values()].count(holder)


async def test_whoever_was_stopped_for_long_knows_that_it_may_have_lost_its_work(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenure = tenure_of(database)
    await tenure.beat(["k"])
    monkeypatch.setattr(module, "HELD_S", 0.0)

    await tenure.beat(["k"])

    assert list(tenure.shards()) == []
    assert not tenure.does_key("k")
    assert tenure.keeps_key("k")  # nobody else is known to have it


async def test_the_time_counts_from_before_the_beat_was_sent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenure = tenure_of(database)
    await tenure.beat([])
    monkeypatch.setattr(module, "HELD_S", 0.2)
    write = Database.write

    async def slow(self: Database, batch: list[Statement]) -> list[Rows]:
        answer = await write(self, batch)
        await asyncio.sleep(0.3)
        return answer

    monkeypatch.setattr(Database, "write", slow)
    await tenure.beat([])

    assert list(tenure.shards()) == []


async def test_a_silent_one_loses_its_work_and_a_late_sign_of_it_counts(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_S", 0.05)
    one, two = tenure_of(database, "one"), tenure_of(database, "two")
    await one.beat([])
    await one.beat([])
    await two.beat([])
    await asyncio.sleep(0.1)
    await two.beat([])  # has heard nothing of it for long enough
    await one.beat([])  # and now there is a sign

    await two.beat([])

    held = {each.holder for each in (await leases.read(database)).leases.values()}
    assert "two" not in held

    await asyncio.sleep(0.1)
    for _ in range(3):
        await two.beat([])
    held = {each.holder for each in (await leases.read(database)).leases.values()}
    assert held == {"two"}


async def test_of_a_time_without_looks_only_two_beats_count(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was away for all: whoever is back first does not take everything."""
    monkeypatch.setattr(module, "LEASE_S", 0.1)
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    one, two = tenure_of(database, "one"), tenure_of(database, "two")
    await one.beat([])
    await one.beat([])
    await two.beat([])
    await asyncio.sleep(0.3)

    await two.beat([])
    await two.beat([])

    held = {each.holder for each in (await leases.read(database)).leases.values()}
    assert held == {"one"}


async def test_only_the_holder_of_now_may_write(database: Database) -> None:
    one, two = tenure_of(database, "one"), tenure_of(database, "two")
    await one.beat([])
    await one.beat([])
    old = list(one.guard("x"))
    await database.write(old)

    await database.write([leases.give_back([unit_of("x")], "one")])

    for guard in (old, two.guard("x")):
        with pytest.raises(Conflict):
            await database.write(list(guard))
    assert list(Everything().guard("x")) == []


async def test_an_end_in_order_leaves_everything_to_others(database: Database) -> None:
    one, two = tenure_of(database, "one"), tenure_of(database, "two")
    for _ in range(2):
        await one.beat(["k"])
    await two.beat(["k"])

    await one.leave()
    for _ in range(2):
        await two.beat(["k"])

    assert not one.does_key("k")
    assert two.does_key("k")
    assert len(two.shards()) == SHARDS


async def test_an_end_without_a_store_is_an_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    tenure = tenure_of(database)
    monkeypatch.setattr(Database, "write", away)

    await tenure.leave()


async def test_it_tells_what_changed_and_goes_on_after_the_store_was_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    write, failures, changes = Database.write, [StoreUnavailable("away")] * 3, list[bool]()

    async def fail_first(self: Database, batch: list[Statement]) -> list[Rows]:
        if failures:
            raise failures.pop()
        return await write(self, batch)

    monkeypatch.setattr(Database, "write", fail_first)
    tenure, keys = tenure_of(database), ["k"]
    task = asyncio.create_task(
        tenure.run(lambda: keys, changed=lambda *, gained: changes.append(gained))
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await tenure.begun.wait()
            assert changes == [True]
            assert tenure.problem is None
            keys.clear()
            while len(changes) < 2:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()

    assert changes == [True, False]
    board = await leases.read(database)
    assert {name for name, each in board.leases.items() if each.holder == "me"} <= {
        *SHARD_UNITS,
        key_unit("k"),
    }


class Switch(Everything):
    """A share that is had or not."""

    is_on = True

    def does(self, name: str) -> bool:
        return self.is_on


async def test_what_one_does_alone_runs_only_while_it_is_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    share, running, starts = Switch(), asyncio.Event(), 0

    async def start() -> None:
        nonlocal starts
        starts += 1
        running.set()
        try:
            await asyncio.sleep(3_600)
        finally:
            running.clear()

    task = asyncio.create_task(while_ours(share, "x", start))
    try:
        async with asyncio.timeout(PATIENCE_S):
            for n in (1, 2):
                share.is_on = True
                await running.wait()
                assert starts == n
                share.is_on = False
                while running.is_set():
                    await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()


async def test_what_ends_by_itself_or_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)

    async def end() -> None:
        return

    async def fail() -> None:
        raise StoreUnavailable("away")

    async with asyncio.timeout(PATIENCE_S):
        await while_ours(Everything(), "x", end)
        with pytest.RaisesGroup(StoreUnavailable):
            await while_ours(Everything(), "x", fail)
