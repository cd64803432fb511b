"""Several indexers in made-up time: frozen, cut off, killed, replaced, and told of keys late.

At no moment do two of them believe that they have the same work, and when it is quiet again all
of it is done, evenly, by those who are there, and nothing moves any more.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio

from indexer import tenure as tenure_module
from indexer.core.shares import SHARD_UNITS, key_unit
from indexer.errors import StoreUnavailable
from indexer.tenure import BEAT_S, LEASE_S, RETRY_S, Tenure
from indexer.whereabouts import Whereabouts
from store import leases
from store.database import Database, Rows, Statement, open_database
from store.leases import Instance
from store.migrate import migrate


#: The database itself sees to it that no token is given out twice, in whatever order.
_SEEN = "CREATE TABLE seen (name TEXT PRIMARY KEY, token INTEGER NOT NULL) STRICT"
_GROWS = """
CREATE TRIGGER tokens_grow_{event} AFTER {event} ON leases WHEN NEW.name <> 'deleted'
BEGIN
    SELECT RAISE(ABORT, 'a token went back') FROM seen
    WHERE name = NEW.name AND token >= NEW.token;
    INSERT INTO seen VALUES (NEW.name, NEW.token)
    ON CONFLICT (name) DO UPDATE SET token = excluded.token;
END
"""
AT_ONCE_MAX = 5
KEYS = 7
#: Seconds of trouble, and of quiet after it: two leases, and some beats to divide anew.
TROUBLE_S, QUIET_S = 60.0, 4 * LEASE_S
#: How often in all that time everybody is asked what it does.
TICK_S = 0.1
#: Of all questions, and of all answers, so many are on their way for long.
SLOW = 0.05
#: What may happen in a tick, and how often it does.
TROUBLES = {"": 80, "freeze": 2, "kill": 1, "leave": 1, "bear": 2, "keys": 2}


class Line:
    """A database at the end of a line that is slow at times, and loses questions and answers."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        fate = self._world.fate()
        self._world.dawdle()
        if fate == "question lost":
            raise StoreUnavailable(fate)
        rows = await self._world.database.write(batch)
        self._world.dawdle()
        if fate == "answer lost":
            raise StoreUnavailable(fate)
        return rows


class World:
    """Time, a database, and the indexers on it."""

    def __init__(self, database: Database, seed: int) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.database = database
        self.keys = [f"key {n}" for n in range(KEYS)]
        self.is_quiet = False
        self.born = 0
        self.there: dict[str, Tenure] = {}
        self.next_at: dict[str, float] = {}
        self.known: dict[str, list[str]] = {}
        for _ in range(self.rng.randint(1, 3)):
            self.bear()

    def bear(self) -> None:
        self.born += 1
        id_ = f"{self.rng.randrange(100):02}-{self.born}"
        instance = Instance(id=id_, version="1", machine="", process="", started_at=0)
        line = cast("Database", Line(self))
        self.there[id_] = Tenure(line, instance, clock=lambda: 0.0, here=Whereabouts())
        self.next_at[id_] = self.now + self.rng.random()
        self.known[id_] = list(self.keys)

    def fate(self) -> str:
        if self.is_quiet:
            return ""
        return self.rng.choices(["", "question lost", "answer lost"], [8, 1, 1])[0]

    def dawdle(self) -> None:
        """Time goes on, perhaps."""
        if not self.is_quiet and self.rng.random() < SLOW:
            self.now += self.rng.uniform(0, LEASE_S / 2)

    async def happen(self) -> None:
        """Perhaps something does."""
        anybody = self.rng.choice(sorted(self.there))
        match self.rng.choices(list(TROUBLES), list(TROUBLES.values()))[0]:
            case "freeze":
                self.next_at[anybody] += self.rng.uniform(0, 3 * LEASE_S)
            case "kill" if len(self.there) > 1:
                del self.there[anybody]
            case "leave" if len(self.there) > 1:
                await self.there.pop(anybody).leave()
            case "bear" if len(self.there) < AT_ONCE_MAX:
                self.bear()
            case "keys":
                self.keys = self.rng.sample([f"key {n}" for n in range(9)], self.rng.randint(1, 9))

    async def tick(self) -> None:
        """All whose time has come beat, and everybody is asked."""
        self.now += TICK_S
        for id_, tenure in sorted(self.there.items(), key=lambda each: self.next_at[each[0]]):
            if self.next_at[id_] > self.now:
                continue
            if self.is_quiet or self.rng.random() < 0.5:  # what it knows may be old
                self.known[id_] = list(self.keys)
            try:
                await tenure.beat(self.known[id_])
                at_once = tenure._take and not tenure._leaving  # as `run` does it
                pause_s = 0.0 if at_once else BEAT_S * self.rng.uniform(1, 1.1)
                self.next_at[id_] = self.now + pause_s
            except StoreUnavailable:
                self.next_at[id_] = self.now + RETRY_S
        doing = Counter(unit for tenure in self.there.values() for unit in done_by(tenure))
        assert [unit for unit, by in doing.items() if by > 1] == [], f"at {self.now:.1f}"

    async def pass_by(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            if not self.is_quiet:
                await self.happen()
            await self.tick()


def done_by(tenure: Tenure) -> list[str]:
    """What it would do now."""
    units = [*SHARD_UNITS, *(key_unit(f"key {n}") for n in range(9))]
    return [unit for unit in units if tenure._has(unit)]


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    triggers = [Statement(_GROWS.format(event=event)) for event in ("INSERT", "UPDATE")]
    await database.write([Statement(_SEEN), *triggers])
    yield database
    await database.close()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], None]:
    """Has that world's time go for indexers."""

    def choose(world: World) -> None:
        loop = SimpleNamespace(time=lambda: world.now)
        shown: Any = SimpleNamespace(get_running_loop=lambda: loop, Event=asyncio.Event)
        monkeypatch.setattr(tenure_module, "asyncio", shown)

    return choose


@pytest.mark.parametrize("seed", range(12))
async def test_no_two_do_the_same_and_in_the_end_all_is_done(
    database: Database, at: Callable[[World], None], seed: int
) -> None:
    world = World(database, seed)
    at(world)
    await world.pass_by(TROUBLE_S)
    world.is_quiet = True
    world.next_at = {id_: min(when, world.now) for id_, when in world.next_at.items()}
    await world.pass_by(QUIET_S)

    wanted = {*SHARD_UNITS, *map(key_unit, world.keys)}
    shares = {id_: set(done_by(tenure)) for id_, tenure in world.there.items()}
    assert set().union(*shares.values()) == wanted
    for kind in (set(SHARD_UNITS), set(map(key_unit, world.keys))):
        sizes = [len(share & kind) for share in shares.values()]
        assert max(sizes) - min(sizes) <= 1
    board = await leases.read(database)
    assert board.instances.keys() == world.there.keys()
    assert board.leases.keys() == wanted

    tokens = {name: lease.token for name, lease in board.leases.items()}
    await world.pass_by(2 * LEASE_S)
    board = await leases.read(database)
    assert {name: lease.token for name, lease in board.leases.items()} == tokens
