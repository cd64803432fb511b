"""The store's statements beside a great many open payments: which of them grow slow.

    python -m bench many_open
    python -m bench.many_open 1000000

Makes that many open payments (100,000 unless told) of a thousand shops on one watch key, a tenth of
them past their deadline as after a long standstill, in a file and on a libSQL server. Then times
each statement that runs all the time, on both, and shows how SQLite goes about those that take
longer than `SLOW_S`. At last, what the checks of so many references would ask of an RPC node.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
import uvloop

from indexer.demo.sqld.launcher import Sqld
from indexer.references import next_check_at
from store.database import Database, Parameter, Statement, open_database
from store.migrate import migrate
from store.queries import QUERIES
from store.reference_checks import DUE_MAX


COUNT: Final = 100_000
#: Payments that are made by one statement.
AT_ONCE: Final = 10_000
SHOPS: Final = 1_000
#: One in so many is past its deadline.
OVERDUE: Final = 10
ROUNDS: Final = 5
SLOW_S: Final = 0.05

NOW: Final = 1_795_377_600
DAY_S: Final = 86_400
WATCH_KEY: Final = "w" * 44
SHOP: Final = "shop-0000000000000000000000000000000000000007"

#: In no order that an index would like: references and ids are random.
_MAKE: Final = """
WITH RECURSIVE numbers(n) AS (
    SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1 + ?2 - 1
)
INSERT INTO payments (
    id, provider, symbol, decimals, recipient, amount, reference, watch_key, order_id, created_at,
    expires_at, grace_s
)
SELECT 'pay_' || lower(hex(randomblob(13))), 'solana', 'SOL', 9, printf('shop-%040d', n % ?3),
    CAST(1000000 + n % 5000 AS TEXT), hex(randomblob(22)), ?4, 'order-' || n,
    ?5 - 1000 - n % 600000,
    CASE WHEN n % ?6 = 0 THEN ?5 - 60 ELSE ?5 + n % 600000 + 1 END, 86400
FROM numbers
"""

_SHARDS: Final = str(list(range(16)))


def main() -> None:
    """Prints a line for each statement."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(_measure(int(sys.argv[1]) if sys.argv[1:2] and sys.argv[1].isdigit() else COUNT))


async def _measure(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Sqld.running(folder / "sqld") as server:
            databases = [
                await open_database(url) for url in (f"sqlite:///{folder}/a.db", server.url)
            ]
            for database in databases:
                began = time.perf_counter()
                await _fill(database, count)
                took_s = time.perf_counter() - began
                print(f"{count:,} payments made in {took_s:.0f} s", file=sys.stderr)
            await _table(databases)
            for database in databases:
                await database.close()
    _checks(count)


async def _fill(database: Database, count: int) -> None:
    await migrate(database)
    for first in range(0, count, AT_ONCE):
        values = (first, min(AT_ONCE, count - first), SHOPS, WATCH_KEY, NOW, OVERDUE)
        await database.write([Statement(_MAKE, values)])


async def _table(databases: Sequence[Database]) -> None:
    print(f"{'statement':28} {'rows':>6} {'file, ms':>9} {'server, ms':>11}")
    slow = []
    for name, values in await _statements(databases[0]):
        times, rows = zip(*[await _timed(each, name, values) for each in databases], strict=True)
        print(f"{name:28} {rows[0]:6} {times[0] * 1000:9.1f} {times[1] * 1000:11.1f}")
        if max(times) > SLOW_S:
            slow.append((name, values))
    for name, values in slow:
        print(f"\n{name}")
        plan = [Statement(f"EXPLAIN QUERY PLAN {QUERIES[name]}", values)]
        for *_, detail in (await databases[0].read(plan))[0]:
            print(f"  {detail}")


async def _statements(database: Database) -> list[tuple[str, tuple[Parameter, ...]]]:
    """Names and values, as the product asks."""
    sample = [Statement("SELECT id, reference, order_id FROM payments LIMIT 1 OFFSET 777")]
    [[(id_, reference, order_id)]] = await database.read(sample)
    keys = f'["{reference}", "{SHOP}", "{WATCH_KEY}", "unknown", "also unknown"]'
    newest = (2**63 - 1, "")
    return [
        ("payments_by_ids", (f'["{id_}"]',)),
        ("page", (None, None, None, 0, *newest, 20)),
        ("page_by_status", ("pending", None, None, 0, *newest, 20)),
        ("page_by_order", (None, order_id, None, 0, *newest, 20)),
        ("ids_by_references", (keys, "[]")),
        ("keys_worth_a_look", (keys, NOW)),
        ("watch_keys", (NOW - 7 * DAY_S, 300)),
        ("foreign_references", (NOW - 7 * DAY_S, 10_000, 300)),
        ("references_alive", (NOW, NOW, *newest, 1_000)),
        ("reference_checks_due", (NOW, 200, _SHARDS)),
        ("ids_of_expirable", (WATCH_KEY, NOW, 100)),
        ("oldest_payable", (WATCH_KEY, NOW)),
        ("destinations", (NOW, "", 100)),
        ("awaiting_amount", (SHOP, NOW - 60, NOW, 20, "1000007")),
        ("sightings_oldest", (500,)),
        ("payment_counts", ()),
        ("payments_in_review_count", ()),
        # It writes, and comes last: afterwards nothing is due later than now.
        ("reference_checks_hasten", (WATCH_KEY, NOW, NOW - 900_000, DUE_MAX)),
    ]


async def _timed(database: Database, name: str, values: tuple[Parameter, ...]) -> tuple[float, int]:
    """Seconds that it takes, the median of several times, and how many rows it answers."""
    statement, times, rows = [Statement(QUERIES[name], values)], [], 0
    ask = database.write if QUERIES[name].startswith("UPDATE") else database.read
    for _ in range(1 if ask == database.write else ROUNDS):
        began = time.perf_counter()
        [found] = await ask(statement)
        times.append(time.perf_counter() - began)
        rows = len(found)
    return statistics.median(times), rows


def _checks(count: int) -> None:
    """How often an unpaid payment's own reference is looked at, by the schedule itself."""
    print()
    for days, what in ((0.25 / 24, "15 minutes"), (1, "1 day"), (7, "7 days")):
        life_s, at, looks = int(days * DAY_S), 10, 0
        while at < life_s:
            looks, at = looks + 1, next_check_at(0, at)
        print(
            f"{count:,} payments that stay unpaid for {what}: {looks} looks at each, "
            f"{count * looks / life_s:,.0f} requests/s to RPC nodes"
        )


if __name__ == "__main__":
    main()
