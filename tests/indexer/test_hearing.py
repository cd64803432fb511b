"""What an audit hears of the chain: all that is listed, all that is stored, and no more."""

from dataclasses import replace
from pathlib import Path

import pytest

from indexer import hearing as hearing_module
from indexer.core.payment import Payment
from indexer.core.ranges import Slots
from indexer.errors import SourceUnavailable
from indexer.hearing import Heard, Hearing, Moved
from store import audit, dead_letters, gaps
from store.database import Statement
from store.gaps import GapReason
from tests.chain import BLOCK_TIME, key, sol_transfer
from tests.indexer.stage import AMOUNT, BUYER, FINAL_SLOT, SHOP, WATCH_KEY, Stage, forged, stage
from tests.servers.fake_rpc import http, result


async def hear(it: Stage, *payments: Payment, since: int = 0) -> tuple[list[Heard], list[Moved]]:
    snapshot = await audit.snapshot(it.database, [each.terms.id for each in payments])
    hearing = Hearing(it.database, it.rpc, it.pipeline, since=since)
    heard, moved = await hearing.hear(snapshot, FINAL_SLOT)
    return list(heard.values()), moved


async def pretend(it: Stage, order: Payment, signature: str) -> None:
    """A verdict that somebody wrote into the database."""
    sql = (
        "INSERT INTO verdicts (signature, payment_id, slot, credit, clean, reasons, evidence)"
        " VALUES (?, ?, 1, '0', 1, '[]',"
        ' \'{"bound":0,"debited":0,"delta":0,"other_inflow":0,"fee_lamports":0}\')'
    )
    await it.database.write([Statement(sql, (signature, order.terms.id))])


async def test_what_the_chain_lists_is_judged_whatever_is_stored(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)

        ([heard], [moved]) = await hear(it, order)

        assert heard.verdicts[found.signature].credit == AMOUNT
        assert (heard.unproven, heard.unread) == (None, {})
        assert (moved.owner, list(moved.credits)) == (order.terms.id, [])


