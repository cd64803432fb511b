"""A breaker opens when enough fails, lets one call try, and is not fooled by late news."""

from hypothesis import given, strategies as st

from indexer.partners.breaker import (
    FAILURES_MIN,
    PAUSE_S,
    PAUSE_S_MAX,
    REMEMBERED,
    Breaker,
    State,
    Ticket,
)


def call(breaker: Breaker, now: float, *, is_well: bool | None) -> None:
    """One call that passes, and ends at once."""
    ticket = breaker.enter(now)
    assert ticket is not None
    breaker.leave(ticket, now, is_well=is_well)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_MIN):
        call(breaker, now, is_well=False)
    assert breaker.state(now) is State.OPEN
    return breaker


def test_it_opens_when_enough_has_failed_and_not_before() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_MIN - 1):
        call(breaker, 0, is_well=False)
    assert breaker.state(0) is State.CLOSED
    assert breaker.wait_s(0) == 0

    call(breaker, 0, is_well=False)
    assert breaker.state(0) is State.OPEN
    assert breaker.enter(0) is None
    assert breaker.wait_s(1) == PAUSE_S - 1


def test_failures_among_many_that_are_well_open_nothing() -> None:
    breaker = Breaker()
    for _ in range(100):
        call(breaker, 0, is_well=True)
        call(breaker, 0, is_well=True)
        call(breaker, 0, is_well=False)

    assert breaker.state(0) is State.CLOSED


def test_what_was_long_ago_is_forgotten() -> None:
    breaker = Breaker()
    for _ in range(10 * REMEMBERED):
        call(breaker, 0, is_well=True)
    for _ in range(REMEMBERED // 2):
        call(breaker, 0, is_well=False)

    assert breaker.state(0) is State.OPEN


def test_calls_that_nobody_knows_the_end_of_open_nothing() -> None:
    breaker = Breaker()
    for _ in range(100):
        call(breaker, 0, is_well=None)

    assert breaker.state(0) is State.CLOSED


def test_after_the_pause_one_call_passes_at_a_time() -> None:
    breaker = opened()
    assert breaker.enter(PAUSE_S - 0.001) is None
    assert breaker.state(PAUSE_S) is State.HALF_OPEN

    tickets = [breaker.enter(PAUSE_S) for _ in range(200)]
    assert [ticket is not None for ticket in tickets] == [True] + [False] * 199


def test_when_the_one_is_well_all_pass_again() -> None:
    breaker = opened()
    call(breaker, PAUSE_S, is_well=True)

    assert breaker.state(PAUSE_S) is State.CLOSED
    for _ in range(FAILURES_MIN - 1):  # and nothing of before counts any more
        call(breaker, PAUSE_S, is_well=False)
    assert breaker.state(PAUSE_S) is State.CLOSED


def test_when_the_one_fails_none_passes_for_longer_and_longer() -> None:
    breaker, now = opened(), 0.0
    pauses = []
    for _ in range(8):
        pauses.append(breaker.wait_s(now))
        now += pauses[-1]
        call(breaker, now, is_well=False)

    assert pauses[:4] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S, 8 * PAUSE_S]
    assert max(pauses) == PAUSE_S_MAX
    now += breaker.wait_s(now)
    call(breaker, now, is_well=True)
    for _ in range(FAILURES_MIN):
        call(breaker, now, is_well=False)
    assert breaker.wait_s(now) == PAUSE_S


def test_when_the_one_is_given_up_the_next_may_try() -> None:
    breaker = opened()
    call(breaker, PAUSE_S, is_well=None)

    assert breaker.state(PAUSE_S) is State.HALF_OPEN
    assert breaker.enter(PAUSE_S) is not None
    assert breaker.enter(PAUSE_S) is None


def test_what_began_before_it_opened_says_nothing_of_afterwards() -> None:
    breaker = Breaker()
    early = [breaker.enter(0) for _ in range(20)]
    assert None not in early
    for ticket in early[:FAILURES_MIN]:
        assert ticket is not None
        breaker.leave(ticket, 0, is_well=False)
    probe = breaker.enter(PAUSE_S)
    assert probe is not None
    for ticket in early[FAILURES_MIN:-5]:
        assert ticket is not None
        breaker.leave(ticket, PAUSE_S, is_well=True)
    assert breaker.state(PAUSE_S) is State.HALF_OPEN
    for ticket in early[-5:]:
        assert ticket is not None
        breaker.leave(ticket, PAUSE_S, is_well=False)

    assert breaker.state(PAUSE_S) is State.HALF_OPEN
    assert breaker.enter(PAUSE_S) is None  # the one is still under way
    breaker.leave(probe, PAUSE_S, is_well=True)
    assert breaker.state(PAUSE_S) is State.CLOSED


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "leave"]),
            st.integers(0, 30),
            st.sampled_from([True, False, None]),
            st.floats(0, 20),
        ),
        max_size=200,
    )
)
def test_whatever_happens_it_comes_back_and_tries_with_one(
    steps: list[tuple[str, int, bool | None, float]],
) -> None:
    breaker, now, under_way = Breaker(), 0.0, list[tuple[Ticket, State]]()
    for step, which, is_well, passed_s in steps:
        now += passed_s
        state = breaker.state(now)
        if step == "enter":
            ticket = breaker.enter(now)
            assert not (state is State.OPEN and ticket)
            assert not (state is State.CLOSED and ticket is None)
            if ticket is not None:
                under_way.append((ticket, state))
        elif under_way:
            ticket, _ = under_way.pop(which % len(under_way))
            breaker.leave(ticket, now, is_well=is_well)
        assert 0 <= breaker.wait_s(now) <= PAUSE_S_MAX
        trying = [t for t, at in under_way if at is State.HALF_OPEN]
        assert sum(t is breaker._probe for t in trying) <= 1
    for ticket, _ in under_way:
        breaker.leave(ticket, now, is_well=None)
    assert breaker.enter(now + PAUSE_S_MAX) is not None
