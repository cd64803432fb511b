"""Which requests go first where an endpoint takes only so many.

    with at(Priority.REPLAY):
        await rpc.block(slot)       # waits for everybody else

Whoever begins a piece of work says how urgent it is; tasks that are started inside inherit it.
Only requests that still wait are overtaken: one that was sent is not called back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum


class Priority(IntEnum):
    """The lower number goes first.

    Each class overtakes those after it: a customer waits for the first two, nobody for the last.
    """

    FINALITY = 0
    DOORBELL = 1
    SWEEP = 2
    REPLAY = 3


_present: ContextVar[Priority] = ContextVar("priority", default=Priority.SWEEP)


def present() -> Priority:
    """That of the task which asks; `SWEEP` when nobody said anything."""
    return _present.get()


@contextmanager
def at(priority: Priority) -> Iterator[None]:
    """Everything that is asked inside has this priority, in tasks started inside as well."""
    before = _present.set(priority)
    try:
        yield
    finally:
        _present.reset(before)
