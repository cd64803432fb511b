"""A sender that answers by a script: what the tests of those who send act with."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from indexer.core.standard_webhooks import SigningKey, secret_of
from indexer.courier import Courier
from indexer.sources.outside import Reply
from store import deliveries
from store.database import Database
from store.deliveries import Delivery, DeliveryState
from tests.builders import NOW
from tests.store.sending import KEY, receiver


PATIENCE_S = 90.0

OK = Reply(status=200)


class Clock:
    """Unix seconds that move only when told."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Sent:
    """What was posted."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def place(self) -> tuple[int, int]:
        """Number of the payment and version of the event."""
        payment = self.json["data"]["payment"]
        return int(payment["id"][4:]), payment["version"]


class Script:
    """A `Sender`: answers line by line, the last one for ever.

    Attributes:
        sent: everything, in order.
        at_once_max: how many were under way at once at most.
        gate: while it is not set, nothing is answered.
    """

    def __init__(self, *answers: Reply | Exception) -> None:
        self.answers = list(answers or (OK,))
        self.sent: list[Sent] = []
        self.at_once = self.at_once_max = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.sent.append(Sent(url, dict(headers), body))
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def places(self) -> list[tuple[int, int]]:
        return [each.place for each in self.sent]


async def courier_of(
    database: Database,
    endpoint_id: str,
    sender: Script,
    clock: Callable[[], float],
    *,
    keys: tuple[SigningKey, ...] = (KEY,),
    draw: Callable[[], float] = lambda: 0.0,
) -> Courier:
    return Courier(
        await receiver(database, endpoint_id),
        database,
        sender,
        {key.id: key for key in keys},
        clock=clock,
        draw=draw,
        outcomes={},
    )


@asynccontextmanager
async def running(courier: Courier) -> AsyncIterator[asyncio.Task[None]]:
    """The courier at work, looking again all the time, as its owner has it do."""

    async def stir() -> None:
        while True:
            courier.stir()
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(courier.run()), asyncio.create_task(stir())]
    try:
        yield tasks[0]
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def stored(database: Database, delivery_id: int) -> Delivery:
    found = await deliveries.get(database, delivery_id)
    assert found is not None
    return found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def tried(database: Database, delivery_id: int, times: int = 1) -> Delivery:
    """The delivery, once that many attempts at it are on record."""
    async with asyncio.timeout(PATIENCE_S):
        while len((found := await stored(database, delivery_id)).history) < times:
            await asyncio.sleep(0.005)
    return found


async def ended(database: Database, count: int) -> list[Delivery]:
    """All deliveries, the oldest first, once that many wait no more."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await deliveries.page(database, limit=10_000))[::-1]
            if sum(each.state is not DeliveryState.WAITING for each in found) >= count:
                return found
            await asyncio.sleep(0.005)


def secret(endpoint_id: str, generation: int = 1, key: SigningKey = KEY) -> str:
    return secret_of(key, endpoint_id, generation)
