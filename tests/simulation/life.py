"""One life of a daemon's process, from its start to its crash."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from api.wakeups import Wakeups
from tests.simulation.database import Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Doom:
    """Where a process dies: whichever comes first. None: not by that.

    Attributes:
        point: such as "write 12, before", "write 12, after", "read 7", "answer 31".
        after_s: virtual seconds after its start.
    """

    point: str | None = None
    after_s: float | None = None


def draw_doom(rng: random.Random) -> Doom:
    """A seeded end, most of them early: that is where most happens."""
    kind = rng.choice(("write before", "write after", "read", "answer", "time"))
    count = int(1 + 60 * rng.random() ** 2)
    match kind:
        case "write before":
            return Doom(point=f"write {count}, before", after_s=40.0)
        case "write after":
            return Doom(point=f"write {count}, after", after_s=40.0)
        case "read":
            return Doom(point=f"read {count * 5}", after_s=40.0)
        case "answer":
            return Doom(point=f"answer {count * 3}", after_s=40.0)
        case _:
            return Doom(after_s=40.0 * rng.random())


@dataclass(slots=True)
class Life:
    """What the daemon's doubles ask before they do anything for it.

    Attributes:
        process: counts the processes of a world, from 1.
        ended: set in the instant of the crash.
        wakeups: its own, which the API in the same process wakes.
        where: the point that it died at.
    """

    process: int
    handle: Way
    doom: Doom
    on_crash: Callable[[str], None] = lambda _where: None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    wakeups: Wakeups = field(default_factory=Wakeups)
    answers: int = 0
    where: str = ""

    def __post_init__(self) -> None:
        self.handle.at = self.at

    @property
    def is_over(self) -> bool:
        return self.handle.is_dead

    def at(self, point: str) -> None:
        """Dies here, if this is where it dies."""
        if point == self.doom.point:
            self.crash(point)

    def crash(self, where: str) -> None:
        """From this instant on nothing of the process reaches anything."""
        if not self.is_over:
            self.handle.die()
            self.where = where
            self.on_crash(where)
            self.ended.set()

    async def answered(self) -> None:
        """An answer of a node has arrived; a dead process never sees it."""
        self.answers += 1
        self.at(f"answer {self.answers}")
        if self.is_over:
            await asyncio.Event().wait()
