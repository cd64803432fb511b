"""A process of its own that writes and says what was acknowledged: URL, PREFIX, COUNT.

Each batch is three rows, `PREFIX:n:0` to `PREFIX:n:2`. `n` is printed once the batch is stored.
A count of 0 writes until somebody kills it.
"""

import asyncio
import sys
from collections.abc import Iterator
from itertools import count

from store.database import Database, Statement, open_database
from store.migrate import migrate


WRITERS = 20
ROWS = 3


async def write(database: Database, prefix: str, numbers: Iterator[int]) -> None:
    for number in numbers:
        await database.write(
            [
                Statement(
                    "INSERT INTO deployment (name, value) VALUES (?, 'x')",
                    (f"{prefix}:{number}:{row}",),
                )
                for row in range(ROWS)
            ]
        )
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


async def main(url: str, prefix: str, limit: str) -> None:
    database = await open_database(url)
    try:
        await migrate(database)
        numbers = iter(range(int(limit))) if int(limit) else count()
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(write(database, prefix, numbers))
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
