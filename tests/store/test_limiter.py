"""Rate limits in one process and over a real Redis, which is the same to the microsecond."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Final, cast

import pytest
import pytest_asyncio
from hypothesis import given, settings, strategies as st
from redis import Redis

from indexer.core.rate import QUOTA_MAX, Rate
from indexer.core.sliding_log import US_PER_S, SlidingLog, Standing, take
from store import limiter as module
from store.limiter import Charge, Left, Limiter
from store.shared import PREFIX, Shared
from tests.servers.redis_server import RedisServer


TEN: Final = Rate(10, 10)


class Clock:
    """Seconds that move only when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def charge(caller: str = "key_1", rate: Rate = TEN, name: str = "default") -> Charge:
    return Charge(key=f"{name}:{caller}", name=name, rate=rate)


@pytest_asyncio.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with RedisServer() as server:
        yield server


# ------------------------------------------------------------------------------------- one process


async def test_in_any_window_as_many_are_let_through_as_the_rate_says() -> None:
    clock = Clock()
    limiter = Limiter(None, clock)
    through = []
    for _ in range(3_000):
        clock.now += 0.01
        if (await limiter.take([charge()])).allowed:
            through.append(clock.now)

    assert len(through) == 30
    gaps = [last - first for first, last in zip(through, through[10:], strict=False)]
    assert min(gaps) >= TEN.window_s - 1e-6


async def test_the_answer_says_what_is_left_and_when_there_is_more() -> None:
    clock = Clock()
    limiter = Limiter(None, clock)
    first = await limiter.take([charge()])
    clock.now += 0.5
    for _ in range(9):
        last = await limiter.take([charge()])
    refused = await limiter.take([charge()])

    assert first.charges == (Left(charge=charge(), remaining=9, reset_s=10),)
    assert (last.allowed, last.charges[0].remaining, last.retry_after_s) == (True, 0, 0)
    assert (refused.allowed, refused.violated) == (False, ("default",))
    assert refused.retry_after_s == 10, "9.5 s, rounded up"
    clock.now += refused.retry_after_s
    assert (await limiter.take([charge()])).allowed


async def test_each_caller_and_each_window_is_counted_apart() -> None:
    limiter = Limiter(None, Clock())
    one = Rate(1, 10)
    for each in (charge("a", one), charge("b", one), charge("a", Rate(1, 20))):
        assert (await limiter.take([each])).allowed
        assert not (await limiter.take([each])).allowed


async def test_of_several_charges_all_are_taken_or_none() -> None:
    limiter = Limiter(None, Clock())
    wide, narrow = charge(name="wide"), charge(rate=Rate(1, 60), name="narrow")
    await limiter.take([wide, narrow])

    for _ in range(20):
        refused = await limiter.take([wide, narrow])
        assert refused.violated == ("narrow",)
        assert [left.remaining for left in refused.charges] == [9, 0]
        assert refused.retry_after_s == 60
    assert (await limiter.take([wide])).charges[0].remaining == 8


async def test_a_hundred_thousand_strangers_cost_a_bounded_amount() -> None:
    clock = Clock()
    limiter = Limiter(None, clock)
    for number in range(module.LOGS_MAX + 5_000):
        assert (await limiter.take([charge(f"address:{number}")])).allowed

    assert len(limiter._logs) == module.LOGS_MAX
    assert limiter._entries == sum(map(len, limiter._logs.values())) == module.LOGS_MAX
    log = next(iter(limiter._logs.values()))
    assert sys.getsizeof(log) + sys.getsizeof(log._times) < 500


async def test_a_flood_from_one_address_pushes_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGS_MAX", 10)
    limiter = Limiter(None, Clock())
    for number in range(10):
        await limiter.take([charge(f"{number}", Rate(1, 10))])
    for _ in range(100):
        await limiter.take([charge("9", Rate(1, 10))])

    assert not (await limiter.take([charge("0", Rate(1, 10))])).allowed


async def test_who_was_there_last_is_forgotten_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGS_MAX", 10)
    limiter, two = Limiter(None, Clock()), Rate(2, 10)
    for caller in ("often", *"abcdefghi", "often", *"jklmnopq"):
        assert (await limiter.take([charge(caller, two)])).allowed

    assert not (await limiter.take([charge("often", two)])).allowed


async def test_entries_are_bounded_whatever_the_rates_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 1_000)
    limiter = Limiter(None, Clock())
    for number in range(5_000):
        await limiter.take([charge(f"{number % 7}", Rate(QUOTA_MAX, 60))])

    assert limiter._entries == sum(map(len, limiter._logs.values())) <= 1_000


