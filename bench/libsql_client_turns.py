"""The child of `libsql_drivers`: takes turns with `libsql-client`, in an environment of its own.

Reads one turn a line, `KIND AT_ONCE SECONDS FIRST`, and prints its rate, or why there is none.
Nothing of the project is imported: it is not installed where this runs.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final


LIMIT_S: Final = 20.0

ODD: Final = 2**53 + 1


async def rate(work: Callable[[int], Awaitable[Any]], at_once: int, s: float, first: int) -> float:
    """Units a second, by so many who each do one after the other."""
    numbers = iter(range(first, sys.maxsize))
    began_at, done = time.perf_counter(), 0

    async def one_after_another() -> None:
        nonlocal done
        while time.perf_counter() < began_at + s:
            await work(next(numbers))
            done += 1

    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return done / (time.perf_counter() - began_at)


async def main(url: str) -> None:
    """Serves turns until the input ends."""
    client: Any = import_module("libsql_client").create_client(url)

    def write(number: int) -> Awaitable[Any]:
        texts: list[tuple[str, list[Any]]] = [
            ("INSERT INTO bench_legs VALUES (?)", [f"{number:088}"])
        ]
        texts.append(("UPDATE bench_states SET version = version + 1 WHERE id = ?", [number % 100]))
        texts.append(("INSERT INTO bench_log (said) VALUES (?)", ["{}" * 200]))
        batch: Awaitable[Any] = client.batch(texts)
        return batch

    def read(number: int) -> Awaitable[Any]:
        one: Awaitable[Any] = client.execute(
            "SELECT version FROM bench_states WHERE id = ?", [number % 100]
        )
        return one

    async def frozen(_: int) -> None:
        await client.execute("SELECT 1")

    works = {"write": write, "read": read, "frozen": frozen}
    [[back]] = (await client.execute("SELECT ?", [ODD])).rows
    print("exact" if back == ODD else f"wrong ({back})", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).split():
        kind, at_once, seconds, first = line
        try:
            found = await rate(works[kind], int(at_once), float(seconds), int(first))
            print(found, flush=True)
        except TimeoutError:
            print(f"no answer in {LIMIT_S:g} s", flush=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result of the turn
            print(f"{type(error).__name__} {error}".splitlines()[0], flush=True)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
