"""A backup is the whole database of one moment, from either backend, and makes it on either."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from indexer.core.types import EventType
from indexer.demo.sqld.launcher import Sqld
from indexer.errors import InvalidInput, SchemaMismatch, StoreBroken, StoreError, StoreUnavailable
from store import audit, backup, backup_server, deployment, events, migrate, numbering, payments
from store.backup import Contents
from store.database import Database, Statement, open_database
from tests.builders import NOW, make_event, make_payment, make_verdict
from tests.servers.disk import Disk
from tests.store.keeping import create, settled


ROOT = Path(__file__).resolve().parents[2]


def silent(done: int, total: int) -> None:
    """Nobody listens."""


async def contents_of(database: Database) -> dict[str, list[Any]]:
    """Every row of every table but those that the store keeps for itself."""
    [tables] = await database.read(
        [
            Statement(
                "SELECT name FROM sqlite_schema WHERE type = 'table' "
                "AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'libsql_%' "
                "AND name NOT IN ('revision', 'writes') ORDER BY name"
            )
        ]
    )
    names = [str(name) for (name,) in tables]
    reads = [Statement(f"SELECT * FROM {name}") for name in names]  # noqa: S608 - of our schema
    answers = await database.read(reads)
    found = {name: sorted(rows, key=repr) for name, rows in zip(names, answers, strict=True)}
    [found["sqlite_sequence"]] = await database.read(
        [Statement("SELECT name, seq FROM sqlite_sequence ORDER BY name")]
    )
    return found


async def settle(database: Database, number: int) -> None:
    """A payment is made and paid: two writes, a verdict, a transfer and two events."""
    payment = make_payment(number, metadata={"n": "ü\x00'\""}, label="x" * 300)
    await create(database, payment)
    after = settled(payment)
    verdict = make_verdict(payment, name=f"paid {number}")
    event = make_event(after, EventType.SETTLED)
    await database.write(payments.save(payment, after, verdicts=[verdict], events=[event], now=1))


@pytest.fixture(params=["sqlite", "libsql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Where nothing is yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/restored.db"
        return
    server = Sqld(tmp_path / "restored")
    server.start()
    yield server.url
    server.kill()


async def test_a_backup_makes_the_same_database_on_either_backend(
    database: Database, backend_url: str, new_url: str, tmp_path: Path
) -> None:
    for number in range(1, 6):
        await settle(database, number)
    await deployment.put_once(database, "genesis_hash", "g" * 40)
    before = await contents_of(database)

    taken = await backup.take(backend_url, tmp_path / "b.db", tell=silent)
    restored = await backup.restore(tmp_path / "b.db", new_url, now=NOW, tell=silent)

    assert restored == taken
    assert (taken.payments, taken.events, taken.last_seq, taken.cluster) == (5, 10, 10, "g" * 40)
    other = await open_database(new_url)
    await migrate.check(other)
    assert await contents_of(other) == numbered(before)
    assert await migrate.schema(other) == await migrate.schema(database)
    await settle(other, 6)  # it can be written to, and goes on counting
    [[(last,)]] = await other.read([Statement("SELECT max(seq) FROM events")])
    assert last == numbering.first_after(NOW) + 2
    assert await audit.missing_events(other) == []
    await other.close()


def numbered(before: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The same rows in a database that was restored at that time."""
    last = dict(before["sqlite_sequence"])["events"]
    goes_on_from = numbering.first_after(NOW)
    note = (f"events_skip_after_{last}", str(goes_on_from))
    counted = ("events", "gaps", "replays", "webhook_deliveries", "webhook_events")
    return before | {
        "deployment": sorted([*before["deployment"], note], key=repr),
        "sqlite_sequence": [(name, goes_on_from) for name in counted],
    }


async def test_a_second_restore_of_one_copy_begins_above_the_first(
    database: Database, backend_url: str, tmp_path: Path
) -> None:
    """Also one of a copy that was taken between, and one with a clock that is behind."""
    await settle(database, 1)
    path, seen = tmp_path / "b.db", [2]
    await backup.take(backend_url, path, tell=silent)
    for number, now in enumerate((NOW, NOW + 1, NOW), start=2):
        url = f"sqlite:///{tmp_path}/{number}.db"
        await backup.restore(path, url, now=now, tell=silent)
        other = await open_database(url)
        await settle(other, number)
        assert await audit.missing_events(other) == []
        seen.append(await events.last_seq(other))
        await other.close()
        if number == 3:
            await backup.take(url, path, replace=True, tell=silent)

    assert seen == [2, NOW * 1_000 + 2, NOW * 1_000 + 1_002, NOW * 1_000 + 1_004]


