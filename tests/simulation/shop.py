"""A seeded world of cards and webhooks over days, without a chain, around the real daemon.

    outcome = Shop(seed).run()           # about 0.1 s of CPU; never touches clock or network

What is real: the tasks of `parts.Indexer` that take callbacks, ask Paymob and send webhooks, and
everything below them. What is not: time, which leaps over what is empty, Paymob, the receivers,
and the disk's failures. Otherwise as in `world`.
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
from indexer.sources.rpc import Rpc
from store.database import Statement
from tests.simulation.calendar import Calendar
from tests.simulation.customers import Customers
from tests.simulation.database import Disk, Troubles
from tests.simulation.life import Life
from tests.simulation.loop import BEGINNING_S, PROCESS, VirtualLoop, run
from tests.simulation.outcome import Change, Learned, Outcome, Sold, Turn
from tests.simulation.paymob import PINS, Paymob
from tests.simulation.processes import Processes
from tests.simulation.receivers import KEY, Receiver, SimulatedSender, Traffic, add_turn
from tests.simulation.trade import Trade, draw


#: The longest that a world may take, in virtual seconds.
LIMIT_S: Final = 30 * 86_400.0
#: How long one step takes, after each of which there may be a leap, and how many there may be.
STEP_S: Final = 3.0
STEPS_MAX: Final = 1_500
#: Steps after which nothing goes wrong any more, or virtual seconds: whichever comes first.
BUSY_STEPS: Final = 40
BUSY_S_MAX: Final = 30 * 3_600.0
#: What is due so soon is waited for.
NEAR_S: Final = 15.0
#: How far a leap goes while something is due that nobody does: a receiver is away, or Paymob.
BLIND_LEAP_S: Final = 1_800.0

#: The tasks that need no chain.
TASKS: Final = frozenset({"cards", "callbacks", "deliveries"})

#: Tables of which each write is looked at.
_LOOKED_AT: Final = frozenset({"charges", "payments", "webhook_endpoints"})

#: When the store wants something to be done. NULL: nothing.
_DUE: Final = (
    "SELECT min(due_at) FROM card_checks",
    "SELECT min(next_try_at) FROM webhook_events WHERE verdict = 'waiting'",
    "SELECT min(next_try_at) FROM webhook_deliveries WHERE state = 'waiting'",
)


class Shop:
    """One world; `run` it once."""

    def __init__(
        self,
        seed: int,
        trade: Trade | None = None,
        *,
        make_disk: Callable[[], Disk] = Disk,
    ) -> None:
        self.seed = seed
        self._make_disk = make_disk
        self.trade = trade or draw(self._rng("trade"))
        self._trace: list[tuple[float, str, str]] = []
        self._changes: list[Change] = []
        self._paid: dict[tuple[str, int], int] = {}
        self._turns: dict[str, list[Turn]] = {}
        self._learned: list[Learned] = []
        self._is_calm = False

    def run(self) -> Outcome:
        """The whole world, from the first wish to the last look."""
        began = time.process_time()
        self.disk = self._make_disk()
        before = structlog.get_config()
        structlog.configure(processors=[self._heard], cache_logger_on_first_use=False)
        try:
            outcome = run(self._main, LIMIT_S)
        finally:
            structlog.configure(**before)
            self.disk.close()
        outcome.cpu_s = time.process_time() - began
        return outcome

    # ------------------------------------------------------------------------------- making

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed} shop {name}")

    def _make(self, loop: VirtualLoop) -> None:
        trade = self.trade
        self._loop = loop
        self.disk.committed = self._committed
        self.calendar = Calendar(loop)
        self.processes = Processes(
            loop,
            self.disk,
            self._troubles("store"),
            self._daemon,
            crashes=trade.crashes,
            note=self._note,
        )
        self.paymob = Paymob(
            self._rng("paymob"),
            self.calendar,
            trade.moods,
            self.disk.way(loop, 0, self._troubles("door")).database(),
            wake=self.processes.wake,
            note=self._note,
        )
        self.customers = Customers(
            self._rng("customers"),
            self.calendar,
            self.paymob,
            self.disk.way(loop, 0, self._troubles("api")).database(),
            busy_s=trade.busy_s,
            note=self._note,
        )

        self.traffic = Traffic()
        self.receivers = [
            Receiver(
                number,
                self._rng(f"receiver {number}"),
                self.calendar,
                habits,
                self.disk.way(loop, 0, self._troubles(f"merchant {number}")).database(),
                self.traffic,
                wake=self.processes.wake,
                note=self._note,
            )
            for number, habits in enumerate(trade.habits)
        ]

    def _troubles(self, name: str) -> Troubles:
        return Troubles(
            self._rng(name),
            latency_s=self.trade.store_latency_s,
            read_fails=self.trade.read_fails,
            write_fails=self.trade.write_fails,
        )

    # ------------------------------------------------------------------------------ running

    async def _main(self, loop: VirtualLoop) -> Outcome:
        self._make(loop)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.paymob.run(), name="paymob")
            keeper = group.create_task(
                self.processes.keep_running(self._rng("keeper")), name="keeper"
            )
            for receiver in self.receivers:
                await receiver.register()
            living = [
                *(
                    group.create_task(receiver.live(), name=receiver.id)
                    for receiver in self.receivers
                ),
                *(
                    group.create_task(self.customers.live_through(number), name=f"buyer {number}")
                    for number in range(self.trade.payments)
                ),
            ]
            is_quiet = await self._let_days_pass(living)
            self.processes.end()
            for task in (keeper, *loop.of_process(0)):
                if task is not asyncio.current_task():
                    task.cancel()
        return self._outcome(is_quiet)

    async def _let_days_pass(self, living: Sequence["asyncio.Task[None]"]) -> bool:
        """Until nobody wants anything any more; False: that never came."""
        rng, lines = self._rng("leaps"), 0
        for step in range(STEPS_MAX):
            is_still, lines = len(self._trace) == lines, len(self._trace)
            await asyncio.sleep(STEP_S)
            if not self._is_calm and (step >= BUSY_STEPS or self._now_s > BUSY_S_MAX):
                self._calm_down()
            due = [at for sql in _DUE for ((at,),) in [self.disk.rows(sql)] if at is not None]
            is_over = not due and all(task.done() for task in living) and self.paymob.is_done
            if is_over and self._is_calm:
                return True
            if not self.traffic.under_way:
                self._leap(due, rng, is_still=is_still)
        return False

    def _leap(self, due: Sequence[float], rng: random.Random, *, is_still: bool) -> None:
        """To shortly before the next thing that happens, if that is far away."""
        now, awaited = self.calendar.now(), self.calendar.next_at
        ahead = [at for at in (*due, awaited) if at is not None and at > now + NEAR_S]
        near = [at for at in (*due, awaited) if at is not None and at <= now + NEAR_S]
        if near and not (is_still and (awaited is None or awaited > now + NEAR_S)):
            return
        until = min(ahead, default=now)
        if near:
            until = min([now + BLIND_LEAP_S, *ahead])
        self.calendar.leap(until - NEAR_S * rng.random())

    async def _daemon(self, life: Life) -> None:
        indexer = Indexer(
            _settings(),
            life.handle.database(),
            Rpc(("http://nowhere",)),
            [],
            life.wakeups,
            self.calendar.now,
            sender=SimulatedSender(self.receivers, life, self.calendar, self.traffic),
            keys=(KEY,),
            acquirer=self.paymob.desk(life),
            draw=self._rng(f"daemon {life.process}").random,
        )
        tasks = {name: task for name, task in indexer.tasks().items() if name in TASKS}
        await daemon.run_until_stopped(tasks, asyncio.Event())

    def _calm_down(self) -> None:
        self._is_calm = True
        self._note("world", "is calm")
        self.paymob.is_calm = True
        for receiver in self.receivers:
            receiver.is_calm = True
        self.processes.calm_down()

    def _outcome(self, is_quiet: bool) -> Outcome:
        return Outcome(
            seed=self.seed,
            profile=self.trade.shown(),
            watch_key="",
            quorum=1,
            rows=self.disk.dump(),
            changes=self._changes,
            deaths=self.processes.deaths,
            crashes=self.processes.crashes,
            ended_at_s=self._now_s,
            is_quiet=is_quiet,
            reached=[receiver.reached(self._turns[receiver.id]) for receiver in self.receivers],
            trace=[f"{at_s:12.3f} {who} {what}" for at_s, who, what in self._trace],
            sold=Sold(
                asked=self.customers.asked,
                page=self.customers.page,
                orders=self.paymob.orders,
                charges=self.paymob.charges,
                taken_in=frozenset(self.paymob.taken_in),
                answered=self.paymob.answered,
                learned=self._learned,
                paid=self._paid,
            ),
        )

    # ------------------------------------------------------------------------------ hearing

    @property
    def _now_s(self) -> float:
        return self._loop.time() - BEGINNING_S

    def _note(self, who: str, what: str) -> None:
        self._trace.append((self._now_s, who, what))

    def _heard(self, _logger: object, _name: str, said: Any) -> Any:
        event = said.pop("event")
        rest = " ".join(f"{name}={value}" for name, value in said.items())
        self._note(f"daemon{PROCESS.get()}", f"{event} {rest}")
        raise structlog.DropEvent

    def _committed(self, process: int, batch: Sequence[Statement]) -> None:
        for sql, parameters in batch:
            table = _written(sql)
            if table == "payments":
                self._changed(process, str(parameters[0]))
            elif table == "charges":
                self._learned.append(self._charge(int(str(parameters[0]))))
            elif table == "webhook_endpoints":
                self._turned(str(parameters[0]))

    def _charge(self, charge_id: int) -> Learned:
        [(state, refunded, paid_at)] = self.disk.rows(
            "SELECT state, refunded, paid_at FROM charges WHERE id = ?", charge_id
        )
        return Learned(id=charge_id, state=state, refunded=int(refunded), paid_at=paid_at)

    def _turned(self, endpoint_id: str) -> None:
        """A receiver's row was written."""
        add_turn(self._turns.setdefault(endpoint_id, []), self.disk, endpoint_id, self.calendar)

    def _changed(self, process: int, payment_id: str) -> None:
        found = self.disk.rows(
            "SELECT version, status, paid, received, late, review, settled_at FROM payments "
            "WHERE id = ?",
            payment_id,
        )
        if not found:
            return
        [(version, status, paid, received, late, review, settled_at)] = found
        if any((c.payment_id, c.version) == (payment_id, version) for c in self._changes):
            return
        self._changes.append(
            Change(
                at_s=self.calendar.now(),
                process=process,
                payment_id=payment_id,
                version=version,
                status=status,
                paid=paid,
                received=int(received),
                late=bool(late),
                review=tuple(json.loads(review)),
                settled_at=settled_at,
                finalized_slot=0,
            )
        )
        self._paid[payment_id, version] = sum(
            charge.amount
            for order in self.paymob.orders.values()
            if order.reference.startswith(payment_id)
            for charge in map(self.paymob.charges.__getitem__, order.charges)
            if charge.paid_at is not None
        )
        self._note(f"daemon{process}", f"{payment_id[:8]} v{version} {status} {paid}")


@cache
def _written(sql: str) -> str | None:
    """Which of the tables that are looked at a statement writes."""
    for verb, table in pairwise(sql.split()):
        if verb in {"INTO", "UPDATE"} and table in _LOOKED_AT:
            return table
    return None


@cache
def _settings() -> Settings:
    return Settings(
        rpc_urls=("http://nowhere",),
        paymob_secret_key="egy_sk_test",
        paymob_public_key="egy_pk_test",
        paymob_api_key="key",
        paymob_hmac_secret=("secret",),
        paymob_integration_ids=tuple(PINS.integration_ids),
        paymob_owner=PINS.owner,
    )
