"""How much goes through at once, how fast, and who goes first."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from indexer.sources.gate import BURST_S, Gate, Pace
from indexer.sources.priority import Priority
from tests.servers.fake_rpc import eventually


# --------------------------------------------------------------------------------- pace


def gone(pace: Pace, now: float, wanted: int) -> list[float]:
    """When each of so many requests goes that all came at `now`."""
    went = []
    for _ in range(wanted):
        now = pace.next_at(now)
        pace.take(now)
        went.append(now)
    return went


def test_requests_beyond_the_burst_are_spaced_out() -> None:
    went = gone(Pace(100), 1_000.0, 50)

    # A quarter of a second's worth goes through; the rest queues, a hundredth of a second each.
    assert went[:26] == [1_000.0] * 26
    assert went[26:] == pytest.approx([1_000 + n / 100 for n in range(1, 25)])


def test_over_time_the_rate_is_kept() -> None:
    assert gone(Pace(100), 1_000.0, 1_000)[-1] == pytest.approx(1_000 + 10, abs=2 * BURST_S)


def test_a_pause_saves_up_no_more_than_the_burst() -> None:
    pace = Pace(128)
    gone(pace, 1_000.0, 33)

    assert gone(pace, 9_000.0, 40).count(9_000.0) == 33


def test_no_bound_means_no_wait() -> None:
    assert set(gone(Pace(0), 1_000.0, 1_000)) == {1_000.0}


# --------------------------------------------------------------------------------- gate


class Crowd:
    """Requests at one gate: who is inside, and in which order they went in."""

    def __init__(self, concurrency: int = 1, rate: float = 0) -> None:
        self.gate = Gate(concurrency, rate)
        self.order: list[str] = []
        self.inside = 0
        self.most = 0
        self.exit = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def send(self, name: str, priority: Priority) -> asyncio.Task[None]:
        task = asyncio.create_task(self._request(name, priority))
        self.tasks.append(task)
        return task

    async def _request(self, name: str, priority: Priority) -> None:
        async with self.gate.place(priority):
            self.order.append(name)
            self.inside += 1
            self.most = max(self.most, self.inside)
            try:
                await self.exit.wait()
            finally:
                self.inside -= 1

    async def all_gone(self) -> None:
        self.exit.set()
        async with asyncio.timeout(90):
            await asyncio.gather(*self.tasks, return_exceptions=True)


@asynccontextmanager
async def full(concurrency: int = 1) -> AsyncIterator[Crowd]:
    """A gate with nobody waiting and no place left."""
    crowd = Crowd(concurrency)
    for number in range(concurrency):
        crowd.send(f"first {number}", Priority.REPLAY)
    await eventually(lambda: crowd.inside == concurrency)
    crowd.order.clear()
    yield crowd
    await crowd.all_gone()
    assert crowd.inside == 0
    assert len(crowd.gate) == 0


async def test_the_most_urgent_goes_first_and_among_equals_the_first() -> None:
    async with full() as crowd:
        for name, priority in [
            ("replay 1", Priority.REPLAY),
            ("sweep 1", Priority.SWEEP),
            ("sweep 2", Priority.SWEEP),
            ("finality 1", Priority.FINALITY),
            ("doorbell 1", Priority.DOORBELL),
            ("finality 2", Priority.FINALITY),
            ("replay 2", Priority.REPLAY),
        ]:
            crowd.send(name, priority)
        await eventually(lambda: len(crowd.gate) == 7)

    assert crowd.order == [
        "finality 1",
        "finality 2",
        "doorbell 1",
        "sweep 1",
        "sweep 2",
        "replay 1",
        "replay 2",
    ]


async def test_no_more_than_so_many_are_inside() -> None:
    crowd = Crowd(concurrency=3)
    for number in range(50):
        crowd.send(f"{number}", Priority.SWEEP)
    await eventually(lambda: crowd.inside == 3 and len(crowd.gate) == 47)

    await crowd.all_gone()

    assert crowd.most == 3
    assert len(crowd.order) == 50


async def test_who_waits_for_its_turn_is_overtaken_too() -> None:
    """Places are free, only time is missing."""
    crowd = Crowd(concurrency=100, rate=0.001)
    for number in range(30):
        crowd.send(f"replay {number}", Priority.REPLAY)
    await eventually(lambda: len(crowd.gate) == 29)
    crowd.send("finality", Priority.FINALITY)
    await eventually(lambda: len(crowd.gate) == 30)

    crowd.gate._pace = Pace(0)
    crowd.gate._on_time()
    await crowd.all_gone()

    assert crowd.order[:3] == ["replay 0", "finality", "replay 1"]
    assert len(crowd.order) == 31


async def test_the_rate_is_kept() -> None:
    clock = asyncio.get_running_loop().time
    crowd = Crowd(concurrency=100, rate=100)
    crowd.exit.set()
    started = clock()
    for number in range(40):
        crowd.send(f"{number}", Priority.SWEEP)

    await crowd.all_gone()

    # Twenty-six of them are within the burst; the last must wait for 140 ms at the least.
    assert clock() - started >= 0.13


async def test_who_is_cancelled_while_it_waits_is_not_let_in() -> None:
    async with full() as crowd:
        gone = crowd.send("gone", Priority.FINALITY)
        crowd.send("next", Priority.REPLAY)
        await eventually(lambda: len(crowd.gate) == 2)
        gone.cancel()
        await eventually(gone.done)

        assert len(crowd.gate) == 1

    assert crowd.order == ["next"]


async def test_who_is_cancelled_in_the_moment_it_is_let_in_gives_its_place_back() -> None:
    gate = Gate(1, 0)
    async with gate.place(Priority.SWEEP):
        waiting = asyncio.create_task(_pass_through(gate))
        await eventually(lambda: len(gate) == 1)
    waiting.cancel()  # its turn has come, and it did not run since
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async with asyncio.timeout(90):
        await _pass_through(gate)


async def test_who_is_cancelled_in_the_moment_a_place_is_free_is_passed_over() -> None:
    gate = Gate(1, 0)
    async with gate.place(Priority.SWEEP):
        gone = asyncio.create_task(_pass_through(gate))
        after = asyncio.create_task(_pass_through(gate))
        await eventually(lambda: len(gate) == 2)
        gone.cancel()  # and it does not run before the place is free

    async with asyncio.timeout(90):
        await after
    assert gone.cancelled()


async def _pass_through(gate: Gate) -> None:
    async with gate.place(Priority.SWEEP):
        pass


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_and_none_is_made_whoever_is_cancelled(seed: int) -> None:
    draw = random.Random(seed)
    crowd = Crowd(concurrency=3, rate=draw.choice([0, 2_000]))
    for number in range(200):
        crowd.send(f"{number}", draw.choice(list(Priority)))
        for _ in range(draw.randrange(3)):
            await asyncio.sleep(0)
        if draw.random() < 0.5:
            draw.choice(crowd.tasks).cancel()
        if draw.random() < 0.1:
            crowd.exit.set()
            await asyncio.sleep(0)
            crowd.exit.clear()

    await crowd.all_gone()

    assert crowd.most == 3
    assert (crowd.inside, len(crowd.gate), crowd.gate._free) == (0, 0, 3)
