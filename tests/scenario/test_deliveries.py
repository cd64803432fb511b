"""Ten thousand events for three receivers: one is well, one is slow, and one is dead for long.

On a libSQL server they are three thousand: it takes longer for each.

The process that sends them is killed in the middle, twice. Everything is real: the store on disk,
the triggers that make deliveries, HTTP over loopback, the signatures.
"""

import asyncio
import itertools
import random
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from indexer.core.standard_webhooks import event_id, secret_of
from indexer.courier import AT_ONCE
from store import deliveries, events
from store.database import Database, open_database
from store.migrate import migrate
from tests.builders import make_payment
from tests.scenario.conftest import Place
from tests.servers.receiver import Answer, Fate, Post, Receiver, hangs
from tests.store.sending import KEY, history, register, told


ROOT = Path(__file__).resolve().parents[2]

PAYMENTS = {"sqlite": 2_500, "libsql": 750}
EVENTS_EACH = 4
#: Payments whose events are written at once.
BATCH = 125

#: Seconds that may pass without any progress.
PATIENCE_S = 90.0


@asynccontextmanager
async def sending(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that sends; told to stop at the end, if it is still there."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.scenario.delivery_child",
        url,
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            assert await child.wait() in {0, -signal.SIGKILL}


async def until(*counts: Callable[[], int], reach: int) -> None:
    """Waits until all reach a number, as long as any of them still grows."""
    loop = asyncio.get_running_loop()
    best, moved_at = 0, loop.time()
    while min(found := [count() for count in counts]) < reach:
        if sum(found) > best:
            best, moved_at = sum(found), loop.time()
        assert loop.time() - moved_at < PATIENCE_S, f"stands still at {found} of {reach}"
        await asyncio.sleep(0.05)


async def happen(database: Database, count: int, seed: int) -> None:
    """All events, those of many payments mixed with one another."""
    rng = random.Random(seed)
    for first in range(0, count, BATCH):
        numbers = range(first, first + BATCH)
        payments = [make_payment(number) for number in numbers]
        batch = [statement for payment in payments for statement in told(payment)]
        rest = [iter(history(payment, EVENTS_EACH)[1:]) for payment in payments]
        while rest:
            turn = rng.choice(rest)
            event = next(turn, None)
            if event is None:
                rest.remove(turn)
            else:
                batch.append(events.append(event))
        await database.write(batch)


def sluggish(seed: int) -> Callable[[Post], Answer | Fate]:
    """Takes 50 to 200 ms for an answer, and now and then never gives one."""
    rng = random.Random(seed)
    return lambda _: hangs if rng.random() < 0.002 else Answer(delay_s=rng.uniform(0.05, 0.2))


class Got:
    """What a receiver has, counted as it comes."""

    def __init__(self, receiver: Receiver, payments: int) -> None:
        self._receiver = receiver
        self._payments = payments
        self._seen = 0
        self.ids: dict[str, int] = {}

    def __call__(self) -> int:
        """How many different events."""
        posts = self._receiver.posts
        for number in range(self._seen, len(posts)):
            self.ids.setdefault(posts[number].id, number)
        self._seen = len(posts)
        return len(self.ids)

    def judge(self, endpoint_id: str) -> None:
        """It has all, each payment's events in order, each one signed for it."""
        posts = self._receiver.posts
        assert self() == self._payments * EVENTS_EACH
        wanted = {
            event_id(make_payment(number).terms.id, version, 0)
            for number, version in itertools.product(
                range(self._payments), range(1, EVENTS_EACH + 1)
            )
        }
        assert self.ids.keys() == wanted
        order: defaultdict[str, list[int]] = defaultdict(list)
        for number in self.ids.values():
            order[posts[number].payment].append(posts[number].version)
        assert set(map(tuple, order.values())) == {tuple(range(1, EVENTS_EACH + 1))}
        verifier = Webhook(secret_of(KEY, endpoint_id, 1))
        for post in posts:
            verifier.verify(post.body, dict(post.headers), json_parse=False)
        bodies = {(post.id, post.body) for post in posts}
        assert len(bodies) == len(wanted), "what is sent again is the same"


@pytest.mark.timeout(300)
async def test_a_slow_and_a_dead_receiver_and_two_kills_cost_a_third_one_nothing(
    place: Place,
) -> None:
    url, count = place.url, PAYMENTS["sqlite" if place.server is None else "libsql"]
    total = count * EVENTS_EACH
    async with AsyncExitStack() as stack:
        well, slow, dead = [await stack.enter_async_context(Receiver()) for _ in range(3)]
        of_well, of_slow, of_dead = Got(well, count), Got(slow, count), Got(dead, count)
        await dead.die()
        slow.choice = sluggish(1)

        database = await open_database(url)
        stack.push_async_callback(database.close)
        await migrate(database)
        ids = [
            await register(database, number, url=each.url)
            for number, each in enumerate((well, slow, dead), start=1)
        ]
        happening = asyncio.create_task(happen(database, count, 1))

        for part in (total // 3, total * 2 // 3):
            async with sending(url) as child:
                await until(of_well, reach=part)
                child.send_signal(signal.SIGKILL)
                await child.wait()

        async with sending(url):
            await until(of_well, reach=total)
            await happening
            assert of_slow() < total // 2, "the slow one is still busy"
            assert dead.posts == [], "the dead one is still dead"
            # One that the killed process had not noted yet came again, and nothing else did.
            assert len(well.posts) - total <= 2 * AT_ONCE

            await dead.rise()
            slow.choice = None
            await until(of_slow, of_dead, reach=total)
            await noted(database, 3 * total)

        for got, id_ in zip((of_well, of_slow, of_dead), ids, strict=True):
            got.judge(id_)
        assert max(Counter(dead.ids).values()) == 1, "nothing was sent twice that was noted"


async def noted(database: Database, count: int) -> None:
    """Waits until that many deliveries are on record as delivered."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await deliveries.counts(database)).delivered < count:
            await asyncio.sleep(0.05)
    assert (found.waiting, found.failed, found.dropped) == (0, 0, 0)
