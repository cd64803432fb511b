"""Dead letters come to life by themselves, or wait for a person."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from indexer import parked as parked_module
from indexer.errors import StoreUnavailable
from indexer.parked import Parked
from indexer.pipeline import RETRY_DELAY_S_MAX, UNREADABLE_ATTEMPTS_MAX
from store.database import Rows
from tests.indexer.stage import EXPIRES_AT, FINAL_SLOT, WATCH_KEY, Stage, stage
from tests.servers.fake_rpc import http, result


def retrying(it: Stage) -> Parked:
    return Parked(it.database, it.pipeline, clock=it.clock)


async def test_a_letter_is_tried_when_it_is_due_and_gone_when_it_is_read(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, parked = await it.expect(), retrying(it)
        found = it.pay(order)
        it.node.hidden.add(found.signature)
        await it.settle(found)
        tries = len(it.fetched())

        await parked.retry_due()
        assert len(it.fetched()) == tries, "not due yet"

        it.clock.now += 1
        await parked.retry_due()
        (letter,) = await it.letters()
        assert (letter.attempts, letter.next_try_at) == (2, int(it.clock.now) + 2)

        it.node.hidden.clear()
        it.clock.now += 2
        await parked.retry_due()
        assert await it.letters() == []
        assert await it.events(order) == ["created", "settled"]


async def test_it_is_never_given_up_while_no_node_has_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, parked = await it.expect(), retrying(it)
        found = it.pay(order)
        it.node.hidden.add(found.signature)
        await it.settle(found)

        for _ in range(30):
            it.clock.now += RETRY_DELAY_S_MAX
            await parked.retry_due()

        (letter,) = await it.letters()
        assert letter.attempts == 31
        assert letter.next_try_at is not None


async def test_an_unreadable_one_waits_for_a_person_and_no_longer_holds_up_expiry(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(name="order"), await it.expect(name="other")
        parked, sweeper = retrying(it), it.sweeper()
        it.pay(order)
        it.node.fail("getTransaction", result(7), times=None)
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 1
        await sweeper.sweep(WATCH_KEY)
        assert await it.events(other) == ["created"]

        for _ in range(UNREADABLE_ATTEMPTS_MAX + 3):
            it.clock.now += RETRY_DELAY_S_MAX
            await parked.retry_due()
        (letter,) = await it.letters()
        assert (letter.attempts, letter.payload) == (UNREADABLE_ATTEMPTS_MAX, b"7")

        it.chain.block_times[FINAL_SLOT + 1] = EXPIRES_AT + 2
        it.chain.finalize(FINAL_SLOT + 1)
        await sweeper.sweep(WATCH_KEY)
        assert await it.events(other) == ["created", "expired"]


async def test_many_letters_are_tried_a_batch_at_a_time(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        parked = retrying(it)
        found = [
            it.pay(await it.expect(name=f"order {n}"), name=f"tx {n}")
            for n in range(parked_module.BATCH_SIZE + 1)
        ]
        it.node.hidden.update(each.signature for each in found)
        await it.settle(*found)
        it.node.hidden.clear()
        it.clock.now += 1

        await parked.retry_due()
        assert len(await it.letters()) == 1
        await parked.retry_due()
        assert await it.letters() == []


async def test_failures_cost_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path) as it:
        monkeypatch.setattr(parked_module, "INTERVAL_S", 0.01)
        order = await it.expect()
        found = it.pay(order)
        it.node.fail("getTransaction", http(500), times=None)
        await it.settle(found)
        it.node.heal()
        it.clock.now += 1
        write, failures = it.database.write, [StoreUnavailable("disk full")] * 2

        async def fail_first(batch: object) -> list[Rows]:
            if failures:
                raise failures.pop()
            return await write(batch)  # type: ignore[arg-type]  # passed on as it came

        monkeypatch.setattr(it.database, "write", fail_first)
        task = asyncio.create_task(retrying(it).run())
        try:
            async with asyncio.timeout(10):
                while await it.letters():
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert await it.events(order) == ["created", "settled"]
