"""Several things at once that come to one end: all are done, or one of them says why not."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar


_T = TypeVar("_T")


async def together(
    items: Iterable[_T],
    work: Callable[[_T], Awaitable[object]],
    *,
    expected: tuple[type[Exception], ...],
    name: str,
) -> None:
    """Does all of it at once, and returns when nothing of it is under way any more.

    A task group that fails and is lived through is a trap in Python 3.11: it leaves its owner
    marked as canceled, so that a later time limit kills it in silence; it swallows a cancellation
    that comes meanwhile; and before 3.11.4 what `except*` raises is put into a group again. So
    here no task of the group fails, except by a fault of ours.

    Args:
        items: what there is to do.
        work: does one of them.
        expected: what may happen to `work`. The first of these ends the others, and is raised.
        name: of the tasks.

    Raises:
        Exception: one of `expected`, by itself.
        ExceptionGroup: anything else, which is a fault of ours.
    """
    failures: list[Exception] = []
    tasks: list[asyncio.Task[None]] = []

    async def one(item: _T) -> None:
        try:
            await work(item)
        except expected as error:
            failures.append(error)
            for task in tasks:
                task.cancel()

    async with asyncio.TaskGroup() as group:
        tasks += [group.create_task(one(item), name=name) for item in items]
    if failures:
        raise failures[0]
