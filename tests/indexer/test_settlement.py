"""What new facts make of a payment that is stored, and what they leave alone."""

from pathlib import Path

import pytest

from indexer.core.types import Reason, Status
from indexer.settlement import settlement
from tests.indexer.stage import EXPIRES_AT, FINAL_SLOT, GRACE_S, WATCH_KEY, stage


async def test_where_nothing_is_new_nothing_is_written(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.settle(it.pay(order))

        assert settlement(await it.record(order), now=EXPIRES_AT + 1) == []


async def test_only_what_is_complete_beyond_the_deadline_expires(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        record = await it.record(order)
        assert settlement(record, now=EXPIRES_AT + 1) == []
        assert settlement(record, now=EXPIRES_AT + 1, complete_to=EXPIRES_AT) == []

        batch = settlement(record, now=EXPIRES_AT + 1, complete_to=EXPIRES_AT + 1)
        await it.database.write(batch)

        assert await it.events(order) == ["created", "expired"]


async def test_dust_expires_nothing_while_something_is_unknown(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found, dust = it.pay(order), it.pay(order, amount=1)
        it.node.hidden.add(found.signature)
        await it.settle(found)
        await it.advance(FINAL_SLOT, EXPIRES_AT + 1)

        await it.settle(dust)
        assert await it.events(order) == ["created", "partially_paid"]

        it.node.hidden.clear()
        await it.settle(found)
        assert await it.events(order) == ["created", "partially_paid", "settled"]


@pytest.mark.parametrize(
    ("paid_at", "status", "late", "review"),
    [
        (EXPIRES_AT, Status.SETTLED, False, ()),
        (EXPIRES_AT + 1, Status.SETTLED, True, ()),
        (EXPIRES_AT + GRACE_S, Status.SETTLED, True, ()),
        (EXPIRES_AT + GRACE_S + 1, Status.EXPIRED, True, (Reason.LATE_AFTER_GRACE,)),
    ],
)
async def test_an_expired_payment_takes_late_money_or_stays_expired(
    tmp_path: Path, paid_at: int, status: Status, late: bool, review: tuple[Reason, ...]
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 10
        await it.check(order)
        await it.sweeper().sweep(WATCH_KEY)
        assert await it.events(order) == ["created", "expired"]
        found = it.pay(order, slot=FINAL_SLOT - 1, block_time=paid_at)

        await it.settle(found)

        state = (await it.record(order)).payment.state
        assert (state.status, state.late, state.review) == (status, late, review)


async def test_an_expired_payment_stays_so_when_dust_comes(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 10
        await it.check(order)
        await it.sweeper().sweep(WATCH_KEY)

        await it.settle(it.pay(order, amount=1, slot=FINAL_SLOT - 1))

        assert await it.events(order) == ["created", "expired", "partially_paid"]
