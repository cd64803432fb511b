"""Batches: everything is handed over once, a few at a time, or it is said why not."""

import asyncio
from collections.abc import Sequence

import pytest

from indexer.batches import BATCH_SIZE, BATCHES_AT_ONCE, in_batches
from indexer.errors import Conflict, SourceUnavailable, StoreUnavailable


@pytest.mark.parametrize("count", [0, 1, BATCH_SIZE, BATCH_SIZE + 1, 5 * BATCH_SIZE - 1])
async def test_each_item_is_handed_over_once_and_in_order(count: int) -> None:
    batches: list[Sequence[int]] = []

    async def work(batch: Sequence[int]) -> None:
        batches.append(batch)

    await in_batches(range(count), work)

    assert [n for batch in batches for n in batch] == list(range(count))
    assert all(0 < len(batch) <= BATCH_SIZE for batch in batches)


async def test_only_so_many_batches_are_under_way_at_once() -> None:
    under_way, most = 0, 0

    async def work(_: Sequence[int]) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _turn in range(5):
            await asyncio.sleep(0)
        under_way -= 1

    await in_batches(range(10 * BATCH_SIZE), work)

    assert most == BATCHES_AT_ONCE


@pytest.mark.parametrize("failure", [SourceUnavailable, StoreUnavailable, Conflict])
async def test_a_batch_that_fails_ends_the_others(failure: type[Exception]) -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def work(batch: Sequence[int]) -> None:
        if batch[0] == BATCH_SIZE:
            raise failure("no")
        begun.append(batch[0])
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(batch[0])

    with pytest.raises(failure, match="no"):
        await in_batches(range(10 * BATCH_SIZE), work)

    assert sorted(begun) == sorted(ended)
    assert len(begun) < 9


async def test_two_that_fail_at_once_are_one_failure() -> None:
    async def work(_: Sequence[int]) -> None:
        raise SourceUnavailable("no")

    with pytest.raises(SourceUnavailable, match="no"):
        await in_batches(range(2 * BATCH_SIZE), work)


async def test_a_bug_is_not_taken_for_a_failure_of_the_outside_world() -> None:
    async def work(_: Sequence[int]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as group:
        await in_batches(range(2 * BATCH_SIZE), work)

    assert group.group_contains(ZeroDivisionError)
