"""Killed at every write and around every step of a whole life: it ends as if nothing had been.

The cluster is in memory, so that every fate of a payment can be brought about: paid before and
while the indexer runs, in parts, twice, late, after it was canceled, by a transaction that no
node has for a while, and by one that a fork takes away.

All of it on a file, and on a libSQL server, which is killed with the indexer every other time;
there with fewer times of each step and fewer seeds: a life on it takes longer.

Between two writes the store stands still, and it is all that outlives a process: after a write is
before the next one. So every other write, and both sides of it, are every state that there is.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from indexer.core.payment import Payment
from indexer.core.types import Reason, Status
from store import cursors, dead_letters, events as event_log, payments
from store.database import Statement, open_database
from tests.chain import signature_of, system_transfer, transaction
from tests.indexer.daemons import PATIENCE_S
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    FINAL_SLOT,
    SHOP,
    WATCH_KEY,
    paying,
    payment,
    stage,
)
from tests.scenario.copies import NAMES, copied, opened
from tests.scenario.crash_child import DROPPED_AFTER_BLOCKS, STEPS, WEBHOOK_STEPS
from tests.servers.fake_rpc import Call, FakeChain, FakeNode, Fault, null, result


pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).resolve().parents[2]

#: Lives that are lived at once: each waits more than it works.
AT_ONCE = 5
#: How often one that is harried is killed at most, before it may live on.
LIVES_MAX = 15
#: What is sent while the indexer runs lands here; then a fork takes one away.
LANDING = FINAL_SLOT + 45
DROPPED = LANDING + 20
#: The slot in which a deadline passes while the indexer runs.
DEADLINE_SLOT = LANDING + 5
#: When the frontier is here, everything has happened.
END = LANDING + DROPPED_AFTER_BLOCKS + 2
SLOT_S = 0.005
#: How often the transaction that no node has is asked for before one has it.
NULLS = 2

STATUS_EVENTS = ("created", "settled", "expired", "canceled")


@dataclass(frozen=True)
class Cast:
    """Who is in the play, in order, and how each ends."""

    payments: dict[str, Payment]
    ends: dict[str, Status]


def cast(chain: FakeChain) -> Cast:
    deadline = chain.block_time(DEADLINE_SLOT)
    assert deadline is not None
    ends = {
        "exact": Status.SETTLED,
        "parts": Status.SETTLED,
        "twice": Status.SETTLED,
        "pair one": Status.SETTLED,
        "pair two": Status.SETTLED,
        "foreign": Status.SETTLED,
        "missing": Status.SETTLED,
        "live": Status.SETTLED,
        "late": Status.SETTLED,
        "canceled": Status.CANCELED,
        "dropped": Status.PENDING,
        "unpaid": Status.EXPIRED,
        "dust": Status.EXPIRED,
    }
    terms: dict[str, dict[str, Any]] = {
        "foreign": {"watch_key": None},
        "unpaid": {"expires_at": deadline},
        "dust": {"expires_at": deadline},
        "late": {"expires_at": chain.block_time(FINAL_SLOT - 20)},
    }
    return Cast({name: payment(name, **terms.get(name, {})) for name in ends}, ends)


def before(cast_: Cast) -> list[dict[str, Any]]:
    """What is final before the indexer starts."""
    who = cast_.payments
    pair = [
        system_transfer(BUYER, SHOP, AMOUNT, who[name].terms.reference, WATCH_KEY)
        for name in ("pair one", "pair two")
    ]
    return [
        paying(who["exact"], slot=FINAL_SLOT - 9),
        paying(who["parts"], amount=AMOUNT - 1, slot=FINAL_SLOT - 8),
        paying(who["parts"], amount=1, slot=FINAL_SLOT - 7),
        paying(who["twice"], name="once", slot=FINAL_SLOT - 6),
        paying(who["twice"], name="and again", slot=FINAL_SLOT - 5),
        transaction(pair, slot=FINAL_SLOT - 4),
        paying(who["foreign"], slot=FINAL_SLOT - 3),
        paying(who["late"], slot=FINAL_SLOT - 2, block_time=who["late"].terms.expires_at + 1),
        paying(who["canceled"], slot=FINAL_SLOT - 1),
        paying(who["dust"], amount=1, slot=FINAL_SLOT - 1),
        paying(who["missing"], slot=FINAL_SLOT),
    ]


@asynccontextmanager
async def cluster() -> AsyncIterator[FakeNode]:
    """A cluster on which the play is played, once, whoever looks on."""
    chain = FakeChain(finalized=FINAL_SLOT)
    cast_ = cast(chain)
    for landed in before(cast_):
        chain.add(landed)
    live = paying(cast_.payments["live"], slot=LANDING)
    dropped = paying(cast_.payments["dropped"], slot=LANDING)

    async def play() -> None:
        while not node.subscribed_keys:
            await asyncio.sleep(SLOT_S)
        while chain.finalized <= END:
            await asyncio.sleep(SLOT_S)
            if chain.tip == LANDING - 5:
                chain.add(live)
                chain.add(dropped)
            if chain.tip == DROPPED and chain.find(signature_of(dropped)) is not None:
                if not asked_for(signature_of(dropped)):
                    # The fork waits until somebody has seen what it takes away.
                    node.ring_logs(dropped, [WATCH_KEY])
                    continue
                chain.drop(signature_of(dropped))
            chain.advance()

    def asked_for(signature: str) -> bool:
        return any(c.method == "getTransaction" and c.params[0] == signature for c in node.calls)

    async with FakeNode(chain) as node:
        missing = signature_of(before(cast_)[-1])
        node.fail("getTransaction", missing_at_first(node, missing), times=None)
        playing = asyncio.create_task(play())
        try:
            yield node
        finally:
            playing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await playing


def missing_at_first(node: FakeNode, signature: str) -> Fault:
    asked: Counter[str] = Counter()

    async def fault(call: Call) -> Any:
        asked[call.params[0]] += 1
        if call.params[0] == signature and asked[signature] <= NULLS:
            return await null()(call)
        return await result(node._transaction(*call.params))(call)

    return fault


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=NAMES)
async def template(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A database that holds the payments, and nothing that happened to them but one cancel."""
    place: Path = tmp_path_factory.mktemp("template") / request.param
    async with opened(place) as (url, _), stage(place.parent, database_url=url) as it:
        cast_ = cast(it.chain)
        for each in cast_.payments.values():
            await it.put(each)
        await it.cancel(cast_.payments["canceled"])
    return place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nurseries() -> AsyncIterator[list["Nursery"]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Nursery.open()) for _ in range(AT_ONCE)]


