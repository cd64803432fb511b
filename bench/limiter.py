"""What counting one request costs: in this process, and in a real Redis beside it.

    python -m bench limiter

Callers take turns at a rate that refuses nothing, at one that keeps a thousand entries for each,
and at one that refuses nearly everything: first one request after the other, then fifty at once.
Medians of several rounds.
"""

import asyncio
import statistics
import time
from typing import Final

import uvloop

from indexer.core.rate import Rate
from store.limiter import Charge, Limiter
from store.shared import Shared
from tests.servers.redis_server import RedisServer


REQUESTS: Final = 4_000
ROUNDS: Final = 5
CALLERS: Final = 100
AT_ONCE: Final = (1, 50)
RATES: Final = {
    "refuses nothing": Rate(100_000, 10),
    "long logs": Rate(1_000, 60),
    "refuses nearly all": Rate(10, 60),
}


def main() -> None:
    """Prints a line for each place, rate and number of requests at once."""
    uvloop.run(_compare())


async def _compare() -> None:
    print(f"{'':32} {'at once':>8} {'requests/s':>11} {'CPU µs':>8}")
    async with RedisServer() as redis, Shared(redis.url) as shared:
        for place, where in (("in process", None), ("Redis", shared)):
            for name, rate in RATES.items():
                for at_once in AT_ONCE:
                    rounds = [await _round(where, rate, at_once) for _ in range(ROUNDS)]
                    took_s, cpu_s = map(statistics.median, zip(*rounds, strict=True))
                    print(
                        f"{place + ', ' + name:32} {at_once:8} {REQUESTS / took_s:11,.0f} "
                        f"{cpu_s / REQUESTS * 1e6:8.0f}"
                    )


async def _round(shared: Shared | None, rate: Rate, at_once: int) -> tuple[float, float]:
    """Seconds, and seconds of this process's CPU."""
    limiter = Limiter(shared, time.monotonic)
    charges = [Charge(key=f"{rate}:{number}", name="bench", rate=rate) for number in range(CALLERS)]
    began_at, cpu_began_at = time.perf_counter(), time.process_time()
    for begin in range(0, REQUESTS, at_once):
        takes = [
            limiter.take([charges[n % CALLERS]])
            for n in range(begin, min(begin + at_once, REQUESTS))
        ]
        if at_once == 1:
            await takes[0]
        else:
            await asyncio.gather(*takes)
    return time.perf_counter() - began_at, time.process_time() - cpu_began_at
