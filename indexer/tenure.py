"""Which part of the work this indexer does, while there are others.

    beat ──► one write: "I am there", take what nobody does, give back what is too much
                 └──► how all stands ──► what to take and leave with the next one (core.shares)

Every indexer counts up a number in the store, and watches the numbers of the others. One whose
number does not change for `LEASE_S` is gone, and its work is taken. Only this process's own time
counts for that, never the time of day: no two clocks are compared. By the same time an indexer
whose number did not get through for a little less knows that it has lost its work, also when it
was stopped in between. So two never believe at the same moment that they have the same work,
unless one of them is stopped between the question and the deed; what is done then, is done twice
and harms nobody. Only deliveries write the token of their lease (see `guard`).

What is given up to others is not begun any more at once, and given back one beat later: what is
under way has that long to end. What cannot be taken back, such as a post, says that it is under
way, and is waited for a little longer.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, NoReturn, Protocol

import structlog

from indexer.core.shares import SHARD_UNITS, divide, key_unit, unit_of
from indexer.errors import StoreUnavailable
from indexer.whereabouts import Whereabouts
from store import leases
from store.database import Database, Statement
from store.leases import Board, Instance, Lease


log = structlog.get_logger(__name__)

#: Seconds between two beats.
BEAT_S: Final = 1.5
#: Seconds until the next one after one that did not get through.
RETRY_S: Final = 0.3
#: Seconds without a sign of an indexer after which others take its work.
LEASE_S: Final = 6.0
#: Seconds after its last beat that got through in which an indexer takes its work for its own.
HELD_S: Final = 5.0
#: Seconds for which something is not given back to others because of what is under way: no longer
#: than they would wait for an indexer that died.
ENDING_S: Final = LEASE_S


#: Seconds between two looks whether something is ours.
LOOK_S: Final = 0.2

#: Runs until it is canceled.
Start = Callable[[], Awaitable[object]]


class Share(Protocol):
    """The part of the work that is done here."""

    def does(self, name: str, /) -> bool:
        """Whether what has that name is done here now."""

    def does_key(self, key: str, /) -> bool:
        """Whether a watch key is swept here now."""

    def keeps_key(self, key: str, /) -> bool:
        """Whether a watch key is ours as far as is known, also while the store does not answer."""

    def shards(self) -> Sequence[int]:
        """Which shards are done here now."""

    def guard(self, name: str) -> Sequence[Statement]:
        """What refuses a batch when that work is not ours any more. Empty: nobody can take it."""

    def under_way(self, name: str) -> AbstractContextManager[None]:
        """While it lasts, that work is not given back, for a while."""


class Everything:
    """The share of the only one there is."""

    def does(self, name: str) -> bool:  # noqa: ARG002 - whatever it is
        """Yes."""
        return True

    does_key = keeps_key = does

    def shards(self) -> Sequence[int]:
        """All of them."""
        return range(len(SHARD_UNITS))

    def guard(self, name: str) -> Sequence[Statement]:  # noqa: ARG002 - whatever it is
        """Nothing: there is nobody else."""
        return ()

    def under_way(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002 - whatever it is
        """Nothing: there is nobody to give it to."""
        return nullcontext()


class _Sign:
    """The last sign of another indexer; `is_gone` when its process was not to be seen then."""

    def __init__(self, beats: int) -> None:
        self.beats = beats
        self.silent_s = 0.0
        self.is_gone = False


class Tenure:
    """The share of one of several indexers.

    Attributes:
        begun: set once the first share is known.
        others: how many other indexers are there.
        problem: why it is not known what is ours; None while it is.
    """

    def __init__(
        self,
        database: Database,
        instance: Instance,
        *,
        clock: Callable[[], float],
        here: Whereabouts,
    ) -> None:
        """Has nothing yet.

        Args:
            database: migrated.
            instance: this one.
            clock: unix seconds, for people only.
            here: this process, which can see others of its machine.
        """
        self._database = database
        self._instance = instance
        self._clock = clock
        self._here = here
        self._mine: dict[str, Lease] = {}
        self._leaving: dict[str, float] = {}  # since when, by the loop's clock
        self._under_way = Counter[str]()
        self._needless: Sequence[str] = ()
        self._take: tuple[str, ...] = ()
        self._until = 0.0  # by the loop's clock
        self._looked_at: float | None = None
        self._signs: dict[str, _Sign] = {}
        self.begun = asyncio.Event()
        self.others = 0
        self.problem: str | None = None

    # ------------------------------------------------------------------------ what is done here

    def does(self, name: str) -> bool:
        """Whether what has that name is done here now."""
        return self._has(unit_of(name))

    def does_key(self, key: str) -> bool:
        """Whether a watch key is swept here now."""
        return self._has(key_unit(key))

    def keeps_key(self, key: str) -> bool:
        """Whether a watch key is ours as far as is known, also while the store does not answer.

        For what loses more by ending than it costs when it is done twice: a subscription.
        """
        unit = key_unit(key)
        return unit in self._mine and unit not in self._leaving

    def shards(self) -> Sequence[int]:
        """Which shards are done here now."""
        return [shard for shard, unit in enumerate(SHARD_UNITS) if self._has(unit)]

    def guard(self, name: str) -> Sequence[Statement]:
        """What refuses a batch when that work is not ours any more."""
        lease = self._mine.get(unit_of(name))
        # Of what was never ours, or is not any more, nothing is to be written.
        lost = Lease(name=unit_of(name), holder=self._instance.id, token=0)
        return (leases.guard(lease or lost),)

    @contextmanager
    def under_way(self, name: str) -> Iterator[None]:
        """While it lasts, that work is not given back, for `ENDING_S`."""
        unit = unit_of(name)
        self._under_way[unit] += 1
        try:
            yield
        finally:
            self._under_way[unit] -= 1

    def _has(self, unit: str) -> bool:
        is_ours = unit in self._mine and unit not in self._leaving
        return is_ours and asyncio.get_running_loop().time() < self._until

    # ------------------------------------------------------------------------------- for ever

    async def run(
        self, keys: Callable[[], Iterable[str]], *, changed: Callable[..., None]
    ) -> NoReturn:
        """Beats for ever.

        Args:
            keys: the watch keys there are.
            changed: called with `gained=True` when something became ours, and with False when
                something only is not any more.
        """
        while True:
            before = self._kept()
            try:
                await self.beat(keys())
            except StoreUnavailable as error:
                log.warning("tenure.beat_failed", error=str(error))
                self.problem = str(error)
                await asyncio.sleep(RETRY_S)
                continue
            self.problem = None
            if (kept := self._kept()) != before:
                gained, lost = sorted(kept - before), sorted(before - kept)
                log.info("tenure.changed", gained=gained, lost=lost, others=self.others)
                changed(gained=bool(gained))
            if self._take and not self._leaving:
                continue  # what nobody does, shall not wait
            self.begun.set()
            await asyncio.sleep(BEAT_S)

    async def beat(self, keys: Iterable[str]) -> None:
        """One beat: tells, takes and gives back, looks, and decides what comes next.

        Raises:
            StoreUnavailable: it may or may not have got through.
        """
        loop, me = asyncio.get_running_loop(), self._instance.id
        began = loop.time()
        given_back = self._ended(began)
        absent = self._absent()
        batch = [leases.beat(self._instance, int(self._clock()))]
        if given_back:
            batch.append(leases.give_back(given_back, me))
        if self._take:
            batch.append(leases.take(self._take, me, absent))
        if absent:
            batch.append(leases.forget(absent))
        if self._needless:
            batch += leases.delete(self._needless)
        *_, instances, held = await self._database.write([*batch, *leases.look()])
        board = leases.board(instances, held)
        self._mine = {name: each for name, each in board.leases.items() if each.holder == me}
        self._until = began + HELD_S
        self._note_signs(board, loop.time())
        self._decide(board, [tuple(sorted(map(key_unit, keys))), SHARD_UNITS])

    async def leave(self) -> None:
        """The end, in order: others may go on at once. Does without when the store is away."""
        self._mine, self._leaving = {}, {}
        try:
            await self._database.write(leases.leave(self._instance.id))
        except StoreUnavailable as error:
            log.warning("tenure.not_given_back", error=str(error))

    # -------------------------------------------------------------------------------- deciding

    def _decide(self, board: Board, kinds: Sequence[Sequence[str]]) -> None:
        absent = self._absent()
        present = board.instances.keys() - absent.keys()
        holders = {name: lease.holder for name, lease in board.leases.items()}
        division = divide(kinds, holders, present, me=self._instance.id)
        wanted = {unit for units in kinds for unit in units}
        self.others = len(present - {self._instance.id})
        # What nobody needs any more is taken as well, given back with the next beat, and deleted
        # with the one after: nobody is forgotten who has work.
        needless = {name: who for name, who in holders.items() if name not in wanted}
        known = {*present, leases.NOBODY}
        self._take = (*division.take, *(name for name, who in needless.items() if who not in known))
        self._needless = [name for name, who in needless.items() if who == leases.NOBODY]
        now = asyncio.get_running_loop().time()
        leave = {*division.leave, *(self._mine.keys() - wanted)}
        self._leaving = {unit: self._leaving.get(unit, now) for unit in leave}

    def _ended(self, now: float) -> Collection[str]:
        """What is left of which nothing is under way, or has been for too long."""
        return [
            unit
            for unit, left_at in self._leaving.items()
            if not self._under_way[unit] or now - left_at >= ENDING_S
        ]

    def _kept(self) -> frozenset[str]:
        return frozenset(self._mine) - self._leaving.keys()

    # -------------------------------------------------------------------------- who is there

    def _note_signs(self, board: Board, now: float) -> None:
        """Counts for how long nothing was heard of each other indexer, while we could hear.

        Between two looks that lie far apart the store was away, for the others as well: no more
        of it counts than the time of two beats.
        """
        looked_at = now if self._looked_at is None else self._looked_at
        elapsed_s = min(now - looked_at, 2 * BEAT_S)
        signs: dict[str, _Sign] = {}
        for id_, each in board.instances.items():
            if id_ == self._instance.id:
                continue
            sign = self._signs.get(id_)
            if sign is None or sign.beats != each.beats:
                if sign is not None and sign.is_gone:
                    # It goes on: this machine hides processes, or is another one's double.
                    log.warning("tenure.cannot_see", other=id_)
                    self._here = Whereabouts()
                sign = _Sign(each.beats)
            else:
                sign.silent_s += elapsed_s
            if self._here.is_gone(Whereabouts(machine=each.machine, process=each.process)):
                sign.silent_s, sign.is_gone = LEASE_S, True
            signs[id_] = sign
        self._signs, self._looked_at = signs, now

    def _absent(self) -> dict[str, int]:
        """Who is gone, with the number that did not change."""
        return {id_: sign.beats for id_, sign in self._signs.items() if sign.silent_s >= LEASE_S}


async def while_ours(share: Share, name: str, start: Start) -> None:
    """Runs something as long as it is ours, and again when it is ours again.

    Ends only when that ends by itself.
    """

    async def run() -> None:
        await start()

    while True:
        if not share.does(name):
            await asyncio.sleep(LOOK_S)
            continue
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(), name=name)
            while share.does(name) and not task.done():
                await asyncio.wait({task}, timeout=LOOK_S)
            if task.done():
                return
            task.cancel()
