"""Puts the parts together, runs them, and takes them down again in order.

Everything that runs is a named task of one group. A task that ends by itself is a fault and
brings the process down: half a daemon that looks alive is worse than none.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Final, NoReturn

import structlog
from starlette.applications import Starlette

from api.app import create_app
from api.server import serve
from api.wakeups import Bell, Wakeups
from indexer import keyring
from indexer.core import creation
from indexer.core.account import Account
from indexer.core.standard_webhooks import SigningKey
from indexer.errors import InvariantError
from indexer.partners.desk import Partners
from indexer.parts import Indexer, Tasks
from indexer.settings import Settings
from indexer.sources.endpoint import Bounds
from indexer.sources.helius import Helius
from indexer.sources.outside import Outside
from indexer.sources.paymob import Paymob
from indexer.sources.paymob_wire import Account as CardAccount
from indexer.sources.priority import Priority, at
from indexer.sources.rpc import Rpc
from indexer.tenure import Tenure
from indexer.whereabouts import Whereabouts
from store import migrate, watch_keys, watching
from store.database import Database, open_configured
from store.leases import Instance
from store.limiter import Limiter
from store.shared import Shared


log = structlog.get_logger(__name__)

#: Seconds that the API has to end its streams and answers.
SHUTDOWN_LIMIT_S: Final = 5.0

Clock = Callable[[], float]


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
        StoreBroken: the database file is damaged, at the start or while it runs.
    """
    async with AsyncExitStack() as stack:
        common = await _open(settings, clock, stack, migrates=indexer and api, replicas=not indexer)
        tasks: Tasks = {}
        shared = await _shared(common)
        if shared is not None:
            tasks |= {"redis": shared.run, "bell": Bell(common.wakeups, shared).run}
        if indexer:
            tasks |= (await _indexer(common)).tasks()
        if api:
            app = await _app(common, shared)
            tasks["api"] = partial(
                serve, app, settings.host, settings.port, stop=stop, on_ready=on_ready
            )
        elif on_ready is not None:
            on_ready()
        await run_until_stopped(tasks, stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What the indexer and the API of one process share; all of it is closed with `stack`."""

    settings: Settings
    clock: Clock
    stack: AsyncExitStack
    database: Database
    rpc: Rpc
    paymob: Paymob | None
    keys: tuple[SigningKey, ...]
    wakeups: Wakeups


async def _open(
    settings: Settings, clock: Clock, stack: AsyncExitStack, *, migrates: bool, replicas: bool
) -> _Common:
    database = await open_configured(settings, replicas=replicas, thorough=True)
    stack.push_async_callback(database.close)
    if migrates:
        await migrate.migrate(database)
    await migrate.check(database)
    await ensure_watch_key(database, settings, clock)
    keys = keyring.load(settings)
    if (problem := await keyring.missing(database, settings, keys)) is not None:
        log.error("signing_key.missing", problem=problem)
    rpc = await stack.enter_async_context(_rpc(settings))
    paymob = None
    if settings.takes_cards:
        paymob = await stack.enter_async_context(Paymob(CardAccount.of(settings)))
    return _Common(
        settings=settings,
        clock=clock,
        stack=stack,
        database=database,
        rpc=rpc,
        paymob=paymob,
        keys=keys,
        wakeups=Wakeups(),
    )


async def _indexer(common: _Common) -> Indexer:
    settings, stack = common.settings, common.stack
    instance, here = this_instance(int(common.clock()))
    indexer = Indexer(
        settings,
        common.database,
        common.rpc,
        await watching.watch_keys(common.database, now=instance.started_at),
        common.wakeups,
        common.clock,
        sender=await stack.enter_async_context(Outside(settings.webhook_private_networks)),
        keys=common.keys,
        acquirer=common.paymob,
        helius=await _helius(settings, stack),
        instance=instance.id,
        tenure=Tenure(common.database, instance, clock=common.clock, here=here),
    )
    stack.push_async_callback(indexer.leave)
    return indexer


def this_instance(now: int) -> tuple[Instance, Whereabouts]:
    """This start of this process, among all that use the database, and where it runs.

    Args:
        now: unix seconds.
    """
    here = Whereabouts.here()
    instance = Instance(
        id=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}",
        version=version("axiompay"),
        machine=here.machine,
        process=here.process,
        started_at=now,
    )
    return instance, here


async def _app(common: _Common, shared: Shared | None) -> Starlette:
    limiter = Limiter(shared, time.monotonic)
    return create_app(
        database=common.database,
        settings=common.settings,
        chain=_Chain(common.rpc),
        clock=common.clock,
        wakeups=common.wakeups,
        cards=common.paymob,
        signing_keys=common.keys,
        shared=shared,
        limiter=limiter,
        partners=await _partners(common.settings, shared, limiter, common.stack),
    )


async def _shared(common: _Common) -> Shared | None:
    if common.settings.redis_url is None:
        return None
    return await common.stack.enter_async_context(Shared(common.settings.redis_url))


async def _helius(settings: Settings, stack: AsyncExitStack) -> Helius | None:
    if settings.helius_api_key is None:
        return None
    return await stack.enter_async_context(Helius(settings.helius_api_url, settings.helius_api_key))


async def _partners(
    settings: Settings, shared: Shared | None, limiter: Limiter, stack: AsyncExitStack
) -> Partners | None:
    if not settings.upstreams:
        return None
    partners = Partners(
        settings.upstreams,
        settings.upstream_secrets,
        shared=shared,
        limiter=limiter,
        monotonic=time.monotonic,
    )
    return await stack.enter_async_context(partners)


def _rpc(settings: Settings) -> Rpc:
    return Rpc(
        settings.rpc_urls,
        bounds=Bounds(concurrency=settings.rpc_concurrency, rate=settings.rpc_rate),
        quorum=settings.verify_quorum,
    )


async def ensure_watch_key(database: Database, settings: Settings, clock: Clock) -> None:
    """Takes in the configured watch key if it is new; makes one where payments could get none."""
    fresh = creation.reference(secrets.token_bytes(32))
    now = int(clock())
    await watch_keys.ensure(database, configured=settings.watch_key, fresh=fresh, now=now)


async def run_until_stopped(tasks: Tasks, stop: asyncio.Event) -> None:
    """Runs the tasks as one group until `stop` is set; raises what any of them dies of."""

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
        with at(Priority.DOORBELL):  # a customer waits
            return await self._rpc.account(key)

    async def rent_exempt_minimum(self) -> int:
        with at(Priority.DOORBELL):
            return await self._rpc.rent_exempt_minimum()
