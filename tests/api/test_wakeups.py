import asyncio

import pytest

from api.wakeups import Wakeups


async def test_everyone_who_waits_is_woken() -> None:
    wakeups = Wakeups()
    waiting = [asyncio.create_task(wakeups.wait(60)) for _ in range(3)]
    await asyncio.sleep(0)

    wakeups.wake()

    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)


async def test_a_wait_ends_without_a_wakeup() -> None:
    async with asyncio.timeout(30):
        await Wakeups().wait(0.001)


async def test_a_wakeup_before_the_wait_is_not_waited_for_again() -> None:
    wakeups = Wakeups()
    seen = wakeups.count
    wakeups.wake()

    async with asyncio.timeout(30):
        await wakeups.wait(60, since=seen)


async def test_a_wakeup_that_was_seen_does_not_end_the_next_wait() -> None:
    wakeups = Wakeups()
    wakeups.wake()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await wakeups.wait(60, since=wakeups.count)
