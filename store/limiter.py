"""Rate limits: exact in any window, for all processes together where there is a Redis.

Without a Redis, or while it is away, each process counts for itself. What it asks Redis for is
entered in its own logs first, and taken back if Redis refuses: so the process knows from the start
what it let through before Redis went, and a Redis that came back with nothing in it is not asked
for what this process alone knows to be too much. An own entry is never younger than that in Redis,
and who is on the way there is ahead, so nobody is refused here who would have room there.

The own logs are bounded in number and in entries. Those that were not used for the longest time
are forgotten first: whoever has as many addresses as that is not bounded by one of them anyway.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from indexer.core.rate import Rate
from indexer.core.sliding_log import US_PER_S, SlidingLog, Standing, look, take
from indexer.errors import SharedUnavailable
from store.shared import Script, Shared


#: Callers that are known at once, and all that is known of them: some 50 MB at most.
LOGS_MAX: Final = 100_000
ENTRIES_MAX: Final = 2_000_000
#: Logs whose windows are over are dropped as others come, so many for each.
_SWEPT: Final = 2

_EMPTY: Final = SlidingLog(US_PER_S)
_SCRIPT: Final = Script(files("store").joinpath("sliding_log.lua").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What one request is counted against.

    Attributes:
        key: whose log it is, such as `default:key:key_1`; the window is part of it by itself.
        name: of the policy, as the caller is told.
        rate: what it allows.
    """

    key: str
    name: str
    rate: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is left of one charge's rate.

    Attributes:
        remaining: requests that would be let through now.
        reset_s: whole seconds, rounded up, until it would be one more; 0 when nothing was used.
    """

    charge: Charge
    remaining: int
    reset_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Whether a request was let through.

    Attributes:
        charges: how each of them stands now, in the order given.
        retry_after_s: whole seconds, rounded up, until there is room; 0 when it was allowed.
        violated: names of those that had no room; empty when it was allowed.
    """

    allowed: bool
    charges: tuple[Left, ...]
    retry_after_s: int
    violated: tuple[str, ...]


class Limiter:
    """Lets requests through, or does not.

    Attributes:
        here_count: how often this process had to decide for itself although there is a Redis.
    """

    def __init__(self, shared: Shared | None, monotonic: Callable[[], float]) -> None:
        """Prepares a limiter.

        Args:
            shared: where processes count together; None: each for itself.
            monotonic: seconds, which never go back.
        """
        self._shared = shared
        self._monotonic = monotonic
        self._logs: OrderedDict[str, SlidingLog] = OrderedDict()
        self._entries = 0
        self.here_count = 0

    async def take(self, charges: Sequence[Charge]) -> Taken:
        """Counts one request against all of the charges, or against none where one has no room.

        Args:
            charges: each with a key of its own.
        """
        if self._shared is None:
            return _taken(charges, self._take_here(charges))
        refused = self.refusal(charges)
        if refused is not None:
            return refused
        asked_at_us = self._now_us()
        self._note(charges, asked_at_us)
        try:
            standings = await self._take_shared(self._shared, charges)
        except SharedUnavailable:
            self._withdraw(charges, asked_at_us)
            self.here_count += 1
            return _taken(charges, self._take_here(charges))
        if not all(standing.has_room for standing in standings):
            self._withdraw(charges, asked_at_us)
        return _taken(charges, standings)

    def refusal(self, charges: Sequence[Charge]) -> Taken | None:
        """What `take` would answer, where this process alone knows that there is no room."""
        logs = [self._logs.get(_log_key(charge), _EMPTY) for charge in charges]
        if all(len(log) < each.rate.quota for log, each in zip(logs, charges, strict=True)):
            return None
        with self._counting(logs):
            standings = look(logs, [charge.rate for charge in charges], self._now_us())
        taken = _taken(charges, standings)
        return None if taken.allowed else taken

    async def _take_shared(self, shared: Shared, charges: Sequence[Charge]) -> tuple[Standing, ...]:
        numbers = [n for each in charges for n in (each.rate.quota, each.rate.window_s * US_PER_S)]
        said = await shared.script(_SCRIPT, [_log_key(each) for each in charges], numbers)
        return tuple(
            Standing(has_room=bool(has_room), remaining=remaining, reset_us=reset_us)
            for has_room, remaining, reset_us in zip(said[::3], said[1::3], said[2::3], strict=True)
        )

    def _take_here(self, charges: Sequence[Charge]) -> tuple[Standing, ...]:
        now_us, logs = self._now_us(), self._logs_of(charges)
        with self._counting(logs):
            standings = take(logs, [charge.rate for charge in charges], now_us)
        self._keep_bounds(now_us)
        return standings

    def _note(self, charges: Sequence[Charge], at_us: int) -> None:
        now_us, logs = self._now_us(), self._logs_of(charges)
        with self._counting(logs):
            for log in logs:
                log.note(at_us)
                log.forget(now_us)
        self._keep_bounds(now_us)

    def _logs_of(self, charges: Sequence[Charge]) -> list[SlidingLog]:
        """The own logs; the last ones to be forgotten now."""
        found = []
        for charge in charges:
            key = _log_key(charge)
            log = self._logs.get(key)
            if log is None:
                log = self._logs[key] = SlidingLog(charge.rate.window_s * US_PER_S)
            self._logs.move_to_end(key)
            found.append(log)
        return found

    def _withdraw(self, charges: Sequence[Charge], at_us: int) -> None:
        keys = [_log_key(charge) for charge in charges]
        logs = [self._logs[key] for key in keys if key in self._logs]
        with self._counting(logs):
            for log in logs:
                log.withdraw(at_us)

    @contextmanager
    def _counting(self, logs: Sequence[SlidingLog]) -> Iterator[None]:
        """Keeps count of all entries while some of these logs change."""
        before = sum(map(len, logs))
        yield
        self._entries += sum(map(len, logs)) - before

    def _keep_bounds(self, now_us: int) -> None:
        for _ in range(_SWEPT):
            first = next(iter(self._logs.values()), _EMPTY)
            with self._counting([first]):
                first.forget(now_us)
            if len(first) or not self._logs:
                break
            self._logs.popitem(last=False)
        while len(self._logs) > LOGS_MAX or self._entries > ENTRIES_MAX:
            _, log = self._logs.popitem(last=False)
            self._entries -= len(log)

    def _now_us(self) -> int:
        return int(self._monotonic() * US_PER_S)


def _log_key(charge: Charge) -> str:
    """Another window is another log: what has left a short one may still be in a long one."""
    return f"rate:{charge.rate.window_s}:{charge.key}"


def _taken(charges: Sequence[Charge], standings: Sequence[Standing]) -> Taken:
    pairs = list(zip(charges, standings, strict=True))
    full = [(charge, standing) for charge, standing in pairs if not standing.has_room]
    return Taken(
        allowed=not full,
        charges=tuple(
            Left(
                charge=charge,
                remaining=standing.remaining,
                reset_s=_seconds(standing.reset_us),
            )
            for charge, standing in pairs
        ),
        retry_after_s=max((_seconds(standing.reset_us) for _, standing in full), default=0),
        violated=tuple(charge.name for charge, _ in full),
    )


def _seconds(us: int) -> int:
    """Rounded up: who comes then is not too early."""
    return -(-us // US_PER_S)
