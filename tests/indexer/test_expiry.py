"""Expiry: only what nobody can have paid."""

from pathlib import Path
from typing import Any

import pytest

from indexer import expiry
from store import payments
from tests.indexer.stage import EXPIRES_AT, FINAL_SLOT, WATCH_KEY, stage
from tests.servers.fake_rpc import null


async def test_what_was_held_up_expires_also_where_the_chain_stands_still(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, unpaid = await it.expect(name="order"), await it.expect(name="unpaid")
        found, sweeper = it.pay(order), it.sweeper()
        it.node.fail("getTransaction", null(), times=None)
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 1
        await it.check(unpaid)
        await sweeper.sweep(WATCH_KEY)
        assert await it.events(unpaid) == ["created"]

        it.node.heal()
        await it.settle(found)
        await sweeper.sweep(WATCH_KEY)

        assert await it.events(unpaid) == ["created", "expired"]


async def test_a_payment_that_is_paid_in_the_last_second_does_not_expire(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, unpaid = await it.expect(name="order"), await it.expect(name="unpaid")
        it.pay(order, block_time=EXPIRES_AT)
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 1
        await it.check(order, unpaid)

        await it.sweeper().sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "settled"]
        assert await it.events(unpaid) == ["created", "expired"]


async def test_the_second_of_the_deadline_is_still_in_time(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT
        await it.check(order)

        await it.sweeper().sweep(WATCH_KEY)

        assert await it.events(order) == ["created"]


async def test_what_was_sighted_is_not_given_up_before_it_is_judged(tmp_path: Path) -> None:
    """Lists may come late; what was seen in a slot that is final now may pay after all."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=FINAL_SLOT + 5)
        await it.pipeline.sight([found])
        it.node.hidden.add(found.signature)
        it.chain.block_times[FINAL_SLOT + 5] = EXPIRES_AT + 1
        it.chain.finalize(FINAL_SLOT + 5)
        await it.check(order)

        await it.sweeper().sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "detected"]


async def test_a_canceled_payment_does_not_expire_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(name="order"), await it.expect(name="other")
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 1
        await it.check(order, other)
        read = payments.expirable

        async def read_then_cancel(*args: Any, **kwargs: Any) -> Any:
            records = await read(*args, **kwargs)
            if await it.events(order) == ["created"]:
                await it.cancel(order)
            return records

        monkeypatch.setattr(payments, "expirable", read_then_cancel)

        await it.sweeper().sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "canceled"]
        assert await it.events(other) == ["created", "expired"]


async def test_more_payments_than_one_write_takes_expire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        monkeypatch.setattr(expiry, "EXPIRY_BATCH", 2)
        unpaid = [await it.expect(name=f"unpaid {n}") for n in range(5)]
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 1
        await it.check(*unpaid)

        await it.sweeper().sweep(WATCH_KEY)

        for each in unpaid:
            assert await it.events(each) == ["created", "expired"]


async def test_a_key_without_a_frontier_ends_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 1
        await it.check(order)
        ending = expiry.Expiry(it.database, it.pipeline, clock=it.clock)

        await ending.expire(WATCH_KEY)
        assert await it.events(order) == ["created"]

        await it.advance(FINAL_SLOT, EXPIRES_AT + 1)
        await ending.expire(WATCH_KEY)
        assert await it.events(order) == ["created", "expired"]
