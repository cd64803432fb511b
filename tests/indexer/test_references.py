"""The net under the watch key: what a wallet left out is found all the same, and in time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from indexer import references as references_module
from indexer.core.payment import Payment
from indexer.core.types import Reason, Status
from indexer.errors import StoreUnavailable
from indexer.pipeline import Found
from indexer.references import References, next_check_at
from indexer.sources.priority import Priority, present
from indexer.survey import OVERLAP_SLOTS
from store import coverage, cursors, reference_checks, watching
from store.database import Rows, Statement
from tests.chain import BLOCK_TIME, sol_transfer
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    EXPIRES_AT,
    FINAL_SLOT,
    GRACE_S,
    SHOP,
    WATCH_KEY,
    Stage,
    paying,
    payment,
    stage,
)
from tests.servers.fake_rpc import Call, eventually, http, result, rpc_error


LISTING = "getSignaturesForAddress"
CREATED_AT = BLOCK_TIME - 100
GRACE_ENDS = EXPIRES_AT + GRACE_S
#: Until then a node may list what it did not list when the grace time was over.
ALL_LISTED = GRACE_ENDS + watching.LISTED_LATE_S


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test can wait for."""
    for name in ("INTERVAL_S", "PAUSE_S"):
        monkeypatch.setattr(references_module, name, 0.01)


