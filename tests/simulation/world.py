"""A seeded world in virtual time around the real daemon.

    outcome = World(seed).run()          # about 0.2 s of CPU; never touches clock or network

What is real: `parts.Indexer` and everything below it, every line of SQL, the reading of
every answer's bytes. What is not: time, the network, the disk's failures, and everybody outside.
First merchants and wallets are busy while everything goes wrong and the daemon is killed several
times; then comes a quiet period, in which all that was missed can be repaired; then the world
ends. See `outcome.Outcome` for what is left for a judge to look at. Two runs of one seed give
the same `outcome.digest`.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final

import structlog

from indexer import daemon
from indexer.parts import Indexer
from indexer.settings import Settings
from indexer.sources.endpoint import Bounds
from indexer.sources.pubsub import PubSub
from indexer.sources.rpc import Rpc
from store.database import Statement
from store.queries import QUERIES
from tests.instructions import key
from tests.simulation import profile as profiles
from tests.simulation.calendar import Calendar
from tests.simulation.chain import EPOCH, Chain, Sent
from tests.simulation.database import Disk, Troubles
from tests.simulation.life import Life
from tests.simulation.loop import BEGINNING_S, PROCESS, VirtualLoop, run
from tests.simulation.node import Node, SimulatedEndpoint
from tests.simulation.outcome import Asked, Change, Handled, Move, Outcome, Turn
from tests.simulation.people import People
from tests.simulation.processes import Processes
from tests.simulation.profile import Profile
from tests.simulation.provider import Manners, Provider
from tests.simulation.receivers import KEY, Receiver, SimulatedSender, Traffic, add_turn
from tests.simulation.socket import Exchange


__all__ = ["Outcome", "World"]

#: The longest that the busy time and the quiet one may take, in virtual seconds.
BUSY_S_MAX: Final = 400.0
QUIET_S_MAX: Final = 300.0
#: How long nothing may be left to do before the world ends.
STILL_S: Final = 11.0
LOOK_EVERY_S: Final = 2.0

#: Tables of which each write is looked at.
_LOOKED_AT: Final = frozenset({"cursors", "payments", "webhook_endpoints", "webhook_events"})

#: What of the store shows that the daemon is not done yet.
_LEFT_TO_DO: Final = (
    "SELECT 1 FROM dead_letters WHERE next_try_at IS NOT NULL LIMIT 1",
    "SELECT 1 FROM sightings LIMIT 1",
    "SELECT 1 FROM gaps WHERE closed_at IS NULL LIMIT 1",
    (
        "SELECT 1 FROM payments WHERE status = 'pending' "
        "OR status = 'processing' AND paid IN ('none', 'partial') LIMIT 1"
    ),
)


class World:
    """One world; `run` it once."""

    def __init__(
        self,
        seed: int,
        profile: Profile | None = None,
        *,
        make_disk: Callable[[], Disk] = Disk,
    ) -> None:
        self.seed = seed
        self._make_disk = make_disk
        self.profile = profile or profiles.draw(self._rng("profile"))
        self._trace: list[tuple[float, str, str]] = []
        self._moves: list[Move] = []
        self._changes: list[Change] = []
        self._handled: list[Handled] = []
        self._turns: dict[str, list[Turn]] = {}
        self._invented: list[str] = []
        self._calm_slot = 0

    def run(self) -> Outcome:
        """The whole world, from its first slot to its last."""
        began = time.process_time()
        self.disk = self._make_disk()  # before anything is listened to: the first one migrates
        before = structlog.get_config()
        structlog.configure(processors=[self._heard], cache_logger_on_first_use=False)
        try:
            outcome = run(self._main, BUSY_S_MAX + QUIET_S_MAX + 100.0)
        finally:
            structlog.configure(**before)
            self.disk.close()
        outcome.cpu_s = time.process_time() - began
        return outcome

    # ------------------------------------------------------------------------------- making

    def _rng(self, name: str) -> random.Random:
        """A stream of chance of its own: what one part draws does not move another."""
        return random.Random(f"{self.seed} {name}")

    async def _main(self, loop: VirtualLoop) -> Outcome:
        self._make(loop)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.chain.run(), name="chain")
            if self.provider is not None:
                group.create_task(self.provider.run(), name="provider")
            for receiver in self.receivers:
                await receiver.register()
                group.create_task(receiver.live(), name=receiver.id)
            keepers = [
                group.create_task(
                    self.processes.keep_running(self._rng(f"keeper {number}")),
                    name=f"keeper {number}",
                )
                for number in range(self.profile.daemons)
            ]
            async with asyncio.timeout(BUSY_S_MAX), asyncio.TaskGroup() as busy:
                for number in range(self.profile.payments):
                    busy.create_task(self.people.live_through(number), name=f"buyer {number}")
                busy.create_task(asyncio.sleep(self.profile.busy_s), name="busy")
                busy.create_task(self._retire(), name="rotation")
            self._calm_down()
            is_quiet = await self._quiet()
            self.processes.end()
            for task in (*keepers, *loop.of_process(0)):
                if task is not asyncio.current_task():
                    task.cancel()
        return self._outcome(is_quiet)

    async def _retire(self) -> None:
        """Somebody ends the use of the older key, at any time."""
        await asyncio.sleep(self._rng("rotation").random() * self.profile.busy_s)
        retired = ("older", int(self.calendar.now()))
        self.disk.apply([Statement(QUERIES["watch_key_retire"], retired)], 0)
        self._note("people", "the older watch key is retired")

    def _make(self, loop: VirtualLoop) -> None:
        profile = self.profile
        self._loop = loop
        self.calendar = Calendar(loop)
        self.watch_key = key(f"watch key {self.seed % 32}")
        self.chain = Chain(loop, self._rng("chain"), profile.pace)
        self.chain.note = self._note
        self.retired_key = key(f"older watch key {self.seed % 32}")
        for name, watch_key in (("first", self.watch_key), ("older", self.retired_key)):
            taken_in = (watch_key, name, int(self.calendar.now()))
            self.disk.apply([Statement(QUERIES["watch_key_take_in"], taken_in)], 0)
        self.disk.committed = self._committed
        self.nodes = [
            Node(number, self.chain, loop, self._rng(f"node {number}"), temper)
            for number, temper in enumerate(profile.tempers)
        ]
        self.exchanges = [
            Exchange(node, loop, self._rng(f"socket {node.name}"), line)
            for node, line in zip(self.nodes, profile.lines, strict=True)
        ]
        self.chain.listeners = [exchange.on_slot for exchange in self.exchanges]
        self.chain.on_confirmed = self._confirmed
        self.processes = Processes(
            loop,
            self.disk,
            self._store_troubles("store"),
            self._daemon,
            crashes=profile.crashes,
            note=self._note,
        )
        api = self.disk.way(loop, 0, self._store_troubles("api"))
        self.people = People(
            loop,
            self._rng("people"),
            self.chain,
            api.database(),
            self.calendar.now,
            busy_s=profile.busy_s,
            watch_keys=(self.watch_key, self.retired_key),
            seed=self.seed,
        )
        self.people.invent = self._invent
        self.provider = None if profile.provider is None else self._provider(profile.provider)

        self.traffic = Traffic()
        self.receivers = [
            Receiver(
                number,
                self._rng(f"receiver {number}"),
                self.calendar,
                habits,
                self.disk.way(loop, 0, self._store_troubles(f"merchant {number}")).database(),
                self.traffic,
                wake=self.processes.wake,
                note=self._note,
            )
            for number, habits in enumerate(profile.habits)
        ]

    def _provider(self, manners: Manners) -> Provider:
        return Provider(
            self._loop,
            self._rng("provider"),
            manners,
            self.disk.way(self._loop, 0, self._store_troubles("door")).database(),
            self.calendar.now,
            watch_keys=(self.watch_key, self.retired_key),
            wake=self.processes.wake,
        )

    def _store_troubles(self, name: str) -> Troubles:
        return Troubles(
            self._rng(name),
            latency_s=self.profile.store_latency_s,
            read_fails=self.profile.read_fails,
            write_fails=self.profile.write_fails,
        )

    # ------------------------------------------------------------------------------ running

    async def _daemon(self, life: Life) -> None:
        """What `daemon.run` does, less the API."""
        profile, rng = self.profile, self._rng(f"daemon {life.process}")
        rpc = Rpc(
            _urls("http", len(self.nodes)),
            bounds=Bounds(rate=profile.rate, concurrency=8),
            quorum=profile.quorum,
            draw=rng.random,
            endpoint=lambda url, **rest: SimulatedEndpoint(self._by_url(url), life, url, **rest),
        )
        rpc.version_max = profile.version_max

        def pubsub(url: str, **rest: Any) -> PubSub:
            exchange = self.exchanges[self.nodes.index(self._by_url(url))]
            return PubSub(url, connect=exchange.connect(life), draw=rng.random, **rest)

        async with rpc:
            indexer = Indexer(
                _settings(len(self.nodes), profile.quorum),
                life.handle.database(),
                rpc,
                [self.watch_key, self.retired_key],
                life.wakeups,
                self.calendar.now,
                sender=SimulatedSender(self.receivers, life, self.calendar, self.traffic),
                keys=(KEY,),
                draw=self._rng(f"pauses {life.process}").random,
                pubsub=pubsub,
            )
            await daemon.run_until_stopped(indexer.tasks(), asyncio.Event())

    def _by_url(self, url: str) -> Node:
        return self.nodes[int(url.rpartition("node")[2])]

    # ------------------------------------------------------------------------------- ending

    def _calm_down(self) -> None:
        """From now on nothing goes wrong any more."""
        self._note("world", "is calm")
        self.chain.is_calm = True
        self._calm_slot = self.chain.tip
        for node in self.nodes:
            node.is_calm = True
        if self.provider is not None:
            self.provider.is_calm = True
        for receiver in self.receivers:
            receiver.is_calm = True
        self.processes.calm_down()

    async def _quiet(self) -> bool:
        """Waits until nothing has been left to do for a while; False: that never came."""
        until, still_since = self._now_s + QUIET_S_MAX, None
        while self._now_s < until:
            await asyncio.sleep(LOOK_EVERY_S)
            if not self._is_done():
                still_since = None
                continue
            still_since = self._now_s if still_since is None else still_since
            if self._now_s - still_since >= STILL_S:
                return True
        return False

    def _is_done(self) -> bool:
        """Everything that is true is final, and everything that the store needs is in it."""
        if self.chain.has_waiting or any(map(self.disk.rows, _LEFT_TO_DO)):
            return False
        disk = self.disk
        reached = disk.rows("SELECT slot FROM cursors WHERE key = ?", self.watch_key)
        if not reached or reached[0][0] < self._calm_slot:
            return False
        waiting = {
            key
            for (key,) in disk.rows("SELECT dedupe_key FROM webhook_events WHERE verdict='waiting'")
        }
        if self.provider is not None and not self.provider.is_done(waiting, self._is_final):
            return False
        judged = set(disk.rows("SELECT signature, payment_id FROM verdicts"))
        return all(
            (placement.signature, asked.terms.id) in judged
            for asked in self.people.asked
            for placement in self.chain.naming(asked.terms.reference)
            if placement.finalized_at_s is not None
            and not placement.failed
            and placement.block_time <= asked.terms.expires_at + asked.terms.grace_s
        )

    def _is_final(self, signature: str) -> bool:
        return any(p.finalized_at_s is not None for p in self.chain.placed(signature))

    def _outcome(self, is_quiet: bool) -> Outcome:
        placements = sorted(self.chain.all_placements(), key=lambda p: (p.slot, p.index))
        rows = self.disk.dump()
        finalized = self.chain.finalized
        block = self.chain.block(finalized)
        return Outcome(
            seed=self.seed,
            profile=self.profile.shown(),
            watch_key=self.watch_key,
            retired_keys=(self.retired_key,),
            quorum=self.profile.quorum,
            finalized=[p.truth() for p in placements if p.finalized_at_s is not None],
            dropped=[p.truth() for p in placements if p.dropped_at <= self.chain.tip],
            invented=self._invented,
            listed_late=frozenset().union(*(node.listed_late for node in self.nodes)),
            payments=self._asked(),
            rows=rows,
            moves=self._moves,
            changes=self._changes,
            told=self.provider.told if self.provider is not None else (),
            handled=self._handled,
            reached=[receiver.reached(self._turns[receiver.id]) for receiver in self.receivers],
            deaths=self.processes.deaths,
            crashes=self.processes.crashes,
            finalized_slot=finalized,
            finalized_time=block.time if block is not None else 0,
            ended_at_s=self._now_s,
            is_quiet=is_quiet,
            trace=[f"{at_s:9.3f} {who} {what}" for at_s, who, what in self._trace],
        )

    def _asked(self) -> list[Asked]:
        """The payments, with the cancellations that the store accepted."""
        canceled = dict(self.disk.rows("SELECT id, canceled_at FROM payments"))
        return [
            Asked(
                terms=asked.terms,
                stored_at_s=asked.stored_at_s,
                canceled_at=canceled.get(asked.terms.id),
            )
            for asked in self.people.asked
        ]

    # ------------------------------------------------------------------------------ hearing

    @property
    def _now_s(self) -> float:
        return self._loop.time() - BEGINNING_S

    def _note(self, who: str, what: str) -> None:
        self._trace.append((self._now_s, who, what))

    def _heard(self, _logger: object, _name: str, said: Any) -> Any:
        """A line that the daemon logged: it goes to the trace."""
        event = said.pop("event")
        rest = " ".join(f"{name}={value}" for name, value in said.items())
        self._note(f"daemon{PROCESS.get()}", f"{event} {rest}")
        raise structlog.DropEvent

    def _confirmed(self, placements: Sequence[Any]) -> None:
        for exchange in self.exchanges:
            exchange.on_confirmed(placements)
        if self.provider is not None:
            self.provider.on_confirmed(placements)

    def _invent(self, sent: Sent) -> None:
        if self.provider is not None:
            self.provider.invent(sent)
        for node, exchange in zip(self.nodes, self.exchanges, strict=True):
            if "invent" in node.temper.lies:
                exchange.on_confirmed([node.invent(sent)])
                self._invented.append(sent.signature)
                self._note(node.name, f"invents {sent.signature[:6]}")

    def _committed(self, process: int, batch: Sequence[Statement]) -> None:
        """Looks at what a commit left behind."""
        for sql, parameters in batch:
            table = _written(sql)
            if table == "cursors":
                self._moved(process, str(parameters[0]))
            elif table == "payments":
                self._changed(process, str(parameters[0]))
            elif table == "webhook_endpoints":
                self._turned(str(parameters[0]))
            elif table == "webhook_events" and sql.startswith("UPDATE"):
                self._ended(process, int(str(parameters[0])))

    def _moved(self, process: int, name: str) -> None:
        disk = self.disk
        found = disk.rows("SELECT slot, block_time FROM cursors WHERE key = ?", name)
        if not found:
            return
        [(slot, block_time)] = found
        move = Move(
            at_s=self._now_s,
            process=process,
            key=name,
            slot=slot,
            block_time=block_time,
            finalized_slot=self.chain.finalized,
            judged=frozenset(disk.rows("SELECT signature, payment_id FROM verdicts")),
            parked=frozenset(name for (name,) in disk.rows("SELECT signature FROM dead_letters")),
            payment_ids=frozenset(id_ for (id_,) in disk.rows("SELECT id FROM payments")),
        )
        self._moves.append(move)

    def _changed(self, process: int, payment_id: str) -> None:
        found = self.disk.rows(
            "SELECT version, status, paid, received, late, review, settled_at FROM payments "
            "WHERE id = ?",
            payment_id,
        )
        if not found:
            return
        [(version, status, paid, received, late, review, settled_at)] = found
        change = Change(
            at_s=self._now_s,
            process=process,
            payment_id=payment_id,
            version=version,
            status=status,
            paid=paid,
            received=int(received),
            late=bool(late),
            review=tuple(json.loads(review)),
            settled_at=settled_at,
            finalized_slot=self.chain.finalized,
        )
        last = next((c for c in reversed(self._changes) if c.payment_id == payment_id), None)
        if last is None or last.version != version:
            self._changes.append(change)
            self._note(f"daemon{process}", f"{payment_id[:8]} v{version} {status} {paid}")

    def _turned(self, endpoint_id: str) -> None:
        """A receiver's row was written."""
        add_turn(self._turns.setdefault(endpoint_id, []), self.disk, endpoint_id, self.calendar)

    def _ended(self, process: int, event_id: int) -> None:
        disk = self.disk
        [(key, verdict, received_at)] = disk.rows(
            "SELECT dedupe_key, verdict, received_at FROM webhook_events WHERE id = ?", event_id
        )
        if verdict == "waiting":
            return
        handled = Handled(
            at_s=self._now_s,
            process=process,
            dedupe_key=key,
            verdict=verdict,
            received_at_s=received_at - EPOCH,
            judged=frozenset(disk.rows("SELECT signature, payment_id FROM verdicts")),
            sighted=frozenset(disk.rows("SELECT signature, payment_id FROM sightings")),
            statuses=dict(disk.rows("SELECT id, status FROM payments")),
        )
        self._handled.append(handled)
        self._note(f"daemon{process}", f"webhook {event_id} is {verdict}")


@cache
def _written(sql: str) -> str | None:
    """Which of the tables that are looked at a statement writes."""
    words = sql.split()
    for verb, table in pairwise(words):
        if verb in {"INTO", "UPDATE"} and table in _LOOKED_AT:
            return table
    return None


@cache
def _urls(scheme: str, count: int) -> tuple[str, ...]:
    return tuple(f"{scheme}://node{number}" for number in range(count))


@cache
def _settings(nodes: int, quorum: int) -> Settings:
    return Settings(rpc_urls=_urls("http", nodes), ws_urls=_urls("ws", nodes), verify_quorum=quorum)
