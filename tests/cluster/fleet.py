"""Everything that runs where one machine is not enough, on this one machine.

Surfpool ◄── indexer 1, indexer 2 ──► sqld primary ──► sqld replica
                      Redis ◄── wake-ups ──► api 1, api 2 ──► both of them
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexer.demo.cluster import Cluster
from indexer.demo.sqld.launcher import Sqld
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.tokens import Token
from indexer.demo.wallet import LAMPORTS_PER_SOL, Wallet
from tests.cluster.child import Child, ChildError, axiompay, environment
from tests.ports import free_port
from tests.servers.redis_server import RedisServer


#: A token made for it, of 6 decimals as those that stand for a dollar.
SYMBOL: Final = "DUSD"

#: As in the demo: a payment is final some three seconds after it was confirmed.
SLOT_TIME_MS: Final = 100
_TOKEN_DECIMALS: Final = 6
_TOKEN_SUPPLY: Final = 10**6 * 10**_TOKEN_DECIMALS
#: What one shop with many customers is given: it asks for more than ten things in ten seconds.
SHOP_RATE: Final = "10000/10s"
#: Beside the one that is made at the first start: two indexers divide four keys evenly.
WATCH_KEYS: Final = ("north", "east", "south")
_WATCH_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is up.

    Attributes:
        folder: of data and logs.
        settings: the environment of every process of the product, but for its port.
        bank: has SOL, and may mint `token`.
        recipient: base58 of whom payments are made to, where they name nobody.
        key: an API key of the shop.
    """

    folder: Path
    settings: Mapping[str, str]
    surfnet: Surfnet
    primary: Sqld
    replica: Sqld
    redis: RedisServer
    apis: tuple[Child, ...]
    indexers: tuple[Child, ...]
    cluster: Cluster
    bank: Wallet
    token: Token
    recipient: str
    key: str

    def rows(self) -> list[tuple[str, int | None, str]]:
        """What runs where: name, process id and URL."""
        return [
            ("Surfpool", self.surfnet.pid, f"{self.surfnet.rpc_url}  {self.surfnet.ws_url}"),
            ("sqld primary", self.primary.pid, self.primary.url),
            ("sqld replica", self.replica.pid, self.replica.url),
            ("Redis", self.redis.pid, self.redis.url),
            *((child.name, child.pid, child.url) for child in (*self.indexers, *self.apis)),
        ]

    async def watch(self) -> None:
        """Returns never; raises when a process of the product ends that nobody ended.

        Raises:
            ChildError: it did.
        """
        while True:
            for child in (*self.indexers, *self.apis):
                if child.code is not None:
                    raise ChildError(
                        f"{child.name} ended by itself with code {child.code}; see {child.log}"
                    )
            await asyncio.sleep(_WATCH_PAUSE_S)


@asynccontextmanager
async def fleet(
    folder: Path,
    say: Callable[[str], None],
    *,
    slot_time_ms: int = SLOT_TIME_MS,
    watch_keys: Sequence[str] = (),
    **more: str,
) -> AsyncIterator[Fleet]:
    """Sets everything up, and takes it down again in order.

    Args:
        folder: where data and logs go.
        say: is told what is being done.
        slot_time_ms: of the chain.
        watch_keys: names of those that there are beside the one of the first start.
        more: settings of every process of the product, beside those that follow from the rest.

    Raises:
        AxiomError: something cannot be had, or does not start.
    """
    async with AsyncExitStack() as stack:
        say("starting a Solana runtime on this machine (the first time it is fetched)")
        surfnet = await stack.enter_async_context(Surfnet.running(slot_time_ms=slot_time_ms))
        cluster = await stack.enter_async_context(Cluster(surfnet.rpc_url))
        bank = Wallet(cluster, surfnet.payer)
        token = await bank.create_token(decimals=_TOKEN_DECIMALS, supply=_TOKEN_SUPPLY)
        # A shop that has been paid before: dust can only be sent to an account that exists.
        recipient = str((await Wallet.funded(cluster, LAMPORTS_PER_SOL)).key)
        say("starting libSQL servers and Redis (the first time they are fetched)")
        primary, replica = await _servers(folder, stack)
        redis = await stack.enter_async_context(RedisServer())
        settings = environment(
            database_url=primary.url,
            database_replica_urls=replica.url,
            redis_url=redis.url,
            rpc_urls=surfnet.rpc_url,
            ws_urls=surfnet.ws_url,
            rpc_rate="0",
            recipient=recipient,
            tokens=f"SOL,{SYMBOL}={token.mint}",
            webhook_signing_keys=secrets.token_hex(32),
            webhook_private_networks="127.0.0.0/8",
            **more,
        )
        key = await asyncio.to_thread(_prepare, settings, folder, watch_keys)
        say("starting the indexers and the APIs")
        indexers = tuple(Child(f"indexer {n}", "indexer", settings, folder) for n in (1, 2))
        apis = tuple(_api(n, settings, folder) for n in (1, 2))
        for child in (*indexers, *apis):
            stack.push_async_callback(child.stop)
        await _all_started((*indexers, *apis))
        yield Fleet(
            folder=folder,
            settings=settings,
            surfnet=surfnet,
            primary=primary,
            replica=replica,
            redis=redis,
            apis=apis,
            indexers=indexers,
            cluster=cluster,
            bank=bank,
            token=token,
            recipient=recipient,
            key=key,
        )
        say("ending everything in order")


async def _all_started(children: Sequence[Child]) -> None:
    """Raises the first failure, once each has come up or has failed."""
    starts = await asyncio.gather(*(each.start() for each in children), return_exceptions=True)
    for failure in starts:
        if failure is not None:
            raise failure


async def _servers(folder: Path, stack: AsyncExitStack) -> tuple[Sqld, Sqld]:
    """A primary and a replica of it, which are asked to end with the stack."""
    primary = Sqld(folder / "primary")
    replica = Sqld(folder / "replica", primary=primary)
    for server in (primary, replica):
        stack.push_async_callback(asyncio.to_thread, server.stop)
        await asyncio.to_thread(server.start)
    return primary, replica


def _api(number: int, settings: Mapping[str, str], folder: Path) -> Child:
    port = free_port()
    ours = {**settings, "AXIOM_PORT": str(port)}
    return Child(f"api {number}", "api", ours, folder, url=f"http://127.0.0.1:{port}")


def _prepare(settings: Mapping[str, str], folder: Path, watch_keys: Sequence[str]) -> str:
    """Makes the schema, watch keys and an API key, as an operator does; returns the API key."""
    axiompay(settings, folder, "migrate")
    for name in watch_keys:
        axiompay(settings, folder, "watch", "add", name)
    scopes = "payments:read,payments:write,webhooks"
    create = ("keys", "create", "shop", "--scopes", scopes, "--rate", SHOP_RATE)
    return axiompay(settings, folder, *create)
