"""Worlds on a real libSQL server end as they should, and a bug of the way there is found."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest

from indexer.errors import Conflict
from store.database import Statement
from tests.simulation.faults_server import SERVER_FAULTS
from tests.simulation.judge import judge
from tests.simulation.loop import Stuck
from tests.simulation.planting import Fault, found
from tests.simulation.seeds import Backend, examine, examine_shop
from tests.simulation.server import ServerDisk
from tests.simulation.world import World


#: A few of each kind: `./run simulate --backend libsql` runs any number.
WORLDS, SHOPS = 6, 4
#: Never more than two: each of them has a server that works beside it.
PROCESSES = 2
#: Seeds in which a fault must be found; most of them cannot show it, and are not run.
SEEDS_MAX = 60

PUT = Statement("INSERT INTO deployment (name, value) VALUES ('a', ?)", ("é",))
GET = Statement(
    "SELECT value, 2.5, NULL, 9007199254740993, x'00ff' FROM deployment WHERE name = 'a'"
)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
        yield pool


@pytest.fixture
def disk() -> Iterator[ServerDisk]:
    disk = ServerDisk()
    yield disk
    disk.close()


def test_every_world_ends_as_it_should(processes: ProcessPoolExecutor) -> None:
    examined = processes.map(partial(examine, backend=Backend.LIBSQL), range(WORLDS))
    failed = [result for result in examined if result.objections]

    assert not failed, "\n".join(result.story for result in failed)


def test_every_shop_ends_as_it_should(processes: ProcessPoolExecutor) -> None:
    examined = processes.map(partial(examine_shop, backend=Backend.LIBSQL), range(SHOPS))
    failed = [result for result in examined if result.objections]

    assert not failed, "\n".join(result.story for result in failed)


def test_two_runs_of_one_seed_are_the_same(processes: ProcessPoolExecutor) -> None:
    here = examine(2, backend=Backend.LIBSQL)
    elsewhere = processes.submit(examine, 2, backend=Backend.LIBSQL).result()

    assert here.digest
    assert here.digest == elsewhere.digest


def objections_to(fault: Fault, seed: int) -> list[str] | None:
    """What is wrong with the world of that seed; None when it cannot show the fault."""
    profile = fault.world(World(seed).profile)
    if profile is None:
        return None
    try:
        return judge(World(seed, profile, make_disk=ServerDisk).run())
    except Stuck as error:
        return [str(error)]


@pytest.mark.parametrize("fault", SERVER_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(fault: Fault) -> None:
    found(fault, objections_to, SEEDS_MAX)


def test_a_seed_that_failed_says_how_to_see_it_again() -> None:
    told = examine(0, backend=Backend.LIBSQL).story

    assert "again: ./run simulate --backend libsql --seed 0 --trace" in told


# ------------------------------------------------------------------------------ the server


def test_a_batch_is_told_of_once_it_is_applied(disk: ServerDisk) -> None:
    told = []
    disk.committed = lambda process, batch: told.append((process, list(batch)))

    disk.apply([PUT], 7)
    with pytest.raises(Conflict):
        disk.apply([PUT], 8)

    assert told == [(7, [PUT])]
    assert disk.answer([GET]) == [[("é", 2.5, None, 2**53 + 1, b"\x00\xff")]]


def test_what_was_applied_outlives_the_server(disk: ServerDisk) -> None:
    disk.apply([PUT], 1)
    disk.restart()

    assert len(disk.answer([GET])[0]) == 1
    assert disk.dump()["deployment"]


@pytest.fixture
def differing(disk: ServerDisk) -> ServerDisk:
    """Its server has a row that it should not have."""
    disk.apply([PUT], 1)
    disk.connection.execute("DELETE FROM deployment WHERE name = 'a'")
    return disk


def test_an_answer_that_is_not_sqlites_is_noticed(differing: ServerDisk) -> None:
    with pytest.raises(AssertionError, match="the server says"):
        differing.answer([GET])


def test_a_row_that_sqlite_has_not_is_noticed_in_the_end(differing: ServerDisk) -> None:
    with pytest.raises(AssertionError, match=r"deployment|the server says"):
        differing.dump()
