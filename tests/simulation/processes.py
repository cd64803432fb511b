"""The daemon's processes: started again and again, as whoever runs it does, and killed."""

import asyncio
import contextvars
import random
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from tests.simulation.database import Disk, Troubles
from tests.simulation.life import Doom, Life, draw_doom
from tests.simulation.loop import BEGINNING_S, PROCESS, Stuck, VirtualLoop
from tests.simulation.outcome import Death


#: Deaths after which a daemon is not started again.
DEATHS_MAX: Final = 5


class Processes:
    """All daemons of a world, one life after the other.

    Attributes:
        lives: of those that run now.
        deaths: of those that ended by themselves.
        crashes: when one was killed, and where.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        disk: Disk,
        troubles: Troubles,
        daemon: Callable[[Life], Awaitable[None]],
        *,
        crashes: int,
        note: Callable[[str, str], None],
    ) -> None:
        """Nothing is started before `keep_running`.

        Args:
            loop: of the world.
            disk: that all of them share.
            troubles: of each one's way to it.
            daemon: what a process runs, until it is cancelled.
            crashes: how often each keeper's daemons are killed.
            note: takes lines for the trace.
        """
        self.lives: list[Life] = []
        self.deaths: list[Death] = []
        self.crashes: list[tuple[float, str]] = []
        self._loop = loop
        self._disk = disk
        self._troubles = troubles
        self._daemon = daemon
        self._crashes_wanted = crashes
        self._note = note
        self._count = 0
        self._is_calm = False

    async def keep_running(self, rng: random.Random) -> None:
        """Starts a daemon again and again."""
        crashes = self._crashes_wanted
        while len(self.deaths) < DEATHS_MAX:
            doom = Doom() if self._is_calm or not crashes else draw_doom(rng)
            crashes -= 1 if crashes else 0
            await self._one_life(doom)
            if not self._is_calm:
                await asyncio.sleep(rng.choice((0.1, 2.0, 5.0, 30.0)) * rng.random())

    def calm_down(self) -> None:
        """Nobody is killed any more, and the store does what it is asked."""
        self._is_calm = True
        for life in self.lives:
            life.doom = Doom()
        self._troubles.read_fails = self._troubles.write_fails = 0.0

    def end(self) -> None:
        """Nothing of any of them reaches anything any more."""
        for life in self.lives:
            life.handle.die()

    def wake(self) -> bool:
        """What a daemon's own API does after a commit; False when no daemon is there."""
        for life in self.lives:
            life.wakeups.wake()
        return bool(self.lives)

    async def _one_life(self, doom: Doom) -> None:
        self._count += 1
        process = self._count
        handle = self._disk.way(self._loop, process, self._troubles)
        life = Life(process, handle, doom, partial(self._crashed, process))
        self.lives.append(life)
        self._note(f"daemon{process}", f"starts, {doom}")
        if doom.after_s is not None:
            self._loop.call_later(doom.after_s, self._time_is_up, life)
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        task = self._loop.create_task(self._run(life), name=f"daemon{process}", context=context)
        ended = self._loop.create_task(life.ended.wait(), name="ended")
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not life.is_over:
            life.handle.die()
            self._died(process, task)
        await self._bury(process)
        self.lives.remove(life)

    async def _run(self, life: Life) -> None:
        await self._daemon(life)

    async def _bury(self, process: int) -> None:
        """Cancels every task of a dead process until none is left."""
        for _ in range(100):
            tasks = self._loop.of_process(process)
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            for _ in range(20):
                await asyncio.sleep(0)
        names = [task.get_name() for task in self._loop.of_process(process)]
        raise Stuck(f"tasks that cannot be cancelled: {names}")

    def _time_is_up(self, life: Life) -> None:
        if not self._is_calm:
            life.crash("its time was up")

    def _crashed(self, process: int, where: str) -> None:
        self._note(f"daemon{process}", f"killed: {where}")
        self.crashes.append((self._now_s, where))

    def _died(self, process: int, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        problem = "it was cancelled" if task.cancelled() else f"{error!r}"
        lines = [] if error is None else traceback.format_exception(error)
        self._note(f"daemon{process}", f"died: {problem}")
        self.deaths.append(
            Death(at_s=self._now_s, process=process, problem=problem, traceback="".join(lines))
        )

    @property
    def _now_s(self) -> float:
        return self._loop.time() - BEGINNING_S
