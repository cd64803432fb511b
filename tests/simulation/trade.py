"""Which troubles a shop has: drawn from its seed, a few at a time. See `profile`."""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tests.simulation.paymob import Moods


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """What one shop is made of.

    Attributes:
        payments: how many the merchant asks for.
        busy_s: within how many seconds.
        crashes: how often the daemon dies.
        store_latency_s, read_fails, write_fails: see `database.Troubles`.
        moods: of Paymob.
    """

    payments: int
    busy_s: float
    crashes: int
    store_latency_s: float
    read_fails: float
    write_fails: float
    moods: Moods

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
    )


def _some(rng: random.Random, most: float) -> float:
    """A trouble: not there at all in most worlds, and never more than that."""
    drawn, size = rng.random(), rng.random()
    return most * size if drawn < 0.4 else 0.0
