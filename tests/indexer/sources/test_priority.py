"""Who begins a piece of work says how urgent it is, and what it starts inherits that."""

import asyncio

import pytest

from indexer.sources.priority import Priority, at, present


def test_nobody_said_anything_means_a_sweep() -> None:
    assert present() is Priority.SWEEP


def test_finality_goes_before_doorbells_before_sweeps_before_replay() -> None:
    assert sorted(Priority) == [
        Priority.FINALITY,
        Priority.DOORBELL,
        Priority.SWEEP,
        Priority.REPLAY,
    ]


def test_it_holds_inside_and_ends_with_the_block() -> None:
    with at(Priority.REPLAY):
        with at(Priority.FINALITY):
            assert present() is Priority.FINALITY
        assert present() is Priority.REPLAY

    assert present() is Priority.SWEEP


def test_it_ends_with_a_failure_too() -> None:
    with pytest.raises(ZeroDivisionError), at(Priority.FINALITY):
        raise ZeroDivisionError

    assert present() is Priority.SWEEP


async def test_tasks_that_are_started_inside_inherit_it_for_good() -> None:
    async def told() -> Priority:
        await asyncio.sleep(0)
        return present()

    with at(Priority.REPLAY):
        task = asyncio.create_task(told())

    assert await task is Priority.REPLAY
    assert await asyncio.create_task(told()) is Priority.SWEEP
