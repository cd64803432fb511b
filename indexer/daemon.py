"""Puts the parts together, runs them, and takes them down again in order.

Everything that runs is a named task of one group. A task that ends by itself is a fault and
brings the process down: half a daemon that looks alive is worse than none.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, NoReturn

import structlog

from api.app import create_app
from api.server import serve
from api.wakeups import Wakeups
from indexer.core import creation
from indexer.core.account import Account
from indexer.errors import ConfigError, InvariantError, SourceError, StoreUnavailable
from indexer.live import Live
from indexer.parked import Parked
from indexer.pipeline import Pipeline
from indexer.settings import Settings
from indexer.sources.doorbells import Doorbells
from indexer.sources.endpoint import Bounds, Endpoint
from indexer.sources.pubsub import PubSub
from indexer.sources.rpc import Rpc
from indexer.sweep import Sweeper
from indexer.watch import Watched
from store import deployment, health, migrate
from store.database import Database, open_database


log = structlog.get_logger(__name__)

#: Seconds between two reports of health to the store.
REPORT_INTERVAL_S: Final = 2.0
#: Seconds between two tries to learn which cluster an endpoint belongs to, and until one that
#: said so is asked again: a name may come to stand for another machine.
GENESIS_PAUSE_S: Final = 2.0
GENESIS_KEPT_S: Final = 600.0
#: Seconds that the API has to end its streams and answers.
SHUTDOWN_LIMIT_S: Final = 5.0

Clock = Callable[[], float]
Start = Callable[[], Awaitable[object]]
Tasks = dict[str, Start]


class _Stopped(Exception):
    """Somebody asked us to stop."""


async def run(
    settings: Settings,
    *,
    clock: Clock,
    indexer: bool,
    api: bool,
    stop: asyncio.Event,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Runs the indexer, the API, or both, until `stop` is set.

    Args:
        settings: what was configured.
        clock: unix seconds.
        indexer: watch the chain and settle payments.
        api: serve HTTP.
        stop: ends everything in order.
        on_ready: called once everything runs (and the port, if any, is open).

    Raises:
        ConfigError: the endpoints belong to another cluster than the database; a taken port.
        SchemaMismatch: the database was written by a newer release, or was not migrated.
    """
    async with AsyncExitStack() as stack:
        database = await open_database(settings.database_url)
        stack.push_async_callback(database.close)
        if indexer and api:
            await migrate.migrate(database)
        await migrate.check(database)
        rpc = await stack.enter_async_context(
            Rpc(
                settings.rpc_urls,
                bounds=Bounds(concurrency=settings.rpc_concurrency, rate=settings.rpc_rate),
                quorum=settings.verify_quorum,
            )
        )
        watch_key = await the_watch_key(database, settings)
        wakeups = Wakeups()
        tasks: Tasks = {}
        if indexer:
            tasks |= _indexer_tasks(settings, database, rpc, watch_key, wakeups, clock)
        if api:
            app = create_app(
                database=database,
                settings=settings,
                chain=_Chain(rpc),
                clock=clock,
                wakeups=wakeups,
                watch_key=watch_key,
            )
            tasks["api"] = partial(
                serve, app, settings.host, settings.port, stop=stop, on_ready=on_ready
            )
        elif on_ready is not None:
            on_ready()
        await _run_until_stopped(tasks, stop)


async def the_watch_key(database: Database, settings: Settings) -> str:
    """The deployment's watch key: as configured, else as stored, else made now and stored."""
    if settings.watch_key is not None:
        return settings.watch_key
    fresh = creation.reference(secrets.token_bytes(32))
    return await deployment.put_once(database, "watch_key", fresh)


