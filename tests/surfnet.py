"""A real Solana runtime for tests, with a line to it and a wallet that has SOL.

    async def test_it(cluster: Cluster, wallet: Wallet) -> None: ...

`surfnet`, `cluster`, `wallet`: one runtime for the whole run. Tests that share it must not look
at what is not theirs: use new wallets and new references.
`own_surfnet`, `own_cluster`: a runtime for one test alone, to travel in time, stall or reset.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet


@pytest.fixture(scope="session")
def surfnet() -> Iterator[Surfnet]:
    runtime = Surfnet.start()
    yield runtime
    runtime.stop()


@pytest_asyncio.fixture
async def cluster(surfnet: Surfnet) -> AsyncIterator[Cluster]:
    async with Cluster(surfnet.rpc_url) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def wallet(cluster: Cluster) -> Wallet:
    return await Wallet.funded(cluster)


@pytest_asyncio.fixture
async def own_surfnet() -> AsyncIterator[Surfnet]:
    async with Surfnet.running() as runtime:
        yield runtime


@pytest_asyncio.fixture
async def own_cluster(own_surfnet: Surfnet) -> AsyncIterator[Cluster]:
    async with Cluster(own_surfnet.rpc_url) as cluster:
        yield cluster
