import asyncio
from threading import Event, get_ident

import pytest

from indexer.errors import Conflict, StoreUnavailable
from store import lane as lanes
from store.connection import Statement
from store.lane import Lane


def statements(count: int) -> list[Statement]:
    return [Statement("SELECT 1")] * count


class Echo:
    """Answers each batch with its length, when it is let."""

    def __init__(self, lane: Lane, *, batches_max: int = 1, statements_max: int = 1) -> None:
        self.go = Event()
        self.groups: list[list[int]] = []
        self.threads: set[int] = set()
        self._lane = lane
        self._limits = (batches_max, statements_max)

    def work(self) -> None:
        batches_max, statements_max = self._limits
        self.go.wait()
        while jobs := self._lane.take(batches_max=batches_max, statements_max=statements_max):
            self.threads.add(get_ident())
            self.groups.append([len(job.batch) for job in jobs])
            self._lane.deliver(jobs, [[[(len(job.batch),)]] for job in jobs])


async def test_a_batch_comes_back_to_who_sent_it() -> None:
    lane = Lane(waiting_max=10)
    echo = Echo(lane)
    echo.go.set()
    lane.start("echo", echo.work)

    answers = await asyncio.gather(*(lane.submit(statements(n)) for n in range(1, 6)))
    await lane.close()

    assert answers == [[[(n,)]] for n in range(1, 6)]


async def test_what_waits_is_taken_together_up_to_the_limits() -> None:
    lane = Lane(waiting_max=100)
    echo = Echo(lane, batches_max=3, statements_max=10)
    lane.start("echo", echo.work)
    sent = [asyncio.create_task(lane.submit(statements(n))) for n in (1, 1, 1, 1, 9, 1, 1)]
    await asyncio.sleep(0)

    echo.go.set()
    await asyncio.gather(*sent)
    await lane.close()

    assert echo.groups == [[1, 1, 1], [1, 9], [1, 1]]


async def test_threads_share_the_work() -> None:
    lane = Lane(waiting_max=10)
    started = [Event(), Event()]

    def work(mine: Event, other: Event) -> None:
        while jobs := lane.take():
            mine.set()
            assert other.wait(30)  # neither ends before both have begun
            lane.deliver(jobs, [[] for _ in jobs])

    lane.start("a", lambda: work(started[0], started[1]))
    lane.start("b", lambda: work(started[1], started[0]))

    answers = await asyncio.gather(*(lane.submit(statements(1)) for _ in range(2)))
    await lane.close()

    assert answers == [[], []]


async def test_no_room_is_waited_for_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "ROOM_WAIT_S", 0.01)
    lane = Lane(waiting_max=1)
    echo = Echo(lane)
    lane.start("echo", echo.work)
    first = asyncio.create_task(lane.submit(statements(1)))
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailable, match="1 batches have waited"):
        await lane.submit(statements(1))

    echo.go.set()
    assert await first == [[(1,)]]
    assert await lane.submit(statements(2)) == [[(2,)]]
    await lane.close()


async def test_a_canceled_batch_gives_its_room_back() -> None:
    lane = Lane(waiting_max=1)
    echo = Echo(lane)
    lane.start("echo", echo.work)
    first = asyncio.create_task(lane.submit(statements(1)))
    await asyncio.sleep(0)

    first.cancel()
    echo.go.set()

    assert await lane.submit(statements(2)) == [[(2,)]]
    await lane.close()
    assert echo.groups == [[1], [2]]  # it was done although nobody waited


async def test_closing_finishes_what_waits_and_refuses_the_rest() -> None:
    lane = Lane(waiting_max=2)
    echo = Echo(lane, batches_max=10, statements_max=10)
    lane.start("echo", echo.work)
    waiting = [asyncio.create_task(lane.submit(statements(1))) for _ in range(2)]
    outside = asyncio.create_task(lane.submit(statements(1)))  # there is no room for it yet
    await asyncio.sleep(0)

    closing = asyncio.create_task(lane.close())
    await asyncio.sleep(0)
    echo.go.set()
    await closing
    await lane.close()  # twice does no harm

    assert await asyncio.gather(*waiting) == [[[(1,)]], [[(1,)]]]
    with pytest.raises(StoreUnavailable, match="closed"):
        await outside
    with pytest.raises(StoreUnavailable, match="closed"):
        await lane.submit(statements(1))


async def test_an_error_reaches_its_own_caller() -> None:
    lane = Lane(waiting_max=2)

    def work() -> None:
        jobs = lane.take(batches_max=2, statements_max=2)
        lane.deliver(jobs, [Conflict("taken"), []])
        lane.take()

    sent = [asyncio.create_task(lane.submit(statements(1))) for _ in range(2)]
    await asyncio.sleep(0)
    lane.start("work", work)
    answers = await asyncio.gather(*sent, return_exceptions=True)
    await lane.close()

    assert isinstance(answers[0], Conflict)
    assert answers[1] == []
