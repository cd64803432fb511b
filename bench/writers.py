"""One writer's rate: a file beside a libSQL server, one batch after the other and many at once.

    python -m bench writers

A batch is what a settled payment writes: three statements with a unique key, an update and a row
of a log. Both are asked through the store's own writer, on this machine. Medians of several rounds,
and the ratio of the two in the same round.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import structlog
import uvloop

from indexer.demo.sqld.launcher import Sqld
from store.connection import Statement
from store.database import Database, open_database
from store.migrate import migrate


BATCHES: Final = 2_000
ROUNDS: Final = 5
#: Batches that are handed over before the first one is waited for.
AT_ONCE: Final = (1, 50, 500)
_TABLES: Final = (
    "CREATE TABLE bench_legs (id INTEGER PRIMARY KEY, payment TEXT NOT NULL) STRICT",
    "CREATE TABLE bench_states (payment TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT",
    "CREATE TABLE bench_log (seq INTEGER PRIMARY KEY, said TEXT NOT NULL) STRICT",
)


def main() -> None:
    """Prints a line for each number of batches at once."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(_compare())


async def _compare() -> None:
    print(f"{'at once':>8} {'file/s':>10} {'server/s':>10} {'server/file':>12}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Sqld.running(folder / "sqld") as server:
            databases = [
                await open_database(url) for url in (f"sqlite:///{folder}/a.db", server.url)
            ]
            for database in databases:
                await migrate(database)
                await database.write([Statement(sql) for sql in _TABLES])
            for at_once in AT_ONCE:
                await _line(databases, at_once)
            for database in databases:
                await database.close()


async def _line(databases: list[Database], at_once: int) -> None:
    rounds = [[await _rate(each, at_once) for each in databases] for _ in range(ROUNDS)]
    file, server = (statistics.median(rates) for rates in zip(*rounds, strict=True))
    ratio = statistics.median(server / file for file, server in rounds)
    print(f"{at_once:8} {file:10,.0f} {server:10,.0f} {ratio:12.2f}")


async def _rate(database: Database, at_once: int) -> float:
    """Batches a second."""
    began_at = time.perf_counter()
    for _ in range(BATCHES // at_once):
        await asyncio.gather(*(database.write(_batch(n)) for n in range(at_once)))
    return BATCHES / (time.perf_counter() - began_at)


def _batch(number: int) -> list[Statement]:
    payment = f"pay_{number:026}"
    return [
        Statement("INSERT INTO bench_legs (payment) VALUES (?)", (payment,)),
        Statement(
            "INSERT INTO bench_states (payment, version) VALUES (?, 1) "
            "ON CONFLICT (payment) DO UPDATE SET version = version + 1",
            (payment,),
        ),
        Statement("INSERT INTO bench_log (said) VALUES (?)", ('{"type": "payment.settled"}' * 20,)),
    ]
