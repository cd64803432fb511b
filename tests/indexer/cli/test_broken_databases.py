"""A database that cannot be used: one line that says what to do, an exit code, nothing lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from store import connection
from tests.indexer.cli.conftest import Result, Run


ROOT = Path(__file__).resolve().parents[3]

COMMANDS = [
    ["up"],
    ["indexer"],
    ["api"],
    ["migrate", "--check"],
    ["payments", "list"],
    ["audit"],
    ["dlq", "list"],
]

DAEMONS = {"up", "indexer", "api"}

Break = Callable[[Path], object]


def sql(*statements: str) -> Break:
    def run(file: Path) -> None:
        changed = apsw.Connection(str(file))
        for each in statements:
            changed.execute(each)
        changed.close()

    return run


def instead(statement: str) -> Break:
    def run(file: Path) -> None:
        file.unlink()
        sql(statement)(file)

    return run


def cut(size: int) -> Break:
    return lambda file: os.truncate(file, size)


def scramble(file: Path) -> None:
    """A page in the middle is another than it was; its links lead nowhere."""
    with file.open("r+b") as stream:
        stream.seek(4096 * 3)
        stream.write(b"\xa5" * 4096)


def empty_beside_a_log(file: Path) -> None:
    file.with_name(f"{file.name}-wal").write_bytes(b"all that was paid today")
    os.truncate(file, 0)


def into_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


NEWER = "INSERT INTO schema_migrations VALUES (9999, '9999_later.sql', 'x', 0, NULL)"
ANOTHER = "UPDATE schema_migrations SET checksum = 'other' WHERE version = 1"

BROKEN: dict[str, tuple[Break, int, str]] = {
    "newer": (sql("DELETE FROM schema_migrations WHERE version > 1", NEWER), 1, "number 2"),
    "checksum": (sql(ANOTHER), 1, "another content than this release brings"),
    "text": (lambda f: f.write_text("to whom it may concern " * 999), 1, "is not a database"),
    "short text": (lambda f: f.write_text("x"), 1, "its 1 bytes are no database"),
    "zeros": (lambda f: f.write_bytes(bytes(8192)), 1, "is not a database"),
    "cut in the header": (cut(60), 1, "what is left of one"),
    "cut in a page": (cut(8000), 1, "is damaged"),
    "cut at a page": (cut(8192), 1, "is damaged"),
    "short of a byte": (lambda f: os.truncate(f, f.stat().st_size - 1), 1, "middle of a page"),
    "scrambled": (scramble, 1, "damaged"),
    "empty beside a log": (empty_beside_a_log, 1, "it is empty, and the log"),
    "a folder": (into_a_folder, 2, "is a folder"),
    "another program's": (
        instead("CREATE TABLE bookmarks (url TEXT)"),
        1,
        "the tables of another program, such as bookmarks",
    ),
    "another program's migrations": (
        instead("CREATE TABLE schema_migrations (version TEXT)"),
        1,
        "the tables of another program",
    ),
}


def complaint(result: Result) -> str:
    """The one line that was said, without what a daemon logs."""
    said = [line for line in result.err.splitlines() if line.startswith("axiompay: ")]
    assert len(said) == 1, result.err
    assert "Traceback" not in result.err + result.out
    return said[0]


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_said_and_left_alone(migrated: Run, tmp_path: Path, kind: str) -> None:
    break_it, code, words = BROKEN[kind]
    break_it(tmp_path / "axiom.db")
    before = content(tmp_path)

    for command in COMMANDS:
        result = migrated(*command)

        # Who only answers looks at what it needs, and that may be whole.
        if kind != "scrambled" or command[0] in DAEMONS:
            assert words in complaint(result)
            assert result.code == code
        assert content(tmp_path) == before


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the memory that connections share, and a log that is empty."""
    files = [file for file in folder.iterdir() if file.is_file()]
    found = {file.name: file.read_bytes() for file in files if not file.name.endswith("-shm")}
    return {name: data for name, data in found.items() if data or not name.endswith("-wal")}


def test_a_folder_that_is_missing_is_named(run: Run) -> None:
    result = run("up", DATABASE_URL="sqlite:///nowhere/axiom.db")

    assert result.code == 2
    assert "there is no folder nowhere; create it first" in complaint(result)


def test_what_stays_locked_is_given_up(
    migrated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.2)
    # Not merely in a transaction, which others wait for: for itself alone.
    holder = apsw.Connection(str(tmp_path / "axiom.db"))
    holder.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    holder.execute("BEGIN IMMEDIATE")
    try:
        for command in COMMANDS:
            result = migrated(*command)
            assert result.code == 1
            assert "another process kept it locked" in complaint(result)
    finally:
        holder.close()
    assert migrated("payments", "list").code == 0


# ------------------------------------------------------------ without the powers of the root user


def unprivileged(folder: Path, *arguments: str) -> Result:
    """Runs a command as a user who may do only what permissions say."""
    powers = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    ended = subprocess.run(
        [*(powers if os.geteuid() == 0 else []), sys.executable, "-m", "indexer", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Result(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def locked(migrated: Run, tmp_path: Path) -> Iterator[Path]:
    """A database whose permissions a test takes away."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("the root user may do everything, and setpriv is not there to change that")
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "axiom.db").rename(folder / "axiom.db")
    yield folder
    folder.chmod(0o700)
    (folder / "axiom.db").chmod(0o600)


@pytest.mark.parametrize("command", [["up"], ["payments", "list"]])
def test_a_file_that_may_not_be_written_is_refused_at_once(
    locked: Path, command: list[str]
) -> None:
    (locked / "axiom.db").chmod(0o400)

    result = unprivileged(locked, *command)

    assert result.code == 1
    assert "this user may not write it" in complaint(result)


def test_a_file_that_may_not_be_read_is_refused(locked: Path) -> None:
    (locked / "axiom.db").chmod(0o000)

    result = unprivileged(locked, "up")

    assert result.code == 1
    assert "this user may not read and write it" in complaint(result)


@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_folder_that_may_not_be_written_is_named(locked: Path, mode: int) -> None:
    """SQLite keeps its log beside the file."""
    inner = locked / "inner"
    inner.mkdir()
    (locked / "axiom.db").rename(inner / "axiom.db")
    inner.chmod(mode)
    try:
        (locked / "my.env").write_text("AXIOM_DATABASE_URL=sqlite:///inner/axiom.db\n")
        result = unprivileged(locked, "payments", "list", "--env-file", "my.env")
    finally:
        inner.chmod(0o700)
        (inner / "axiom.db").rename(locked / "axiom.db")

    assert result.code == 1
    assert "may not" in complaint(result)