# ----------------------------------------------------------------------------- living, dying


class Nursery:
    """Bears indexers one after another (see `crash_child.py`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._child: int | None = None
        self._end: asyncio.Task[int] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["Nursery"]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.scenario.crash_child",
            "--nursery",
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        nursery = cls(process)
        try:
            yield nursery
        finally:
            await nursery._buried()
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()

    async def live(
        self,
        url: str,
        node: FakeNode,
        cast_: Cast,
        *,
        step: str = "",
        count: int = 0,
        killed_after_s: float | None = None,
    ) -> bool:
        """One life: until it is killed, which is False, or all is done, which is True."""
        await self._buried()
        assert self._process.stdin is not None
        order = {
            "store_url": url,
            "rpc_url": node.url,
            "ws_url": node.ws_url,
            "step": step,
            "count": count,
        }
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._child = child = await self._said()
        self._end = end = asyncio.create_task(self._said())
        done = asyncio.create_task(until_done(url, cast_))
        try:
            async with asyncio.timeout(PATIENCE_S):
                either = asyncio.FIRST_COMPLETED
                await asyncio.wait({end, done}, return_when=either, timeout=killed_after_s)
                is_done = done.done()
                # It may have died by itself, where it was to die, in this very moment.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM if is_done else signal.SIGKILL)
                code = await asyncio.shield(end)
        except TimeoutError:
            raise AssertionError(f"{step} {count}: it only came to {await found(url)}") from None
        finally:
            done.cancel()
        self._child = self._end = None
        allowed = {-signal.SIGKILL} if not is_done else {0, -signal.SIGKILL} if step else {0}
        assert code in allowed, f"{step} {count}: ended with {code}"
        return code == 0

    async def _buried(self) -> None:
        """Ends the child that a test left behind when it failed."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
        if self._end is not None:
            await self._end
        self._child = self._end = None

    async def _said(self) -> int:
        assert self._process.stdout is not None
        return int(await self._process.stdout.readline())


