"""The indexer as a process that kills itself at a chosen step.

`crash_child.py DATABASE_URL RPC WS [STEP N]` is one such process. `crash_child.py --nursery` bears
one after another: it reads a JSON object a line, forks a child for each, so that none has to
import everything anew, and says its process id, and then its exit code. A child whose order names
a `database_url` is a daemon as people run it; the others live faster, by the clock of the fake
chain.

STEP is `before NAME` or `after NAME`; the N-th time it is reached, the process gets SIGKILL: no
handler runs, nothing is flushed, no lock is released. Without STEP it runs until SIGTERM.
"""

import asyncio
import functools
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from indexer import daemon, live as live_module
from indexer.expiry import Expiry
from indexer.inbox import Inbox
from indexer.live import Live
from indexer.notices import Notices
from indexer.parked import Parked
from indexer.pipeline import Pipeline
from indexer.references import References
from indexer.settings import Settings
from indexer.sweep import Sweeper
from store.database import Database
from tests.indexer.daemons import hurry, running_clock, settings_for
from tests.scenario.deployment import SIGNING_KEY


#: What can be died around, by name. Of writes only those of facts count, not those of health,
#: which come when they like.
STEPS: dict[str, tuple[type, str]] = {
    "fetch": (Pipeline, "_fetch"),
    "judge": (Pipeline, "_judge"),
    "sight": (Pipeline, "sight"),
    "settle": (Pipeline, "settle"),
    "park": (Pipeline, "_park"),
    "unpark": (Pipeline, "_unpark"),
    "write": (Database, "write"),
    "sweep": (Sweeper, "sweep"),
    "expire": (Expiry, "expire_before"),
    "check": (References, "check"),
    "final": (Live, "_settle_final"),
    "revert": (Live, "_revert"),
    "retry": (Parked, "retry_due"),
    "handle": (Notices, "handle"),
    "look": (Live, "look"),
    "end": (Inbox, "_end"),
}

#: Those that are only reached where webhooks come in.
WEBHOOK_STEPS = frozenset({"handle", "look", "end"})


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
            if name == "write" and "INTO health" in args[1][0].sql:
                return await step(*args, **kwargs)
            pass_by(f"before {name}")
            result = await step(*args, **kwargs)
            pass_by(f"after {name}")
            return result

        return wrapped

    for name, (owner, attribute) in STEPS.items():
        setattr(owner, attribute, around(name, getattr(owner, attribute)))


async def run(settings: Settings, clock: Callable[[], float]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await daemon.run(settings, clock=clock, indexer=True, api=False, stop=stop)


def run_alone(database_url: str, rpc_url: str, ws_url: str) -> None:
    settings = Settings(
        database_url=database_url,
        webhook_signing_keys=(SIGNING_KEY,),
        rpc_urls=(rpc_url,),
        ws_urls=(ws_url,),
        rpc_rate=0,
        tokens={"SOL": None},
    )
    asyncio.run(run(settings, time.time))


# ------------------------------------------------------------------------------- the nursery


#: Blocks after which a child takes a dropped transaction back: fewer than ours, to live faster.
DROPPED_AFTER_BLOCKS = 25

#: No child outlives a test that was killed itself.
LIFE_S_MAX = 180


def nursery() -> None:
    """Bears one child after another, until nobody orders any more."""
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            live(json.loads(line))
        say(pid)
        _, status = os.waitpid(pid, 0)
        say(os.waitstatus_to_exitcode(status))


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def live(order: dict[str, Any]) -> NoReturn:
    """What a child does: the indexer over the database and the node that the order names."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    signal.alarm(order.get("life_s", LIFE_S_MAX))
    try:
        if "database_url" in order:
            run_alone(order["database_url"], order["rpc_url"], order["ws_url"])
            os._exit(0)
        if order["step"]:
            arm(order["step"], order["count"])
        hurry(setattr)
        live_module.DROPPED_AFTER_BLOCKS = DROPPED_AFTER_BLOCKS  # type: ignore[misc]  # a shorter life
        settings = settings_for(
            "",
            database_url=order["store_url"],
            rpc_urls=(order["rpc_url"],),
            ws_urls=(order["ws_url"],),
            webhook_signing_keys=(SIGNING_KEY,),
        )
        asyncio.run(run(settings, running_clock()))
    except BaseException:  # noqa: BLE001 - whatever it is, the nursery's own code must not go on
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "--nursery":
        nursery()
    else:
        if len(sys.argv) > 4:
            arm(sys.argv[4], int(sys.argv[5]))
        run_alone(*sys.argv[1:4])
