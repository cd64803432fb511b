"""Equal questions at once are one, and nobody's leaving is another's loss."""

import asyncio
from collections.abc import Callable

import pytest

from indexer.partners.merging import Merging


class Asking:
    """What is asked, and waits to be answered."""

    def __init__(self, answer: object = "answer") -> None:
        self.count = 0
        self.canceled = 0
        self.answer = answer
        self.gate = asyncio.Event()

    async def __call__(self) -> object:
        self.count += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def merging(*, goes_on: bool = False) -> Merging[object]:
    return Merging("test", goes_on=goes_on)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not holds():
            await asyncio.sleep(0)


async def test_two_hundred_at_once_are_one() -> None:
    merged, asking = merging(), Asking()
    waiting = [asyncio.create_task(merged.run("a", asking)) for _ in range(200)]
    await until(lambda: asking.count > 0)
    asking.gate.set()

    assert await asyncio.gather(*waiting) == ["answer"] * 200
    assert asking.count == 1
    assert len(merged) == 0


async def test_other_questions_and_later_ones_are_asked_by_themselves() -> None:
    merged, asking = merging(), Asking()
    asking.gate.set()
    await asyncio.gather(merged.run("a", asking), merged.run("b", asking))
    await merged.run("a", asking)

    assert asking.count == 3


async def test_a_failure_is_that_of_all_who_wait_and_of_nobody_later() -> None:
    merged, asking = merging(), Asking(ValueError("no"))
    asking.gate.set()
    failed = await asyncio.gather(
        *(merged.run("a", asking) for _ in range(5)), return_exceptions=True
    )

    assert [str(each) for each in failed] == ["no"] * 5
    assert asking.count == 1
    asking.answer = "answer"
    assert await merged.run("a", asking) == "answer"


@pytest.mark.parametrize("leaving", [[0], [1], [0, 1, 2]])
async def test_who_leaves_leaves_the_others_alone(leaving: list[int]) -> None:
    merged, asking = merging(), Asking()
    waiting = [asyncio.create_task(merged.run("a", asking)) for _ in range(4)]
    await until(lambda: asking.count > 0)
    for which in leaving:
        waiting[which].cancel()
    await asyncio.sleep(0)
    asking.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)

    for which, each in enumerate(found):
        assert isinstance(each, asyncio.CancelledError) is (which in leaving)
    assert (asking.count, asking.canceled) == (1, 0)


async def test_when_all_have_left_it_ends_and_who_comes_then_begins_anew() -> None:
    merged, asking = merging(), Asking()
    waiting = [asyncio.create_task(merged.run("a", asking)) for _ in range(3)]
    await until(lambda: asking.count > 0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    later = asyncio.create_task(merged.run("a", asking))
    await until(lambda: asking.count == 2)
    asking.gate.set()

    assert await later == "answer"
    assert asking.canceled == 1


async def test_who_comes_in_the_moment_in_which_the_last_one_leaves_is_not_canceled_with_him() -> (
    None
):
    merged, asking = merging(), Asking()
    first = asyncio.create_task(merged.run("a", asking))
    await until(lambda: asking.count > 0)
    first.cancel()
    later = asyncio.create_task(merged.run("a", asking))
    await until(lambda: asking.count == 2 or later.done())
    asking.gate.set()

    assert await later == "answer"


async def test_what_goes_on_does_so_without_anybody() -> None:
    merged, asking = merging(goes_on=True), Asking()
    first = asyncio.create_task(merged.run("a", asking))
    await until(lambda: asking.count > 0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(merged.run("a", asking))
    await asyncio.sleep(0)
    asking.gate.set()

    assert await second == "answer"
    assert (asking.count, asking.canceled) == (1, 0)


async def test_a_failure_that_nobody_waits_for_is_nobodys_trouble() -> None:
    """An exception that is never fetched would be a warning, and so an error here."""
    merged, asking = merging(goes_on=True), Asking(ValueError("no"))
    first = asyncio.create_task(merged.run("a", asking))
    await until(lambda: asking.count > 0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    asking.gate.set()

    await until(lambda: len(merged) == 0)


async def test_closing_ends_what_is_under_way() -> None:
    merged, asking = merging(goes_on=True), Asking()
    waiting = asyncio.create_task(merged.run("a", asking))
    await until(lambda: asking.count > 0)
    await merged.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asking.canceled == 1