async def until_done(url: str, cast_: Cast) -> None:
    """Returns once every payment is where it shall end, and nothing is left to do."""
    database = await open_database(url, readers=1)
    ids = {each.terms.id: cast_.ends[name] for name, each in cast_.payments.items()}
    try:
        while True:
            await asyncio.sleep(0.03)
            records = await payments.by_ids(database, list(ids))
            frontier = await cursors.get(database, WATCH_KEY)
            if (
                all(r.payment.state.status is ids[r.payment.terms.id] for r in records)
                and frontier is not None
                and frontier.slot > END
                and not any(r.sightings for r in records)
                and not await dead_letters.count(database)
            ):
                return
    finally:
        await database.close()


async def found(url: str) -> dict[str, Any]:
    """Everything in the database that must not depend on who was killed when."""
    database = await open_database(url, readers=1)
    try:
        tables = {}
        for name, columns in (
            ("payments", "id, status, paid, late, review, received, settled_at, canceled_at"),
            ("verdicts", "*"),
            ("transfers", "*"),
            ("sightings", "payment_id, signature"),
            ("dead_letters", "signature, reason"),
        ):
            [rows] = await database.read([Statement(f"SELECT {columns} FROM {name}")])  # noqa: S608 - our own words
            tables[name] = sorted(rows, key=repr)
        log = await event_log.after(database, 0, limit=10_000)
    finally:
        await database.close()
    told = Counter((event.payment_id, event.type) for event in log)
    return tables | {
        "sequence": [event.seq for event in log] == list(range(1, len(log) + 1)),
        "statuses": {
            (id_, status): told[id_, f"payment.{status}"]
            for id_ in {event.payment_id for event in log}
            for status in STATUS_EVENTS
        },
        "repeated": sorted({key for key, times in told.items() if times > 1}),
    }


