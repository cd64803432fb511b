"""Every receiver that is enabled has its courier, over real HTTP, and none waits for another."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NoReturn

import pytest
import pytest_asyncio
from standardwebhooks.webhooks import Webhook
from structlog.testing import capture_logs

from api.wakeups import Wakeups
from indexer import courier as courier_module, deliveries as deliveries_module
from indexer.core.standard_webhooks import SigningKey, signing_key
from indexer.courier import AT_ONCE
from indexer.deliveries import Deliveries
from indexer.errors import StoreUnavailable
from indexer.sources.outside import Limits, Outside
from store import webhook_endpoints
from store.database import Database, Rows, Statement, open_database
from store.deliveries import DeliveryState
from store.migrate import migrate
from store.queries import QUERIES
from tests.builders import NOW
from tests.indexer.posting import PATIENCE_S, Script, secret, until
from tests.servers.receiver import Answer, Receiver, hangs, hangs_up
from tests.store.sending import KEY, listed, register, tell


WAITING, DELIVERED, FAILED, DROPPED = DeliveryState


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    yield database
    await database.close()


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries_module, "POLL_INTERVAL_S", 0.02)
    monkeypatch.setattr(deliveries_module, "BREATH_S", 0.005)
    monkeypatch.setattr(courier_module, "PROBE_PAUSE_S_MIN", 0.01)
    monkeypatch.setattr(courier_module, "PROBE_PAUSE_S_MAX", 0.05)


@asynccontextmanager
async def sending(
    database: Database,
    *,
    wakeups: Wakeups | None = None,
    keys: Sequence[SigningKey] = (KEY,),
    timeout_s: float = PATIENCE_S,
) -> AsyncIterator[Deliveries]:
    limits = Limits(timeout_s=timeout_s)
    async with Outside([ip_network("127.0.0.0/8")], limits=limits) as sender:
        wait = (wakeups or Wakeups()).wait
        deliveries = Deliveries(
            database, sender, keys, clock=time.time, wait=wait, draw=lambda: 0.0
        )
        task = asyncio.create_task(deliveries.run())
        try:
            yield deliveries
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def taken(database: Database, id_: str, count: int) -> None:
    """Waits until that many deliveries to the receiver are on record as delivered."""
    async with asyncio.timeout(PATIENCE_S):
        while sum(each.state is DELIVERED for each in await listed(database, id_)) < count:
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------- the plain way


async def test_an_event_arrives_as_the_published_verifier_wants_it(
    database: Database, shop: Receiver
) -> None:
    id_ = await register(database, url=shop.url)
    async with sending(database):
        await tell(database, 1)
        await taken(database, id_, 1)

    [post] = shop.posts
    told = Webhook(secret(id_)).verify(post.body, dict(post.headers))
    assert told == post.json
    assert told["type"] == "payment.created"
    assert told["data"].keys() == {"payment", "order_id", "signature"}
    assert post.headers["content-type"] == "application/json"
    assert post.path in shop.url


async def test_what_was_stored_is_sent_when_woken(
    database: Database, shop: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries_module, "POLL_INTERVAL_S", 10 * PATIENCE_S)
    monkeypatch.setattr(courier_module, "REST_S", 10 * PATIENCE_S)
    wakeups = Wakeups()
    id_ = await register(database, url=shop.url)
    async with sending(database, wakeups=wakeups) as deliveries:
        await until(lambda: deliveries._couriers)
        for number in range(1, 21):
            await tell(database, number)
            wakeups.wake()
            # At any moment of its round: while it looks, breathes or waits.
            await asyncio.sleep(0.001 * number)
        await taken(database, id_, 20)


async def test_what_another_process_stored_is_found_without_being_woken(
    database: Database, shop: Receiver, tmp_path: Path
) -> None:
    other = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    async with sending(database):
        id_ = await register(other, url=shop.url)
        await tell(other, 1)
        await taken(database, id_, 1)
    await other.close()


# --------------------------------------------------------------------- receivers come and go


async def test_receivers_come_and_go_while_it_runs(database: Database) -> None:
    async with Receiver() as one, Receiver() as other, sending(database) as deliveries:
        first = await register(database, 1, url=one.url)
        await tell(database, 1)
        await taken(database, first, 1)

        second = await register(database, 2, url=other.url)
        await database.write(webhook_endpoints.disable(first, "said why", NOW))
        await until(lambda: deliveries._couriers.keys() == {second})
        await tell(database, 2)
        await taken(database, second, 1)

        await database.write([webhook_endpoints.enable(first, NOW)])
        await database.write(webhook_endpoints.delete(second, NOW))
        await until(lambda: deliveries._couriers.keys() == {first})
        await tell(database, 3)
        await taken(database, first, 2)

    assert [post.payment[-1] for post in one.posts] == ["1", "3"]
    assert [post.payment[-1] for post in other.posts] == ["2"]


async def test_who_is_disabled_is_not_even_sent_what_is_under_way(
    database: Database, shop: Receiver
) -> None:
    id_ = await register(database, url=shop.url)
    shop.answer = hangs
    await tell(database, *range(1, 3 * AT_ONCE))
    async with sending(database) as deliveries:
        await until(lambda: len(shop.posts) == AT_ONCE)
        _, courier = deliveries._couriers[id_]
        await database.write(webhook_endpoints.disable(id_, "said why", NOW))
        await until(lambda: not deliveries._couriers and courier.done())
        shop.answer = Answer()
        await database.write([webhook_endpoints.enable(id_, NOW)])
        await tell(database, 1_000)
        await taken(database, id_, 1)

    assert len(shop.posts) == AT_ONCE + 1
    states = [each.state for each in await listed(database, id_)]
    assert states == [DROPPED] * (3 * AT_ONCE - 1) + [DELIVERED]


async def test_a_secret_that_is_rotated_while_it_runs_signs_from_then_on(
    database: Database, shop: Receiver
) -> None:
    id_ = await register(database, url=shop.url)
    async with sending(database) as deliveries:
        await tell(database, 1)
        await taken(database, id_, 1)
        endpoint = deliveries._couriers[id_][0].endpoint
        rotation = webhook_endpoints.rotate(
            endpoint, key_id=KEY.id, overlap_s=3_600, now=int(time.time())
        )
        await database.write([rotation])
        await until(lambda: deliveries._couriers[id_][0].endpoint.signer.generation == 2)
        await tell(database, 2)
        await taken(database, id_, 2)

    for post, generations in zip(shop.posts, ((1,), (1, 2)), strict=True):
        assert len(post.headers["webhook-signature"].split()) == len(generations)
        for generation in generations:
            Webhook(secret(id_, generation)).verify(post.body, dict(post.headers))


# ------------------------------------------------------------------------- none waits for another


async def test_a_slow_one_and_a_dead_one_delay_nobody(database: Database) -> None:
    async with Receiver() as slow, Receiver() as dead, Receiver() as well:
        slow.answer = hangs
        await dead.die()
        slow_id, dead_id, well_id = [
            await register(database, number, url=each.url)
            for number, each in enumerate((slow, dead, well), start=1)
        ]
        async with sending(database) as deliveries:
            for first in range(1, 201, 50):
                await tell(database, *range(first, first + 50), count=3)
            await taken(database, well_id, 600)

            assert len(slow.posts) == slow.at_once == AT_ONCE, "it has its own places"
            assert dead.posts == []
            assert deliveries.problem is None, "that they are away is no problem of ours"
            assert deliveries.outcomes["delivered"] == 600

            await dead.rise()
            await taken(database, dead_id, 600)

    assert {each.state for each in await listed(database, slow_id)} == {WAITING}
    for receiver in (well, dead):
        order: dict[str, list[int]] = {}
        for post in receiver.posts:
            order.setdefault(post.payment, []).append(post.version)
        assert set(map(tuple, order.values())) == {(1, 2, 3)}
        assert receiver.at_once_max <= AT_ONCE


async def test_who_does_not_answer_in_time_has_failed(database: Database, shop: Receiver) -> None:
    id_ = await register(database, url=shop.url)
    shop.answer = hangs
    async with sending(database, timeout_s=0.1):
        await tell(database, 1)
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await listed(database, id_))[0].attempts:
                await asyncio.sleep(0.01)

    assert (found[0].state, found[0].attempts) == (WAITING, 1)


async def test_who_hangs_up_after_it_has_taken_it_gets_it_again(
    database: Database, shop: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.core.delivery.DELAYS_S", (0,) * 9)
    id_ = await register(database, url=shop.url)
    shop.once(hangs_up)
    async with sending(database):
        await tell(database, 1, count=2)
        await taken(database, id_, 2)

    assert [post.version for post in shop.posts] == [1, 1, 2]
    assert shop.ids[0] == shop.ids[1]


async def test_no_redirect_is_followed(database: Database, shop: Receiver) -> None:
    id_ = await register(database, url=shop.url)
    async with Receiver() as elsewhere, sending(database):
        shop.answer = Answer(status=302, headers={"Location": elsewhere.url})
        await tell(database, 1)
        await until(lambda: shop.posts)
        async with asyncio.timeout(PATIENCE_S):
            while not (await listed(database, id_))[0].attempts:
                await asyncio.sleep(0.01)

    assert elsewhere.posts == []


async def test_receivers_for_which_nothing_is_due_cost_no_reads(
    database: Database, shop: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every commit wakes: that many receivers times that many commits would be a storm."""
    shop.answer = Answer(status=500)
    failing = await register(database, 1, url=shop.url)
    for number in range(2, 51):
        await register(database, number, url=shop.url, event_types=["payment.settled"])
    await tell(database, 1, count=3)
    reads, read = Counter[str](), database.read

    async def counting(batch: Sequence[Statement]) -> list[Rows]:
        reads.update(statement.sql for statement in batch)
        return await read(batch)

    wakeups = Wakeups()
    async with sending(database, wakeups=wakeups):
        async with asyncio.timeout(PATIENCE_S):
            while not (await listed(database, failing))[0].attempts:
                await asyncio.sleep(0.01)
        monkeypatch.setattr(database, "read", counting)
        async with asyncio.timeout(PATIENCE_S):
            while reads[QUERIES["webhook_deliveries_next"]] < 20:
                wakeups.wake()
                await asyncio.sleep(0.001)

    of_receivers = reads.pop(QUERIES["webhook_endpoints_enabled"])
    of_all = reads.pop(QUERIES["webhook_deliveries_next"])
    assert of_receivers - of_all in {0, 1}
    assert reads.total() <= 2, "what is held back, or waits for its time, is not asked for"


