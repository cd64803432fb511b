"""The indexer as a process that kills itself at a chosen step: `crash_child.py DB RPC WS [STEP N]`.

STEP is `before NAME` or `after NAME`; the N-th time it is reached, the process gets SIGKILL: no
handler runs, nothing is flushed, no lock is released. Without STEP it runs until SIGTERM.
"""

import asyncio
import functools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from indexer import daemon
from indexer.live import Live
from indexer.pipeline import Pipeline
from indexer.settings import Settings
from indexer.sweep import Sweeper
from store.database import Database


#: What can be died around, by name.
STEPS: dict[str, tuple[type, str]] = {
    "fetch": (Pipeline, "_fetch"),
    "judge": (Pipeline, "_judge"),
    "sight": (Pipeline, "sight"),
    "settle": (Pipeline, "settle"),
    "write": (Database, "write"),
    "sweep": (Sweeper, "sweep"),
    "expire": (Sweeper, "_expire"),
    "final": (Live, "_settle_final"),
}


def arm(target: str, count: int) -> None:
    """Wraps every step so that the chosen one kills."""
    reached: Counter[str] = Counter()

    def pass_by(point: str) -> None:
        reached[point] += 1
        if point == target and reached[point] == count:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(name: str, step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(step)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            pass_by(f"before {name}")
            result = await step(*args, **kwargs)
            pass_by(f"after {name}")
            return result

        return wrapped

    for name, (owner, attribute) in STEPS.items():
        setattr(owner, attribute, around(name, getattr(owner, attribute)))


async def run(database: str, rpc_url: str, ws_url: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = Settings(
        database_url=f"sqlite:///{database}",
        rpc_urls=(rpc_url,),
        ws_urls=(ws_url,),
        rpc_rate=0,
        tokens={"SOL": None},
    )
    await daemon.run(settings, clock=time.time, indexer=True, api=False, stop=stop)


if __name__ == "__main__":
    if len(sys.argv) > 4:
        arm(sys.argv[4], int(sys.argv[5]))
    asyncio.run(run(*sys.argv[1:4]))
