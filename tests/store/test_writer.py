import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from indexer.errors import Conflict, InvariantError, StoreUnavailable
from store.connection import Statement, connect
from store.writer import GROUP_BATCHES_MAX, Writer


class Bench:
    """A writer on a table of unique numbers, and a second connection to look from outside.

    Attributes:
        connection: the writer's own: to be touched only while it has nothing to do.
    """

    def __init__(self, path: Path) -> None:
        self.connection = connect(str(path), read_only=False)
        self.connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT) STRICT")
        self.outside = apsw.Connection(str(path))
        self.writer = Writer(self.connection)
        self.commits = 0

    async def put(self, *numbers: int) -> object:
        return await self.writer.write(
            [Statement("INSERT INTO t (n) VALUES (?)", (n,)) for n in numbers]
        )

    def stored(self) -> list[int]:
        return [n for (n,) in self.outside.execute("SELECT n FROM t ORDER BY n")]

    def count_commits(self) -> None:
        def count() -> bool:
            self.commits += 1
            return False

        self.connection.set_commit_hook(count)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "t.db")
    yield bench
    bench.outside.close()
    await bench.writer.close()


async def test_a_batch_is_all_or_nothing(bench: Bench) -> None:
    await bench.put(2)

    with pytest.raises(Conflict, match=r"UNIQUE constraint failed: t\.n"):
        await bench.put(1, 2, 3)

    assert bench.stored() == [2]


async def test_the_rows_of_each_statement_come_back(bench: Bench) -> None:
    rows = await bench.writer.write(
        [
            Statement("INSERT INTO t (n) VALUES (1), (2) RETURNING n"),
            Statement("DELETE FROM t WHERE n = ?", (1,)),
            Statement("SELECT n FROM t"),
        ]
    )

    assert rows == [[(1,), (2,)], [], [(2,)]]


async def test_a_bad_batch_among_good_ones_is_refused_alone(bench: Bench) -> None:
    await bench.put(0)
    bench.outside.execute("BEGIN IMMEDIATE")  # makes the batches gather

    sent = [asyncio.create_task(bench.put(*n)) for n in ((1, 2), (3, 0, 4), (5,), (5, 6), (7,))]
    await asyncio.sleep(0)
    bench.outside.execute("ROLLBACK")
    outcomes = await asyncio.gather(*sent, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [list, Conflict, list, Conflict, list]
    assert bench.stored() == [0, 1, 2, 5, 7]


async def test_a_mistake_of_ours_is_refused_alone(bench: Bench) -> None:
    wrong = [
        [Statement("INSERT INTO t (n) VALUES (11)"), Statement("INSERT INTO nowhere VALUES (1)")],
        [Statement("INSERT INTO t (n) VALUES (12)"), Statement("SELECT ?", (2**63,))],
        [Statement("INSERT INTO t (n) VALUES (13)"), Statement("SELECT ?, ?", (1,))],
    ]

    outcomes = await asyncio.gather(
        bench.put(1), *(bench.writer.write(batch) for batch in wrong), bench.put(2),
        return_exceptions=True,
    )  # fmt: skip

    assert [type(outcome) for outcome in outcomes[1:-1]] == [InvariantError] * 3
    assert bench.stored() == [1, 2]


async def test_what_waits_shares_a_commit(bench: Bench) -> None:
    bench.count_commits()
    bench.outside.execute("BEGIN IMMEDIATE")

    sent = [asyncio.create_task(bench.put(n)) for n in range(200)]
    await asyncio.sleep(0)
    bench.outside.execute("ROLLBACK")
    await asyncio.gather(*sent)

    assert bench.stored() == list(range(200))
    assert bench.commits <= 2  # the first batch may have been taken alone


async def test_a_group_has_an_end(bench: Bench) -> None:
    bench.count_commits()
    bench.outside.execute("BEGIN IMMEDIATE")

    sent = [asyncio.create_task(bench.put(n)) for n in range(2 * GROUP_BATCHES_MAX)]
    await asyncio.sleep(0)
    bench.outside.execute("ROLLBACK")
    await asyncio.gather(*sent)

    assert bench.commits >= 2


async def test_nobody_is_told_before_the_commit(bench: Bench) -> None:
    seen_at_commit: list[bool] = []
    sent: list[asyncio.Task[object]] = []

    def look() -> bool:
        seen_at_commit.append(any(task.done() for task in sent))
        return False

    bench.connection.set_commit_hook(look)
    sent += [asyncio.create_task(bench.put(n)) for n in range(5)]
    await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)

    assert seen_at_commit[0] is False
    await asyncio.gather(*sent)


