"""A new release takes over from the one before while payments are made, and nobody notices.

What an operator does, in his order: the next migration first, which only adds; then one process
after the other, each told to end by SIGTERM.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest
from aiohttp import web
from solders.keypair import Keypair

from indexer.core.creation import solana_pay_url
from indexer.core.types import Status
from indexer.demo.sqld.launcher import Sqld
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from indexer.errors import SchemaMismatch
from store import everything, migrate
from store.database import open_database
from store.migrate import Migration
from tests.ports import free_port
from tests.scenario.deployment import SIGNING_KEY, Deployment
from tests.scenario.serving import AXIOMPAY, migrated, settings
from tests.scenario.supervised import Successive, supervised


PATIENCE_S = 60.0
SHOPS = 3
#: Payments that must be made between two steps of the upgrade.
MEANWHILE = 8

OURS = len(migrate.known())
NEXT = Migration(
    version=OURS + 1,
    name=f"{OURS + 1:04d}_next.sql",
    checksum="of a release that is still to come",
    statements=(
        "ALTER TABLE payments ADD COLUMN colour TEXT",
        "CREATE TABLE colours (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
        "CREATE INDEX payments_by_colour ON payments (colour)",
    ),
    runs_with=OURS,
)


async def expand(database_url: str) -> None:
    """What `axiompay migrate` of the next release does."""
    database = await open_database(database_url)
    try:
        assert await migrate.migrate(database, migrations=[*migrate.known(), NEXT]) == [NEXT.name]
    finally:
        await database.close()


class Server(Protocol):
    """One API process, whichever way it is run."""

    port: int

    def start(self) -> None:
        """Starts it, once more if need be."""

    async def stop(self) -> int:
        """Tells it to end (SIGTERM); its exit code."""


class OnItsOwn(Successive):
    """Opens its port by itself, as in a container: whoever comes while it is away is refused."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.port = free_port()
        super().__init__({**environment, "AXIOM_PORT": str(self.port)})

    def start(self) -> None:
        self._run(AXIOMPAY, "api")


@dataclass
class Balancer:
    """What stands in front: sends each request to the next server, and on where nobody listens.

    Only what was certainly not taken is sent once more. Each request has a connection of its own:
    one that is kept is tried again by the client itself when it breaks, and would tell nothing.

    Attributes:
        counts: of answers by status, of connections that were refused, and of orders.
        failures: what was told, or happened, in the place of an answer.
        made: ids of the payments that a shop was told are made.
    """

    session: aiohttp.ClientSession
    ports: Sequence[int]
    key: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[object] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    goes_on: bool = True
    _turn: int = 0

    async def shop(self, name: str) -> None:
        """Makes one payment after the other and reads each of them again."""
        number = 0
        while self.goes_on:
            number += 1
            order = {"amount": "1", "token": "SOL", "recipient": str(Keypair().pubkey())}
            made = await self.ask("POST", "/api/pay", order, f"{name}-{number}")
            if made is not None:
                self.made.add(made)
                await self.ask("GET", f"/api/pay/{made}")
            self.counts["orders"] += 1

    async def ask(self, method: str, path: str, body: object = None, once: str = "") -> str | None:
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": once}
        self._turn += 1
        first = self._turn % len(self.ports)
        for port in (*self.ports[first:], *self.ports[:first]):
            url = f"http://127.0.0.1:{port}{path}"
            try:
                async with self.session.request(method, url, json=body, headers=headers) as answer:
                    told = await answer.json()
                    if told.get("code") == "going_down":  # asked again, as it says
                        self.counts["going_down"] += 1
                        continue
                    self.counts[str(answer.status)] += 1
                    if answer.ok:
                        return str(told["id"])
                    self.failures.append(told)
                    return None
            except aiohttp.ClientConnectorError:
                self.counts["refused"] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(repr(error))
                return None
        self.failures.append("nobody listens")
        return None

    async def until_alive(self, port: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    async with self.session.get(f"http://127.0.0.1:{port}/livez") as answer:
                        assert answer.status == 200
                        return
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)

    async def go_on(self) -> None:
        """Returns when some more orders have been dealt with."""
        wanted = self.counts["orders"] + MEANWHILE
        async with asyncio.timeout(PATIENCE_S):
            while self.counts["orders"] < wanted:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def balanced(servers: Sequence[Server], key: str) -> AsyncIterator[Balancer]:
    """The servers, running, with shops that ask them without a break."""
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        balancer = Balancer(session, [server.port for server in servers], key)
        for server in servers:
            server.start()
        for server in servers:
            await balancer.until_alive(server.port)
        async with asyncio.TaskGroup() as shops:
            for number in range(SHOPS):
                shops.create_task(balancer.shop(f"shop-{number}"))
            yield balancer
            balancer.goes_on = False


async def upgraded(servers: Sequence[Server], balancer: Balancer, database_url: str) -> None:
    """The upgrade, as docs/operating.md says it."""
    await balancer.go_on()
    await expand(database_url)
    await balancer.go_on()
    for server in servers:
        assert await server.stop() == 0
        server.start()
        await balancer.until_alive(server.port)
        await balancer.go_on()


async def stored(database_url: str) -> set[str]:
    database = await open_database(database_url)
    try:
        return {each.payment.terms.id for each in await everything.page(database, limit=10_000)}
    finally:
        await database.close()


