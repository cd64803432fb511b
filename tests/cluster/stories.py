"""The demo's scenario on the fleet: payments are made at one API and watched at the other."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from indexer.demo import scenario
from indexer.demo.mailbox import Mailbox
from indexer.demo.screen import Screen
from indexer.demo.shop import Json, Shop
from indexer.demo.stage import Stage
from indexer.settings import Settings
from tests.cluster.fleet import Fleet


class Customers(Shop):
    """A shop behind a load balancer, which hands no two of its requests to the same API.

    Payments are made at one API and the other in turn; events come from the second, and what a
    payment has come to is asked of the first.
    """

    def __init__(self, first: str, second: str, key: str) -> None:
        super().__init__(second, key)
        self._first = Shop(first, key)
        self._at_first = itertools.cycle((True, False))

    async def __aexit__(self, *error: object) -> None:
        await self._first.__aexit__(*error)
        await super().__aexit__(*error)

    async def create(self, **fields: Any) -> Json:
        """A new payment, made at the one whose turn it is."""
        if next(self._at_first):
            return await self._first.create(**fields)
        return await super().create(**fields)

    async def get(self, payment_id: str) -> Json:
        """The payment as it stands, asked where its events do not come from."""
        return await self._first.get(payment_id)


@asynccontextmanager
async def staged(up: Fleet) -> AsyncIterator[Stage]:
    """What the demo's stories need, out of the fleet."""
    first, second = (api.url for api in up.apis)
    watching = asyncio.create_task(up.watch())
    try:
        async with Mailbox.opened() as mailbox, Customers(first, second, up.key) as shop:
            mailbox.secret.set_result(await shop.register(mailbox.url))
            yield Stage(
                settings=Settings.from_env(up.settings),
                cluster=up.cluster,
                shop=shop,
                mailbox=mailbox,
                bank=up.bank,
                token=up.token,
                key=up.key,
                product=watching,
            )
    finally:
        watching.cancel()


async def tell(up: Fleet, screen: Screen) -> None:
    """Plays every story, and shows each.

    Raises:
        DemoFailed: a payment did not end as it must, or not in time.
        ChildError: a process of the product ended.
    """
    began = time.monotonic()
    async with staged(up) as stage:
        await scenario.tell_all(stage, screen, asyncio.Event())
    screen.say(f"over both APIs and a replica, in {time.monotonic() - began:.1f} s")