async def test_a_commit_that_fails_fails_all_and_leaves_nothing(bench: Bench) -> None:
    await bench.put(0)
    bench.connection.set_commit_hook(lambda: True)  # turns COMMIT into ROLLBACK

    outcomes = await asyncio.gather(
        bench.put(1), bench.put(0), bench.put(2), return_exceptions=True
    )
    bench.connection.set_commit_hook(None)

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    assert bench.stored() == [0]
    await bench.put(3)
    assert bench.stored() == [0, 3]


async def test_trouble_with_the_disk_inside_a_batch_rolls_the_group_back(bench: Bench) -> None:
    def fail(*_: object) -> None:
        raise apsw.IOError("disk I/O error")

    bench.connection.create_scalar_function("fail", fail)
    bench.outside.execute("BEGIN IMMEDIATE")  # makes the batches gather

    bad = [Statement("INSERT INTO t (n) VALUES (2)"), Statement("SELECT fail()")]
    writes = [bench.put(0), bench.put(1), bench.writer.write(bad), bench.put(3)]
    sent = [asyncio.create_task(write) for write in writes]
    await asyncio.sleep(0)
    bench.outside.execute("ROLLBACK")
    outcomes = await asyncio.gather(*sent, return_exceptions=True)

    failed = [number for number, each in enumerate(outcomes) if isinstance(each, StoreUnavailable)]
    assert failed in ([0, 1, 2, 3], [1, 2, 3])  # the first may have been taken alone
    assert bench.stored() == [number for number in (0, 1, 3) if number not in failed]
    await bench.put(9)


async def test_a_full_disk_fails_the_group_and_passes(bench: Bench) -> None:
    await bench.put(0)
    bench.connection.execute("PRAGMA max_page_count = 4")
    big = Statement("INSERT INTO t VALUES (1, ?)", ("x" * 100_000,))

    with pytest.raises(StoreUnavailable, match="full"):
        await bench.writer.write([big])

    bench.connection.execute("PRAGMA max_page_count = 1000")
    await bench.writer.write([big])
    assert bench.stored() == [0, 1]


async def test_a_file_that_another_holds_is_given_up_after_the_limit(bench: Bench) -> None:
    bench.connection.set_busy_timeout(20)
    bench.outside.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match="locked"):
        await bench.put(1)

    bench.outside.execute("ROLLBACK")
    await bench.put(2)
    assert bench.stored() == [2]


async def test_a_canceled_caller_leaves_no_half_batch_and_no_open_transaction(
    bench: Bench,
) -> None:
    bench.outside.execute("BEGIN IMMEDIATE")
    tasks = [asyncio.create_task(bench.put(*range(n, n + 10))) for n in range(0, 100, 10)]
    await asyncio.sleep(0.01)  # the thread is at work on the first of them

    for task in tasks[::2]:
        task.cancel()
    bench.outside.execute("ROLLBACK")
    await asyncio.gather(*tasks, return_exceptions=True)
    await bench.put(1_000)  # the writer takes batches in order: all before it are done

    stored = bench.stored()
    assert all(task.cancelled() for task in tasks[::2])
    assert [n for n in range(10, 100, 20) if n not in stored] == []
    assert all(len([n for n in stored if n // 10 == ten]) in {0, 10} for ten in range(10))
    assert not bench.connection.in_transaction


async def test_closing_writes_what_waits_and_tidies_the_log_away(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    bench = Bench(path)
    bench.outside.close()
    sent = [asyncio.create_task(bench.put(n)) for n in range(50)]
    await asyncio.sleep(0)

    await bench.writer.close()

    await asyncio.gather(*sent)
    assert [each.name for each in tmp_path.iterdir()] == ["t.db"]
    assert apsw.Connection(str(path)).execute("SELECT count(*) FROM t").fetchall() == [(50,)]
    with pytest.raises(StoreUnavailable, match="closed"):
        await bench.put(51)
