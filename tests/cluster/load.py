"""Shops, customers and clients of streams on the fleet, while its parts are killed in turn."""

import asyncio
import itertools
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from indexer.core.types import Commitment
from indexer.demo.cluster import Cluster
from indexer.errors import AxiomError
from tests.cluster import books, trouble
from tests.cluster.books import Verdict
from tests.cluster.chain import Times, receipts
from tests.cluster.child import ChildError, axiompay
from tests.cluster.crowd import Crowd, Order
from tests.cluster.figures import Settled
from tests.cluster.fleet import Fleet
from tests.cluster.listeners import EVENTS, ONE, Listener, whole_log
from tests.cluster.trouble import Death
from tests.cluster.usage import Usage


#: Of all clients, one in so many is a shop that follows every payment; the others are customers,
#: who each follow a payment of their own, and another one when that is settled.
SHOP_EVERY: Final = 10
#: Seconds for everything to come to rest once nobody buys any more.
_REST_LIMIT_S: Final = 120.0
_PAUSE_S: Final = 0.2
_SAY_EVERY_S: Final = 5.0
#: Of getSignatureStatuses.
_SIGNATURES_AT_ONCE: Final = 200


class LoadFailed(AxiomError):
    """Something was lost, doubled, missed, or did not come to an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        rate: payments a second.
        seconds: for so long.
        clients: of streams.
        victims: of `trouble.VICTIMS`, which are killed in this order.
    """

    rate: float
    seconds: float
    clients: int
    victims: tuple[str, ...] = trouble.VICTIMS


