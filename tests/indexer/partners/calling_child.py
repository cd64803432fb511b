"""A process that calls a partner: `calling_child.py URL REDIS_URL NAME COUNT`.

It says `ready`, waits for a line, makes so many calls at once that are unlike any others, and says
how they ended, as JSON; and so again for each line.
"""

import asyncio
import json
import signal
import sys
import time

from indexer.log import LogFormat, LogLevel, configure
from indexer.partners.desk import Partners
from store import shared
from store.limiter import Limiter
from store.shared import Shared
from tests.indexer.partners.calling import PATIENCE_S, SECRETS, Caller, shipped


#: No child outlives a test that was killed itself.
LIFE_S_MAX = 110


async def call(url: str, redis_url: str, name: str, count: int) -> None:
    profile = shipped(url)
    async with Shared(redis_url) as redis:
        watching = asyncio.create_task(redis.run())
        partners = Partners(
            [profile],
            {profile.name: SECRETS},
            shared=redis,
            limiter=Limiter(redis, time.monotonic),
            monotonic=time.monotonic,
            connect_timeout_s=PATIENCE_S,
        )
        async with partners:
            it = Caller(partners, profile, redis)
            print("ready", flush=True)  # noqa: T201  # whoever started it reads that
            while line := await asyncio.to_thread(sys.stdin.readline):
                ids = [f"{name}{line.strip()}{number}" for number in range(count)]
                found = await asyncio.gather(*(it.outcome("location", id=each) for each in ids))
                print(json.dumps(found), flush=True)  # noqa: T201  # and this
        watching.cancel()


if __name__ == "__main__":
    shared.TIMEOUT_S = PATIENCE_S  # type: ignore[misc]  # how many tokens are bought depends on it
    configure(LogLevel.WARNING, LogFormat.JSON)  # on standard error
    signal.alarm(LIFE_S_MAX)
    asyncio.run(call(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
