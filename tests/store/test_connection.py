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
