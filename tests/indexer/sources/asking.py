"""Nodes, and what asks them: what the tests of the chain's reads act with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from indexer.sources.endpoint import Bounds
from indexer.sources.rpc import Rpc
from tests.servers.fake_rpc import FakeChain, FakeNode


def connect(*urls: str, quorum: int = 1, draw: float = 0.0) -> Rpc:
    return Rpc(urls, bounds=Bounds(rate=0, timeout_s=5), quorum=quorum, draw=lambda: draw)


@asynccontextmanager
async def one() -> AsyncIterator[tuple[FakeNode, Rpc]]:
    async with FakeNode() as node, connect(node.url) as rpc:
        yield node, rpc


@asynccontextmanager
async def two(*, draw: float = 0.0) -> AsyncIterator[tuple[FakeNode, FakeNode, Rpc]]:
    chain = FakeChain()
    async with FakeNode(chain) as a, FakeNode(chain) as b, connect(a.url, b.url, draw=draw) as rpc:
        yield a, b, rpc