async def test_what_is_over_is_forgotten_as_others_come() -> None:
    clock = Clock()
    limiter = Limiter(None, clock)
    for number in range(1_000):
        await limiter.take([charge(f"{number}")])
    clock.now += TEN.window_s
    for number in range(600):
        await limiter.take([charge(f"new {number}")])

    assert len(limiter._logs) == limiter._entries == 600


async def test_a_refusal_that_is_known_is_told_without_counting() -> None:
    clock = Clock()
    limiter = Limiter(None, clock)
    assert limiter.refusal([charge()]) is None
    for _ in range(10):
        assert limiter.refusal([charge()]) is None
        await limiter.take([charge()])

    refusal = limiter.refusal([charge()])
    assert refusal is not None
    assert (refusal.allowed, refusal.retry_after_s) == (False, 10)
    clock.now += TEN.window_s
    assert limiter.refusal([charge()]) is None
    assert limiter._entries == sum(map(len, limiter._logs.values()))


# ------------------------------------------------------------------------------- several processes


async def test_processes_with_one_redis_count_together(redis: RedisServer) -> None:
    async with Shared(redis.url) as one, Shared(redis.url) as other:
        limiters = [Limiter(one, Clock()), Limiter(other, Clock())]
        said = await asyncio.gather(
            *(limiter.take([charge()]) for limiter in limiters for _ in range(250))
        )

    assert sum(taken.allowed for taken in said) == 10
    assert sorted(t.charges[0].remaining for t in said if t.allowed) == list(range(10))
    assert [limiter.here_count for limiter in limiters] == [0, 0]


async def test_a_process_whose_redis_goes_knows_what_it_let_through(redis: RedisServer) -> None:
    clock = Clock()
    async with Shared(redis.url) as shared:
        limiter = Limiter(shared, clock)
        for _ in range(7):
            assert (await limiter.take([charge()])).allowed
        redis.kill()
        alone = [await limiter.take([charge()]) for _ in range(20)]

        assert sum(taken.allowed for taken in alone) == 3
        assert limiter.here_count > 0
        clock.now += TEN.window_s
        assert (await limiter.take([charge()])).allowed


async def test_a_redis_that_forgot_everything_does_not_let_more_through(redis: RedisServer) -> None:
    clock = Clock()
    async with Shared(redis.url) as shared:
        limiter = Limiter(shared, clock)
        for _ in range(10):
            assert (await limiter.take([charge()])).allowed
        await redis.restart()
        await shared._probe()
        await shared._probe()
        assert shared.problem is None

        refused = await limiter.take([charge()])
        assert (refused.allowed, refused.retry_after_s) == (False, 10)


async def test_who_is_still_waiting_for_redis_counts_when_it_goes(redis: RedisServer) -> None:
    """His answer may be on the way, and then he has been let through."""
    async with Shared(redis.url) as shared:
        limiter = Limiter(shared, Clock())
        waiting = [asyncio.create_task(limiter.take([charge()])) for _ in range(9)]
        await asyncio.sleep(0)
        shared.problem = "as if the tenth had found out"
        alone = [await limiter.take([charge()]) for _ in range(5)]
        said = await asyncio.gather(*waiting)

    assert sum(taken.allowed for taken in [*alone, *said]) == 10


async def test_what_redis_refuses_is_refused(redis: RedisServer) -> None:
    """Also to a process that has let through nothing yet."""
    async with Shared(redis.url) as one, Shared(redis.url) as other:
        for _ in range(10):
            assert (await Limiter(one, Clock()).take([charge()])).allowed
        limiter = Limiter(other, Clock())
        refused = await limiter.take([charge()])

    assert (refused.allowed, refused.violated) == (False, ("default",))
    assert 1 <= refused.retry_after_s <= 10
    assert limiter._entries == 0


async def test_what_is_counted_in_redis_does_not_stay_there(redis: RedisServer) -> None:
    async with Shared(redis.url) as shared:
        await Limiter(shared, Clock()).take([charge(rate=Rate(1, 1)), charge(name="other")])
    with Redis(port=redis.port) as client:
        ttls = {bytes(key): client.pttl(key) for key in client.keys("axiom:rate:*")}

    assert sorted(ttls) == [b"axiom:rate:10:other:key_1", b"axiom:rate:1:default:key_1"]
    assert 0 < cast("int", ttls[b"axiom:rate:1:default:key_1"]) <= 2_000
    assert 2_000 < cast("int", ttls[b"axiom:rate:10:other:key_1"]) <= 11_000


