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
from collections.abc import Sequence
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
from tests.simulation.database import Disk, Handle, Troubles
from tests.simulation.life import Life
from tests.simulation.loop import BEGINNING_S, PROCESS, VirtualLoop, run
from tests.simulation.outcome import Change, Outcome, Sold
from tests.simulation.paymob import PINS, Paymob
from tests.simulation.processes import Processes
from tests.simulation.trade import Trade, draw


#: The longest that a world may take, in seconds of the loop.
LIMIT_S: Final = 6_000.0
#: How long one step takes, of which there is a leap after each, and how many there may be.
STEP_S: Final = 3.0
STEPS_MAX: Final = 1_500
#: After that many seconds of the loop nothing goes wrong any more.
BUSY_S: Final = 120.0
#: What is due so soon is waited for.
NEAR_S: Final = 15.0

#: The tasks that need no chain.
TASKS: Final = frozenset({"cards", "callbacks", "deliveries"})

#: When the store wants something to be done. NULL: nothing.
_DUE: Final = (
    "SELECT min(due_at) FROM card_checks",
    "SELECT min(next_try_at) FROM webhook_events WHERE verdict = 'waiting'",
    "SELECT min(next_try_at) FROM webhook_deliveries WHERE state = 'waiting'",
)


class Shop:
    """One world; `run` it once."""

    def __init__(self, seed: int, trade: Trade | None = None) -> None:
        self.seed = seed
        self.trade = trade or draw(self._rng("trade"))
        self._trace: list[tuple[float, str, str]] = []
        self._changes: list[Change] = []
        self._paid: dict[tuple[str, int], int] = {}

    def run(self) -> Outcome:
        """The whole world, from the first wish to the last look."""
        began = time.process_time()
        self.disk = Disk()
        before = structlog.get_config()
        structlog.configure(processors=[self._heard], cache_logger_on_first_use=False)
        try:
            outcome = run(self._main, LIMIT_S)
        finally:
            structlog.configure(**before)
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
            Handle(self.disk, loop, 0, self._troubles("door")).database(),
            wake=self.processes.wake,
            note=self._note,
        )
        self.customers = Customers(
            self._rng("customers"),
            self.calendar,
            self.paymob,
            Handle(self.disk, loop, 0, self._troubles("api")).database(),
            busy_s=trade.busy_s,
            note=self._note,
        )

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
            buyers = [
                group.create_task(self.customers.live_through(number), name=f"buyer {number}")
                for number in range(self.trade.payments)
            ]
            is_quiet = await self._let_days_pass(buyers)
            self.processes.end()
            for task in (keeper, *loop.of_process(0)):
                if task is not asyncio.current_task():
                    task.cancel()
        return self._outcome(is_quiet)

    async def _let_days_pass(self, buyers: Sequence["asyncio.Task[None]"]) -> bool:
        """Until nobody wants anything any more; False: that never came."""
        is_calm = False
        for _ in range(STEPS_MAX):
            await asyncio.sleep(STEP_S)
            if not is_calm and self._now_s >= BUSY_S:
                is_calm = True
                self._calm_down()
            due = [at for sql in _DUE for ((at,),) in [self.disk.rows(sql)] if at is not None]
            awaited = self.calendar.next_at
            if awaited is not None:
                due.append(awaited)
            if not due and is_calm and self.paymob.is_done and all(b.done() for b in buyers):
                return True
            if due and min(due) > self.calendar.now() + NEAR_S:
                self.calendar.leap(min(due) - NEAR_S * self._rng(f"leap {min(due)}").random())
        return False

    async def _daemon(self, life: Life) -> None:
        indexer = Indexer(
            _settings(),
            life.handle.database(),
            Rpc(("http://nowhere",)),
            "",
            life.wakeups,
            self.calendar.now,
            acquirer=self.paymob.desk(life),
        )
        tasks = {name: task for name, task in indexer.tasks().items() if name in TASKS}
        await daemon.run_until_stopped(tasks, asyncio.Event())

    def _calm_down(self) -> None:
        self._note("world", "is calm")
        self.paymob.is_calm = True
        self.processes.calm_down()

    def _outcome(self, is_quiet: bool) -> Outcome:
        outcome = Outcome(
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
            trace=[f"{at_s:12.3f} {who} {what}" for at_s, who, what in self._trace],
            sold=Sold(
                asked=self.customers.asked,
                page=self.customers.page,
                orders=self.paymob.orders,
                charges=self.paymob.charges,
                taken_in=frozenset(self.paymob.taken_in),
                answered=self.paymob.answered,
                paid=self._paid,
            ),
        )
        self.disk.close()
        return outcome

    # ------------------------------------------------------------------------------ hearing

    @property
    def _now_s(self) -> float:
        return self._loop.time() - BEGINNING_S

    def _note(self, who: str, what: str) -> None:
        at_s = self._now_s + (self.calendar.leapt_s if hasattr(self, "calendar") else 0.0)
        self._trace.append((at_s, who, what))

    def _heard(self, _logger: object, _name: str, said: Any) -> Any:
        event = said.pop("event")
        rest = " ".join(f"{name}={value}" for name, value in said.items())
        self._note(f"daemon{PROCESS.get()}", f"{event} {rest}")
        raise structlog.DropEvent

    def _committed(self, process: int, batch: Sequence[Statement]) -> None:
        for sql, parameters in batch:
            if _writes_payment(sql):
                self._changed(process, str(parameters[0]))

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
def _writes_payment(sql: str) -> bool:
    return any(
        verb in {"INTO", "UPDATE"} and table == "payments" for verb, table in pairwise(sql.split())
    )


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
