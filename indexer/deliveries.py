"""Webhooks out: a courier for each receiver, as long as it is enabled.

Deliveries are made by the database in the write of the event (see `events_are_delivered` in the
schema); here they only leave. Each receiver has its own courier, connections and places, so that a
slow or dead one delays nobody else.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn

import structlog

from indexer.core.standard_webhooks import SigningKey
from indexer.courier import Courier
from indexer.errors import StoreUnavailable
from indexer.sources.outside import Sender
from indexer.tenure import Everything, Share
from store import deliveries, webhook_endpoints
from store.database import Database
from store.webhook_endpoints import WebhookEndpoint


log = structlog.get_logger(__name__)

#: Seconds until receivers and deliveries are looked for again, if nobody wakes us.
POLL_INTERVAL_S: Final = 1.0
#: Seconds between two looks, however often we are woken.
BREATH_S: Final = 0.1


class Deliveries:
    """Sends events to the receivers that merchants registered.

    Attributes:
        outcomes: attempts by what came of them, since the start.
    """

    def __init__(
        self,
        database: Database,
        sender: Sender,
        keys: Sequence[SigningKey],
        *,
        clock: Callable[[], float],
        wait: Callable[[float], Awaitable[object]],
        draw: Callable[[], float] = random.random,
        share: Share | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            database: where deliveries are.
            sender: posts them.
            keys: what secrets are derived from.
            clock: unix seconds.
            wait: `Wakeups.wait`.
            draw: 0 … 1, at random.
            share: which receivers are served here; all when None.
        """
        self._database = database
        self._share = share or Everything()
        self._sender = sender
        self._keys = {key.id: key for key in keys}
        self._clock = clock
        self._wait = wait
        self._draw = draw
        self._couriers: dict[str, tuple[Courier, asyncio.Task[NoReturn]]] = {}
        self._store_problem: str | None = None
        self.outcomes: dict[str, int] = {}

    @property
    def problem(self) -> str | None:
        """Why something cannot be sent at all; None: it can. A receiver that is away is none."""
        problems = [courier.problem for courier, _ in self._couriers.values() if courier.problem]
        return self._store_problem or (problems[0] if problems else None)

    async def run(self) -> NoReturn:
        """Sends for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                # The wait begins before the look: what is stored in between ends it.
                stored = group.create_task(self._until_stored(), name="wait")
                await self._look(group)
                await asyncio.sleep(BREATH_S)
                await stored

    async def _until_stored(self) -> None:
        await self._wait(POLL_INTERVAL_S)

    async def _look(self, group: asyncio.TaskGroup) -> None:
        """Has a courier for each receiver that is enabled, and tells those who have work.

        That is two reads, however many receivers there are.
        """
        try:
            self._employ(await webhook_endpoints.enabled(self._database), group)
            ready = [id_ for id_, (courier, _) in self._couriers.items() if courier.is_ready]
            due_at = await deliveries.due_at(self._database, ready) if ready else {}
        except StoreUnavailable as error:
            self._store_problem = str(error)
            log.warning("deliveries.unknown", error=str(error))
            return
        self._store_problem = None
        for id_, at in due_at.items():
            if at <= self._clock():
                self._couriers[id_][0].stir()

    def _employ(self, enabled: Sequence[WebhookEndpoint], group: asyncio.TaskGroup) -> None:
        """Has a courier for each receiver of ours that is enabled, and for no other."""
        wanted = {endpoint.id: endpoint for endpoint in enabled}
        for id_, (courier, task) in list(self._couriers.items()):
            # What another indexer does from now on begins nothing here, and ends what it began.
            has_ended = id_ in wanted and not self._share.does(id_) and courier.is_idle
            if id_ not in wanted or has_ended:
                del self._couriers[id_]
                task.cancel()
        for endpoint in enabled:
            if endpoint.id in self._couriers:
                self._couriers[endpoint.id][0].endpoint = endpoint
            elif self._share.does(endpoint.id):
                courier = Courier(
                    endpoint,
                    self._database,
                    self._sender,
                    self._keys,
                    clock=self._clock,
                    draw=self._draw,
                    outcomes=self.outcomes,
                    share=self._share,
                )
                task = group.create_task(courier.run(), name=f"courier:{endpoint.id}")
                self._couriers[endpoint.id] = courier, task
