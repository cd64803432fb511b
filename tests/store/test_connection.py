import os
import shutil
from pathlib import Path

import apsw
import pytest

from indexer.errors import ConfigError, Conflict, InvariantError, StoreBroken, StoreUnavailable
from store import connection as connections
from store.connection import Statement, check_version, connect, run, wrapped


def pragma(connection: apsw.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchall()[0][0]


def test_a_writer_waits_for_the_disk_and_keeps_foreign_keys(tmp_path: Path) -> None:
    connection = connect(str(tmp_path / "a.db"), read_only=False)

    assert pragma(connection, "journal_mode") == "wal"
    assert pragma(connection, "synchronous") == 2  # FULL
    assert pragma(connection, "foreign_keys") == 1
    connection.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    writer = connect(str(tmp_path / "a.db"), read_only=False)
    reader = connect(str(tmp_path / "a.db"), read_only=True)

    with pytest.raises(apsw.ReadOnlyError):
        run(reader, [Statement("CREATE TABLE t (x)")])

    reader.close()
    writer.close()


def test_a_reader_does_not_make_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"cannot open .*a\.db"):
        connect(str(tmp_path / "a.db"), read_only=True)

    assert not (tmp_path / "a.db").exists()


def test_what_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"certainly no database" * 100)

    with pytest.raises(StoreBroken, match="file is not a database"):
        connect(str(tmp_path / "a.db"), read_only=False)


def test_a_file_that_stays_locked_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_S", 0.05)
    holder = apsw.Connection(str(tmp_path / "a.db"))
    holder.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StoreUnavailable, match="database is locked"):
        connect(str(tmp_path / "a.db"), read_only=False)

    holder.close()


