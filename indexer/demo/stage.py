"""Everything a story needs: a local runtime, the product on it, a shop, and money."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from indexer import daemon
from indexer.core.rate import Rate
from indexer.demo.cluster import Cluster
from indexer.demo.mailbox import Mailbox
from indexer.demo.part import DemoFailed
from indexer.demo.shop import Shop
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.tokens import Token
from indexer.demo.wallet import LAMPORTS_PER_SOL, Wallet
from indexer.settings import Settings
from store import keys, migrate
from store.database import open_database


#: A token made for the demo, of 6 decimals as those that stand for a dollar.
SYMBOL: Final = "DUSD"

#: Slower than in tests, so that a person can see `processing` before `settled`.
_SLOT_TIME_MS: Final = 100
_TOKEN_DECIMALS: Final = 6
_TOKEN_SUPPLY: Final = 10**6 * 10**_TOKEN_DECIMALS
_READY_TIMEOUT_S: Final = 30
#: All the stories go on at once, with one key: far more than one shop would ask by default.
_SHOP_RATE: Final = Rate(1_000, 10)
_THIS_MACHINE: Final = ip_network("127.0.0.0/8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is up.

    Attributes:
        product: the running daemon; ends by itself only by a fault.
        bank: has SOL, and may mint `token`.
        key: the shop's API key.
        mailbox: where the shop receives webhooks.
    """

    settings: Settings
    cluster: Cluster
    shop: Shop
    mailbox: Mailbox
    bank: Wallet
    token: Token
    key: str
    product: asyncio.Task[None]


@asynccontextmanager
async def stage(
    folder: Path, *, clock: Callable[[], float], say: Callable[[str], None]
) -> AsyncIterator[Stage]:
    """Sets everything up, and takes it down again.

    Args:
        folder: where the database goes.
        clock: unix seconds.
        say: is told what is being done.
    """
    say("starting a Solana runtime on this machine (the first time it is fetched)")
    async with (
        Surfnet.running(slot_time_ms=_SLOT_TIME_MS) as surfnet,
        Cluster(surfnet.rpc_url) as cluster,
        Mailbox.opened() as mailbox,
    ):
        bank = Wallet(cluster, surfnet.payer)
        token = await bank.create_token(decimals=_TOKEN_DECIMALS, supply=_TOKEN_SUPPLY)
        # A shop that has been paid before: dust can only be sent to an account that exists.
        owner = await Wallet.funded(cluster, LAMPORTS_PER_SOL)
        port = _free_port()
        settings = Settings(
            database_url=f"sqlite:///{folder / 'axiom.db'}",
            rpc_urls=(surfnet.rpc_url,),
            ws_urls=(surfnet.ws_url,),
            rpc_rate=0,
            recipient=str(owner.key),
            tokens={"SOL": None, SYMBOL: str(token.mint)},
            port=port,
            webhook_private_networks=(_THIS_MACHINE,),
        )
        key = await _key(settings, clock)
        say("starting the indexer and the API")
        async with _running(settings, clock) as product, Shop(settings.public_url, key) as shop:
            mailbox.secret.set_result(await shop.register(mailbox.url))
            yield Stage(
                settings=settings,
                cluster=cluster,
                shop=shop,
                mailbox=mailbox,
                bank=bank,
                token=token,
                key=key,
                product=product,
            )


async def _key(settings: Settings, clock: Callable[[], float]) -> str:
    """An API key, as `axiompay keys create` makes one."""
    key = keys.new_key(secrets.token_bytes(32))
    database = await open_database(settings.database_url)
    try:
        await migrate.migrate(database)
        scopes = ("payments:read", "payments:write", "webhooks")
        await keys.create(
            database, "shop", scopes, key=key, id="key_shop", now=int(clock()), rate=_SHOP_RATE
        )
    finally:
        await database.close()
    return key


@asynccontextmanager
async def _running(
    settings: Settings, clock: Callable[[], float]
) -> AsyncIterator[asyncio.Task[None]]:
    """The daemon, from when it is ready until it has ended in order."""
    stop, ready = asyncio.Event(), asyncio.Event()
    product = asyncio.create_task(
        daemon.run(settings, clock=clock, indexer=True, api=True, stop=stop, on_ready=ready.set)
    )
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait(
            {product, waiting}, timeout=_READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if product.done():
            product.result()
        if not ready.is_set():
            raise DemoFailed(f"indexer and API are not ready after {_READY_TIMEOUT_S} s")
        yield product
    finally:
        stop.set()
        await product


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
