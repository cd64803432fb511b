"""Several things at once: all are done, or one failure says why not, and nothing is left behind."""

import asyncio

import pytest

from indexer.errors import SourceUnavailable, StoreUnavailable
from indexer.together import together


PATIENCE_S = 90.0
EXPECTED = (SourceUnavailable, StoreUnavailable)


async def test_all_of_them_are_done() -> None:
    done: list[int] = []

    async def work(n: int) -> None:
        await asyncio.sleep(0)
        done.append(n)

    await together(range(5), work, expected=EXPECTED, name="work")

    assert done == [0, 1, 2, 3, 4]


async def test_one_failure_is_raised_by_itself_and_ends_the_others() -> None:
    ended: list[int] = []

    async def work(n: int) -> None:
        if n == 3:
            raise SourceUnavailable("no")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)

    with pytest.raises(SourceUnavailable, match="no"):
        await together(range(6), work, expected=EXPECTED, name="work")

    assert ended == [0, 1, 2], "those behind were not even begun"


async def test_several_failures_are_the_first_of_them() -> None:
    async def work(error: Exception) -> None:
        raise error

    failures = [SourceUnavailable("1"), StoreUnavailable("2")]
    with pytest.raises(SourceUnavailable, match="1"):
        await together(failures, work, expected=EXPECTED, name="work")


async def test_a_fault_of_ours_stays_in_its_group() -> None:
    async def work(_: int) -> None:
        raise KeyError("a bug")

    with pytest.raises(ExceptionGroup) as raised:
        await together([1], work, expected=EXPECTED, name="work")

    assert raised.group_contains(KeyError)


async def test_who_lives_through_a_failure_is_not_marked_as_canceled() -> None:
    """Else the next time limit of the same task would end it, and be no TimeoutError."""

    async def work(_: int) -> None:
        await asyncio.sleep(0)  # until the group waits for its tasks
        raise SourceUnavailable("no")

    with pytest.raises(SourceUnavailable):
        await together([1], work, expected=EXPECTED, name="work")

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_during_a_failure_is_not_lost() -> None:
    """It comes while one task has failed and another one is slow to end."""
    is_ending, may_end = asyncio.Event(), asyncio.Event()

    async def work(n: int) -> None:
        if n == 1:
            raise SourceUnavailable("no")
        try:
            await asyncio.Event().wait()
        finally:
            is_ending.set()
            await may_end.wait()

    owner = asyncio.create_task(together([0, 1], work, expected=EXPECTED, name="work"))
    async with asyncio.timeout(PATIENCE_S):
        await is_ending.wait()
        owner.cancel()
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await owner