def _indexer_tasks(
    settings: Settings,
    database: Database,
    rpc: Rpc,
    watch_key: str,
    wakeups: Wakeups,
    clock: Clock,
) -> Tasks:
    """Everything that watches the chain, by name."""
    pipeline = Pipeline(database, rpc, clock=clock, wake=wakeups.wake)
    watched = Watched(database, watch_key, clock=clock)
    sweeper = Sweeper(database, rpc, pipeline, watched.next_to_sweep, clock=clock)
    doorbells = Doorbells(on_overflow=sweeper.ask)
    live = Live(database, rpc, pipeline, doorbells, clock=clock)
    parked = Parked(database, pipeline, clock=clock)
    subscriptions = [
        PubSub(
            url,
            keys=watched.to_subscribe,
            on_signature=doorbells.ring,
            on_subscribed=sweeper.subscribed,
        )
        for url in settings.ws_urls
    ]

    def keys_changed() -> None:
        for subscription in subscriptions:
            subscription.changed()
        sweeper.ask()

    async def report() -> NoReturn:
        while True:
            problems = {
                "indexer": None,
                "rpc": rpc.problem,
                "sweep": sweeper.problem,
                **{f"pubsub:{number}": s.problem for number, s in enumerate(subscriptions)},
            }
            await _report(database, problems, int(clock()))
            await asyncio.sleep(REPORT_INTERVAL_S)

    known = asyncio.Event()

    def once_known(start: Start) -> Start:
        async def wait_and_start() -> None:
            await known.wait()
            await start()

        return wait_and_start

    return {
        "watch": partial(watched.run, changed=keys_changed, wait=wakeups.wait),
        "cluster": partial(_same_cluster, database, rpc, sweeper, known),
        "sweep": once_known(sweeper.run),
        "doorbells": once_known(live.answer),
        "finality": once_known(live.settle),
        "parked": once_known(parked.run),
        "health": report,
        **{f"pubsub:{number}": s.run for number, s in enumerate(subscriptions)},
    }


async def _same_cluster(
    database: Database, rpc: Rpc, sweeper: Sweeper, known: asyncio.Event
) -> NoReturn:
    """Asks every endpoint for its cluster, and refuses one that the database does not belong to.

    Payments of one cluster verified against another would be all wrong at once. So nothing is
    read before the first endpoint has answered; one that is down is asked when it comes back.

    Args:
        database: remembers the cluster that it was filled from.
        rpc: has the endpoints.
        sweeper: shows why nothing is read yet.
        known: set once an endpoint of the right cluster is there.
    """
    loop = asyncio.get_running_loop()
    asked_at: dict[Endpoint, float] = {}

    async def ask(endpoint: Endpoint) -> None:
        try:
            raw = await endpoint.call("getGenesisHash", [])
            genesis_hash = endpoint.decode(raw, str, "getGenesisHash")
            stored = await deployment.put_once(database, "genesis_hash", genesis_hash)
        except (SourceError, StoreUnavailable) as error:
            if not known.is_set():
                log.warning("rpc.unreachable", endpoint=endpoint.name, error=str(error))
                sweeper.problem = str(error)
            return
        _refuse_other_cluster(endpoint, genesis_hash, stored)
        asked_at[endpoint] = loop.time()
        known.set()

    while True:
        async with asyncio.TaskGroup() as group:
            for endpoint in rpc.endpoints:
                if loop.time() - asked_at.get(endpoint, float("-inf")) > GENESIS_KEPT_S:
                    group.create_task(ask(endpoint), name="genesis")
        await asyncio.sleep(GENESIS_PAUSE_S)


def _refuse_other_cluster(endpoint: Endpoint, genesis_hash: str, stored: str) -> None:
    if stored != genesis_hash:
        problem = (
            f"AXIOM_RPC_URLS: {endpoint.name} serves the cluster with genesis hash "
            f"{genesis_hash}, but the database was filled from {stored}; use another "
            "AXIOM_DATABASE_URL for another cluster"
        )
        raise ConfigError((problem,))


async def _report(database: Database, problems: dict[str, str | None], now: int) -> None:
    try:
        await database.write(
            [health.report(component, problem, now) for component, problem in problems.items()]
        )
    except StoreUnavailable as error:
        log.warning("health.not_stored", error=str(error))


async def _run_until_stopped(tasks: Tasks, stop: asyncio.Event) -> None:
    async def stopper() -> NoReturn:
        await stop.wait()
        if "api" in tasks:  # ends by itself, once its streams are closed
            await asyncio.sleep(SHUTDOWN_LIMIT_S)
        raise _Stopped

    async def endless(name: str, start: Callable[[], Awaitable[object]]) -> NoReturn:
        await start()
        if stop.is_set():
            raise _Stopped
        raise InvariantError(f"the task {name!r} ended by itself")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(stopper(), name="stop")
            for name, start in tasks.items():
                group.create_task(endless(name, start), name=name)
    except* _Stopped:
        log.info("daemon.stopped")


class _Chain:
    """What the API may ask the chain, through the same endpoints as the indexer."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    async def account(self, key: str) -> Account | None:
        return await self._rpc.account(key)

    async def rent_exempt_minimum(self) -> int:
        return await self._rpc.rent_exempt_minimum()
