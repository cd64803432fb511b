"""How many durable commits and reads a second: the store, and aiosqlite beside it.

    python -m bench sqlite_drivers

A commit is what a settled payment costs: insert a transfer, read the payment, update it, append
an event. Everybody writes to a file of its own in WAL mode with `synchronous=FULL`. All take
turns, several rounds, and the middle one counts: the disk is not equally fast all the time.

Ratios to the first line of one run mean something; absolute numbers are this disk's.
"""

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import apsw

from store.database import Database, Statement, open_database
from store.migrate import split


ROUNDS = 5
PAYMENTS = 10_000  # as many as SCHEMA makes
#: Long enough to tell them apart, short enough to be run before a coffee gets cold.
SECONDS_PER_TURN = 0.5

SCHEMA = """
CREATE TABLE payments (id INTEGER PRIMARY KEY, received TEXT, version INTEGER) STRICT;
CREATE TABLE transfers (signature TEXT PRIMARY KEY, payment INTEGER, net TEXT)
    STRICT, WITHOUT ROWID;
CREATE TABLE events (seq INTEGER PRIMARY KEY, payment INTEGER, data TEXT) STRICT;
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
    INSERT INTO payments SELECT i, '0', 1 FROM n;
"""
POINT_READ = "SELECT received, version FROM payments WHERE id = ?"

#: One unit of work. The number makes it unique.
Work = Callable[[int], Awaitable[Any]]


def commit(number: int) -> list[Statement]:
    """What one settled payment writes."""
    payment = number % PAYMENTS
    return [
        Statement("INSERT INTO transfers VALUES (?, ?, '5000')", (f"{number:088}", payment)),
        Statement(POINT_READ, (payment,)),
        Statement(
            "UPDATE payments SET received = '5000', version = version + 1 WHERE id = ?", (payment,)
        ),
        Statement("INSERT INTO events (payment, data) VALUES (?, ?)", (payment, "{}" * 200)),
    ]


def main() -> None:
    """Prints commits and reads a second, and how they compare to the first line."""
    print(
        f"apsw brings SQLite {apsw.sqlite_lib_version()}, the interpreter {sqlite3.sqlite_version}"
    )
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare(Path(folder)))


async def _compare(folder: Path) -> None:
    async with AsyncExitStack() as stack:
        theirs = await stack.enter_async_context(_aiosqlite(folder / "theirs.db"))
        ours = await stack.enter_async_context(_ours(folder / "ours.db"))
        await _table(
            "durable commits",
            {
                "aiosqlite, statement by statement": (_by_statement(theirs), 1),
                "aiosqlite, one hop per batch": (_by_hop(theirs), 1),
                "ours, one at a time": (lambda number: ours.write(commit(number)), 1),
                "ours, 50 waiting": (lambda number: ours.write(commit(number)), 50),
                "ours, 200 waiting": (lambda number: ours.write(commit(number)), 200),
            },
        )
        read = Statement(POINT_READ, (7,))
        await _table(
            "point reads",
            {
                "aiosqlite, one at a time": (lambda _: _read(theirs, read), 1),
                "ours, one at a time": (lambda _: ours.read([read]), 1),
                "aiosqlite, 50 waiting": (lambda _: _read(theirs, read), 50),
                "ours, 50 waiting": (lambda _: ours.read([read]), 50),
            },
        )


async def _table(title: str, contestants: dict[str, tuple[Work, int]]) -> None:
    print(f"\n{title:36} {'per second':>10} {'ratio':>7} {'p50 ms':>8} {'p99 ms':>8}")
    turns: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in contestants}
    first = 0
    for _ in range(ROUNDS):
        for name, (work, at_once) in contestants.items():
            rate, waits = await _turn(work, at_once, first)
            turns[name].append((rate, waits))
            first += len(waits) + at_once
    base = None
    for name, measured in turns.items():
        rate = statistics.median(rate for rate, _ in measured)
        base = base or rate
        waits = sorted(wait for _, waits in measured for wait in waits)
        p50, p99 = (waits[int(len(waits) * part)] * 1000 for part in (0.5, 0.99))
        print(f"{name:36} {rate:10,.0f} {rate / base:7.1f} {p50:8.2f} {p99:8.2f}")
        sys.stdout.flush()


async def _turn(work: Work, at_once: int, first: int) -> tuple[float, list[float]]:
    """Units a second, and how long each took."""
    numbers = iter(range(first, sys.maxsize))
    waits: list[float] = []
    start = time.perf_counter()

    async def one_after_another() -> None:
        while (began := time.perf_counter()) < start + SECONDS_PER_TURN:
            await work(next(numbers))
            waits.append(time.perf_counter() - began)

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return len(waits) / (time.perf_counter() - start), waits


@asynccontextmanager
async def _ours(path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{path}")
    await database.write([Statement(sql) for sql in split(SCHEMA)])
    yield database
    await database.close()


@asynccontextmanager
async def _aiosqlite(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute("PRAGMA synchronous = FULL")
        await connection.executescript(SCHEMA)
        yield connection


def _by_statement(connection: aiosqlite.Connection) -> Work:
    """As its documentation shows it: each await is a hop to its thread and back."""

    async def work(number: int) -> None:
        await connection.execute("BEGIN IMMEDIATE")
        for statement in commit(number):
            async with connection.execute(*statement) as cursor:
                await cursor.fetchall()
        await connection.commit()

    return work


async def _read(connection: aiosqlite.Connection, statement: Statement) -> None:
    async with connection.execute(*statement) as cursor:
        await cursor.fetchone()


def _by_hop(connection: aiosqlite.Connection) -> Work:
    """The whole transaction as one function in its thread, for which it has no public way."""
    raw = connection._conn  # noqa: SLF001 - see above
    in_its_thread: Callable[..., Awaitable[None]] = connection._execute  # noqa: SLF001

    def run(number: int) -> None:
        raw.execute("BEGIN IMMEDIATE")
        for statement in commit(number):
            raw.execute(*statement).fetchall()
        raw.execute("COMMIT")

    return lambda number: in_its_thread(run, number)