async def replaced_one_by_one(
    servers: Sequence[Server], environment: dict[str, str]
) -> Counter[str]:
    """What was counted while both were replaced; each payment that was promised is there."""
    key = await migrated(environment, "payments:read", "payments:write")
    database_url = environment["AXIOM_DATABASE_URL"]
    async with balanced(servers, key) as balancer:
        await upgraded(servers, balancer, database_url)
    for server in servers:
        assert await server.stop() == 0

    assert balancer.failures == []
    assert balancer.made == await stored(database_url)
    assert len(balancer.made) >= MEANWHILE * (2 + len(servers))
    return balancer.counts


def environment_of(surfnet: Surfnet, folder: Path, **more: str) -> dict[str, str]:
    return settings(folder, AXIOM_RPC_URLS=surfnet.rpc_url, AXIOM_RPC_RATE="0", **more)


async def test_on_sockets_that_stay_nobody_is_refused_while_both_apis_are_replaced(
    surfnet: Surfnet, tmp_path: Path
) -> None:
    """As with systemd, on one machine: whoever connects meanwhile waits in the kernel."""
    environment = environment_of(surfnet, tmp_path)
    with supervised(environment) as one, supervised(environment) as other:
        counts = await replaced_one_by_one((one, other), environment)

    assert set(counts) <= {"200", "201", "orders", "going_down"}
    assert counts["201"] == counts["200"] == counts["orders"]


async def test_behind_a_balancer_no_request_is_lost_while_both_apis_are_replaced(
    surfnet: Surfnet, tmp_path: Path
) -> None:
    """As with containers, on a libSQL server: who is not let in here is let in there."""
    async with Sqld.running(tmp_path / "sqld") as sqld:
        environment = environment_of(
            surfnet,
            tmp_path,
            AXIOM_DATABASE_URL=sqld.url,
            AXIOM_WEBHOOK_SIGNING_KEYS=SIGNING_KEY,
        )
        one, other = OnItsOwn(environment), OnItsOwn(environment)
        try:
            counts = await replaced_one_by_one((one, other), environment)
        finally:
            one.kill()
            other.kill()

    assert set(counts) <= {"200", "201", "orders", "going_down", "refused"}
    assert counts["201"] == counts["200"] == counts["orders"]


@asynccontextmanager
async def slow_node(
    surfnet: Surfnet, asked: asyncio.Event, go: asyncio.Event
) -> AsyncIterator[str]:
    """The node, which says nothing of accounts before `go`."""

    async def handle(request: web.Request) -> web.Response:
        question = await request.json()
        if question["method"] == "getAccountInfo":
            asked.set()
            await go.wait()
        async with session.post(surfnet.rpc_url, json=question) as answer:
            return web.json_response(await answer.json())

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


async def until_refused(port: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return
            writer.close()
            await asyncio.sleep(0.01)


async def test_an_order_that_is_under_way_when_its_process_has_to_end_is_made_once(
    surfnet: Surfnet, tmp_path: Path
) -> None:
    """It is finished; or, if that takes too long, the caller is told to come again, and may."""
    asked, go = asyncio.Event(), asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with (
        slow_node(surfnet, asked, go) as url,
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        environment = settings(tmp_path, AXIOM_RPC_URLS=url, AXIOM_RPC_RATE="0")
        key = await migrated(environment, "payments:read", "payments:write")
        one, other = OnItsOwn(environment), OnItsOwn(environment)
        balancer = Balancer(session, [one.port, other.port], key)
        order = {"amount": "1", "token": "SOL", "recipient": str(Keypair().pubkey())}
        try:
            for server in (one, other):
                server.start()
                await balancer.until_alive(server.port)
            balancer.ports = [one.port]
            ordering = asyncio.create_task(balancer.ask("POST", "/api/pay", order, "order-1"))
            async with asyncio.timeout(PATIENCE_S):
                await asked.wait()
            ending = asyncio.create_task(one.stop())
            await until_refused(one.port)
            go.set()
            made = await ordering
            assert await ending == 0
            balancer.ports = [other.port]
            again = await balancer.ask("POST", "/api/pay", order, "order-1")
        finally:
            one.kill()
            other.kill()

    assert again is not None
    assert made in {again, None}
    assert (made is None) == bool(balancer.counts["going_down"])
    assert await stored(environment["AXIOM_DATABASE_URL"]) == {again}


async def test_a_payment_runs_through_on_the_next_schema(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    """The release before still runs when the database has been migrated, or is started anew."""
    async with Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment:
        early = await deployment.create("0.1")
        await deployment.start()
        await expand(database_url)
        await wallet.pay(solana_pay_url(early))
        await deployment.stop()

        await deployment.start()
        late = await deployment.create("0.2")
        await wallet.pay(solana_pay_url(late))
        for payment in (early, late):
            await deployment.until(payment, Status.SETTLED)


async def test_a_release_is_refused_by_a_database_that_took_something_from_it(
    surfnet: Surfnet, tmp_path: Path, database_url: str
) -> None:
    async def started() -> None:
        async with Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment:
            await migrate.migrate(deployment.database, migrations=[*migrate.known(), taking])
            await deployment.start()

    taking = replace(NEXT, statements=("DROP TABLE measures",), runs_with=NEXT.version)
    with pytest.raises(SchemaMismatch, match=r"next\.sql, of a newer release.*upgrade to"):
        await started()
