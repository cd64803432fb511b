"""A `PubSub` that runs against a node, and what it told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from indexer.sources.pubsub import PubSub
from tests.chain import key, sol_transfer
from tests.servers.fake_rpc import FakeNode


WATCH, OTHER = key("watch"), key("other")


class Heard:
    """What a `PubSub` rang about, and the keys that it is to listen for."""

    def __init__(self, node: FakeNode, keys: list[str], path: str = "", **rest: Any) -> None:
        self.keys = keys
        self.rung: list[tuple[str, int]] = []
        self.live_from: list[int] = []
        self.lost: list[int] = []
        self.pubsub = PubSub(
            node.ws_url + path,
            lambda: self.keys,
            lambda signature, slot: self.rung.append((signature, slot)),
            self.live_from.append,
            on_lost=self.lost.append,
            draw=lambda: 0.0,
            **rest,
        )


@asynccontextmanager
async def listening(
    *keys: str, on: FakeNode | None = None, **rest: Any
) -> AsyncIterator[tuple[FakeNode, Heard]]:
    """A node with a chain that ticks, and a `PubSub` that runs."""
    async with on or FakeNode() as node, node.chain.ticking(0.005):
        heard = Heard(node, list(keys) or [WATCH], **rest)
        task = asyncio.create_task(heard.pubsub.run())
        try:
            yield node, heard
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=30)
            assert task.cancelled()


def transfer(name: str, reference: str = WATCH, **rest: Any) -> dict[str, Any]:
    return sol_transfer(key("a"), key("b"), 1, references=[reference], name=name, **rest)


def notification(signature: str) -> dict[str, Any]:
    value: dict[str, Any] = {"signature": signature, "err": None, "logs": []}
    return {
        "jsonrpc": "2.0",
        "method": "logsNotification",
        "params": {"result": {"context": {"slot": 7}, "value": value}, "subscription": 1},
    }
