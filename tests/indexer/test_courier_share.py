"""A receiver changes hands while it is being posted to: what is under way ends where it began."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from indexer import tenure as tenure_module
from indexer.core.shares import SHARD_UNITS, SHARDS, unit_of
from indexer.courier import Courier
from indexer.tenure import Tenure
from indexer.whereabouts import Whereabouts
from store.database import Database, open_database
from store.deliveries import DeliveryState
from store.leases import Instance
from store.migrate import migrate
from tests.builders import NOW
from tests.indexer.posting import Clock, Script, running, until
from tests.store.sending import KEY, endpoint_id, listed, receiver, register, tell


#: A receiver that the first of two indexers leaves to the second: it keeps the first shards.
NUMBER = next(n for n in range(1, 100) if unit_of(endpoint_id(n)) in SHARD_UNITS[SHARDS // 2 :])
#: Beats of both until it has changed hands.
ROUNDS = 4


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    yield database
    await database.close()


@pytest_asyncio.fixture
async def endpoint(database: Database) -> str:
    id_ = await register(database, NUMBER)
    await tell(database, 1)
    return id_


def tenure_of(database: Database, id_: str) -> Tenure:
    instance = Instance(id=id_, version="1", machine="", process="", started_at=NOW)
    return Tenure(database, instance, clock=lambda: NOW, here=Whereabouts())


async def courier_of(database: Database, id_: str, script: Script, share: Tenure) -> Courier:
    return Courier(
        await receiver(database, id_),
        database,
        script,
        {KEY.id: KEY},
        clock=Clock(),
        draw=lambda: 0.0,
        outcomes={},
        share=share,
    )


async def beat(rounds: int, *tenures: Tenure) -> None:
    for _ in range(rounds):
        for tenure in tenures:
            await tenure.beat([])


async def test_a_post_that_takes_longer_than_a_beat_is_not_sent_twice(
    database: Database, endpoint: str
) -> None:
    one, two = tenure_of(database, "one"), tenure_of(database, "two")
    await beat(2, one)
    slow, other = Script(), Script()
    slow.gate.clear()
    async with (
        running(await courier_of(database, endpoint, slow, one)) as _,
        running(await courier_of(database, endpoint, other, two)) as _,
    ):
        await until(lambda: slow.at_once)
        await beat(ROUNDS, two, one)
        assert not one.does(endpoint) and not two.does(endpoint)  # noqa: PT018 - one fact

        slow.gate.set()
        await until(lambda: not one._under_way[unit_of(endpoint)])
        await beat(ROUNDS, two, one)
        assert two.does(endpoint)
        await tell(database, 2)
        await until(lambda: other.sent)

    [first, _] = await listed(database)
    assert (len(slow.sent), slow.sent[0].place, other.sent[0].place) == (1, (1, 1), (2, 1))
    assert (first.state, first.attempts) == (DeliveryState.DELIVERED, 1)


async def test_a_post_without_end_does_not_keep_a_receiver_from_the_next(
    database: Database, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenure_module, "ENDING_S", 0.0)
    one, two = tenure_of(database, "one"), tenure_of(database, "two")
    await beat(2, one)
    slow, other = Script(), Script()
    slow.gate.clear()
    async with (
        running(await courier_of(database, endpoint, slow, one)) as _,
        running(await courier_of(database, endpoint, other, two)) as _,
    ):
        await until(lambda: slow.at_once)
        await beat(ROUNDS, two, one)
        await until(lambda: other.sent)

    assert slow.sent[0].place == other.sent[0].place
