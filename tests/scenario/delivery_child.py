"""The sending of webhooks as a process that can be killed: `delivery_child.py DATABASE_URL`.

It runs until SIGTERM or SIGKILL. It looks after a receiver that is away more often than the daemon
does, so that a test need not wait for minutes.
"""

import asyncio
import signal
import sys
import time
from contextlib import suppress
from ipaddress import ip_network

from api.wakeups import Wakeups
from indexer import courier
from indexer.deliveries import Deliveries
from indexer.sources.outside import Outside
from store.database import open_database
from tests.store.sending import KEY


#: No child outlives a test that was killed itself.
LIFE_S_MAX = 300
PROBE_PAUSE_S = 1.0


async def send(url: str) -> None:
    courier.PROBE_PAUSE_S_MAX = PROBE_PAUSE_S  # type: ignore[misc]  # a shorter life
    database = await open_database(url)
    async with Outside([ip_network("127.0.0.0/8")]) as sender:
        deliveries = Deliveries(database, sender, [KEY], clock=time.time, wait=Wakeups().wait)
        task = asyncio.create_task(deliveries.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with suppress(asyncio.CancelledError):
            await task
    await database.close()


if __name__ == "__main__":
    signal.alarm(LIFE_S_MAX)
    asyncio.run(send(sys.argv[1]))
