"""Work of the dead that nobody wants, and a machine on which the living cannot be seen."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from indexer import whereabouts
from indexer.core.shares import SHARD_UNITS, key_unit
from indexer.tenure import Tenure
from indexer.whereabouts import Whereabouts
from store import leases
from store.database import Database, Statement, open_database
from store.leases import NOBODY, Instance
from store.migrate import migrate
from tests.builders import NOW


HERE = Whereabouts.here()
#: A process with this number that began at another time does not run any more.
GONE = replace(HERE, process=f"{os.getpid()} 1")


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    yield database
    await database.close()


def instance(id_: str, where: Whereabouts) -> Instance:
    return Instance(
        id=id_, version="1.2.3", machine=where.machine, process=where.process, started_at=NOW
    )


def tenure_of(database: Database) -> Tenure:
    return Tenure(database, instance("me", HERE), clock=lambda: NOW, here=HERE)


async def other_has(database: Database, *units: str) -> None:
    """Somebody whose process cannot be seen says that it is there, and takes these."""
    beat = leases.beat(instance("other", GONE), NOW)
    await database.write([beat, leases.take(units, "other", {})])


async def holders(database: Database) -> dict[str, str]:
    board = await leases.read(database)
    return {name: lease.holder for name, lease in board.leases.items()}


async def test_work_of_the_dead_that_nobody_needs_is_nobody_s_and_they_are_forgotten(
    database: Database,
) -> None:
    await other_has(database, key_unit("retired"), *SHARD_UNITS)
    tenure = tenure_of(database)

    for _ in range(3):
        await tenure.beat([])

    assert await holders(database) == {key_unit("retired"): NOBODY} | dict.fromkeys(
        SHARD_UNITS, "me"
    )
    await tenure.beat([])
    assert await holders(database) == dict.fromkeys(SHARD_UNITS, "me")
    assert (await leases.read(database)).instances.keys() == {"me"}


async def test_work_of_the_living_that_nobody_here_knows_stays_theirs(database: Database) -> None:
    """It may be that of a key that this process has not heard of yet."""
    beat = leases.beat(instance("other", HERE), NOW)
    await database.write([beat, leases.take([key_unit("new")], "other", {})])
    tenure = tenure_of(database)

    for _ in range(3):
        await tenure.beat([])

    assert (await holders(database))[key_unit("new")] == "other"


async def test_a_key_that_is_back_is_taken_with_a_higher_token(database: Database) -> None:
    tenure = tenure_of(database)
    for keys in (["k"], ["k"], [], [], []):
        await tenure.beat(keys)
    assert key_unit("k") not in await holders(database)
    [[before]] = (await database.read([Statement("SELECT max(token) FROM leases")]))[0]

    for _ in range(2):
        await tenure.beat(["k"])

    assert tenure.does_key("k")
    lease = (await leases.read(database)).leases[key_unit("k")]
    assert (lease.holder, lease.token > before) == ("me", True)


async def test_who_goes_on_although_its_process_cannot_be_seen_keeps_its_work(
    database: Database,
) -> None:
    """Where processes are hidden from one another, each would take the other's work for ever."""
    await other_has(database, *SHARD_UNITS)
    tenure = tenure_of(database)

    await tenure.beat([])
    await other_has(database)  # it gives a sign
    for _ in range(3):
        await tenure.beat([])

    assert set((await holders(database)).values()) == {"other"}
    assert tenure.others == 1


def test_whoever_cannot_see_the_first_process_sees_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    began = whereabouts._began
    monkeypatch.setattr(whereabouts, "_began", lambda pid: None if pid == 1 else began(pid))

    assert Whereabouts.here() == Whereabouts()
    assert not Whereabouts.here().is_gone(GONE)