async def test_a_long_log_is_moved_when_the_clock_of_redis_goes_back(redis: RedisServer) -> None:
    rate = Rate(20_000, 60)
    async with Shared(redis.url) as shared:
        limiter = Limiter(shared, Clock())
        await limiter.take([charge(rate=rate)])
        with Redis(port=redis.port) as client:
            key = "axiom:rate:60:default:key_1"
            [first] = client.lrange(key, 0, -1)
            # As if the clock had been set back by an hour, with a log that is full but for one.
            client.rpush(key, *[int(first) + 3_600 * US_PER_S + n for n in range(19_999)])
            last = await limiter.take([charge(rate=rate)])
            refused = await Limiter(shared, Clock()).take([charge(rate=rate)])
            times = [int(each) for each in client.lrange(key, 0, -1)]

    assert (last.allowed, last.charges[0].remaining) == (True, 0)
    assert (refused.allowed, len(times)) == (False, 20_000)
    assert times == sorted(times)
    assert times[-1] < int(first) + 3_600 * US_PER_S


# --------------------------------------------------------- the script, the log and a count by hand


#: The script with the clock in its arguments.
SCRIPT: Final = module._SCRIPT.text.replace(
    "redis.call('TIME')", "{ ARGV[#ARGV - 1], ARGV[#ARGV] }"
)


@pytest.fixture(scope="module")
def client() -> Iterator[Redis]:
    server = RedisServer()
    asyncio.run(server.start())
    try:
        with Redis(port=server.port) as client:
            yield client
    finally:
        server.kill()


def in_redis(
    client: Redis, names: list[str], rates: list[Rate], now_us: int
) -> tuple[Standing, ...]:
    numbers = [n for rate in rates for n in (rate.quota, rate.window_s * US_PER_S)]
    clock = divmod(now_us, US_PER_S)
    said = cast(
        "list[int]", client.eval(SCRIPT, len(names), *[PREFIX + n for n in names], *numbers, *clock)
    )
    return tuple(
        Standing(has_room=bool(room), remaining=remaining, reset_us=reset_us)
        for room, remaining, reset_us in zip(said[::3], said[1::3], said[2::3], strict=True)
    )


class ByHand:
    """Everything that was let through, and when, counted anew each time."""

    def __init__(self) -> None:
        self.times_us: dict[str, list[int]] = {}

    def young(self, name: str, rate: Rate, now_us: int) -> list[int]:
        """Entries of the window, moved so that none is of the future."""
        times_us = self.times_us.setdefault(name, [])
        ahead_us = max(0, max(times_us, default=0) - now_us)
        window_us = rate.window_s * US_PER_S
        self.times_us[name] = [
            each - ahead_us for each in times_us if each - ahead_us > now_us - window_us
        ]
        return self.times_us[name]

    def take(self, names: list[str], rates: list[Rate], now_us: int) -> tuple[Standing, ...]:
        young = [self.young(n, rate, now_us) for n, rate in zip(names, rates, strict=True)]
        rooms = [len(each) < rate.quota for each, rate in zip(young, rates, strict=True)]
        if all(rooms):
            for each in young:
                each.append(now_us)
        standings = []
        for each, rate, room in zip(young, rates, rooms, strict=True):
            leaving = sorted(each)[max(0, len(each) - rate.quota) :]
            reset_us = leaving[0] + rate.window_s * US_PER_S - now_us if leaving else 0
            left = max(0, rate.quota - len(each))
            standings.append(Standing(has_room=room, remaining=left, reset_us=reset_us))
        return tuple(standings)


NAMES: Final = ("a", "b", "c")
#: Of each log one window, and quotas that change.
WINDOWS_S: Final = {"a": 1, "b": 2, "c": 60}
STEP: Final = st.tuples(
    st.one_of(
        st.integers(0, 3),
        st.integers(0, 3 * US_PER_S),
        st.sampled_from([US_PER_S - 1, US_PER_S, US_PER_S + 1, 2 * US_PER_S, 60 * US_PER_S]),
        st.integers(-3_600 * US_PER_S, -1),
    ),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
    st.integers(1, 5),
)


@given(st.lists(STEP, max_size=40))
@settings(max_examples=150, deadline=None)
def test_the_script_the_log_and_a_count_by_hand_are_of_one_mind(
    client: Redis, steps: list[tuple[int, list[str], int]]
) -> None:
    client.flushall()
    logs = {name: SlidingLog(WINDOWS_S[name] * US_PER_S) for name in NAMES}
    counted, now_us = ByHand(), 1_795_377_600 * US_PER_S + 1
    for step_us, names, quota in steps:
        now_us += step_us
        rates = [Rate(quota, WINDOWS_S[name]) for name in names]
        expected = counted.take(names, rates, now_us)

        assert take([logs[name] for name in names], rates, now_us) == expected
        assert in_redis(client, names, rates, now_us) == expected
