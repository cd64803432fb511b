"""Batches and reads a second on one libSQL server: `libsql-client`, and the store's own way.

    python -m bench libsql_drivers

`libsql-client` is installed into an environment of its own, made for this run: the project does
not use it. Both take turns on the same server, several rounds, and the middle one counts. A batch
is what a settled payment writes. At the end the server is frozen: who still waits then, and for
how long?
"""

import asyncio
import statistics
import subprocess
import tempfile
import time
import venv
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import structlog

from bench.libsql_client_turns import LIMIT_S, rate
from indexer.demo.sqld.launcher import Sqld
from indexer.errors import StoreError
from store.connection import Statement
from store.database import Database, open_database
from store.migrate import migrate


ROUNDS: Final = 5
SECONDS_PER_TURN: Final = 1.0
AT_ONCE: Final = (1, 8, 50)
_DRIVER: Final = "libsql-client==0.3.1"
_CHILD: Final = Path(__file__).with_name("libsql_client_turns.py")
_TABLES: Final = (
    "CREATE TABLE bench_legs (signature TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    "CREATE TABLE bench_states (id INTEGER PRIMARY KEY, version INTEGER NOT NULL) STRICT",
    "CREATE TABLE bench_log (seq INTEGER PRIMARY KEY, said TEXT NOT NULL) STRICT",
    """
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
        INSERT INTO bench_states SELECT i, 1 FROM n
    """,
)

Turn = Callable[[str, int, int], Awaitable[float | str]]


def main() -> None:
    """Prints a line for each kind of work and number at once."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as folder:
        python = _install(Path(folder) / "venv")
        asyncio.run(_compare(Path(folder), python))


def _install(place: Path) -> Path:
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-qq", _DRIVER], check=True)
    return python


async def _compare(folder: Path, python: Path) -> None:
    async with Sqld.running(folder / "sqld") as server:
        database = await open_database(server.url)
        await migrate(database)
        await database.write([Statement(sql) for sql in _TABLES])
        child = await asyncio.create_subprocess_exec(
            python, _CHILD, server.url, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            print(f"{_DRIVER}: 2^53 + 1 comes back {await _line(child)}")
            # Ours first: after 50 parallel writers the server may be of no use to anybody.
            turns = {"ours": _ours(database), "libsql-client": _theirs(child)}
            print(f"{'':8} {'at once':>8} {'ours/s':>10} {'libsql-client/s':>16} {'ratio':>7}")
            for kind in ("read", "write"):
                for at_once in AT_ONCE:
                    await _row(kind, at_once, turns)
            server.pause()
            for name, turn in turns.items():
                began_at = time.perf_counter()
                said = await turn("frozen", 1, 0)
                print(f"frozen server, {name}: {said} after {time.perf_counter() - began_at:.1f} s")
        finally:
            child.kill()
            await child.wait()
            server.kill()
            await database.close()


async def _row(kind: str, at_once: int, turns: dict[str, Turn]) -> None:
    rounds: list[list[float]] = []
    for number in range(ROUNDS):
        first = (number * len(AT_ONCE) + AT_ONCE.index(at_once)) * 10_000_000
        found = [await turn(kind, at_once, first) for turn in turns.values()]
        if any(isinstance(each, str) for each in found):
            ours, theirs = (each if isinstance(each, str) else f"{each:,.0f}" for each in found)
            print(f"{kind:8} {at_once:8} {ours:>10} {theirs}", flush=True)
            return
        rounds.append([float(each) for each in found])
    medians = [statistics.median(rates) for rates in zip(*rounds, strict=True)]
    ratio = statistics.median(ours / theirs for ours, theirs in rounds)
    print(f"{kind:8} {at_once:8} {medians[0]:10,.0f} {medians[1]:16,.0f} {ratio:7.2f}", flush=True)


async def _line(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(3 * LIMIT_S):
        return (await child.stdout.readline()).decode().strip()


def _theirs(child: asyncio.subprocess.Process) -> Turn:
    async def turn(kind: str, at_once: int, first: int) -> float | str:
        assert child.stdin is not None
        child.stdin.write(f"{kind} {at_once} {SECONDS_PER_TURN} {first}\n".encode())
        said = await _line(child)
        try:
            return float(said)
        except ValueError:
            return said or "it has ended"

    return turn


def _ours(database: Database) -> Turn:
    def write(number: int) -> Awaitable[Any]:
        # Other keys than those of the other one.
        return database.write(
            [
                Statement("INSERT INTO bench_legs VALUES (?)", (f"ours {number:083}",)),
                Statement(
                    "UPDATE bench_states SET version = version + 1 WHERE id = ?", (number % 100,)
                ),
                Statement("INSERT INTO bench_log (said) VALUES (?)", ("{}" * 200,)),
            ]
        )

    def read(number: int) -> Awaitable[Any]:
        sql = "SELECT version FROM bench_states WHERE id = ?"
        return database.read([Statement(sql, (number % 100,))])

    async def frozen(_: int) -> None:
        await database.write([Statement("UPDATE bench_states SET version = 0 WHERE id = 0")])

    works = {"write": write, "read": read, "frozen": frozen}

    async def turn(kind: str, at_once: int, first: int) -> float | str:
        try:
            return await rate(works[kind], at_once, SECONDS_PER_TURN, first)
        except StoreError as error:
            return type(error).__name__

    return turn
