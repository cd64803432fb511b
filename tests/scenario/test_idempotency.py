"""One key, two processes of the API, one payment: whoever is killed, paused or told to stop.

Payments are by card, because there a second order costs money, and because Paymob can be held up
while a process is at work.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from store import everything
from store.cards import CardRecord
from store.database import open_database
from tests.scenario.deployment import PATIENCE_S, SIGNING_KEY
from tests.scenario.serving import Server, both, migrated, sell, serving, settings
from tests.servers.fake_paymob import FakePaymob
from tests.servers.faults import Call, Fault


ONCE = "order-1042"


@dataclass
class Street:
    """Two processes over one database, and the Paymob behind them.

    Attributes:
        key: an API key that may create payments.
        go_on: Paymob answers those that it held up.
    """

    first: Server
    second: Server
    paymob: FakePaymob
    environment: Mapping[str, str]
    key: str
    go_on: asyncio.Event

    async def at_work(self) -> asyncio.Task[tuple[int, bytes, Mapping[str, str]]]:
        """A request to the first one, which waits for Paymob's answer."""
        asked = self.paymob.count("intention")
        self.paymob.fail("intention", held(self.paymob, self.go_on))
        selling = asyncio.create_task(sell(self.first, self.key, ONCE))
        async with asyncio.timeout(PATIENCE_S):
            while self.paymob.count("intention") == asked:
                await asyncio.sleep(0.01)
        return selling

    async def sold(self) -> tuple[bytes, int]:
        """What the second one answers in the end, and how often it said that it has to wait."""
        waits = 0
        async with asyncio.timeout(PATIENCE_S):
            while True:
                status, body, headers = await sell(self.second, self.key, ONCE)
                if status == 201:
                    return body, waits
                assert (status, headers["Retry-After"]) == (409, "1")
                waits += 1

    async def stored(self) -> list[CardRecord]:
        database = await open_database(self.environment["AXIOM_DATABASE_URL"], readers=1)
        try:
            records = await everything.page(database, limit=100)
            return [record for record in records if isinstance(record, CardRecord)]
        finally:
            await database.close()


def held(paymob: FakePaymob, go_on: asyncio.Event) -> Fault:
    """An order that is made only when told, and answered then."""

    async def fault(call: Call) -> web.StreamResponse:
        await go_on.wait()
        assert call.request is not None
        return paymob._answer_intention(call.request, call.params[0])

    return fault


@pytest.fixture
async def street(tmp_path: Path, database_url: str) -> AsyncIterator[Street]:
    async with opened(tmp_path, database_url) as street:
        yield street


@asynccontextmanager
async def opened(folder: Path, database_url: str) -> AsyncIterator[Street]:
    async with AsyncExitStack() as stack:
        paymob = await stack.enter_async_context(FakePaymob())
        environment = settings(
            folder,
            **paymob.environment(),
            AXIOM_DATABASE_URL=database_url,
            AXIOM_WEBHOOK_SIGNING_KEYS=SIGNING_KEY,
        )
        key = await migrated(environment, "payments:write")
        first, second = await stack.enter_async_context(both(environment))
        go_on = asyncio.Event()
        stack.callback(go_on.set)  # so that the fake can be closed
        yield Street(first, second, paymob, environment, key, go_on)


async def test_fifty_equal_requests_to_two_processes_make_one_payment(street: Street) -> None:
    servers = (street.first, street.second) * 25

    answers = await asyncio.gather(*(sell(server, street.key, ONCE) for server in servers))

    assert {status for status, _, _ in answers} <= {201, 409}
    created = [(body, headers) for status, body, headers in answers if status == 201]
    assert len({body for body, _ in created}) == 1
    assert ["Idempotent-Replayed" in headers for _, headers in created].count(False) == 1
    assert street.paymob.count("intention") == 1
    assert len(await street.stored()) == 1
    for server in (street.first, street.second):
        status, body, headers = await sell(server, street.key, ONCE)
        assert (status, body) == (201, created[0][0])
        assert headers["Location"] == created[0][1]["Location"]
        assert headers["Content-Type"] == created[0][1]["Content-Type"]


async def test_the_work_of_a_killed_process_is_done_by_the_next(street: Street) -> None:
    selling = await street.at_work()
    assert (await sell(street.second, street.key, ONCE, amount="51"))[0] == 422

    street.first.send(signal.SIGKILL)
    with pytest.raises(aiohttp.ClientConnectionError):
        await selling
    body, waits = await street.sold()

    assert waits > 0, "until the lease of the dead process had ended"
    [record] = await street.stored()
    assert record.payment.terms.id in body.decode()
    street.go_on.set()
    async with serving(street.environment) as again:
        await again.until_alive()
        status, replayed, _ = await sell(again, street.key, ONCE)
    assert (status, replayed) == (201, body)


async def test_a_process_that_was_paused_stores_nothing_when_it_wakes(street: Street) -> None:
    """Paused for longer than its lease, with an order on its way that Paymob then makes."""
    selling = await street.at_work()

    street.first.send(signal.SIGSTOP)
    body, _ = await street.sold()
    street.go_on.set()
    street.first.send(signal.SIGCONT)
    async with asyncio.timeout(PATIENCE_S):
        status, woken, headers = await selling

    assert (status, woken, headers["Idempotent-Replayed"]) == (201, body, "true")
    [record] = await street.stored()
    assert record.payment.terms.id in body.decode()
    told = [order for order in street.paymob.orders.values() if order.client_secret in str(woken)]
    assert len(told) == 1, "nobody was told where any other order could be paid"


async def test_a_process_that_is_told_to_stop_gives_its_work_back(street: Street) -> None:
    selling = await street.at_work()

    street.first.send(signal.SIGTERM)
    assert await street.first.ended() == 0
    assert (await selling)[0] >= 500
    status, body, headers = await sell(street.second, street.key, ONCE)

    assert (status, "Idempotent-Replayed" in headers) == (201, False)
    [record] = await street.stored()
    assert record.payment.terms.id in body.decode()
