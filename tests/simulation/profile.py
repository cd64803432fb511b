"""Which troubles a world has: drawn from its seed, a few at a time.

A world with everything wrong at once never gets far enough to be wrong in a subtle way. So each
trouble is there in some worlds and not in others, alone and in all combinations.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from tests.simulation.chain import Pace
from tests.simulation.node import Temper
from tests.simulation.provider import Manners
from tests.simulation.receivers import Habits
from tests.simulation.socket import Line


LIES: Final = ("ahead", "hide", "inflate", "invent", "list", "time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one world is made of.

    Attributes:
        payments: how many the merchant creates.
        busy_s: how long merchants and wallets act, in virtual seconds; then comes the quiet.
        daemons: processes that watch the same chain and write the same database.
        crashes: how often each of them dies.
        version_max: what the daemon asks with first; 0 has to be raised.
        store_latency_s, read_fails, write_fails: see `database.Troubles`.
        clock_offset_s: the cluster's clock less the daemon's.
        provider: who sends webhooks; None: nobody does.
        habits: of each receiver of webhooks.
    """

    payments: int
    busy_s: float
    daemons: int
    crashes: int
    quorum: int
    version_max: int
    rate: int
    store_latency_s: float
    read_fails: float
    write_fails: float
    pace: Pace
    tempers: Sequence[Temper]
    lines: Sequence[Line]
    provider: Manners | None = None
    habits: Sequence[Habits] = ()

    def shown(self) -> Mapping[str, Any]:
        """For people: what differs from a world without troubles."""
        return {**asdict(self), "tempers": list(map(asdict, self.tempers))}


def draw(rng: random.Random) -> Profile:
    """A world's troubles."""
    busy_s = rng.uniform(25.0, 70.0)
    pace = _pace(rng, busy_s)
    quorum = rng.choice((1, 1, 2))
    nodes = 3 if quorum == 2 else rng.randint(1, 2)
    liar = rng.randrange(3) if quorum == 2 and rng.random() < 0.7 else None
    # Who forgets early is never the only one who remembers: what nobody keeps is lost for good.
    pruner = rng.randrange(nodes) if nodes > 1 and liar is None and rng.random() < 0.3 else None
    is_wild = rng.random() < 0.8
    tempers = [_temper(rng, busy_s, is_wild, is_liar=number == liar) for number in range(nodes)]
    if pruner is not None:
        tempers[pruner] = replace(tempers[pruner], keeps_slots=rng.randint(250, 450))
    lines = [_line(rng, is_wild) for _ in range(nodes)]
    profile = Profile(
        payments=rng.randint(3, 8),
        busy_s=busy_s,
        daemons=2 if rng.random() < 0.08 else 1,
        crashes=rng.choice((0, 1, 2, 3, 4)),
        quorum=quorum,
        version_max=rng.choice((0, 1)),
        rate=rng.choice((0, 100)),
        store_latency_s=rng.choice((0.001, 0.02, 0.5)),
        read_fails=_some(rng, 0.02),
        write_fails=_some(rng, 0.05),
        pace=pace,
        tempers=tempers,
        lines=lines,
    )
    # What came later is drawn last: it does not change the worlds that were there before.
    return _with_receivers(_with_provider(profile, rng), rng)


def _with_provider(profile: Profile, rng: random.Random) -> Profile:
    """In half of the worlds; and in some of these nobody hears anything else."""
    if rng.random() < 0.5:
        return profile
    manners = Manners(
        loses=_some(rng, 0.6),
        doubles=_some(rng, 1.0),
        delays=_some(rng, 1.0),
        gathers=_some(rng, 1.0),
        lies=_some(rng, 0.5),
        repeats=_some(rng, 0.1),
        is_waited_for=rng.random() < 0.15,
        is_enhanced=rng.random() < 0.5,
    )
    lines = profile.lines
    if rng.random() < 0.3:
        lines = [replace(line, is_dead=True) for line in lines]
    return replace(profile, provider=manners, lines=lines)


