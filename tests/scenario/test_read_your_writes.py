"""A client that was told `settled` is never told `pending` again, by whichever process it asks.

Two API processes on a replica each, and much that is written meanwhile: replicas are behind all
the time, a little.
"""

import asyncio
import itertools
from pathlib import Path
from typing import Any

from tests.api.running import Api
from tests.scenario.twins import two


LIMIT_S = 90
#: Payments that are settled one after another, those who ask for each, and how often after it.
PAYMENTS, CLIENTS, LOOKS = 20, 6, 4
#: Tasks that write all the time, so that the replicas have something to catch up with.
WRITERS = 3


async def status_of(api: Api, payment: dict[str, Any]) -> str:
    async with api.session.get(f"/api/pay/{payment['id']}") as answer:
        assert answer.status == 200
        return str((await answer.json())["status"])


async def client(number: int, apis: tuple[Api, Api], payment: dict[str, Any]) -> list[str]:
    """What it is told by either in turn, from the first `settled` on."""
    turns = itertools.cycle(apis if number % 2 else apis[::-1])
    while await status_of(next(turns), payment) != "settled":
        await asyncio.sleep(0)
    return [await status_of(next(turns), payment) for _ in range(LOOKS)]


async def scribble(api: Api, payment_id: str, first: int) -> None:
    for version in itertools.count(first):
        await api.publish(payment_id, 1, first=version)


async def test_who_was_told_settled_never_reads_pending_from_either(tmp_path: Path) -> None:
    async with two(tmp_path) as apis, asyncio.timeout(LIMIT_S):
        busy = [await apis[0].create(f"busy-{number}") for number in range(WRITERS)]
        writers = [
            asyncio.create_task(scribble(apis[number % 2], payment["id"], 1_000))
            for number, payment in enumerate(busy)
        ]
        told: list[str] = []
        for number in range(PAYMENTS):
            payment = await apis[number % 2].create(f"order-{number}")
            clients = [asyncio.create_task(client(each, apis, payment)) for each in range(CLIENTS)]
            # Whoever settles it is told first, and asks the other one at once.
            await apis[number % 2].settle(payment["id"], 12_500_000)
            told.append(await status_of(apis[(number + 1) % 2], payment))
            for answers in await asyncio.gather(*clients):
                told += answers
        for writer in writers:
            assert not writer.done(), "it goes on as long as anybody asks"
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        replicas = [sum(api.database.figures.replica_reads.values()) for api in apis]

    assert set(told) == {"settled"}
    assert len(told) == PAYMENTS * (1 + CLIENTS * LOOKS)
    assert min(replicas) > PAYMENTS, "the replicas were asked"