# ----------------------------------------------------------------------------------- trouble


async def test_a_signing_key_that_is_gone_is_a_problem_of_one_receiver(
    database: Database,
) -> None:
    other_key = signing_key("another key, of which nobody knows any more")
    async with Receiver() as one, Receiver() as other:
        orphan = await register(database, 1, url=one.url, key=other_key)
        id_ = await register(database, 2, url=other.url)
        async with sending(database) as deliveries:
            await tell(database, 1)
            await taken(database, id_, 1)
            await until(lambda: deliveries.problem)
            assert orphan in (deliveries.problem or "")
            assert one.posts == []

            await database.write(webhook_endpoints.disable(orphan, "said why", NOW))
            await until(lambda: deliveries.problem is None)


@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
async def test_wherever_it_is_stopped_the_next_one_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, is_before: bool
) -> None:
    """Stopped once at each step: before it reads, writes or posts, or after it did."""
    id_ = await register(database)
    await tell(database, 1, 2, count=20)
    script, steps, stop_at = Script(), 0, 0
    read, write, post = database.read, database.write, script.post
    work: asyncio.Task[NoReturn] | None = None

    def around(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def stepping(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            is_last = steps == stop_at
            if is_last and is_before and work is not None:
                work.cancel()
            result = await step(*arguments)
            if is_last and work is not None:
                work.cancel()
            return result

        return stepping

    monkeypatch.setattr(database, "read", around(read))
    monkeypatch.setattr(database, "write", around(write))
    monkeypatch.setattr(script, "post", around(post))
    left = 40
    while left:
        steps, stop_at = 0, stop_at + 1
        deliveries = Deliveries(
            database, script, [KEY], clock=lambda: NOW, wait=Wakeups().wait, draw=lambda: 0.0
        )
        work = asyncio.create_task(deliveries.run())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({work})
        assert work.cancelled()
        work = None
        left = sum(each.state is WAITING for each in await listed(database, id_))

    assert {each.state for each in await listed(database, id_)} == {DELIVERED}
    first = dict.fromkeys(script.places)
    for number in (1, 2):
        assert [version for of, version in first if of == number] == [*range(1, 21)]
    assert stop_at > 8, "it was stopped at many different steps"


async def test_a_store_that_cannot_be_read_is_a_problem_until_it_can(
    database: Database, shop: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await register(database, url=shop.url)
    await tell(database, 1)
    read, is_down = database.read, True

    async def fail_while_down(batch: Sequence[Statement]) -> list[Rows]:
        if is_down:
            raise StoreUnavailable("locked")
        return await read(batch)

    monkeypatch.setattr(database, "read", fail_while_down)
    async with sending(database) as deliveries:
        await until(lambda: deliveries.problem == "locked")
        is_down = False
        await taken(database, id_, 1)
        await until(lambda: deliveries.problem is None)


async def test_nothing_of_a_url_past_its_host_is_logged(database: Database, shop: Receiver) -> None:
    id_ = await register(database, url=shop.url)
    shop.once(Answer(status=500, body=b"canary-answer"))
    with capture_logs() as logs:
        async with sending(database):
            await tell(database, 1, 2)
            await taken(database, id_, 1)
            await shop.die()
            await tell(database, 3)
            async with asyncio.timeout(PATIENCE_S):
                while not (await listed(database, id_))[-1].attempts:
                    await asyncio.sleep(0.01)
            await until(lambda: len(logs) >= 3)

    assert "canary" not in repr(logs)
    assert secret(id_).removeprefix("whsec_") not in repr(logs)
