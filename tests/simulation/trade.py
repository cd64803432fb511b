"""Which troubles a shop has: drawn from its seed, a few at a time. See `profile`."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from tests.simulation.paymob import Moods
from tests.simulation.receivers import FOR_GOOD_S, Habits


#: What a shop that only wants to know how it ended is told of.
_ENDS: Final = ("payment.settled", "payment.expired", "payment.failed", "payment.refunded")
#: How long receivers are away: not for long, or for long.
_SPANS_S: Final = ((0.0, 0.0, 20.0, 400.0), (3_600.0, 40_000.0, FOR_GOOD_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """What one shop is made of.

    Attributes:
        payments: how many the merchant asks for.
        busy_s: within how many seconds.
        crashes: how often the daemon dies.
        store_latency_s, read_fails, write_fails: see `database.Troubles`.
        moods: of Paymob.
        habits: of each receiver of webhooks.
    """

    payments: int
    busy_s: float
    crashes: int
    store_latency_s: float
    read_fails: float
    write_fails: float
    moods: Moods
    habits: Sequence[Habits] = ()

    def shown(self) -> Mapping[str, Any]:
        """For people."""
        return asdict(self)


def draw(rng: random.Random) -> Trade:
    """A shop's troubles."""
    busy_s = rng.uniform(20.0, 60.0)
    return Trade(
        payments=rng.randint(2, 5),
        busy_s=busy_s,
        crashes=rng.choice((0, 1, 2, 3)),
        store_latency_s=rng.choice((0.001, 0.02, 0.5)),
        read_fails=_some(rng, 0.02),
        write_fails=_some(rng, 0.05),
        moods=Moods(
            latency_s=rng.choice((0.1, 2.0)),
            fails=_some(rng, 0.5),
            hangs=_some(rng, 0.1),
            loses_orders=_some(rng, 0.5),
            is_late=_some(rng, 1.0),
            away=(busy_s * rng.random(), rng.choice((0.0, 0.0, 100.0, 1_000.0))),
            loses=_some(rng, 1.0),
            doubles=_some(rng, 1.0),
            delays=_some(rng, 1.0),
            forges=_some(rng, 0.3),
        ),
        habits=[_habits(rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))],
    )


def _habits(rng: random.Random) -> Habits:
    is_long = rng.random() < 0.15
    habits = Habits(
        event_types=rng.choice(((), (), ("payment.created", "payment.settled"), _ENDS)),
        latency_s=rng.choice((0.05, 1.0, 10.0)),
        refuses=_some(rng, 0.5),
        fails=_some(rng, 0.8),
        hangs=_some(rng, 0.5),
        asks_to_wait=_some(rng, 1.0),
        away=(60.0 * rng.random(), rng.choice(_SPANS_S[is_long])),
        is_flapping=rng.random() < 0.3,
        rotates_at=rng.choice((None, None, 3_000.0)) and rng.random() * 3_000.0,
    )
    end = rng.random()
    if end < 0.15:
        return replace(habits, gone_at=rng.choice((60.0, 3_000.0)) * rng.random())
    if end < 0.3:
        disabled_at = rng.choice((60.0, 3_000.0)) * rng.random()
        return replace(
            habits,
            disabled_at=disabled_at,
            enabled_at=disabled_at + rng.choice((20.0, 20_000.0)),
            asks_again=rng.random() < 0.5,
        )
    return replace(habits, deleted_at=3_000.0 * rng.random()) if end < 0.35 else habits


def _some(rng: random.Random, most: float) -> float:
    """A trouble: not there at all in most worlds, and never more than that."""
    drawn, size = rng.random(), rng.random()
    return most * size if drawn < 0.4 else 0.0
