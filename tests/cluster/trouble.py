"""Kills one part of the fleet after the other, and starts each again after a while."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tests.cluster.child import Child
from tests.cluster.fleet import Fleet


#: The longest that a part lies dead, and the share of the whole time that it does in a short run.
#: An indexer longer: so that another one takes its work, and not the one that comes after it.
_DOWN_S_MAX: Final = 3.0
_DOWN_SHARE: Final = 0.06
_INDEXER_DOWN_S_MAX: Final = 9.0
_INDEXER_DOWN_SHARE: Final = 0.16

#: One of each kind, in the order of their deaths.
INDEXER: Final = "indexer"
PRIMARY: Final = "sqld primary"
VICTIMS: Final = (INDEXER, "api", "Redis", "sqld replica", PRIMARY)

_TENURE: Final = b'"tenure.changed"'


class Killable(Protocol):
    """Something that runs as a process of its own."""

    def kill(self) -> None:
        """Ends it as a crash would (signal 9)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """One part that will be killed."""

    name: str
    part: Killable
    start: Callable[[], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Death:
    """One that was; loop times.

    Attributes:
        up_at: when it ran again; None: not yet.
    """

    name: str
    killed_at: float
    started_at: float = 0.0
    up_at: float | None = None


def victim(up: Fleet, name: str) -> Victim:
    """The part of that name in `VICTIMS`; of indexers the one that does the most."""
    match name:
        case "indexer":
            indexer = next((each for each in up.indexers if _has_a_key(each)), up.indexers[0])
            return Victim(name=indexer.name, part=indexer, start=indexer.start)
        case "api":
            return Victim(name=up.apis[0].name, part=up.apis[0], start=up.apis[0].start)
        case "Redis":
            return Victim(name=name, part=up.redis, start=up.redis.start)
        case "sqld replica" | "sqld primary":
            server = up.replica if name == "sqld replica" else up.primary

            async def start() -> None:
                await asyncio.to_thread(server.start)

            return Victim(name=name, part=server, start=start)
    raise ValueError(f"nothing is called {name}")


def _has_a_key(indexer: Child) -> bool:
    """Whether it sweeps a watch key, by its own log."""
    held: set[str] = set()
    for line in indexer.said().splitlines():
        if _TENURE in line:
            change = json.loads(line)
            held = (held | set(change["gained"])) - set(change["lost"])
    return any(unit.startswith("key:") for unit in held)


async def kill_in_turn(
    up: Fleet,
    names: Sequence[str],
    seconds: float,
    deaths: list[Death],
    say: Callable[[str], None],
) -> None:
    """Kills each once, spread over the time; returns when the last one runs again.

    Args:
        up: what they are parts of.
        names: of `VICTIMS`, in this order.
        seconds: of the whole.
        deaths: is filled as they die.
        say: is told.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    for turn, name in enumerate(names):
        await asyncio.sleep(max(0.0, began + seconds * (turn + 0.3) / len(names) - clock()))
        that = victim(up, name)
        that.part.kill()
        death = Death(name=that.name, killed_at=clock())
        deaths.append(death)
        say(f"killed {that.name}")
        if name == INDEXER:
            await asyncio.sleep(min(_INDEXER_DOWN_S_MAX, _INDEXER_DOWN_SHARE * seconds))
        else:
            await asyncio.sleep(min(_DOWN_S_MAX, _DOWN_SHARE * seconds))
        death.started_at = clock()
        await that.start()
        death.up_at = clock()
        say(f"{that.name} is up again")
