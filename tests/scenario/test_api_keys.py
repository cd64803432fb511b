"""Keys that end and keys that are changed for others, with two processes of the API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.api.sse import Reader, stream
from tests.scenario.deployment import PATIENCE_S
from tests.scenario.serving import Server, axiompay, both, migrated, settings


Pair = tuple[dict[str, str], str, tuple[Server, Server]]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """The settings, a key named `shop`, and two processes."""
    environment = settings(tmp_path)
    key = await migrated(environment, "payments:read")
    async with both(environment) as servers:
        yield environment, key, servers


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def status(server: Server, key: str) -> int:
    async with server.session.get("/api/pay", headers=bearer(key)) as answer:
        return answer.status


async def until_refused(server: Server, key: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await status(server, key) != 401:
            await asyncio.sleep(0.1)


async def rest(reader: Reader) -> None:
    """Reads what still comes; returns when the server closes."""
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.rest() == []


async def test_a_revoked_key_ends_in_every_process(pair: Pair) -> None:
    environment, key, servers = pair
    async with AsyncExitStack() as stack:
        readers = []
        for server in servers:
            assert await status(server, key) == 200
            opening = stream(server.session, "/api/sse/events", bearer(key))
            readers.append(await stack.enter_async_context(opening))
            await readers[-1].next()

        axiompay(environment, "keys", "revoke", "shop")
        await asyncio.gather(
            *(until_refused(server, key) for server in servers),
            *(rest(reader) for reader in readers),
        )


async def test_a_key_is_changed_for_another_without_a_request_refused(pair: Pair) -> None:
    environment, old, servers = pair
    assert {await status(server, old) for server in servers} == {200}
    used, statuses, served = old, set(), [0, 0]

    async def shop(number: int) -> None:
        while used:
            statuses.add(await status(servers[number], used))
            served[number] += 1

    async def both_served(more: int) -> None:
        """Waits for so many more answers of each; from the second on, they are to the new key."""
        wanted = [number + more for number in served]
        async with asyncio.timeout(PATIENCE_S):
            while any(now < then for now, then in zip(served, wanted, strict=True)):
                await asyncio.sleep(0.01)

    shopping = asyncio.gather(shop(0), shop(1))
    arguments = ("keys", "create", "shop-new", "--scopes", "payments:read")
    new = used = await asyncio.to_thread(axiompay, environment, *arguments)
    await both_served(2)
    await asyncio.to_thread(axiompay, environment, "keys", "revoke", "shop")
    for server in servers:
        await until_refused(server, old)
    await both_served(2)
    used = ""
    await shopping

    assert statuses == {200}
    assert {await status(server, new) for server in servers} == {200}
