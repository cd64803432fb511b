"""Killed at any step, and started again: the same state, each event once.

The indexer runs as a process of its own (`crash_child.py`) and is killed with SIGKILL.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from indexer.core.creation import solana_pay_url
from indexer.core.payment import State
from indexer.core.types import Commitment, Paid, Status
from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import events as event_log, payments
from store.database import open_database
from tests.scenario.copies import NAMES, copied, opened
from tests.scenario.deployment import PATIENCE_S, Deployment


ROOT = Path(__file__).resolve().parents[2]

#: Children at once: each is a whole indexer, on two cores.
AT_ONCE = 3
#: Which time of reaching a step kills; all that is final is one batch, so most come once.
TIMES = {"write": (1, 2, 3, 4), "sweep": (1, 2), "expire": (1, 2)}
#: Steps that payments lead through which were final before, and those of one that arrives
#: while the indexer runs. The others need nodes that fail: see `test_crash_anywhere`.
STEPS = ("fetch", "judge", "settle", "write", "sweep", "expire")
LIVE_STEPS = ("sight", "final")
LAMPORTS = 10**9


@dataclass(frozen=True)
class Outcome:
    """All that is stored of one payment, but the times at which we learned of it."""

    state: State
    verdicts: tuple[tuple[str, int, bool, tuple[str, ...]], ...]
    sightings: int
    events: tuple[str, ...]


@asynccontextmanager
async def indexer(
    surfnet: Surfnet, url: str, *death: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child over the database; told to stop at the end, if it is still there."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.scenario.crash_child",
        url,
        surfnet.rpc_url,
        surfnet.ws_url,
        *death,
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await child.wait()


async def outcomes(url: str, ids: Sequence[str]) -> list[Outcome]:
    database = await open_database(url, readers=1)
    try:
        found = []
        for record in await payments.by_ids(database, ids):
            log = await event_log.after(
                database, 0, payment_id=record.payment.terms.id, limit=1_000
            )
            found.append(
                Outcome(
                    state=record.payment.state,
                    verdicts=tuple(
                        (v.signature, v.credit, v.clean, v.reasons) for v in record.verdicts
                    ),
                    sightings=len(record.sightings),
                    events=tuple(event.type for event in log),
                )
            )
        return found
    finally:
        await database.close()


async def until_final(url: str, ids: Sequence[str]) -> list[Outcome]:
    """What is stored once nothing is open any more."""
    final = {Status.SETTLED, Status.EXPIRED}
    last: list[Outcome] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                last = await outcomes(url, ids)
                if all(outcome.state.status in final for outcome in last):
                    return last
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"in {PATIENCE_S} s it only came to {last}") from None


@dataclass(frozen=True)
class Town:
    """Payments whose transactions are all final, in a database that nobody has looked into yet.

    Attributes:
        template: the database file, or the folder of the server that holds it; closed: every case
            works on a copy.
        undisturbed: what an indexer that nobody kills makes of it.
    """

    surfnet: Surfnet
    template: Path
    ids: tuple[str, ...]
    undisturbed: tuple[Outcome, ...]


@pytest.fixture(scope="module", params=NAMES)
def town(
    request: pytest.FixtureRequest, surfnet: Surfnet, tmp_path_factory: pytest.TempPathFactory
) -> Town:
    folder = tmp_path_factory.mktemp("town")
    return asyncio.run(build_town(surfnet, folder / request.param))


async def build_town(surfnet: Surfnet, template: Path) -> Town:
    """Exact; in two parts; dust first; paid twice; and one that nobody paid."""
    async with (
        Cluster(surfnet.rpc_url) as cluster,
        opened(template) as (url, _),
        Deployment.over(surfnet, template.parent, database_url=url) as deployment,
    ):
        wallet = await Wallet.funded(cluster)
        plans = [
            (await deployment.create("0.1"), [LAMPORTS // 10]),
            (await deployment.create("0.2"), [LAMPORTS // 10, LAMPORTS // 10]),
            (await deployment.create("0.3"), [1, 3 * LAMPORTS // 10]),
            (await deployment.create("0.4"), [4 * LAMPORTS // 10, 4 * LAMPORTS // 10]),
            (await deployment.create("0.5", expires_in_s=1), []),
        ]
        signatures = []
        for payment, amounts in plans:
            # One lamport cannot open an account.
            await cluster.fund_sol(Pubkey.from_string(payment.terms.recipient), LAMPORTS)
            signatures += [
                await wallet.pay(solana_pay_url(payment), amount=amount) for amount in amounts
            ]
        await cluster.landed(signatures, Commitment.FINALIZED)
        ids = tuple(payment.terms.id for payment, _ in plans)
    copy = copied(template, template.parent / "undisturbed")
    async with opened(copy) as (url, _), indexer(surfnet, url):
        undisturbed = await until_final(url, ids)
    return Town(surfnet, template, ids, tuple(undisturbed))


async def killed_and_restarted(
    town: Town, folder: Path, point: str, count: int, *, server_too: bool = False
) -> list[Outcome]:
    """What is stored in the end, when the indexer dies at that point and is started again."""
    place = copied(town.template, folder / f"{point.replace(' ', '-')}-{count}")
    async with opened(place) as (url, server):
        async with indexer(town.surfnet, url, point, str(count)) as child:
            async with asyncio.timeout(PATIENCE_S):
                assert await child.wait() == -signal.SIGKILL, f"{point} not reached {count} times"
        if server_too:
            assert server is not None
            await asyncio.to_thread(server.restart)
        async with indexer(town.surfnet, url):
            return await until_final(url, town.ids)


def test_undisturbed_everything_ends_as_it_must(town: Town) -> None:
    states = [outcome.state for outcome in town.undisturbed]

    assert [state.status for state in states] == [*[Status.SETTLED] * 4, Status.EXPIRED]
    assert [state.paid for state in states] == [
        Paid.EXACT,
        Paid.EXACT,
        Paid.OVER,
        Paid.OVER,
        Paid.NONE,
    ]
    assert all(outcome.events.count("payment.settled") == 1 for outcome in town.undisturbed[:4])


@pytest.mark.timeout(300)  # some steps are reached often, and each time is two lives
@pytest.mark.parametrize("step", STEPS)
async def test_killed_around_a_step_it_ends_the_same(step: str, town: Town, tmp_path: Path) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def case(point: str, count: int) -> list[Outcome]:
        async with turn:
            return await killed_and_restarted(town, tmp_path, point, count)

    points = [
        (f"{when} {step}", count) for when in ("before", "after") for count in TIMES.get(step, (1,))
    ]
    ends = await asyncio.gather(*(case(point, count) for point, count in points))

    for point, end in zip(points, ends, strict=True):
        assert tuple(end) == town.undisturbed, point


@pytest.mark.timeout(300)
@pytest.mark.parametrize("town", ["sqld"], indirect=True)
async def test_the_server_dies_with_the_indexer_at_a_write(town: Town, tmp_path: Path) -> None:
    for count in TIMES["write"]:
        end = await killed_and_restarted(town, tmp_path, "after write", count, server_too=True)
        assert tuple(end) == town.undisturbed, count


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", LIVE_STEPS)
async def test_killed_around_a_live_step_it_settles_once(
    step: str, when: str, surfnet: Surfnet, wallet: Wallet, tmp_path: Path, database_url: str
) -> None:
    async with Deployment.over(surfnet, tmp_path, database_url=database_url) as deployment:
        payment = await deployment.create("0.1")
        async with indexer(surfnet, database_url, f"{when} {step}", "1") as child:
            await deployment.listening()
            await wallet.pay(solana_pay_url(payment))
            async with asyncio.timeout(PATIENCE_S):
                assert await child.wait() == -signal.SIGKILL
        async with indexer(surfnet, database_url):
            record = await deployment.until(payment, Status.SETTLED)
        log = await deployment.events(payment)

    assert record.payment.state.paid is Paid.EXACT
    assert log.count("payment.settled") == 1
    assert len(log) == len(set(log))
