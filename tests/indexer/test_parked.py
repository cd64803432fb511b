"""Dead letters come to life by themselves, or wait for a person."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from indexer import parked as parked_module
from indexer.errors import StoreUnavailable
from indexer.parked import Parked
from indexer.pipeline import (
    DENIED_ATTEMPTS_MIN,
    RETRY_DELAY_S_MAX,
    UNREADABLE_ATTEMPTS_MAX,
    Found,
    Unread,
)
from store import dead_letters
from store.database import Rows
from store.dead_letters import DeadLetter
from tests.indexer.daemons import hurry, running, settings_for, until_events, until_swept
from tests.indexer.stage import EXPIRES_AT, FINAL_SLOT, WATCH_KEY, Stage, forged, stage
from tests.servers.fake_rpc import http, result, rpc_error


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
        await it.check(other)
        await sweeper.sweep(WATCH_KEY)
        assert await it.events(other) == ["created"]

        for _ in range(UNREADABLE_ATTEMPTS_MAX + 3):
            it.clock.now += RETRY_DELAY_S_MAX
            await parked.retry_due()
        (letter,) = await it.letters()
        assert (letter.attempts, letter.payload) == (UNREADABLE_ATTEMPTS_MAX, b"7")

        it.chain.block_times[FINAL_SLOT + 1] = EXPIRES_AT + 2
        it.chain.finalize(FINAL_SLOT + 1)
        await it.check(order)
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
            async with asyncio.timeout(90):
                while await it.letters():
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert await it.events(order) == ["created", "settled"]


@pytest.mark.parametrize(("liars", "next_tries"), [(1, 0), (2, 1)])
async def test_what_one_endpoint_alone_remembers_waits_for_a_person(
    tmp_path: Path, liars: int, next_tries: int
) -> None:
    """It may have made it up, and must not hold back every expiry for ever."""
    async with stage(tmp_path, nodes=3, quorum=2) as it:
        order, parked = await it.expect(), retrying(it)
        found = it.pay(order)
        for node in it.nodes:
            node.hidden.add(found.signature)
        known = {"slot": found.slot, "err": None, "confirmationStatus": "finalized"}
        answer = {"context": {"slot": found.slot}, "value": [known]}
        for node in it.nodes[:liars]:
            node.fail("getSignatureStatuses", result(answer), times=None)
        await it.settle(found)

        for _ in range(DENIED_ATTEMPTS_MIN):
            (letter,) = await it.letters()
            assert letter.next_try_at is not None or letter.attempts == DENIED_ATTEMPTS_MIN
            it.clock.now += RETRY_DELAY_S_MAX
            await parked.retry_due()

        (letter,) = await it.letters()
        assert (letter.reason, letter.next_try_at is not None) == ("not_found", bool(next_tries))


async def test_endpoints_that_do_not_answer_deny_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=3, quorum=2) as it:
        order, parked = await it.expect(), retrying(it)
        found = it.pay(order)
        for node in it.nodes:
            node.hidden.add(found.signature)
        for node in it.nodes[1:]:
            node.fail("getSignatureStatuses", rpc_error(-32601), times=None)
        await it.settle(found)

        for _ in range(DENIED_ATTEMPTS_MIN + 2):
            it.clock.now += RETRY_DELAY_S_MAX
            await parked.retry_due()

        (letter,) = await it.letters()
        assert letter.next_try_at is not None


async def test_one_that_hangs_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        orders = [await it.expect(name=f"order {n}") for n in range(3)]
        found = [it.pay(order, name=f"tx {n}") for n, order in enumerate(orders)]
        it.node.hidden.update(each.signature for each in found)
        await it.settle(*found)
        it.node.hidden.clear()
        it.clock.now += RETRY_DELAY_S_MAX
        answering, parked = asyncio.Event(), retrying(it)
        settle = it.pipeline.settle

        async def hang(several: Sequence[Found]) -> list[Unread]:
            if several[0].signature == found[1].signature:
                await answering.wait()
            return await settle(several)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(it.pipeline, "settle", hang)
            first = asyncio.create_task(parked.retry_due())
            async with asyncio.timeout(90):
                while len(await it.letters()) > 1:
                    await asyncio.sleep(0.01)
            tries = len(it.fetched())
            await parked.retry_due()
            assert len(it.fetched()) == tries, "what is under way is not begun again"
            answering.set()
            await first
        assert await it.letters() == []


async def test_a_thousand_letters_do_not_keep_a_payment_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch.setattr)
    async with stage(tmp_path) as it, it.chain.ticking():
        letters = [
            DeadLetter(
                signature=forged(f"lost {n}"),
                key=WATCH_KEY,
                slot=FINAL_SLOT,
                reason="not_found",
                detail="no node has it",
                payload=None,
                attempts=1,
                next_try_at=0,
                created_at=0,
                updated_at=0,
            )
            for n in range(1_000)
        ]
        await it.database.write([dead_letters.park(letter) for letter in letters])
        it.node.silent = True  # nothing rings: only a sweep finds it
        order = await it.expect(expires_at=EXPIRES_AT + 10**6)
        settings = settings_for(tmp_path, it.node, rpc_rate=100)
        async with running(settings, api=True) as daemon:
            await until_swept(it.database)
            it.pay(order, slot=it.chain.tip + 1)
            await until_events(it, order, "settled", also="detected")
            problems = await daemon.until_ready("degraded", "dead_letters")

        assert problems["dead_letters"].startswith("1000 transactions could not be examined")
        assert len(await it.letters()) == 1_000
