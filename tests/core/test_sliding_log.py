"""The exact log, beside a count by hand and against clocks that go back."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies as st

from indexer.core.rate import Rate
from indexer.core.sliding_log import US_PER_S, SlidingLog, Standing, look, take


RATE = Rate(3, 2)
WINDOW_US = RATE.window_s * US_PER_S


def log_of(*times_us: int, window_us: int = WINDOW_US) -> SlidingLog:
    log = SlidingLog(window_us)
    for each in times_us:
        log.note(each)
    return log


def is_through(standings: tuple[Standing, ...]) -> bool:
    return all(standing.has_room for standing in standings)


@dataclass
class CountedByHand:
    """Keeps everything that was let through, and counts it anew each time."""

    rate: Rate
    times_us: list[int] = field(default_factory=list)

    def younger_than_window(self, now_us: int) -> int:
        window_us = self.rate.window_s * US_PER_S
        return sum(now_us - window_us < each <= now_us for each in self.times_us)

    def take(self, now_us: int) -> bool:
        if self.younger_than_window(now_us) >= self.rate.quota:
            return False
        self.times_us.append(now_us)
        return True


#: Often nothing passes, often about a window, and often exactly one.
STEPS_US = st.one_of(
    st.integers(0, 10),
    st.integers(0, 2 * WINDOW_US),
    st.sampled_from([0, 1, WINDOW_US - 1, WINDOW_US, WINDOW_US + 1]),
)


@given(st.lists(STEPS_US, max_size=60))
def test_it_lets_through_what_a_count_by_hand_does(steps_us: list[int]) -> None:
    log, counted, now_us = SlidingLog(WINDOW_US), CountedByHand(RATE), 10**9
    for step_us in steps_us:
        now_us += step_us
        [standing] = take([log], [RATE], now_us)

        assert standing.has_room == counted.take(now_us)
        assert standing.remaining == RATE.quota - counted.younger_than_window(now_us)


@given(st.lists(STEPS_US, min_size=4, max_size=60))
def test_no_window_holds_more_than_the_quota(steps_us: list[int]) -> None:
    log, through, now_us = SlidingLog(WINDOW_US), [], 10**9
    for step_us in steps_us:
        now_us += step_us
        if is_through(take([log], [RATE], now_us)):
            through.append(now_us)

    for first, fourth in zip(through, through[RATE.quota :], strict=False):
        assert fourth - first >= WINDOW_US


@given(st.lists(st.tuples(STEPS_US, st.integers(-3 * WINDOW_US, 0)), max_size=60))
def test_a_clock_that_goes_back_lets_no_more_through(
    steps_us: list[tuple[int, int]],
) -> None:
    """Each time so much passes in truth, and the clock is set back by so much."""
    log, through, true_us, clock_us = SlidingLog(WINDOW_US), [], 0, 10**9
    for step_us, back_us in steps_us:
        true_us += step_us
        clock_us += step_us + back_us
        [standing] = take([log], [RATE], clock_us)
        if standing.has_room:
            through.append(true_us)

        assert 0 < standing.reset_us <= WINDOW_US, "nobody waits longer than a window"
    for first, fourth in zip(through, through[RATE.quota :], strict=False):
        assert fourth - first >= WINDOW_US


@given(st.lists(STEPS_US, min_size=1, max_size=40))
def test_what_is_told_of_the_reset_is_true_to_the_microsecond(steps_us: list[int]) -> None:
    log, now_us = SlidingLog(WINDOW_US), 10**9
    for step_us in steps_us:
        now_us += step_us
        [standing] = take([log], [RATE], now_us)

        assert standing.reset_us > 0
        [early] = look([log], [RATE], now_us + standing.reset_us - 1)
        assert early.remaining == standing.remaining
        copy = log_of(*log._times)
        [then] = look([copy], [RATE], now_us + standing.reset_us)
        assert then.remaining > standing.remaining


def test_an_entry_as_old_as_the_window_has_left_it() -> None:
    assert not is_through(take([log_of(0, 0, 0)], [RATE], WINDOW_US - 1))
    assert is_through(take([log_of(0, 0, 0)], [RATE], WINDOW_US))


def test_what_is_refused_leaves_no_entry() -> None:
    log = log_of(0, 1, 2)
    for now_us in range(3, 100):
        assert not is_through(take([log], [RATE], now_us))

    assert is_through(take([log], [RATE], WINDOW_US))


def test_of_several_logs_all_are_charged_or_none() -> None:
    free, full = log_of(), log_of(0, 0, 0)

    refused = take([free, full], [RATE, RATE], 1)

    assert [standing.has_room for standing in refused] == [True, False]
    assert refused[0] == Standing(has_room=True, remaining=3, reset_us=0)
    assert len(free) == 0
    assert is_through(take([free, full], [RATE, RATE], WINDOW_US))
    assert (len(free), len(full)) == (1, 1)


def test_a_look_enters_nothing() -> None:
    log = log_of(0)

    assert look([log], [RATE], 5) == (Standing(has_room=True, remaining=2, reset_us=WINDOW_US - 5),)
    assert len(log) == 1


def test_a_quota_that_was_lowered_holds_at_once() -> None:
    log = log_of(0, 10, 20)

    [standing] = take([log], [Rate(1, 2)], 30)

    assert standing == Standing(has_room=False, remaining=0, reset_us=WINDOW_US + 20 - 30)
    assert not is_through(take([log], [Rate(1, 2)], WINDOW_US + 19))
    assert is_through(take([log], [Rate(1, 2)], WINDOW_US + 20))


def test_one_entry_is_taken_back_and_no_other() -> None:
    log = log_of(0, 10, 10, 20)

    for at_us in (10, 11, 30, -1):
        log.withdraw(at_us)

    assert list(log._times) == [0, 10, 20]


def test_entries_may_come_out_of_order() -> None:
    log = log_of(20, 0, 10)

    log.forget(WINDOW_US + 10)

    assert len(log) == 1


@pytest.mark.parametrize("quota", [1, 2, 10])
def test_one_who_keeps_to_the_rate_is_never_refused(quota: int) -> None:
    rate, log = Rate(quota, 1), SlidingLog(US_PER_S)
    gap_us = -(-US_PER_S // quota)
    times_us = [gap_us * number for number in range(100)]

    assert all(is_through(take([log], [rate], now_us)) for now_us in times_us)