def _with_receivers(profile: Profile, rng: random.Random) -> Profile:
    """One in a third of the worlds, with troubles that are over soon; see `trade` for others."""
    if rng.random() < 0.67:
        return profile
    habits = Habits(
        latency_s=rng.choice((0.05, 2.0)),
        refuses=_some(rng, 0.3),
        fails=_some(rng, 0.3),
        hangs=_some(rng, 0.3),
        away=(profile.busy_s * rng.random(), rng.choice((0.0, 10.0, 40.0))),
        gone_at=profile.busy_s * rng.random() if rng.random() < 0.1 else None,
    )
    return replace(profile, habits=[habits])


def _some(rng: random.Random, most: float, *, in_of: float = 0.4) -> float:
    """A trouble: not there at all in most worlds, and never more than that."""
    drawn, size = rng.random(), rng.random()
    return most * size if drawn < in_of else 0.0


def _spans(
    rng: random.Random, busy_s: float, most: int, longest_s: float
) -> list[tuple[float, float]]:
    count = rng.choice((0, 0, *range(1, most + 1)))
    spans = [(busy_s * rng.random(), longest_s * rng.random()) for _ in range(count)]
    return sorted(spans)


def _pace(rng: random.Random, busy_s: float) -> Pace:
    slots = rng.choice(((0.4,), (0.2,), (0.4, 0.2), (0.4, 0.6, 0.2)))
    slot_s = tuple((busy_s * n / len(slots), length_s) for n, length_s in enumerate(slots))
    is_alpenglow = rng.random() < 0.2
    return Pace(
        slot_s=slot_s,
        confirm_lag=rng.randint(1, 2),
        depth=0 if is_alpenglow else rng.choice((8, 16, 31, 31)),
        root_step=1 if is_alpenglow else rng.choice((1, 1, 3, 8)),
        skip=_some(rng, 0.3, in_of=0.7),
        fork=0.0 if is_alpenglow else _some(rng, 0.6, in_of=0.6),
        lands_again=rng.choice((0.0, 0.5, 1.0)),
        fails_there=rng.choice((0.0, 0.3)),
        stalls=_spans(rng, busy_s, 1, 15.0),
        clock_offset_s=rng.choice((0.0, 0.0, -2.0, 2.0)),
    )


def _temper(rng: random.Random, busy_s: float, is_wild: bool, *, is_liar: bool) -> Temper:
    wild = 1.0 if is_wild else 0.0
    lies = frozenset(lie for lie in LIES if rng.random() < 0.5)
    spells = [(at, span, rng.randint(5, 100)) for at, span in _spans(rng, busy_s, 2, 20.0)]
    restarts = _spans(rng, busy_s, 2, 12.0)
    return Temper(
        latency_s=rng.choice((0.05, 0.3, 2.0)),
        hangs=wild * _some(rng, 0.03),
        busy=wild * _some(rng, 0.1),
        broken=wild * _some(rng, 0.1),
        behind=rng.choice((0, 0, 1, 3, 20)),
        spells=spells if is_wild else (),
        restarts=restarts if is_wild else (),
        nulls=wild * _some(rng, 0.8),
        late_index=wild * _some(rng, 0.5, in_of=0.25),
        loses_place=wild * _some(rng, 0.5),
        is_silent_about_before=rng.random() < 0.5,
        short_pages=rng.random() < 0.4,
        disorder=rng.random() < 0.3,
        says_index=rng.random() < 0.7,
        ignores_commitment=rng.random() < 0.15,
        keeps_slots=0,
        lies=lies if is_liar else frozenset(),
    )


def _line(rng: random.Random, is_wild: bool) -> Line:
    if not is_wild:
        return Line()
    return Line(
        loses=_some(rng, 1.0),
        doubles=_some(rng, 1.0),
        delays=_some(rng, 0.5),
        falls_silent=_some(rng, 0.05),
        breaks=_some(rng, 0.1),
        speaks_out=_some(rng, 0.1),
        refuses=_some(rng, 0.5),
    )
