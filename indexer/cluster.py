"""Which cluster an endpoint serves: payments verified against another one would all be wrong."""

import asyncio
from contextlib import suppress
from typing import Final, NoReturn

import structlog

from indexer.errors import ConfigError, SourceError, StoreUnavailable
from indexer.sources.endpoint import Endpoint
from indexer.sources.rpc import Rpc
from store import deployment
from store.database import Database


log = structlog.get_logger(__name__)

#: Seconds between two tries to learn which cluster an endpoint belongs to, and until one that
#: said so is asked again: a name may come to stand for another machine.
PAUSE_S: Final = 2.0
KEPT_S: Final = 600.0


class SameCluster:
    """Asks every endpoint for its cluster, and refuses one that the database does not belong to.

    Nothing is to be read before the first endpoint has answered; one that is down is asked when
    it comes back.

    Attributes:
        known: set once an endpoint of the right cluster is there.
        problem: why none is yet; None from then on.
    """

    def __init__(self, database: Database, rpc: Rpc) -> None:
        self._database = database
        self._rpc = rpc
        self._asked_at: dict[Endpoint, float] = {}
        self.known = asyncio.Event()
        self.problem: str | None = "no endpoint has said yet which cluster it serves"

    async def run(self) -> NoReturn:
        """Asks for ever.

        Raises:
            ConfigError: an endpoint serves another cluster.
        """
        loop = asyncio.get_running_loop()
        while True:
            async with asyncio.TaskGroup() as group:
                for endpoint in self._rpc.endpoints:
                    if loop.time() - self._asked_at.get(endpoint, float("-inf")) > KEPT_S:
                        group.create_task(self._ask(endpoint), name="genesis")
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, endpoint: Endpoint) -> None:
        try:
            await check(self._database, endpoint)
        except (SourceError, StoreUnavailable) as error:
            if not self.known.is_set() and self.problem != str(error):
                log.warning("rpc.unreachable", endpoint=endpoint.name, error=str(error))
                self.problem = str(error)
            return
        self._asked_at[endpoint] = asyncio.get_running_loop().time()
        self.problem = None
        self.known.set()


async def check(database: Database, endpoint: Endpoint) -> None:
    """Compares the endpoint's cluster with the database's; the first one ever seen is kept.

    Raises:
        ConfigError: they differ.
        SourceError: the endpoint did not say.
        StoreUnavailable: the database did not.
    """
    genesis_hash = await _genesis_hash(endpoint)
    stored = await deployment.put_once(database, "genesis_hash", genesis_hash)
    _refuse_other(endpoint, genesis_hash, stored)


async def check_all(database: Database, rpc: Rpc) -> None:
    """Compares every endpoint that says something, and writes nothing.

    Raises:
        ConfigError: one of them serves another cluster than the database was filled from.
    """
    stored = await deployment.get(database, "genesis_hash")
    for endpoint in rpc.endpoints if stored is not None else ():
        with suppress(SourceError):  # whoever needs its answer will say that there is none
            _refuse_other(endpoint, await _genesis_hash(endpoint), stored)


async def know(database: Database, rpc: Rpc) -> None:
    """Notes which cluster the database is filled from, where nobody has done so yet.

    Raises:
        SourceError: no endpoint said.
        StoreUnavailable: the database did not.
    """
    if await deployment.get(database, "genesis_hash") is None:
        await deployment.put_once(database, "genesis_hash", await rpc.genesis_hash())


async def _genesis_hash(endpoint: Endpoint) -> str:
    raw = await endpoint.call("getGenesisHash", [])
    return endpoint.decode(raw, str, "getGenesisHash")


def _refuse_other(endpoint: Endpoint, genesis_hash: str, stored: str | None) -> None:
    if stored != genesis_hash:
        problem = (
            f"AXIOM_RPC_URLS: {endpoint.name} serves the cluster with genesis hash "
            f"{genesis_hash}, but the database was filled from {stored}; use another "
            "AXIOM_DATABASE_URL for another cluster"
        )
        raise ConfigError((problem,))