@pytest.mark.parametrize("version", ["3.40.1", "3.51.2", "3.7.0"])
def test_a_library_that_may_corrupt_is_refused_by_name(version: str) -> None:
    with pytest.raises(ConfigError, match=rf"SQLite {version} .*3\.51\.3"):
        check_version(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0"])
def test_a_library_with_the_repair_is_taken(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize(
    ("sql", "parameters", "kind", "words"),
    [
        ("INSERT INTO t VALUES (1, 1)", (), Conflict, "UNIQUE constraint failed: t.a"),
        ("INSERT INTO t VALUES (2, NULL)", (), Conflict, "NOT NULL constraint failed: t.b"),
        ("INSERT INTO t VALUES (2, -1)", (), Conflict, "CHECK constraint failed: b >= 0"),
        ("INSERT INTO t VALUES (2, 'x')", (), Conflict, "cannot store TEXT value"),
        ("INSERT INTO child VALUES (9)", (), Conflict, "FOREIGN KEY constraint failed"),
        ("DELETE FROM t", (), Conflict, "rows stay"),
        ("SELEC 1", (), InvariantError, "syntax error"),
        ("SELECT * FROM missing", (), InvariantError, "no such table"),
        ("SELECT ?", (), InvariantError, "Incorrect number of bindings"),
        ("SELECT ?", (2**63,), InvariantError, "OverflowError"),
        ("SELECT ?", (object(),), InvariantError, "Bad binding"),
        ("SELECT json_extract('{', '$')", (), InvariantError, "malformed JSON"),
    ],
)
def test_what_an_error_means(
    tmp_path: Path, sql: str, parameters: tuple[int, ...], kind: type[Exception], words: str
) -> None:
    connection = connect(str(tmp_path / "a.db"), read_only=False)
    connection.execute(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER NOT NULL CHECK (b >= 0)) STRICT;"
        "CREATE TABLE child (a INTEGER REFERENCES t (a));"
        "CREATE TRIGGER t_stays BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'rows stay'); END;"
        "INSERT INTO t VALUES (1, 1);"
    )

    with pytest.raises((apsw.Error, TypeError, OverflowError)) as caught:
        run(connection, [Statement(sql, parameters)])
    error = wrapped(caught.value)

    assert type(error) is kind
    assert words in str(error)
    assert error.__cause__ is caught.value
    connection.close()


@pytest.mark.parametrize(
    "error", [apsw.BusyError(), apsw.LockedError(), apsw.FullError(), apsw.IOError()]
)
def test_what_the_surroundings_do_may_pass(error: apsw.Error) -> None:
    assert isinstance(wrapped(error), StoreUnavailable)


def opened(path: Path, *, rows: int = 300) -> apsw.Connection:
    """A database of several pages, all of them in the file."""
    connection = connect(str(path), read_only=False)
    connection.execute("CREATE TABLE schema_migrations (checksum TEXT)")
    for _ in range(rows):
        connection.execute("INSERT INTO schema_migrations VALUES (?)", ("x" * 200,))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return connection


@pytest.mark.parametrize("missing", [1, 100, 4_095, 4_096, 5_000, 40_000])
def test_a_file_that_lost_its_end_is_refused(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "a.db"
    opened(path).close()
    os.truncate(path, path.stat().st_size - missing)

    with pytest.raises(StoreBroken, match=r"is damaged .*put a backup in its place"):
        connect(str(path), read_only=False)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_log_that_lost_its_end_gives_what_it_still_has(tmp_path: Path, share: float) -> None:
    """As after a power cut: whole transactions up to some moment."""
    path, log = tmp_path / "a.db", tmp_path / "a.db-wal"
    writer = opened(path, rows=1)
    for _ in range(200):
        writer.execute("INSERT INTO schema_migrations VALUES (?)", ("y" * 200,))
    copy = tmp_path / "b.db"
    shutil.copy(path, copy)
    shutil.copy(log, tmp_path / "b.db-wal")
    os.truncate(tmp_path / "b.db-wal", int(log.stat().st_size * share))
    writer.close()

    restored = connect(str(copy), read_only=False, thorough=True)

    [[count]] = restored.execute("SELECT count(*) FROM schema_migrations").fetchall()
    assert isinstance(count, int)
    assert 1 <= count <= 201
    assert (count == 1) == (share == 0.0)
    restored.close()


def test_an_empty_file_beside_a_log_is_refused_and_the_log_kept(tmp_path: Path) -> None:
    """SQLite would take it for a new database, and delete the log."""
    path, log = tmp_path / "a.db", tmp_path / "a.db-wal"
    path.touch()
    log.write_bytes(b"everything")

    with pytest.raises(StoreBroken, match=r"it is empty, and the log .* is not"):
        connect(str(path), read_only=False)

    assert log.read_bytes() == b"everything"


def test_a_page_that_was_cut_while_it_was_copied_from_the_log_is_no_damage(tmp_path: Path) -> None:
    path, log = tmp_path / "a.db", tmp_path / "a.db-wal"
    writer = opened(path, rows=1)
    size = path.stat().st_size
    for _ in range(200):
        writer.execute("INSERT INTO schema_migrations VALUES (?)", ("y" * 200,))
    shutil.copy(log, tmp_path / "b.db-wal")
    shutil.copy(path, tmp_path / "b.db")
    with (tmp_path / "b.db").open("ab") as file:
        file.write(b"\x00" * 100)
    writer.close()
    assert (tmp_path / "b.db").stat().st_size == size + 100

    restored = connect(str(tmp_path / "b.db"), read_only=False, thorough=True)

    assert restored.execute("SELECT count(*) FROM schema_migrations").fetchall() == [(201,)]
    restored.close()


def test_a_thorough_look_finds_what_the_first_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    opened(path).close()
    with path.open("r+b") as file:
        file.seek(4_096 * 3)
        file.write(b"\xa5" * 4_096)

    connect(str(path), read_only=False).close()
    with pytest.raises(StoreBroken, match="is damaged"):
        connect(str(path), read_only=False, thorough=True)


def test_a_very_large_file_is_opened_without_that_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    opened(path).close()
    with path.open("r+b") as file:
        file.seek(4_096 * 3)
        file.write(b"\xa5" * 4_096)
    monkeypatch.setattr(connections, "CHECKED_BYTES_MAX", 10_000)

    connect(str(path), read_only=False, thorough=True).close()


@pytest.mark.parametrize("error", [apsw.CorruptError(), apsw.NotADBError()])
def test_damage_does_not_pass(error: apsw.Error) -> None:
    assert isinstance(wrapped(error), StoreBroken)


def test_a_second_opening_leaves_the_locks_of_the_first_alone(tmp_path: Path) -> None:
    """Whoever closes any handle of a file drops all locks that the process holds on it."""
    path = tmp_path / "a.db"
    first = opened(path)
    held = locks_on(path)

    connect(str(path), read_only=True).close()
    connect(str(path), read_only=False, thorough=True).close()

    assert held
    assert locks_on(path) == held
    first.close()


def locks_on(path: Path) -> list[str]:
    """The locks that this process holds on a file, as the system tells it."""
    inode = str(path.stat().st_ino)
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [
        " ".join(row[1:])
        for row in rows
        if row[5].endswith(f":{inode}") and row[4] == str(os.getpid())
    ]
