import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from indexer.errors import InvariantError, StoreUnavailable
from store.connection import Statement, connect
from store.readers import Readers


@pytest.fixture
def writer(tmp_path: Path) -> apsw.Connection:
    connection = connect(str(tmp_path / "t.db"), read_only=False)
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT; INSERT INTO t VALUES (1)")
    return connection


@pytest.fixture
async def connections(
    tmp_path: Path, writer: apsw.Connection
) -> AsyncIterator[list[apsw.Connection]]:
    yield [connect(str(tmp_path / "t.db"), read_only=True) for _ in range(2)]
    writer.close()


@pytest.fixture
async def readers(connections: list[apsw.Connection]) -> AsyncIterator[Readers]:
    readers = Readers(connections)
    yield readers
    await readers.close()


COUNT = Statement("SELECT count(*) FROM t")


async def test_a_batch_sees_one_moment(
    readers: Readers, connections: list[apsw.Connection], writer: apsw.Connection
) -> None:
    def write(*_: object) -> int:
        """Stands for another writer that commits between two statements of the batch."""
        writer.execute("INSERT INTO t SELECT max(n) + 1 FROM t")
        return 0

    for connection in connections:
        connection.create_scalar_function("write_now", write, 0)

    before, _, after = await readers.read([COUNT, Statement("SELECT write_now()"), COUNT])

    assert before == after == [(1,)]
    assert await readers.read([COUNT]) == [[(2,)]]


async def test_reads_run_beside_each_other(
    readers: Readers, connections: list[apsw.Connection]
) -> None:
    loop = asyncio.get_running_loop()
    first_at_work, second_done = asyncio.Event(), asyncio.Event()

    def hold(*_: object) -> int:
        loop.call_soon_threadsafe(first_at_work.set)
        asyncio.run_coroutine_threadsafe(second_done.wait(), loop).result(10)
        return 7

    for connection in connections:
        connection.create_scalar_function("hold", hold, 0)

    slow = asyncio.create_task(readers.read([Statement("SELECT hold()")]))
    await first_at_work.wait()
    assert await readers.read([COUNT]) == [[(1,)]]
    second_done.set()

    assert await slow == [[(7,)]]


async def test_a_batch_that_writes_is_a_mistake(readers: Readers) -> None:
    with pytest.raises(InvariantError, match="a read batch writes"):
        await readers.read([Statement("DELETE FROM t")])

    assert await readers.read([COUNT]) == [[(1,)]]


async def test_an_error_leaves_the_reader_fit_for_the_next(readers: Readers) -> None:
    for _ in range(4):  # each reader at least once
        with pytest.raises(InvariantError, match="no such table"):
            await readers.read([COUNT, Statement("SELECT * FROM missing")])

    assert await readers.read([COUNT]) == [[(1,)]]


async def test_closed_readers_refuse(connections: list[apsw.Connection]) -> None:
    readers = Readers(connections)
    await readers.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await readers.read([COUNT])