async def survived(nursery: Nursery, template: Path, folder: Path, step: str, count: int) -> Any:
    """What is found in the end; None when the indexer never came to that step so often."""
    async with opened(copied(template, folder)) as (url, server), cluster() as node:
        cast_ = cast(node.chain)
        if await nursery.live(url, node, cast_, step=step, count=count):
            return None if step else await found(url)
        if server is not None and count % 2:
            await asyncio.to_thread(server.restart)
        assert await nursery.live(url, node, cast_)
        return await found(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(
    nurseries: list[Nursery], template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder = tmp_path_factory.mktemp("undisturbed") / "life"
    return await survived(nurseries[0], template, folder, "", 0)


async def test_an_undisturbed_life_has_everything_in_it(undisturbed: Any) -> None:
    """Otherwise there would be nothing to lose."""
    statuses = Counter(row[1] for row in undisturbed["payments"])
    assert statuses == {"settled": 9, "expired": 2, "canceled": 1, "pending": 1}
    reviews = {reason for row in undisturbed["payments"] for reason in json.loads(row[4])}
    assert reviews == {Reason.PAID_AGAIN, Reason.PAID_AFTER_CANCEL}
    assert len(undisturbed["verdicts"]) == 13
    assert undisturbed["sequence"]
    assert max(undisturbed["statuses"].values()) == 1
    assert undisturbed["repeated"] == []
    assert undisturbed["sightings"] == undisturbed["dead_letters"] == []


#: Which time of reaching a step kills: of a write every other, until there are no more.
TIMES = {"write": range(1, 100, 2), "fetch": (1, 2, 3, 5), "judge": (1, 2, 3, 5)}
#: On a server only some of them, odd and even: it is killed too at those that are odd.
TIMES_OF_SERVER = {"write": range(1, 100, 5)}


def times(step: str, template: Path) -> Sequence[int]:
    if template.is_dir():
        return TIMES_OF_SERVER.get(step, (1,))
    return TIMES.get(step, (1, 2))


def seeds(**counts: int) -> pytest.MarkDecorator:
    """So many of each backend."""
    cases = zip(NAMES, counts.values(), strict=True)
    return pytest.mark.parametrize(
        ("template", "seed"),
        [(name, seed) for name, count in cases for seed in range(count)],
        indirect=["template"],
    )


@pytest.mark.timeout(300)  # some steps are reached often, and each time is a life of its own
@pytest.mark.parametrize("step", [step for step in STEPS if step not in WEBHOOK_STEPS])
async def test_killed_there_it_ends_as_if_nothing_had_been(
    step: str, nurseries: list[Nursery], template: Path, undisturbed: Any, tmp_path: Path
) -> None:
    points = iter(product(times(step, template), ("before", "after")))
    killed: Counter[str] = Counter()

    async def lives(nursery: Nursery) -> None:
        for count, when in points:
            point = f"{when} {step}"
            end = await survived(nursery, template, tmp_path / f"{when} {count}", point, count)
            if end is None:
                return
            assert end == undisturbed, f"{point}, time {count}"
            killed[when] += 1

    async with asyncio.TaskGroup() as group:
        for nursery in nurseries:
            group.create_task(lives(nursery))

    least = 1 if step != "write" else 3 if template.is_dir() else 9
    assert killed["before"] >= least, "it was not reached"
    assert killed["after"] >= least


@seeds(sqlite=6, libsql=1)
async def test_killed_every_moment_it_ends_as_if_nothing_had_been(
    seed: int, nurseries: list[Nursery], template: Path, undisturbed: Any, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    killed: Counter[int] = Counter()

    async def harried(number: int, nursery: Nursery) -> None:
        place = copied(template, tmp_path / str(number))
        async with opened(place) as (url, server), cluster() as node:
            cast_ = cast(node.chain)
            for _ in range(LIVES_MAX):
                moment_s = chance.uniform(0.03, 0.3)
                if await nursery.live(url, node, cast_, killed_after_s=moment_s):
                    break
                killed[number] += 1
                if server is not None and killed[number] % 2:
                    await asyncio.to_thread(server.restart)
            else:
                assert await nursery.live(url, node, cast_)
            assert await found(url) == undisturbed, f"life {number}"

    async with asyncio.TaskGroup() as group:
        for number, nursery in enumerate(nurseries):
            group.create_task(harried(number, nursery))

    assert min(killed[number] for number in range(AT_ONCE)) > 1


@seeds(sqlite=3, libsql=1)
async def test_several_at_once_do_no_more_than_one(
    seed: int, nurseries: list[Nursery], template: Path, undisturbed: Any, tmp_path: Path
) -> None:
    """Three indexers over one database; one of them is killed and started again and again."""
    chance = random.Random(seed)
    place = copied(template, tmp_path / "shared")
    async with opened(place) as (url, _), cluster() as node:
        cast_ = cast(node.chain)

        async def harried(nursery: Nursery) -> None:
            for _ in range(LIVES_MAX):
                moment_s = chance.uniform(0.03, 0.3)
                if await nursery.live(url, node, cast_, killed_after_s=moment_s):
                    break

        async with asyncio.TaskGroup() as group:
            for nursery in nurseries[:2]:
                group.create_task(nursery.live(url, node, cast_))
            group.create_task(harried(nurseries[2]))

        assert await found(url) == undisturbed