@dataclass(slots=True, kw_only=True)
class Load:
    """One run, and what is known of it.

    Attributes:
        listeners: every client of a stream that there was.
        elapsed_s: from the first request until the last one was answered.
    """

    up: Fleet
    plan: Plan
    say: Callable[[str], None]
    crowd: Crowd
    times: Times
    usage: Usage = field(default_factory=Usage)
    settled: Settled = field(default_factory=Settled)
    listeners: list[Listener] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    receipts: books.Receipts = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)
    events: int = 0
    elapsed_s: float = 0.0
    _made: "asyncio.Queue[Order]" = field(default_factory=asyncio.Queue)
    _addresses: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def on(cls, up: Fleet, plan: Plan, say: Callable[[str], None]) -> "Load":
        """A run on that fleet."""
        apis = [api.url for api in up.apis]
        load = cls(
            up=up,
            plan=plan,
            say=say,
            crowd=Crowd(up.surfnet.rpc_url, apis, up.key),
            times=Times(up.cluster),
        )
        load.crowd.on_made = load._made.put_nowait
        return load

    # --------------------------------------------------------------------------------- running

    async def run(self) -> None:
        """Does it all, from the first payment to the comparison with the chain.

        Raises:
            AxiomError: it cannot be brought to an end.
        """
        beside = [
            asyncio.create_task(each, name=name)
            for name, each in (
                ("fleet", self.up.watch()),
                ("times", self.times.run()),
                ("progress", self._tell()),
                *((f"client {n}", self._client(n)) for n in range(self.plan.clients)),
            )
        ]
        work = asyncio.create_task(self._work(), name="work")
        try:
            await asyncio.wait({work, *beside}, return_when=asyncio.FIRST_COMPLETED)
            for task in (work, *beside):
                if task.done():
                    task.result()
            if not work.done():
                raise LoadFailed("a client of a stream ended")
        finally:
            for task in (work, *beside):
                task.cancel()
            await asyncio.gather(work, *beside, return_exceptions=True)

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        await self._all_in()
        self.say(f"{self.plan.rate:g} payments/s for {self.plan.seconds:g} s begin")
        began = clock()
        measuring = asyncio.create_task(self.usage.run(self.processes))
        async with asyncio.TaskGroup() as group:
            group.create_task(self.crowd.shop(self.plan.rate, self.plan.seconds))
            killing = trouble.kill_in_turn(
                self.up, self.plan.victims, self.plan.seconds, self.deaths, self.say
            )
            group.create_task(killing)
        self.elapsed_s = clock() - began
        measuring.cancel()
        self.say(f"all {len(self.crowd.orders)} payments are made and paid")
        await self._rest()
        self.say("comparing with the chain")
        await self._compare()

    def processes(self) -> list[tuple[str, int | None, str]]:
        """What takes of this machine: the fleet, and this process with all customers in it."""
        return [*self.up.rows(), ("this load", os.getpid(), "")]

    async def _all_in(self) -> None:
        """Returns once every shop has its stream, so that it is to hear of everything."""
        shops = [each for each in self.listeners if each.path == EVENTS]
        async with asyncio.timeout(_REST_LIMIT_S):
            while any(each.began_after is None for each in shops):
                await asyncio.sleep(_PAUSE_S)

    async def _client(self, number: int) -> None:
        """One that follows everything, or one payment after another."""
        apis = [api.url for api in self.up.apis]
        # Everybody calls from an address of his own, as customers do.
        address = f"127.0.{1 + number // 250}.{1 + number % 250}"
        if number % SHOP_EVERY == 0:
            on_event = self._note if number == 0 else None
            shop = Listener(
                apis,
                EVENTS,
                address=address,
                first=number // SHOP_EVERY,
                key=self.up.key,
                on_event=on_event,
            )
            self.listeners.append(shop)
            await shop.run()
        while True:
            order = await self._made.get()
            if not order.will_settle:
                continue
            customer = Listener(apis, ONE + order.id, address=address, first=number)
            self.listeners.append(customer)
            await customer.run()

    def _note(self, type_: str, payment_id: str, _payment: Any) -> None:
        self.events += 1
        if type_ == "payment.settled":
            self.settled.at.setdefault(payment_id, asyncio.get_running_loop().time())

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_SAY_EVERY_S)
            crowd = self.crowd
            made = sum(1 for order in crowd.orders if order.id)
            self.say(
                f"{len(crowd.orders)} ordered, {made} made, {len(self.settled.at)} settled; "
                f"{crowd.failures.total()} requests failed, {self.reconnects} streams came back"
            )

    @property
    def reconnects(self) -> int:
        """How often clients of streams came back."""
        return sum(listener.reconnects for listener in self.listeners)

    # ----------------------------------------------------------------------------------- after

    async def _rest(self) -> None:
        """Returns once all is final, and every client has heard all of it.

        Raises:
            LoadFailed: that takes too long; what is missing then is found by the comparison.
        """
        orders = self.crowd.orders
        await _all_final(self.up.cluster, orders)
        due = {order.id for order in orders if order.will_settle}
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_LIMIT_S):
                while due - self.settled.at.keys() or await self._expiring():
                    await asyncio.sleep(_PAUSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_LIMIT_S / 2):
                while not await self._all_heard():
                    await asyncio.sleep(_PAUSE_S)

    async def _expiring(self) -> int:
        """How many are unpaid and not yet expired."""
        unpaid = {order.id for order in self.crowd.orders if not order.habit}
        listed = await books.all_payments(self.up.apis[0].url, self.up.key)
        return sum(1 for each in listed if each["id"] in unpaid and each["status"] != "expired")

    async def _all_heard(self) -> bool:
        """Whether the shops are at the same event, and no customer waits."""
        shops = {each.last_seq for each in self.listeners if each.path == EVENTS}
        return len(shops) == 1 and all(
            each.is_over for each in self.listeners if each.path != EVENTS
        )

    async def _compare(self) -> None:
        up, orders, verdict = self.up, self.crowd.orders, self.verdict
        references = [order.reference for order in orders]
        self.receipts = await receipts(up.cluster, references, up.recipient)
        last = max(each.last_seq for each in self.listeners if each.path == EVENTS)
        logs = [await whole_log(api.url, up.key, last) for api in up.apis]
        listed = await books.all_payments(up.apis[0].url, up.key)
        books.judge_payments(verdict, orders, self.receipts, listed, logs[0])
        books.judge_logs(verdict, logs)
        books.judge_streams(verdict, self.listeners, logs[0])
        verdict.wrong += await asyncio.to_thread(_audited, up)


async def _all_final(cluster: Cluster, orders: list[Order]) -> None:
    """Returns once all that was sent is final."""
    signatures = [signature for order in orders for signature in order.signatures]
    for start in range(0, len(signatures), _SIGNATURES_AT_ONCE):
        some = signatures[start : start + _SIGNATURES_AT_ONCE]
        await cluster.landed(some, Commitment.FINALIZED)


def _audited(up: Fleet) -> list[str]:
    """What `axiompay audit` finds; it fails when it finds something."""
    try:
        report = json.loads(axiompay(up.settings, up.folder, "audit", "--json"))
    except ChildError as error:
        return [str(error)]
    return [f"the audit is behind: {each}" for each in report["behind"][:3]]
