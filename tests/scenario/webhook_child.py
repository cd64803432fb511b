"""A whole daemon, indexer and API, as a process that kills itself at a chosen step.

`webhook_child.py [STEP N]`, with its settings in the environment; the steps are those of
`crash_child.py`. Says `ready` when it serves.
"""

import asyncio
import os
import signal
import sys
import time

from indexer import daemon
from indexer.settings import Settings
from tests.scenario.crash_child import arm


async def run(settings: Settings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await daemon.run(
        settings,
        clock=time.time,
        indexer=True,
        api=True,
        stop=stop,
        on_ready=lambda: print("ready", flush=True),  # noqa: T201 - to whoever started it
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        arm(sys.argv[1], int(sys.argv[2]))
    asyncio.run(run(Settings.from_env(os.environ, None)))
