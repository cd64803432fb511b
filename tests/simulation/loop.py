"""An event loop whose time is a number: waiting costs nothing, and every run is the same.

Nothing here has threads or sockets. When nobody can run, the clock jumps to the next timer; when
there is none, everybody waits for somebody else, and that is an error which names them all.

Tasks hash by their number and not by their address, because task groups keep them in sets and
cancel them in the order of these sets.
"""

import asyncio
import contextvars
import gc
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar


T = TypeVar("T")

#: Where the clock stands when a loop is made: loops of real machines do not begin at zero.
BEGINNING_S: Final = 1_000.0
#: Turns of the loop without a step of the clock, before that is called running in a circle.
TURNS_MAX: Final = 100_000

#: Which process of the world a task belongs to; 0: none, it is part of the world itself.
PROCESS: Final[contextvars.ContextVar[int]] = contextvars.ContextVar("PROCESS", default=0)


class Stuck(Exception):
    """Nothing can go on any more, or nothing ends."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on where it lies in memory."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, number: int, **rest: Any) -> None:
        self.number = number
        self.process = (rest.get("context") or contextvars.copy_context()).get(PROCESS, 0)
        super().__init__(coroutine, **rest)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Selector:
    """Advances the clock where another one would wait."""

    def __init__(self) -> None:
        self.now = BEGINNING_S
        self.until = float("inf")
        self.turns = 0
        self.stuck: Callable[[str], Stuck] = Stuck

    def select(self, timeout_s: float | None) -> list[Any]:
        if timeout_s is None:
            raise self.stuck("everybody waits for somebody else")
        if timeout_s <= 0:
            self.turns += 1
            if self.turns > TURNS_MAX:
                raise self.stuck(f"no step of the clock in {TURNS_MAX} turns")
            return []
        self.turns = 0
        self.now += timeout_s
        if self.now > self.until:
            raise self.stuck("the limit of virtual time is reached")
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.base_events.BaseEventLoop):
    """The loop; `time()` moves only when everybody waits."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Selector()
        self._selector.stuck = self._stuck
        self._clock_resolution = 1e-9
        self._numbers = itertools.count(1)
        self.living: dict[int, NumberedTask] = {}
        self.complaints: list[dict[str, Any]] = []
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]  # the stub wants a Future
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self) -> float:
        return self._selector.now

    def leap(self, span_s: float) -> None:
        """Lets time pass in which nobody gets to do anything."""
        self._selector.now += max(0.0, span_s)

    def run(self, coroutine: Awaitable[T], limit_s: float) -> T:
        """Runs to the end; raises `Stuck` after that many virtual seconds."""
        self._selector.until = self.time() + limit_s
        self._selector.turns = 0
        return self.run_until_complete(coroutine)

    def _make_task(
        self,
        _loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any],
        context: contextvars.Context | None = None,
        **rest: Any,
    ) -> NumberedTask:
        number = next(self._numbers)
        task = NumberedTask(coroutine, number=number, loop=self, context=context, **rest)
        self.living[number] = task
        task.add_done_callback(self._forget)
        return task

    def of_process(self, process: int) -> list[NumberedTask]:
        """The living tasks of one process, the oldest first."""
        return [task for task in self.living.values() if task.process == process]

    def _forget(self, task: "asyncio.Future[Any]") -> None:
        if isinstance(task, NumberedTask):
            self.living.pop(task.number, None)

    def _stuck(self, why: str) -> Stuck:
        waiting = [f"{task.get_name()}: {_place(task)}" for task in self.living.values()]
        return Stuck("\n  ".join([f"{why}; at {self.time() - BEGINNING_S:.3f} s", *waiting]))

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def _place(task: asyncio.Task[Any]) -> str:
    """Where in the code a task waits."""
    coroutine: Any = task.get_coro()
    place = "?"
    while coroutine is not None and getattr(coroutine, "cr_frame", None) is not None:
        frame = coroutine.cr_frame
        place = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        coroutine = coroutine.cr_await
    return place


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], limit_s: float) -> T:
    """Runs one world from its beginning to its end.

    The garbage collector rests meanwhile: it would close forgotten generators at moments that
    depend on what ran before.

    Raises:
        Stuck: everybody waits for somebody else; or the end did not come within `limit_s`.
    """
    loop = VirtualLoop()
    was_collecting = gc.isenabled()
    gc.disable()
    asyncio.set_event_loop(None)
    try:
        return loop.run(main(loop), limit_s)
    finally:
        _end(loop)
        if was_collecting:
            gc.enable()


def _end(loop: VirtualLoop) -> None:
    """Cancels what is left; a task that will not end is left behind."""
    try:
        for _ in range(10):
            tasks = list(loop.living.values())
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            loop.run(asyncio.sleep(1), 60.0)
    except Stuck:
        pass
    finally:
        loop.set_exception_handler(lambda _loop, _context: None)
        loop.close()
