"""API reads a second with none, one and two replicas of the libSQL server.

    python -m bench replicas

Three API processes over one primary, which read from it, from one replica, and from two. Each is
asked for single payments by many clients at once, in turns, so that what else goes on on this
machine slows all three. Beside the rate stands what a read costs each process by the kernel's
count: where all of them share two cores, that says more than the rate, which adds it all up.
"""

import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import structlog
import uvloop

from indexer.core import creation, events, ids
from indexer.core.creation import NewPayment, Policy
from indexer.demo.sqld.launcher import Sqld
from store import migrate, payments
from store.database import open_database
from tests.cluster.child import Child, environment
from tests.cluster.usage import cpu_s
from tests.ports import free_port


PAYMENTS: Final = 50
CLIENTS: Final = 32
READS: Final = 1_500
ROUNDS: Final = 5
REPLICAS: Final = (0, 1, 2)
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One API, and the servers that it reads from."""

    api: Child
    primary: Sqld
    replicas: Sequence[Sqld]

    @property
    def pids(self) -> tuple[list[int], list[int], list[int]]:
        """Of the API, of the primary, and of the replicas."""
        found = [[self.api.pid], [self.primary.pid], [each.pid for each in self.replicas]]
        api, primary, replicas = ([pid for pid in pids if pid is not None] for pids in found)
        return api, primary, replicas


@dataclass(frozen=True, slots=True)
class Round:
    """Reads a second, and microseconds of processor time that one of them cost."""

    rate: float
    api_us: float
    primary_us: float
    replicas_us: float


def main() -> None:
    """Prints a line for each number of replicas."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(_compare())


async def _compare() -> None:
    with tempfile.TemporaryDirectory() as name:
        async with _setups(Path(name)) as (setups, created):
            rounds: list[list[Round]] = [[] for _ in setups]
            for number in range(ROUNDS + 1):
                print(f"round {number} of {ROUNDS}", file=sys.stderr)
                for setup, results in zip(setups, rounds, strict=True):
                    result = await _round(setup, created)
                    if number:  # the first one only warms them up
                        results.append(result)
    print(f"{'replicas':>8} {'reads/s':>8} {'ratio':>6}   processor time of one read, µs")
    print(f"{'':8} {'':8} {'':6}   {'API':>6} {'primary':>8} {'replicas':>9}")
    for count, results in zip(REPLICAS, rounds, strict=True):
        pairs = zip(results, rounds[0], strict=True)
        ratio = statistics.median(one.rate / none.rate for one, none in pairs)
        rate, api, primary, replicas = (
            statistics.median(getattr(each, field) for each in results)
            for field in ("rate", "api_us", "primary_us", "replicas_us")
        )
        print(f"{count:8} {rate:8,.0f} {ratio:6.2f}   {api:6,.0f} {primary:8,.0f} {replicas:9,.0f}")


@asynccontextmanager
async def _setups(folder: Path) -> AsyncIterator[tuple[list[Setup], list[str]]]:
    """One API for each number of replicas, and the ids of the payments that there are."""
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(Sqld.running(folder / "primary"))
        replicas = [
            await stack.enter_async_context(Sqld.running(folder / f"replica-{n}", primary=primary))
            for n in range(max(REPLICAS))
        ]
        created = await _create(primary.url)
        setups = []
        for count in REPLICAS:
            api = _api(folder, primary, replicas[:count])
            stack.push_async_callback(api.stop)
            await api.start()
            setups.append(Setup(api=api, primary=primary, replicas=replicas[:count]))
        yield setups, created


def _api(folder: Path, primary: Sqld, replicas: Sequence[Sqld]) -> Child:
    port = free_port()
    more = {"database_replica_urls": ",".join(each.url for each in replicas)} if replicas else {}
    settings = environment(
        database_url=primary.url,
        webhook_signing_keys=secrets.token_hex(32),
        rate_limit="100000/1s",
        port=str(port),
        **more,
    )
    name = f"api on {len(replicas)}"
    return Child(name, "api", settings, folder, url=f"http://127.0.0.1:{port}")


async def _create(url: str) -> list[str]:
    """Pending payments in a fresh database; their ids."""
    database = await open_database(url)
    await migrate.migrate(database)
    watch_key, recipient = (creation.reference(secrets.token_bytes(32)) for _ in range(2))
    policy = Policy(
        recipient=recipient,
        tokens={"SOL": None},
        expires_in_s=_DAY_S,
        grace_s=0,
        watch_key=watch_key,
    )
    now, created = int(time.time()), []
    for _ in range(PAYMENTS):
        payment, _metadata = creation.create(
            NewPayment(amount="0.01", token="SOL"),  # noqa: S106 - a currency
            policy,
            {recipient: None},
            rent_exempt_minimum=0,
            id=ids.payment_id(secrets.token_bytes(16)),
            fresh_reference=creation.reference(secrets.token_bytes(32)),
            now=now,
        )
        await database.write(payments.insert(payment, events.created(payment, now)))
        created.append(payment.terms.id)
    await database.close()
    return created


async def _round(setup: Setup, created: Sequence[str]) -> Round:
    """Many clients, each with a connection of its own, ask for one payment after another."""
    before = [sum(map(cpu_s, pids)) for pids in setup.pids]
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(setup.api.url, connector=connector) as http:

        async def client(number: int) -> None:
            for turn in range(number, READS, CLIENTS):
                async with http.get(f"/api/pay/{created[turn % len(created)]}") as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()

        began = time.perf_counter()
        await asyncio.gather(*map(client, range(CLIENTS)))
        took_s = time.perf_counter() - began
    after = [sum(map(cpu_s, pids)) for pids in setup.pids]
    spent = [10**6 * (b - a) / READS for a, b in zip(before, after, strict=True)]
    return Round(READS / took_s, *spent)


if __name__ == "__main__":
    main()