async def test_what_is_stored_and_not_listed_is_looked_up(tmp_path: Path) -> None:
    """Such as a reference that came from a lookup table, which some nodes do not index."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        landed = sol_transfer(BUYER, SHOP, AMOUNT, references=[order.terms.reference], slot=900)
        signature = it.chain.add(landed, mentions=[])
        await it.settle(it.found(landed))

        ([heard], _) = await hear(it, order)

        assert heard.listed == {}
        assert heard.verdicts[signature].credit == AMOUNT


async def test_what_no_node_has_is_not(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await pretend(it, order, forged("never"))

        ([heard], _) = await hear(it, order)

        assert (heard.verdicts, heard.unread) == ({}, {})


async def test_what_is_listed_and_cannot_be_found_is_not_told(tmp_path: Path) -> None:
    """A node that lists it and one that does not have it contradict each other."""
    async with stage(tmp_path) as it:
        order, other = await it.expect(), await it.expect(name="other")
        found = it.pay(order)
        it.node.fail("getTransaction", result(None), times=None)

        (heard, heard_other), _ = await hear(it, order, other)

        assert heard.unread.keys() == {found.signature}
        assert heard_other.unread == {}


async def test_where_history_is_not_whole_nothing_is_called_missing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await pretend(it, order, forged("long ago"))
        it.node.first_available = 900
        it.chain.block_times[900] = order.terms.created_at + 1

        ([heard], _) = await hear(it, order)

        assert heard.unproven == "no endpoint keeps anything before slot 900"
        assert heard.unread.keys() == {forged("long ago")}


async def test_one_that_nobody_lists_is_not_told_and_the_others_are(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        one, other = await it.expect(name="one"), await it.expect(name="other")
        it.node.fail("getSignaturesForAddress", http(404))

        heard, _ = await hear(it, one, other)

        assert sorted(each.is_silent for each in heard) == [False, True]
        it.node.fail("getSignaturesForAddress", http(404), times=None)
        with pytest.raises(SourceUnavailable):
            await hear(it, one, other)


async def test_a_failed_transaction_is_read_only_where_it_is_stored(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        stored, other = await it.expect(name="stored"), await it.expect(name="other")
        failed = {"err": {"InstructionError": [0, "Custom"]}}
        await it.settle(it.pay(stored, name="failed 1", **failed))
        it.pay(other, name="failed 2", **failed)
        asked = len(it.fetched())

        (heard, heard_other), _ = await hear(it, stored, other)

        assert len(it.fetched()) == asked + 1
        assert (len(heard.verdicts), len(heard_other.verdicts)) == (1, 0)


async def test_more_signatures_than_can_be_looked_at_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing_module, "SIGNATURES_MAX", 2)
    async with stage(tmp_path) as it:
        order = await it.expect()
        for n in range(3):
            it.pay(order, amount=n + 1, slot=900 + n)

        ([heard], _) = await hear(it, order)

        assert heard.unproven == "more than 2 transactions name it"
        assert heard.verdicts == {}


# ------------------------------------------------------------------------------------- excuses


async def excuse(it: Stage, order: Payment) -> str | None:
    ([heard], _) = await hear(it, order)
    return next(iter(heard.excused.values()), None)


async def test_the_frontier_that_must_have_found_it_is_the_one_that_counts(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order)
        assert await excuse(it, order) == f"the store has not come to slot {FINAL_SLOT} yet"

        await it.advance(FINAL_SLOT - 1, BLOCK_TIME)
        assert await excuse(it, order) == f"the store has not come to slot {FINAL_SLOT} yet"

        await it.advance(FINAL_SLOT, BLOCK_TIME)
        assert await excuse(it, order) is None


async def test_the_watch_key_finds_only_what_carries_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.chain.add(
            sol_transfer(BUYER, SHOP, AMOUNT, references=[order.terms.reference], slot=FINAL_SLOT)
        )
        await it.advance(FINAL_SLOT, BLOCK_TIME)
        assert await excuse(it, order) is not None

        await it.advance(FINAL_SLOT, BLOCK_TIME, watched=order.terms.reference)
        assert await excuse(it, order) is None


async def test_what_lies_in_an_open_gap_may_be_missing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order)
        await it.advance(FINAL_SLOT, BLOCK_TIME)
        slots, now = Slots(FINAL_SLOT - 5, FINAL_SLOT), BLOCK_TIME
        await it.database.write([gaps.note(WATCH_KEY, slots, GapReason.PRUNED, now)])

        assert await excuse(it, order) == f"slot {FINAL_SLOT} lies in a gap that is still open"


async def test_what_is_set_aside_may_be_missing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        it.node.hidden.add(found.signature)
        await it.settle(found)
        it.node.hidden.clear()
        await it.advance(FINAL_SLOT, BLOCK_TIME)
        assert await excuse(it, order) == "set aside: not_found"

        await it.database.write([dead_letters.resolve(found.signature)])
        assert await excuse(it, order) is None


# --------------------------------------------------------------------------------------- money


async def test_a_transaction_is_entered_once_with_all_that_it_paid(tmp_path: Path) -> None:
    """By the oldest payment of the period that it concerns, whoever else is looked at."""
    async with stage(tmp_path) as it:
        old = await it.expect(name="old", created_at=BLOCK_TIME - 50)
        new = await it.expect(name="new", created_at=BLOCK_TIME - 40)
        await it.settle(it.pay(old, new))

        (_, [moved]) = await hear(it, old)
        assert (moved.owner, [each.verdict.payment_id for each in moved.credits]) == (
            old.terms.id,
            [old.terms.id],
        )
        assert (await hear(it, new))[1] == []
        (_, [moved]) = await hear(it, new, since=BLOCK_TIME - 40)
        assert moved.owner == new.terms.id
        assert [each.verdict.payment_id for each in moved.credits] == [old.terms.id]


async def test_payments_of_others_are_judged_as_they_are_stored_now(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        one = await it.expect(name="one")
        strange = replace(one, terms=replace(one.terms, reference=key("nobody's")))
        found = it.pay(one, strange)

        ([heard], _) = await hear(it, one)

        assert heard.verdicts[found.signature].credit == AMOUNT


# ------------------------------------------------------------------------------------ the time


@pytest.mark.parametrize(
    ("listed", "asked", "stored", "taken"),
    [
        (0, 0, 0, 0),
        (0, 1, 0, 0),
        (0, 1, 1, 1),  # a node that rounds in two ways: either is right
        (0, 1, 2, 0),
        (0, 0, -1, 0),
    ],
)
async def test_either_way_to_ask_for_a_blocks_time_is_right(
    tmp_path: Path, listed: int, asked: int, stored: int, taken: int
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        await it.settle(replace(found, block_time=BLOCK_TIME + stored))
        row = {
            "signature": found.signature,
            "slot": FINAL_SLOT,
            "err": None,
            "blockTime": BLOCK_TIME + listed,
        }
        it.node.fail("getSignaturesForAddress", result([row]))
        it.node.fail("getSignaturesForAddress", result([]))
        it.node.fail("getSignaturesForAddress", result([row]))
        it.chain.block_times[FINAL_SLOT] = BLOCK_TIME + asked

        ([heard], _) = await hear(it, order)

        assert heard.verdicts[found.signature].block_time == BLOCK_TIME + taken