@asynccontextmanager
async def running(references: References) -> AsyncIterator[None]:
    task = asyncio.create_task(references.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def pay_without_watch_key(it: Stage, order: Payment, amount: int = AMOUNT, **rest: Any) -> Found:
    """As wallets do that take one reference only."""
    values: dict[str, Any] = {"slot": FINAL_SLOT, "name": f"{order.terms.id} {amount}"} | rest
    landed = sol_transfer(BUYER, SHOP, amount, references=[order.terms.reference], **values)
    it.chain.add(landed)
    return it.found(landed)


async def told(it: Stage, order: Payment, *events: str) -> None:
    async with asyncio.timeout(90):
        while await it.events(order) != ["created", *events]:
            await asyncio.sleep(0.005)


async def due_at(it: Stage, order: Payment) -> int | None:
    """When the payment is due; None when it is not checked any more."""
    rows = await it.table("reference_checks", "payment_id, due_at")
    return dict(rows).get(order.terms.id)


def end_at(it: Stage, slot: int, block_time: int) -> None:
    """The chain goes on to that slot, at that time."""
    it.chain.block_times[slot] = block_time
    it.chain.finalize(slot)


# ------------------------------------------------------------------------------- the schedule


@pytest.mark.parametrize(
    ("age_s", "pause_s"),
    [(-50, 10), (0, 10), (80, 10), (88, 11), (800, 100), (28_800, 3_600), (10**6, 3_600)],
)
def test_the_next_check_comes_after_an_eighth_of_the_age(age_s: int, pause_s: int) -> None:
    assert next_check_at(BLOCK_TIME, BLOCK_TIME + age_s) == BLOCK_TIME + age_s + pause_s


async def test_a_check_is_made_when_it_is_due_and_not_before(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, references = await it.expect(), it.references()
        pay_without_watch_key(it, order)
        it.clock.now = CREATED_AT + 9

        await references.check_due()
        assert await it.events(order) == ["created"]

        it.clock.now += 1
        await references.check_due()
        assert await it.events(order) == ["created", "settled"]
        assert await due_at(it, order) is None, "nothing is looked for any more"


async def test_after_a_check_it_is_due_again_a_little_later(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, references = await it.expect(), it.references()
        it.clock.now = CREATED_AT + 800

        await references.check_due()

        assert await due_at(it, order) == CREATED_AT + 900
        it.node.calls.clear()
        await references.check_due()
        assert it.node.calls == []


async def test_a_chain_that_stands_still_is_not_asked_for_lists(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, references = await it.expect(), it.references()
        await references.check_due()
        it.node.calls.clear()
        it.clock.now += 10_000

        await references.check_due()

        assert it.node.count(LISTING) == 0
        assert await due_at(it, order) == next_check_at(CREATED_AT, int(it.clock()))


# -------------------------------------------------------------------------------- one check


async def test_frontier_coverage_and_schedule_are_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order, batches, write = await it.expect(), list[str](), it.database.write
        reference = order.terms.reference

        async def listen(batch: Sequence[Statement]) -> list[Rows]:
            batches.append(" ".join(statement.sql.split("(")[0] for statement in batch))
            return await write(batch)

        monkeypatch.setattr(it.database, "write", listen)
        await it.references().check_due()

        [batch] = batches
        assert "cursors" in batch
        assert "coverage" in batch
        assert "UPDATE reference_checks" in batch
        frontier = await it.frontier(reference)
        assert frontier is not None
        assert (frontier.slot, frontier.block_time) == (FINAL_SLOT, it.chain.block_time(FINAL_SLOT))
        [covered] = await coverage.of(it.database, reference)
        assert covered.last == FINAL_SLOT


async def test_a_check_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.check(order)
        late = pay_without_watch_key(it, order, 1, slot=FINAL_SLOT - OVERLAP_SLOTS)
        pay_without_watch_key(it, order, 2, slot=FINAL_SLOT - OVERLAP_SLOTS - 1)
        it.chain.finalize(FINAL_SLOT + 1)

        await it.check(order)

        assert it.fetched() == [late.signature]


async def test_what_is_judged_is_not_fetched_again_and_failed_ones_never(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        good = pay_without_watch_key(it, order, 1)
        err = {"InstructionError": [0, {"Custom": 1}]}
        pay_without_watch_key(it, order, 2, err=err)

        for slots in range(1, 4):
            await it.check(order)
            it.chain.finalize(FINAL_SLOT + slots)

        assert it.fetched() == [good.signature]


async def test_what_pays_two_is_found_for_the_one_that_is_younger(tmp_path: Path) -> None:
    """It was judged for the first before the second existed."""
    async with stage(tmp_path) as it:
        old, young = await it.expect(name="old"), payment("young")
        references = [old.terms.reference, young.terms.reference]
        landed = sol_transfer(BUYER, SHOP, 1, references=references, slot=FINAL_SLOT, name="both")
        it.chain.add(landed)
        await it.check(old)
        await it.put(young)

        await it.check(young)

        assert len((await it.record(young)).verdicts) == 1


async def test_what_cannot_be_read_is_parked_once_and_the_frontier_moves_on(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = pay_without_watch_key(it, order)
        it.node.fail("getTransaction", http(500), times=None)

        await it.check(order)
        it.node.heal()
        it.chain.finalize(FINAL_SLOT + 1)
        it.rpc.endpoints[0].health.answered(float("inf"), float("inf"))
        await it.check(order)

        [letter] = await it.letters()
        assert (letter.signature, letter.attempts) == (found.signature, 1)
        assert (await it.frontier(order.terms.reference)) is not None


async def test_a_check_that_fails_moves_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, references = await it.expect(), it.references()
        it.node.fail(LISTING, rpc_error(-32602, "cannot list this one"), times=None)

        await references.check_due()

        assert "cannot list this one" in (references.problem or "")
        assert await it.frontier(order.terms.reference) is None
        assert await due_at(it, order) == CREATED_AT + 10, "and it stays due"


async def test_who_found_it_is_counted(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        with_key, without = await it.expect(name="with"), await it.expect(name="without")
        fresh, references = await it.expect(name="fresh"), it.references()
        it.pay(with_key, slot=FINAL_SLOT - 1)
        pay_without_watch_key(it, without, slot=FINAL_SLOT - 1)
        await it.settle(it.found(paying(with_key, slot=FINAL_SLOT - 1)))
        await it.advance(FINAL_SLOT - 1, BLOCK_TIME)
        it.pay(fresh)

        await references.check_due()

        for order in (with_key, without, fresh):
            assert await it.events(order) == ["created", "settled"]
        assert references.found_alone == 1, "the sweep would still have found the fresh one"


# -------------------------------------------------------------------------------- for ever


async def test_one_that_cannot_be_listed_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references_module, "CHECKS_PER_ROUND", 2)
    async with stage(tmp_path) as it:
        sick = [await it.expect(name=f"sick {n}", created_at=n + 1) for n in range(3)]
        order, references = await it.expect(), it.references()
        pay_without_watch_key(it, order)
        keys = {each.terms.reference for each in sick}

        async def fault(call: Call) -> web.StreamResponse:
            if call.params[0] in keys:
                return await rpc_error(-32602, "cannot list this one")(call)
            return await result(it.node._signatures(*call.params))(call)

        it.node.fail(LISTING, fault, times=None)
        async with running(references):
            await told(it, order, "settled")
            await eventually(lambda: "cannot list this one" in (references.problem or ""))

            it.node.heal()
            references._resting.clear()
            await eventually(lambda: references.problem is None)


async def test_a_store_that_fails_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references_module, "FAILED_PAUSE_S", 3_600.0)  # it is nobody's fault
    async with stage(tmp_path) as it:
        order, references = await it.expect(), it.references()
        pay_without_watch_key(it, order)
        read, write, failures = it.database.read, it.database.write, [1] * 4

        async def fail_reading(batch: Sequence[Statement]) -> list[Rows]:
            if len(failures) > 2 and "reference_checks" in batch[0].sql:
                failures.pop()
                raise StoreUnavailable("locked")
            return await read(batch)

        async def fail_writing(batch: Sequence[Statement]) -> list[Rows]:
            if failures:
                failures.pop()
                raise StoreUnavailable("disk full")
            return await write(batch)

        monkeypatch.setattr(it.database, "read", fail_reading)
        monkeypatch.setattr(it.database, "write", fail_writing)
        async with running(references):
            await told(it, order, "settled")
            await eventually(lambda: references.problem is None)


async def test_many_are_checked_a_few_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references_module, "CHECKS_AT_ONCE", 3)
    monkeypatch.setattr(references_module, "CHECKS_PER_ROUND", 10)
    async with stage(tmp_path) as it:
        references, busy, most = it.references(), [0], [0]
        orders = [await it.expect(name=f"order {n}") for n in range(25)]
        check = references.check

        async def watched(due: reference_checks.Due) -> None:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
            await check(due)
            busy[0] -= 1

        monkeypatch.setattr(references, "check", watched)
        rounds = [await references.check_due() for _ in range(3)]

        assert rounds == [True, True, False]
        assert most == [3]
        times = await cursors.times(it.database, [each.terms.reference for each in orders])
        assert len(times) == 25


async def test_checks_are_no_more_urgent_than_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        references, seen = it.references(), list[Priority]()

        async def note(_due: reference_checks.Due) -> None:
            seen.append(present())

        monkeypatch.setattr(references, "check", note)
        async with running(references):
            await eventually(lambda: seen)

        assert set(seen) == {Priority.SWEEP}


# ------------------------------------------------------------------ expiry waits for the net


async def test_nothing_expires_before_its_own_reference_is_complete(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, sweeper = await it.expect(), it.sweeper()
        end_at(it, 1_100, EXPIRES_AT + 1)
        await sweeper.sweep(WATCH_KEY)
        assert await it.events(order) == ["created"]

        await it.check(order)
        await sweeper.sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "expired"]


async def test_money_that_only_the_net_finds_comes_before_expiry(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, sweeper = await it.expect(), it.sweeper()
        pay_without_watch_key(it, order)
        end_at(it, 1_100, EXPIRES_AT + 1)
        await sweeper.sweep(WATCH_KEY)

        await it.check(order)
        await sweeper.sweep(WATCH_KEY)

        assert await it.events(order) == ["created", "settled"]
        assert not (await it.record(order)).payment.state.late


async def test_a_check_from_before_the_deadline_is_not_enough(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, sweeper = await it.expect(), it.sweeper()
        end_at(it, 1_100, EXPIRES_AT)
        await it.check(order)
        end_at(it, 1_200, EXPIRES_AT + 1)

        await sweeper.sweep(WATCH_KEY)

        assert await it.events(order) == ["created"]


async def test_the_last_check_before_expiry_is_due_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(name="order"), await it.expect(name="other")
        later = int(it.clock()) + 3_600
        for each in (order, other):
            move = reference_checks.again_at(each.terms.id, later)
            await it.database.write([move])
        end_at(it, 1_100, EXPIRES_AT + 1)
        await it.check(other)
        due_later = await due_at(it, other)

        await it.sweeper().sweep(WATCH_KEY)

        assert await due_at(it, order) == int(it.clock())
        assert await due_at(it, other) == due_later, "it is complete, and may expire"


async def test_a_sweeper_and_the_net_expire_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the daemon runs them: nobody has to ask."""
    async with stage(tmp_path) as it:
        orders = [await it.expect(name=f"order {n}") for n in range(3)]
        later = int(it.clock()) + 3_600
        moves = [reference_checks.again_at(each.terms.id, later) for each in orders]
        await it.database.write(moves)
        end_at(it, 1_100, EXPIRES_AT + 1)
        sweeper = it.sweeper()
        async with running(it.references()):
            async with asyncio.timeout(90):
                while [await it.events(each) for each in orders] != [["created", "expired"]] * 3:
                    await sweeper.sweep(WATCH_KEY)
                    await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------- late money


async def expired(it: Stage) -> Payment:
    order = await it.expect()
    end_at(it, 1_100, EXPIRES_AT + 1)
    await it.check(order)
    await it.sweeper().sweep(WATCH_KEY)
    assert await it.events(order) == ["created", "expired"]
    return order


async def test_late_money_without_watch_key_settles_within_the_grace_time(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await expired(it)
        assert await due_at(it, order) is not None
        pay_without_watch_key(it, order, slot=1_200, block_time=EXPIRES_AT + 50)
        it.chain.finalize(1_200)

        await it.check(order)

        assert await it.events(order) == ["created", "expired", "settled"]
        assert (await it.record(order)).payment.state.late
        assert await due_at(it, order) is None


@pytest.mark.parametrize(
    ("block_time", "is_over"),
    [(GRACE_ENDS + 1, False), (ALL_LISTED, False), (ALL_LISTED + 1, True)],
)
async def test_after_the_grace_time_there_is_one_last_check(
    tmp_path: Path, block_time: int, is_over: bool
) -> None:
    async with stage(tmp_path) as it:
        order = await expired(it)
        it.clock.now = 2**33  # the machine's clock does not decide it
        end_at(it, 1_200, block_time)

        await it.check(order)

        assert (await due_at(it, order) is None) is is_over
        frontier = await it.frontier(order.terms.reference)
        assert frontier is not None
        assert frontier.slot == 1_200


async def test_money_after_the_grace_time_is_for_a_person(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await expired(it)
        pay_without_watch_key(it, order, slot=1_200, block_time=GRACE_ENDS + 1)
        end_at(it, 1_201, ALL_LISTED + 1)

        await it.check(order)

        state = (await it.record(order)).payment.state
        assert (state.status, state.review) == (Status.EXPIRED, (Reason.LATE_AFTER_GRACE,))
        assert await due_at(it, order) is None
