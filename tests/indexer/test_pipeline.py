"""The road: what it stores, whatever order, source or company a transaction comes in."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from indexer.core.types import Paid, Reason, Status
from indexer.errors import Conflict
from indexer.pipeline import (
    PAYLOAD_BYTES_MAX,
    RETRY_DELAY_S_MAX,
    UNREADABLE_ATTEMPTS_MAX,
    WRITE_ATTEMPTS_MAX,
    Found,
)
from store.database import Rows, Statement
from tests.chain import BLOCK_TIME, key, signature_of, sol_transfer, system_transfer, transaction
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    EXPIRES_AT,
    FINAL_SLOT,
    SHOP,
    WATCH_KEY,
    Stage,
    forged,
    paying,
    payment,
    stage,
)
from tests.servers.fake_rpc import Fault, http, null, result, rpc_error


# ------------------------------------------------------------------------------- settling


async def test_a_final_transaction_settles_its_payment(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)

        assert await it.settle(found) == []

        record = await it.record(order)
        assert (record.payment.state.status, record.payment.state.paid) == (
            Status.SETTLED,
            Paid.EXACT,
        )
        assert [(v.signature, v.credit) for v in record.verdicts] == [(found.signature, AMOUNT)]
        assert await it.events(order) == ["created", "settled"]
        assert len(it.woken) == 1


async def test_one_that_concerns_nobody_is_not_written(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        stranger = payment("unknown")

        assert await it.settle(it.pay(stranger)) == []

        assert await it.table("verdicts") == []
        assert it.woken == []


async def test_who_wants_to_know_more_gets_what_was_read(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found, missing = it.pay(order), Found(signature=forged("missing"), slot=FINAL_SLOT)

        reads, unread = await it.pipeline.examine([found, missing])

        assert [read.transaction.signature for read in reads] == [found.signature]
        assert [each.found for each in unread] == [missing]
        assert await it.events(order) == ["created", "settled"]
        assert [letter.signature for letter in await it.letters()] == [missing.signature]


async def test_one_transaction_may_pay_two_payments(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        one, two = await it.expect(name="one"), await it.expect(name="two")
        both = transaction(
            [
                system_transfer(BUYER, SHOP, AMOUNT, one.terms.reference, WATCH_KEY),
                system_transfer(BUYER, SHOP, AMOUNT, two.terms.reference, WATCH_KEY),
            ],
            slot=FINAL_SLOT,
        )
        it.chain.add(both)

        await it.settle(it.found(both))

        for each in (one, two):
            assert (await it.record(each)).payment.state.paid is Paid.EXACT
        assert len(it.woken) == 1, "one write for all"


@pytest.mark.parametrize("is_early", [False, True])
async def test_a_confirmed_transaction_is_only_shown(tmp_path: Path, is_early: bool) -> None:
    """Also where the node gives it whatever commitment is asked for."""
    async with stage(tmp_path) as it:
        it.node.ignores_commitment = is_early
        order = await it.expect()
        found = it.pay(order, slot=FINAL_SLOT + 20)

        assert [each.reason for each in await it.settle(found, park=False)] == ["not_found"]
        assert await it.pipeline.sight([found]) == []

        record = await it.record(order)
        assert (record.payment.state.status, record.payment.state.received) == (
            Status.PROCESSING,
            0,
        )
        assert [s.signature for s in record.sightings] == [found.signature]
        assert await it.events(order) == ["created", "detected"]


async def test_a_verdict_takes_the_sighting_away(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=FINAL_SLOT + 20)
        await it.pipeline.sight([found])
        it.chain.finalize(FINAL_SLOT + 20)

        await it.settle(found)

        assert (await it.record(order)).sightings == ()
        assert await it.events(order) == ["created", "detected", "settled"]


@pytest.mark.parametrize("again", ["settle", "sight"])
async def test_what_is_judged_is_neither_judged_nor_sighted_again(
    tmp_path: Path, again: str
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        await it.settle(found)
        before = await it.table("events"), await it.table("verdicts")

        await (it.settle(found) if again == "settle" else it.pipeline.sight([found]))

        assert (await it.table("events"), await it.table("verdicts")) == before
        assert await it.table("sightings") == []
        assert len(it.woken) == 1


async def test_dust_shows_nothing_as_detected_that_cannot_be_credited(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        elsewhere = sol_transfer(BUYER, key("other"), 7, references=[order.terms.reference])
        it.chain.add(elsewhere, slot=FINAL_SLOT)

        await it.pipeline.sight([Found(signature=signature_of(elsewhere), slot=FINAL_SLOT)])

        assert await it.events(order) == ["created"]


# ----------------------------------------------------------------- a leg pays for one payment


async def test_a_leg_stays_with_the_payment_that_got_it_first(tmp_path: Path) -> None:
    """Whoever creates a payment may name a reference that an old transaction carries."""
    async with stage(tmp_path) as it:
        one = await it.expect(name="one")
        later = payment("two", watch_key=None)
        landed = paying(later, one)  # the later payment's reference stands first
        it.chain.add(landed)
        await it.settle(it.found(landed))
        await it.expect(name="two", watch_key=None)

        assert await it.settle(it.found(landed)) == []

        first, second = await it.record(one), await it.record(later)
        assert (first.payment.state.status, first.payment.state.received) == (
            Status.SETTLED,
            AMOUNT,
        )
        assert (second.payment.state.status, second.payment.state.received) == (Status.PENDING, 0)
        assert second.payment.state.review == (Reason.ALREADY_ALLOCATED,)
        assert [v.legs for v in second.verdicts] == [()]
        assert [leg[4] for leg in await it.table("transfers")] == [one.terms.id]


async def test_legs_that_are_left_still_pay(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        one, later = await it.expect(name="one"), payment("two", watch_key=None)
        shared = (later.terms.reference, one.terms.reference, WATCH_KEY)
        landed = transaction(
            [
                system_transfer(BUYER, SHOP, AMOUNT, *shared),
                system_transfer(BUYER, SHOP, AMOUNT - 1, later.terms.reference),
            ],
            slot=FINAL_SLOT,
        )
        it.chain.add(landed)
        await it.settle(it.found(landed))
        await it.expect(name="two", watch_key=None)

        await it.settle(it.found(landed))

        second = await it.record(later)
        assert second.payment.state.received == AMOUNT - 1
        assert second.payment.state.paid is Paid.PARTIAL
        assert [v.evidence.bound for v in second.verdicts] == [AMOUNT - 1]


# -------------------------------------------------------------- two writers, one payment


Write = Callable[[Sequence[Statement]], Any]


def before_writes(
    it: Stage, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any], *, times: int = 1
) -> list[int]:
    """Lets something happen between the next reads and their write; the number of writes."""
    write: Write = it.database.write
    writes: list[int] = []

    async def first_act(batch: Sequence[Statement]) -> list[Rows]:
        writes.append(len(writes))
        if len(writes) <= times:
            monkeypatch.setattr(it.database, "write", write)
            await act()
            monkeypatch.setattr(it.database, "write", first_act)
        rows: list[Rows] = await write(batch)
        return rows

    monkeypatch.setattr(it.database, "write", first_act)
    return writes


async def test_a_payment_that_is_canceled_in_between_is_decided_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(name="order"), await it.expect(name="other")
        found = it.pay(order), it.pay(other)
        writes = before_writes(it, monkeypatch, lambda: it.cancel(order))

        assert await it.settle(*found) == []

        record = await it.record(order)
        assert record.payment.state.status is Status.CANCELED
        assert record.payment.state.received == AMOUNT
        assert record.payment.state.review == (Reason.PAID_AFTER_CANCEL,)
        assert await it.events(order) == ["created", "canceled", "review"]
        assert await it.events(other) == ["created", "settled"]
        assert len(writes) == 2, "the first was refused as a whole"


async def test_a_cancel_that_loses_against_a_sighting_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        before_writes(it, monkeypatch, lambda: it.pipeline.sight([found]))

        with pytest.raises(Conflict):
            await it.cancel(order)

        assert (await it.record(order)).payment.state.status is Status.PROCESSING
        assert await it.events(order) == ["created", "detected"]


async def test_who_never_finds_a_payment_as_it_was_read_gives_up_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        dust = [it.pay(order, amount=1, name=f"dust {n}") for n in range(WRITE_ATTEMPTS_MAX)]
        before_writes(it, monkeypatch, lambda: it.settle(dust.pop()), times=WRITE_ATTEMPTS_MAX)

        with pytest.raises(Conflict, match="10 writes in a row"):
            await it.settle(found)
        monkeypatch.undo()
        await it.settle(found)

        assert (await it.record(order)).payment.state.received == AMOUNT + WRITE_ATTEMPTS_MAX
        assert (await it.events(order))[-1] == "settled"


async def test_many_writers_of_one_payment_lose_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect(amount=40)
        found = [it.pay(order, amount=1, name=f"coin {n}") for n in range(40)]

        await asyncio.gather(*(it.settle(*found[n : n + 5]) for n in range(0, 40, 5)))

        record = await it.record(order)
        assert (record.payment.state.status, len(record.verdicts)) == (Status.SETTLED, 40)
        events = await it.events(order)
        assert events.count("settled") == 1
        assert len(events) == record.payment.version


# ------------------------------------------------------------------- nothing out of nothing


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def lie(landed: dict[str, Any]) -> None:
        for name in path[:-1]:
            landed = landed[name]
        landed[path[-1]] = None

    return lie


UNREAD = {
    "null": (null(), "not_found"),
    "not final": (result({"slot": 10**6}), "malformed"),
    "server error": (http(500), "unavailable"),
    "too many requests": (http(429, retry_after="0"), "unavailable"),
    "refused": (rpc_error(-32602), "unavailable"),
    "cleaned up": (rpc_error(-32001), "unavailable"),
    "unknown version": (rpc_error(-32015, "version 200"), "unavailable"),
    "no object": (result(7), "malformed"),
    "another one": (result(paying(payment("other"))), "malformed"),
}


@pytest.mark.parametrize(("fault", "reason"), UNREAD.values(), ids=UNREAD)
async def test_what_cannot_be_read_is_parked_and_tried_again(
    tmp_path: Path, fault: Fault, reason: str
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = replace(it.pay(order), key=WATCH_KEY)
        it.node.fail("getTransaction", fault, times=None)

        assert [each.reason for each in await it.settle(found)] == [reason]

        (letter,) = await it.letters()
        assert (letter.signature, letter.reason) == (found.signature, reason)
        assert (letter.slot, letter.key) == (FINAL_SLOT, WATCH_KEY)
        assert letter.next_try_at == BLOCK_TIME + 1
        assert await it.events(order) == ["created"]

        it.node.heal()
        assert await it.settle(found) == []
        assert await it.letters() == []
        assert await it.events(order) == ["created", "settled"]


async def test_an_incomplete_answer_is_parked(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        it.node.lies[found.signature] = without("meta", "innerInstructions")

        (unread,) = await it.settle(found)

        assert (unread.reason, unread.detail) == (
            "undecided",
            "the node's answer lacks innerInstructions",
        )


async def test_a_transaction_whose_block_has_no_time_is_parked(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        it.chain.block_times[FINAL_SLOT] = None

        (unread,) = await it.settle(replace(found, block_time=None))

        assert unread.reason == "no_block_time"
        assert await it.events(order) == ["created"]


async def test_the_time_of_a_block_is_what_the_list_says_of_that_slot(tmp_path: Path) -> None:
    """The own field of getTransaction is too small by a factor of a thousand on some nodes."""
    async with stage(tmp_path) as it:
        order, moved = await it.expect(name="order"), await it.expect(name="moved")
        found = replace(it.pay(order), block_time=EXPIRES_AT)
        # A list from before a fork: the slot is another one, and so is its time.
        other = replace(it.pay(moved), slot=FINAL_SLOT - 1, block_time=EXPIRES_AT)

        await it.settle(found, other)

        assert (await it.record(order)).verdicts[0].block_time == EXPIRES_AT
        assert (await it.record(moved)).verdicts[0].block_time == BLOCK_TIME


async def test_where_several_must_agree_one_list_does_not_say_what_time_it_was(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, nodes=3, quorum=2) as it:
        order = await it.expect()
        told = replace(it.pay(order), block_time=order.terms.expires_at + 5)

        await it.settle(told)

        state = (await it.record(order)).payment.state
        assert (state.status, state.late) == (Status.SETTLED, False)


async def test_what_is_to_be_looked_at_again_by_others_is_not_parked(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        it.node.hidden.add(found.signature)

        assert len(await it.settle(found, park=False)) == 1

        assert await it.letters() == []


async def test_an_unreadable_one_is_kept_with_its_bytes_and_an_alarm(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(name="order"), await it.expect(name="other")
        found, good = it.pay(order), it.pay(other)
        it.node.lies[found.signature] = lambda landed: landed["meta"].update(fee="free")

        with capture_logs() as logs:
            await it.settle(found, good)

        (letter,) = await it.letters()
        assert letter.reason == "malformed"
        assert b'"fee":"free"' in (letter.payload or b"")
        assert await it.events(other) == ["created", "settled"]
        alarms = [line for line in logs if line["log_level"] == "error"]
        assert [(line["event"], line["signature"]) for line in alarms] == [
            ("transaction.parked", found.signature)
        ]


async def test_the_bytes_that_are_kept_have_a_bound(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        found = it.pay(await it.expect())
        it.node.lies[found.signature] = lambda landed: landed.update(
            slot="x" * 2 * PAYLOAD_BYTES_MAX
        )

        await it.settle(found)

        (letter,) = await it.letters()
        assert len(letter.payload or b"") == PAYLOAD_BYTES_MAX


@pytest.mark.parametrize(
    ("attempts", "delay_s"),
    [(1, 1), (2, 2), (3, 4), (6, 32), (7, RETRY_DELAY_S_MAX), (10**6, RETRY_DELAY_S_MAX)],
)
async def test_retries_become_rarer_and_never_end(
    tmp_path: Path, attempts: int, delay_s: int
) -> None:
    async with stage(tmp_path) as it:
        gone = Found(signature=forged("gone"), slot=FINAL_SLOT, attempts=attempts - 1)

        await it.settle(gone)

        (letter,) = await it.letters()
        assert (letter.attempts, letter.next_try_at) == (attempts, BLOCK_TIME + delay_s)


async def test_an_unreadable_one_waits_for_a_person_after_some_tries(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        found = it.pay(await it.expect())
        it.node.fail("getTransaction", result(7), times=None)

        for attempts in range(UNREADABLE_ATTEMPTS_MAX - 1):
            await it.settle(replace(found, attempts=attempts))
            assert (await it.letters())[0].next_try_at is not None
        await it.settle(replace(found, attempts=UNREADABLE_ATTEMPTS_MAX - 1))

        assert (await it.letters())[0].next_try_at is None