async def test_one_that_is_taken_under_load_is_of_one_moment(
    database: Database,
    backend_url: str,
    new_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pages are few, so that many commits come between the first and the last of them."""
    monkeypatch.setattr(backup, "PAGES_AT_ONCE", 2)
    monkeypatch.setattr(backup_server, "ROWS_AT_ONCE", 7)
    for number in range(1, 40):
        await settle(database, number)
    numbers = iter(range(40, 100_000))
    goes_on = True

    async def shop() -> None:
        while goes_on:
            await settle(database, next(numbers))

    shops = [asyncio.create_task(shop()) for _ in range(3)]
    taken = [await backup.take(backend_url, tmp_path / f"{n}.db", tell=silent) for n in range(3)]
    goes_on = False
    await asyncio.gather(*shops)

    assert taken[0].payments >= 39
    assert taken[0].payments < taken[2].payments < next(numbers), "others wrote meanwhile"
    await backup.restore(tmp_path / "2.db", new_url, now=NOW, tell=silent)
    other = await open_database(new_url)
    await refuse_what_is_torn(other, taken[2])
    await other.close()


async def refuse_what_is_torn(database: Database, taken: Contents) -> None:
    """Each commit is there whole or not at all, and the log has no hole."""
    answers = await database.read(
        [
            Statement(sql)
            for sql in (
                "SELECT count(*), max(seq), min(seq) FROM events",
                "SELECT count(*) FROM payments",
                "SELECT count(*) FROM payments WHERE status = 'settled'",
                (
                    "SELECT count(*) FROM verdicts JOIN payments ON id = payment_id "
                    "WHERE status = 'settled' AND version = 2"
                ),
                "SELECT count(*) FROM transfers JOIN verdicts USING (signature, payment_id)",
                "SELECT count(*) FROM events WHERE type = 'payment.settled'",
                "SELECT count(*) FROM payment_metadata",
            )
        ]
    )
    (events, last, first), *counts = (rows[0] for rows in answers)
    made, paid, judged, moved, told, noted = (row[0] for row in counts)
    assert (events, last, first) == (taken.events, taken.last_seq, 1)
    assert events == last, "the log has a hole"
    assert made == noted == taken.payments
    assert paid == judged == moved == told == events - made


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/axiom.db"

    async def take() -> None:
        database = await open_database(url)
        await migrate.migrate(database)
        await backup.take(url, tmp_path / "b.db", tell=silent)
        await database.close()

    before = os.umask(0)
    try:
        asyncio.run(take())
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "b.db").stat().st_mode) == 0o600


async def test_what_is_there_is_kept_unless_it_is_to_give_way(
    database: Database, backend_url: str, tmp_path: Path
) -> None:
    target = tmp_path / "b.db"
    target.write_text("a list of things to buy")

    with pytest.raises(InvalidInput, match="exists already"):
        await backup.take(backend_url, target, tell=silent)
    assert target.read_text() == "a list of things to buy"

    await backup.take(backend_url, target, replace=True, tell=silent)
    assert backup.examine(target).payments == 0
    assert not list(tmp_path.glob(".*.partial*"))


async def test_a_database_that_is_there_is_never_restored_over(
    database: Database, backend_url: str, tmp_path: Path
) -> None:
    await settle(database, 1)
    await backup.take(backend_url, tmp_path / "b.db", tell=silent)
    await settle(database, 2)
    before = await contents_of(database)

    with pytest.raises(InvalidInput, match="already"):
        await backup.restore(tmp_path / "b.db", backend_url, now=NOW, tell=silent)

    assert await contents_of(database) == before


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
async def test_the_log_of_another_database_is_not_taken_for_its_own(
    database: Database, backend_url: str, tmp_path: Path, end: str
) -> None:
    """SQLite would play an old log that lies there into the restored file."""
    await backup.take(backend_url, tmp_path / "b.db", tell=silent)
    (tmp_path / f"new.db{end}").write_bytes(b"x" * 100)

    with pytest.raises(InvalidInput, match=rf"new\.db{end} exists already"):
        await backup.restore(
            tmp_path / "b.db", f"sqlite:///{tmp_path}/new.db", now=NOW, tell=silent
        )

    assert not (tmp_path / "new.db").exists()


async def taken_from(database: Database, url: str, path: Path) -> bytes:
    await settle(database, 1)
    await backup.take(url, path, tell=silent)
    return path.read_bytes()


async def test_one_that_is_damaged_or_cut_off_is_refused(
    database: Database, backend_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "b.db"
    whole = await taken_from(database, backend_url, path)
    spoiled = {
        "empty": b"",
        "cut": whole[:-1],
        "cut at a page": whole[:-4096],
        "half": whole[: len(whole) // 2],
        "header alone": whole[:100],
        "longer": whole + bytes(4096),
        "text": b"payment,amount\n" * 500,
        "zeros inside": whole[:4096] + bytes(8192) + whole[12288:],
        "with a log": whole[:18] + b"\2\2" + whole[20:],
    }
    for name, content in spoiled.items():
        path.write_bytes(content)
        with pytest.raises(StoreBroken, match=r"b\.db"):
            await backup.restore(path, f"sqlite:///{tmp_path}/new.db", now=NOW, tell=silent)
        assert not (tmp_path / "new.db").exists(), name
    with pytest.raises(StoreUnavailable, match="No such file"):
        backup.examine(tmp_path / "another.db")


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DROP TABLE schema_migrations", "another program"),
        ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1", "another content"),
        (
            (
                "INSERT INTO schema_migrations (version, name, checksum) "
                "SELECT max(version) + 1, '0999_from_tomorrow.sql', 'x' FROM schema_migrations"
            ),
            "newer release",
        ),
        ("DELETE FROM schema_migrations WHERE version = 2", "not 1, 2, 3"),
    ],
)
async def test_one_of_an_unknown_schema_is_refused(
    database: Database, backend_url: str, tmp_path: Path, sql: str, problem: str
) -> None:
    path = tmp_path / "b.db"
    await taken_from(database, backend_url, path)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(sql).fetchall()

    with pytest.raises(SchemaMismatch, match=problem):
        backup.examine(path)


async def test_rows_without_those_that_they_belong_to_are_refused(
    database: Database, backend_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "b.db"
    await taken_from(database, backend_url, path)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("DELETE FROM verdicts").fetchall()

    with pytest.raises(StoreBroken, match="rows of transfers"):
        backup.examine(path)


async def test_a_full_disk_leaves_nothing(url: str, tmp_path: Path) -> None:
    with Disk() as disk:
        database = await open_database(url)
        await migrate.migrate(database)
        await settle(database, 1)
        disk.full = True
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await backup.take(url, tmp_path / "b.db", tell=silent)
        disk.full = False
        await database.close()

    assert not [each for each in tmp_path.iterdir() if "b.db" in each.name]


KILLED = """
import asyncio, sys
from pathlib import Path
from store import backup, backup_server
backup.PAGES_AT_ONCE, backup_server.ROWS_AT_ONCE = 3, 20
def tell(done, total):
    if done > total * int(sys.argv[3]) // 100:
        print("there", flush=True)
        sys.stdin.readline()
asyncio.run(backup.take(sys.argv[1], Path(sys.argv[2]), tell=tell))
"""


@pytest.mark.parametrize("percent", [10, 98])
async def test_one_that_is_killed_leaves_no_file_that_looks_whole(
    database: Database, backend_url: str, tmp_path: Path, percent: int
) -> None:
    for number in range(1, 30):
        await settle(database, number)
    target = tmp_path / "b.db"
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        backend_url,
        str(target),
        str(percent),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    async with asyncio.timeout(60):
        assert await child.stdout.readline() == b"there\n"
        child.send_signal(signal.SIGKILL)
        await child.wait()

    assert not target.exists()
    for left in tmp_path.glob(".b.db*.partial"):
        with pytest.raises(StoreError):
            backup.examine(left)
    await backup.take(backend_url, target, tell=silent)
    assert backup.examine(target).payments == 29


async def test_a_restore_that_is_killed_on_a_server_leaves_no_database(
    database: Database,
    backend_url: str,
    sqld: Sqld,
    tmp_path: Path,
) -> None:
    """Its tables alone are nobody's: whoever opens it, and a second restore, refuses."""
    await settle(database, 1)
    await backup.take(backend_url, tmp_path / "b.db", tell=silent)
    server = Sqld(tmp_path / "new")
    server.start()
    try:

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await backup.restore(tmp_path / "b.db", server.url, now=NOW, tell=stop)

        other = await open_database(server.url)
        with pytest.raises(SchemaMismatch):
            await migrate.check(other)
        await other.close()
        with pytest.raises(InvalidInput, match="already"):
            await backup.restore(tmp_path / "b.db", server.url, now=NOW, tell=silent)
    finally:
        server.kill()
