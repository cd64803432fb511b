"""When a partner is in trouble, it is left alone for a while, and so are those who wait for it.

    closed      calls pass, and how they ended is remembered
    open        none passes, until the pause is over
    half-open   one passes at a time: is it answered, the breaker closes; is it not, it opens
                again, and for longer

What began before the breaker opened says nothing of how things stand after it: each call has the
breaker's generation on its ticket, and one of another generation is not listened to. A call that
is given up before it ended says nothing either, and makes room for the next.

Pure: the time is an argument, in seconds of any clock that only goes forward.
"""

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


#: How many calls are looked back upon, and how many of them must have failed.
REMEMBERED: Final = 20
FAILURES_MIN: Final = 5
#: What part of the remembered calls must have failed, as one in so many.
ONE_IN: Final = 2

#: For how long none passes, in seconds: the first time, and at the most.
PAUSE_S: Final = 5.0
PAUSE_S_MAX: Final = 60.0


class State(IntEnum):
    """As a figure shows it: the higher, the worse."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class Ticket:
    """One call that passed."""

    generation: int


class Breaker:
    """The breaker of one partner."""

    def __init__(self) -> None:
        self._generation = 0
        self._outcomes: deque[bool] = deque(maxlen=REMEMBERED)
        self._opened_until: float | None = None
        self._pause_s = PAUSE_S
        self._probe: Ticket | None = None

    def state(self, now: float) -> State:
        """How it stands."""
        if self._opened_until is None:
            return State.CLOSED
        return State.OPEN if now < self._opened_until else State.HALF_OPEN

    def enter(self, now: float) -> Ticket | None:
        """A ticket for one call, which must be given back by `leave`; None: it may not pass."""
        state = self.state(now)
        if state is State.OPEN or (state is State.HALF_OPEN and self._probe is not None):
            return None
        ticket = Ticket(self._generation)
        if state is State.HALF_OPEN:
            self._probe = ticket
        return ticket

    def leave(self, ticket: Ticket, now: float, *, is_well: bool | None) -> None:
        """The call has ended.

        Args:
            ticket: of `enter`.
            now: when.
            is_well: the partner was there and at work; None: nobody knows.
        """
        if ticket is self._probe:
            self._probe = None
        if ticket.generation != self._generation or is_well is None:
            return
        if self._opened_until is None:
            self._outcomes.append(is_well)
            if self._is_too_much():
                self._open(now)
        elif is_well:
            self._close()
        else:
            self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)
            self._open(now)

    def wait_s(self, now: float) -> float:
        """Seconds until the next call may pass; 0 when it may, or depends on one under way."""
        return 0.0 if self._opened_until is None else max(0.0, self._opened_until - now)

    def _is_too_much(self) -> bool:
        failures = self._outcomes.count(False)
        return failures >= FAILURES_MIN and failures * ONE_IN >= len(self._outcomes)

    def _open(self, now: float) -> None:
        self._generation += 1
        self._opened_until = now + self._pause_s
        self._outcomes.clear()

    def _close(self) -> None:
        self._generation += 1
        self._opened_until = None
        self._pause_s = PAUSE_S
        self._outcomes.clear()
