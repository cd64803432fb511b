"""What reaches the disk when: system calls that sync, counted for each commit on each backend.

    python -m bench durability        needs strace

A child writes one batch after the other; strace watches the process that has the files: the child
itself for a SQLite file, the server for a libSQL server. What is not synced survives the end of
the process, not a power cut. For a file with NORMAL, beside it, what `synchronous` decides.
"""

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

import apsw
import structlog
import uvloop

from indexer.demo.sqld.launcher import Sqld
from store.connection import Statement
from store.database import Database, open_database
from store.migrate import migrate


COMMITS: Final = 200
#: What makes bytes outlive a power cut, and writes, to see that they are made at all.
TRACED: Final = "fsync,fdatasync,sync_file_range,msync,openat,open,pwrite64,pwritev,write,writev"
_SYNCS: Final = ("fsync", "fdatasync", "sync_file_range", "msync")
_WRITES: Final = ("pwrite64", "pwritev", "write", "writev")
_CALL: Final = re.compile(r"(?:\[pid +\d+\] |\d+ +)?(\w+)\((?:\d+<([^>]*)>)?(.*)")
_ATTACH_S: Final = 30.0
_TABLE: Final = "CREATE TABLE bench_log (seq INTEGER PRIMARY KEY, said TEXT NOT NULL) STRICT"


def main() -> None:
    """Prints a line for each backend, or that strace is missing."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    strace = shutil.which("strace")
    if strace is None:
        print("strace is not installed (`apt-get install strace`): nothing was measured")
        return
    print(f"{'backend':24} {'syncs/commit':>13} {'writes/commit':>14}  files that were synced")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _show("file, FULL", _of_file(strace, folder / "full", "FULL"))
        _show("file, NORMAL", _of_file(strace, folder / "normal", "NORMAL"))
        _show("libSQL server", uvloop.run(_of_server(strace, folder / "sqld")))


def write_file(path: str, synchronous: str) -> None:
    """What the child does, after one line that begins the count."""
    connection = apsw.Connection(path)
    for sql in ("PRAGMA journal_mode = WAL", f"PRAGMA synchronous = {synchronous}", _TABLE):
        connection.execute(sql).fetchall()
    Path(f"{path}.began").touch()
    for number in range(COMMITS):
        connection.execute("INSERT INTO bench_log (said) VALUES (?)", (f"{number} " * 100,))
    Path(f"{path}.ended").touch()


def _of_file(strace: str, folder: Path, synchronous: str) -> list[str]:
    folder.mkdir()
    trace, path = folder / "trace", folder / "axiom.db"
    code = f"from bench.durability import write_file; write_file({str(path)!r}, {synchronous!r})"
    command = [strace, "-f", "-y", "-e", f"trace={TRACED}", "-o", str(trace)]
    subprocess.run([*command, sys.executable, "-c", code], check=True)
    lines = trace.read_text(errors="replace").splitlines()
    began = next(n for n, line in enumerate(lines) if "axiom.db.began" in line)
    ended = next(n for n, line in enumerate(lines) if "axiom.db.ended" in line)
    return lines[began:ended]


async def _of_server(strace: str, folder: Path) -> list[str]:
    trace = folder / "trace"
    async with Sqld.running(folder) as server:
        database = await open_database(server.url)
        await migrate(database)
        await database.write([Statement(_TABLE)])
        command = [strace, "-f", "-y", "-e", f"trace={TRACED}", "-o", str(trace)]
        watching = subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and nothing else runs
            [*command, "-p", str(server.pid)], stderr=subprocess.DEVNULL
        )
        try:
            await _until_watched(database, trace)
            began = len(trace.read_text(errors="replace").splitlines())
            for number in range(COMMITS):
                await database.write(
                    [Statement("INSERT INTO bench_log (said) VALUES (?)", (f"{number} " * 100,))]
                )
        finally:
            watching.terminate()
            watching.wait()
        await database.close()
    return trace.read_text(errors="replace").splitlines()[began:]


async def _until_watched(database: Database, trace: Path) -> None:
    """Writes until strace sees it."""
    deadline = time.monotonic() + _ATTACH_S
    while not trace.exists() or not trace.stat().st_size:  # noqa: ASYNC240 - nothing else runs
        if time.monotonic() > deadline:
            sys.exit("strace cannot watch the server: it may lack the permission (ptrace)")
        await database.write([Statement("INSERT INTO bench_log (said) VALUES ('waiting')")])
        await asyncio.sleep(0.05)


def _show(backend: str, lines: list[str]) -> None:
    syncs, writes, files = 0, 0, Counter[str]()
    for line in lines:
        match = _CALL.match(line)
        if match is None:
            continue
        name, path = match[1], match[2] or ""
        if name in _SYNCS:
            syncs += 1
            files[Path(path).name or "?"] += 1
        elif name in _WRITES and path.startswith("/tmp"):  # noqa: S108 - where this bench works
            writes += 1
    said = ", ".join(f"{name} {count}" for name, count in files.most_common()) or "none"
    print(f"{backend:24} {syncs / COMMITS:13.2f} {writes / COMMITS:14.2f}  {said}")
