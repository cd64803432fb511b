"""The store's face, and what it promises across crashes and processes."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path

import apsw
import pytest

from indexer.errors import ConfigError, Conflict, InvariantError, StoreBroken, StoreUnavailable
from store.connection import connect
from store.database import Database, Parameter, Statement, open_database, path_of
from store.migrate import migrate
from tests.store.writing_process import ROWS


ROOT = Path(__file__).resolve().parents[2]
READ_NAMES = Statement("SELECT name FROM deployment")


def put(name: str) -> Statement:
    return Statement("INSERT INTO deployment (name, value) VALUES (?, 'x')", (name,))


async def writing_process(url: str, prefix: str, count: int) -> Process:
    script = ROOT / "tests/store/writing_process.py"
    return await asyncio.create_subprocess_exec(
        sys.executable, script, url, prefix, str(count),
        stdout=PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def acknowledged(printed: bytes) -> list[int]:
    """The numbers of the whole lines."""
    return [
        int(line) for line in printed[: printed.rfind(b"\n") + 1].splitlines() if line.isdigit()
    ]


# ------------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///",
        "sqlite:////",
        "sqlite:///:memory:",
        "sqlite://a.db",
        "axiom.db",
        "sqlite:///a/",
    ],
)
async def test_other_urls_are_refused_with_the_name_of_the_setting(url: str) -> None:
    with pytest.raises(ConfigError, match=r"AXIOM_DATABASE_URL: .*sqlite:///relative"):
        await open_database(url)


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*/missing; create it"):
        await open_database(f"sqlite:///{tmp_path}/missing/a.db")


def test_three_slashes_are_relative_and_four_are_absolute(tmp_path: Path) -> None:
    assert path_of("sqlite:///axiom.db") == Path("axiom.db")
    assert path_of(f"sqlite:///{tmp_path}/axiom.db") == tmp_path / "axiom.db"


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database" * 1000)

    with pytest.raises(StoreBroken, match="file is not a database"):
        await open_database(f"sqlite:///{tmp_path}/a.db")


async def test_many_processes_worth_of_connections_open_a_new_file_at_once(url: str) -> None:
    databases = await asyncio.gather(*(open_database(url) for _ in range(8)))

    for number, database in enumerate(databases):
        await database.write([Statement(f"CREATE TABLE t{number} (x)")])
    for database in databases:
        await database.close()


# ------------------------------------------------------------------- reading and writing


async def test_a_write_is_seen_by_every_later_read(database: Database) -> None:
    for number in range(50):
        await database.write([put(str(number))])
        [rows] = await database.read([READ_NAMES])

        assert len(rows) == number + 1


async def test_a_failing_statement_in_the_middle_leaves_nothing(database: Database) -> None:
    with pytest.raises(Conflict):
        await database.write([put("a"), put("b"), put("a"), put("c")])

    assert await database.read([READ_NAMES]) == [[]]


async def test_an_empty_batch_is_nothing_to_do(database: Database) -> None:
    assert await database.write([]) == []
    assert await database.read([]) == []


async def test_a_batch_is_what_it_was_when_it_was_sent(database: Database) -> None:
    batch = [put("a")]
    sent = asyncio.create_task(database.write(batch))
    await asyncio.sleep(0)
    batch.append(put("b"))
    await sent

    assert await database.read([READ_NAMES]) == [[("a",)]]


async def test_two_hundred_writers_at_once_are_all_stored(database: Database) -> None:
    await asyncio.gather(*(database.write([put(f"{n}"), put(f"{n}+")]) for n in range(200)))

    [rows] = await database.read([READ_NAMES])
    assert len(rows) == 400


async def test_of_two_hundred_who_want_the_same_one_wins(database: Database) -> None:
    outcomes = await asyncio.gather(
        *(database.write([put("one"), put(str(n))]) for n in range(200)), return_exceptions=True
    )

    [rows] = await database.read([READ_NAMES])
    assert Counter(type(outcome) for outcome in outcomes) == {list: 1, Conflict: 199}
    assert len(rows) == 2


async def test_a_read_that_writes_is_a_mistake_of_ours(database: Database) -> None:
    with pytest.raises(InvariantError):
        await database.read([put("a")])


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        "",
        "ü\U0001f600",
        "a\0b",
        b"",
        b"\0\xff",
        "x" * 10**6,
    ],
    ids=lambda value: f"{value!r:.12}",
)
async def test_a_value_comes_back_as_it_went(empty: Database, value: Parameter) -> None:
    await empty.write([Statement("CREATE TABLE t (x)")])
    [back] = await empty.write([Statement("INSERT INTO t VALUES (?) RETURNING x", (value,))])
    read = await empty.read([Statement("SELECT x, typeof(x) FROM t")])

    kind = {int: "integer", str: "text", bytes: "blob"}.get(type(value), "null")
    assert back == [(value,)]
    assert read == [[(value, kind)]]
    assert type(read[0][0][0]) is type(value)


async def test_a_closed_database_refuses_and_closes_twice(url: str) -> None:
    database = await open_database(url)
    await database.close()
    await database.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await database.write([put("a")])
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.read([READ_NAMES])


# ------------------------------------------------------------------ crashes and processes


async def test_a_killed_process_loses_nothing_that_it_acknowledged(url: str) -> None:
    process = await writing_process(url, "a", 0)
    assert process.stdout is not None
    printed = b""
    async with asyncio.timeout(30):
        while printed.count(b"\n") < 2_000:
            printed += await process.stdout.read(65_536)
    process.kill()
    printed += await process.stdout.read()
    await process.wait()

    database = await open_database(url)
    [rows, [(integrity,)]] = await database.read(
        [READ_NAMES, Statement("SELECT group_concat(integrity_check) FROM pragma_integrity_check")]
    )
    await database.close()

    batches = Counter(int(name.split(":")[1]) for (name,) in rows)
    assert integrity == "ok"
    assert set(acknowledged(printed)) <= set(batches)
    assert set(batches.values()) == {ROWS}  # no half batch


async def test_two_processes_write_one_file(url: str) -> None:
    """They also race to make the file and its schema."""
    processes = [await writing_process(url, prefix, 1_000) for prefix in "ab"]
    async with asyncio.timeout(60):
        printed = [(await process.communicate())[0] for process in processes]

    database = await open_database(url)
    [rows] = await database.read([READ_NAMES])
    await database.close()

    batches = Counter(name.rpartition(":")[0] for (name,) in rows)
    assert [process.returncode for process in processes] == [0, 0]
    assert [sorted(acknowledged(each)) for each in printed] == [list(range(1_000))] * 2
    assert set(batches.values()) == {ROWS}
    assert len(batches) == 2_000


async def test_a_file_that_another_process_holds_is_reported_and_survives(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.connection.BUSY_TIMEOUT_S", 0.05)
    database, second = await open_database(url), await open_database(url)
    await migrate(database)
    holder = connect(str(tmp_path / "axiom.db"), read_only=False)
    holder.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match="locked"):
        await second.write([put("a")])
    assert await second.read([READ_NAMES]) == [[]]  # reading goes on

    holder.close()
    await second.write([put("a")])
    assert await database.read([READ_NAMES]) == [[("a",)]]
    await second.close()
    await database.close()


async def test_closing_leaves_one_tidy_file(url: str, tmp_path: Path) -> None:
    database = await open_database(url)
    await database.write([Statement("CREATE TABLE t (x)")])
    await database.close()

    assert [path.name for path in tmp_path.iterdir()] == ["axiom.db"]
    connection = apsw.Connection(str(tmp_path / "axiom.db"))
    assert connection.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
    connection.close()
