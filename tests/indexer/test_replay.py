"""A replay finds what the daemon would, and changes nothing twice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from indexer import replay as replay_module, undertaking
from indexer.core.outcome import Outcome
from indexer.core.ranges import Slots
from indexer.core.types import Status
from indexer.errors import SourceUnavailable
from indexer.replay import ReplayRefused
from indexer.sources.priority import Priority, present
from indexer.undertaking import Plan, Strategy, Tally
from store import coverage
from tests.chain import BLOCK_TIME, key, signature_of, sol_transfer
from tests.indexer.replaying import (
    BOTH,
    SLOTS,
    contents,
    counts,
    replay_of,
    run,
    staged,
)
from tests.indexer.stage import (
    AMOUNT,
    FINAL_SLOT,
    SHOP,
    WATCH_KEY,
    forged,
)
from tests.servers.fake_rpc import null, rpc_error


# ---------------------------------------------------------------------------------------- a range


@BOTH
async def test_what_was_paid_in_the_range_is_settled(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=910)

        report = await run(it, strategy)

        assert (await it.record(order)).payment.state.status is Status.SETTLED
        assert await it.events(order) == ["created", "settled"]
    assert counts(report) == {Outcome.WOULD_CREDIT: 1}
    assert report.complete
    assert report.tally.slots == len(SLOTS)


@BOTH
async def test_running_it_twice_changes_nothing(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=910)
        await run(it, strategy)
        before = await contents(it)

        report = await run(it, strategy)

        after = await contents(it)
    del before["replays"], after["replays"]
    assert after == before
    assert counts(report) == {Outcome.ALREADY_CREDITED: 1}


@BOTH
@pytest.mark.parametrize(("slot", "is_found"), [(899, 0), (900, 1), (950, 1), (951, 0)])
async def test_the_range_is_what_was_asked_for(
    slot: int, is_found: int, strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        it.pay(await it.expect(), slot=slot)

        report = await run(it, strategy)

    assert report.tally.examined == is_found


async def test_blocks_find_what_names_only_the_reference(tmp_path: Path) -> None:
    """As a wallet leaves it that drops the watch key."""
    async with staged(tmp_path) as it:
        order = await it.expect()
        it.chain.add(
            sol_transfer(key("b"), SHOP, AMOUNT, references=[order.terms.reference], slot=910)
        )

        await run(it, Strategy.SIGNATURES)
        missed = await it.record(order)
        await run(it, Strategy.BLOCKS)

        assert missed.payment.state.status is Status.PENDING
        assert (await it.record(order)).payment.state.status is Status.SETTLED


@BOTH
async def test_a_reference_that_was_made_elsewhere_is_looked_for(
    strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect(watch_key=None)
        it.pay(order, slot=910)

        report = await run(it, strategy)

        assert (await it.record(order)).payment.state.status is Status.SETTLED
        covered = await coverage.of(it.database, order.terms.reference)
    assert report.keys == tuple(sorted([WATCH_KEY, order.terms.reference]))
    assert covered == [SLOTS]


@BOTH
async def test_the_keys_of_open_payments_are_looked_for_beside_those_in_use(
    strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect(watch_key=key("an older watch key"))
        it.pay(order, slot=910)

        report = await replay_of(it).slots(SLOTS, strategy, dry_run=False, resume=False)

        assert (await it.record(order)).payment.state.status is Status.SETTLED
    assert set(report.keys) == {WATCH_KEY, key("an older watch key")}


async def test_blocks_look_for_payments_that_are_settled_too(tmp_path: Path) -> None:
    """Money that comes once more is money that came."""
    async with staged(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=905)
        references = [order.terms.reference]
        again = sol_transfer(key("b"), SHOP, AMOUNT, references=references, slot=940)
        it.chain.add(again)
        await run(it, Strategy.BLOCKS, Slots(900, 910))

        await run(it, Strategy.BLOCKS)

        record = await it.record(order)
    assert [verdict.signature for verdict in record.verdicts][1:] == [signature_of(again)]
    assert record.payment.state.received == 2 * AMOUNT


@BOTH
async def test_failed_transactions_are_not_fetched(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=910, err={"InstructionError": [0, {"Custom": 1}]})

        report = await run(it, strategy)

    assert report.tally.examined == 0
    assert it.fetched() == []


@BOTH
async def test_what_cannot_be_read_is_parked_and_said(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=910)
        it.node.fail("getTransaction", null(), times=None)

        report = await run(it, strategy)

        [letter] = await it.letters()
    assert letter.reason == "not_found"
    assert not report.complete
    assert counts(report) == {Outcome.UNREADABLE: 1}


@BOTH
async def test_it_waits_for_everybody_else(
    strategy: Strategy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(tmp_path) as it:
        it.pay(await it.expect(), slot=910)
        seen = set()
        for endpoint in it.rpc.endpoints:
            call = endpoint.call

            async def told(method: str, params: Any, *, call: Any = call) -> bytes:
                seen.add((method, present()))
                return bytes(await call(method, params))

            monkeypatch.setattr(endpoint, "call", told)

        await run(it, strategy)

    urgent = {method for method, priority in seen if priority is not Priority.REPLAY}
    assert urgent <= {"getSlot"}  # whose answer serves everybody
    assert {method for method, _ in seen} >= {"getTransaction", "getBlocks"}


async def test_what_two_endpoints_list_is_counted_once(tmp_path: Path) -> None:
    async with staged(tmp_path, nodes=2, quorum=2) as it:
        it.pay(await it.expect(), slot=910)

        report = await run(it, Strategy.SIGNATURES)

    assert counts(report) == {Outcome.WOULD_CREDIT: 1}


async def test_the_plan_is_told_first_and_progress_after(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        it.pay(await it.expect(), slot=910)
        said: list[Plan | int] = []

        def progress(tally: Tally) -> None:
            said.append(tally.slots)

        report = await run(it, on_plan=said.append, on_progress=progress)

    plan, *slots = said
    assert isinstance(plan, Plan)
    assert (plan.from_slot, plan.references, plan.calls) == (900, 1, len(SLOTS) + 1)
    assert plan.run == report.run
    assert slots == [len(SLOTS)]


# ------------------------------------------------------------------------------------ the dry run


@BOTH
async def test_a_dry_run_writes_nothing(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order, paid = await it.expect(), await it.expect(name="paid")
        it.pay(paid, slot=905)
        await it.settle(it.pay(paid, slot=906, name="more"))
        found = it.pay(order, slot=910)
        stray = sol_transfer(key("b"), SHOP, 7, references=[WATCH_KEY], slot=920)
        it.chain.add(stray)
        references = [order.terms.reference, WATCH_KEY]
        it.chain.add(sol_transfer(key("b"), key("c"), 7, references=references, slot=930))
        before, woken = await contents(it), len(it.woken)

        report = await run(it, strategy, dry_run=True)

        assert await contents(it) == before
        assert len(it.woken) == woken
    assert report.run is None
    assert [(each.slot, each.outcome) for each in report.named] == [
        (905, Outcome.WOULD_CREDIT),
        (906, Outcome.ALREADY_CREDITED),
        (910, Outcome.WOULD_CREDIT),
        (920, Outcome.ORPHAN),
        (930, Outcome.INVALID),
    ]
    assert report.named[2].signature == found.signature
    assert report.named[2].credits == {order.terms.id: AMOUNT}
    assert report.named[4].reasons == ("wrong_recipient",)
    assert report.coverage == {}


@BOTH
async def test_a_dry_run_parks_nothing(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        it.pay(await it.expect(), slot=910)
        it.node.fail("getTransaction", null(), times=None)
        before = await contents(it)

        report = await run(it, strategy, dry_run=True)

        assert await contents(it) == before
    assert [(each.outcome, each.reasons) for each in report.named] == [
        (Outcome.UNREADABLE, ("not_found",))
    ]
    assert not report.complete


async def test_a_report_names_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undertaking, "NAMED_MAX", 2)
    async with staged(tmp_path) as it:
        order = await it.expect()
        for slot in (910, 911, 912):
            it.pay(order, slot=slot, name=f"at {slot}")

        report = await run(it, dry_run=True)

    assert len(report.named) == 2
    assert report.tally.examined == 3


# ------------------------------------------------------------------------ what cannot be replayed


@BOTH
async def test_slots_that_are_not_final_are_refused(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        before = await contents(it)

        with pytest.raises(ReplayRefused, match=r"slot 1001 is not final: the last .* is 1000"):
            await run(it, strategy, Slots(900, 1_001))

        assert await contents(it) == before


@BOTH
async def test_slots_that_nobody_keeps_are_refused(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path, nodes=2) as it:
        for node, kept in zip(it.nodes, (920, 901), strict=True):
            node.first_available = kept
        before = await contents(it)

        with pytest.raises(ReplayRefused, match=r"slot 900 is pruned: .* nothing before slot 901"):
            await run(it, strategy)

        assert await contents(it) == before


@BOTH
async def test_one_endpoint_that_keeps_the_slots_is_enough(
    strategy: Strategy, tmp_path: Path
) -> None:
    async with staged(tmp_path, nodes=2) as it:
        it.nodes[0].first_available = 920
        order = await it.expect()
        it.pay(order, slot=910)

        await run(it, strategy)

        assert (await it.record(order)).payment.state.status is Status.SETTLED


async def test_a_block_that_cannot_be_had_covers_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        it.node.fail("getBlock", rpc_error(-32007), times=None)

        with pytest.raises(SourceUnavailable, match="slot 9"):
            await run(it)

        assert await coverage.of(it.database, WATCH_KEY) == []
        assert await it.frontier() is None


@BOTH
async def test_too_many_references_made_elsewhere_are_refused(
    strategy: Strategy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "FOREIGN_MAX", 1)
    async with staged(tmp_path) as it:
        for name in ("a", "b"):
            await it.expect(name=name, watch_key=None)

        with pytest.raises(ReplayRefused, match="more than 1 open payments"):
            await run(it, strategy)


async def test_too_many_references_to_match_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "REFERENCES_MAX", 2)
    monkeypatch.setattr(replay_module, "REFERENCES_PAGE", 1)
    async with staged(tmp_path) as it:
        for name in ("a", "b"):
            await it.expect(name=name)

        with pytest.raises(ReplayRefused, match="more than 2 payments"):
            await run(it)


# ---------------------------------------------------------------------------------- one reference


async def test_a_reference_brings_all_that_carries_it(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        reference = order.terms.reference
        it.chain.add(sol_transfer(key("b"), SHOP, AMOUNT, references=[reference], slot=910))

        report = await replay_of(it).reference(reference, dry_run=False)

        assert (await it.record(order)).payment.state.status is Status.SETTLED
        frontier = await it.frontier(reference)
        [covered] = await coverage.of(it.database, reference)
    assert frontier is not None
    assert frontier.slot == FINAL_SLOT
    assert covered.last == FINAL_SLOT
    assert counts(report) == {Outcome.WOULD_CREDIT: 1}


async def test_a_dry_run_of_a_reference_writes_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=910)
        before = await contents(it)

        report = await replay_of(it).reference(order.terms.reference, dry_run=True)

        assert await contents(it) == before
    assert counts(report) == {Outcome.WOULD_CREDIT: 1}


async def test_a_reference_that_no_payment_has_is_refused(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        with pytest.raises(ReplayRefused, match=f"no payment has the reference {key('nobody')}"):
            await replay_of(it).reference(key("nobody"), dry_run=False)


async def test_a_reference_whose_history_was_forgotten_is_not_complete(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect(created_at=BLOCK_TIME + 100)
        it.pay(order, slot=910)
        it.node.first_available = 905

        with pytest.raises(ReplayRefused, match="no endpoint keeps slots before 905"):
            await replay_of(it).reference(order.terms.reference, dry_run=False)

        assert await it.frontier(order.terms.reference) is None
        assert (await it.record(order)).payment.state.status is Status.SETTLED


# ---------------------------------------------------------------------------------- one signature


async def test_a_signature_is_settled(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=910)

        first = await replay_of(it).signature(found.signature, dry_run=False)
        second = await replay_of(it).signature(found.signature, dry_run=False)

        state = (await it.record(order)).payment.state
        assert await it.events(order) == ["created", "settled"]
    assert state.settled_at == BLOCK_TIME + 910
    assert [counts(each) for each in (first, second)] == [
        {Outcome.WOULD_CREDIT: 1},
        {Outcome.ALREADY_CREDITED: 1},
    ]
    assert first.slots == Slots(910, 910)


async def test_a_dry_run_of_a_signature_writes_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=910)
        before = await contents(it)

        report = await replay_of(it).signature(found.signature, dry_run=True)

        assert await contents(it) == before
    assert report.named[0].credits == {order.terms.id: AMOUNT}


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_signature_that_is_not_on_the_chain_is_refused_and_not_parked(
    dry_run: bool, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        with pytest.raises(ReplayRefused, match=f"{forged('x')}: no node has it finalized"):
            await replay_of(it).signature(forged("x"), dry_run=dry_run)

        assert await it.letters() == []


async def test_a_signature_that_is_not_final_is_refused(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=it.chain.confirmed)
        it.node.ignores_commitment = True

        with pytest.raises(ReplayRefused, match="no node has it finalized"):
            await replay_of(it).signature(found.signature, dry_run=False)

        assert (await it.record(order)).payment.state.status is Status.PENDING


async def test_two_replays_at_once_store_everything_once(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        orders = [await it.expect(name=f"{n}") for n in range(20)]
        for n, order in enumerate(orders):
            it.pay(order, slot=910 + n)

        await asyncio.gather(*(run(it, strategy) for strategy in (*Strategy, *Strategy)))

        logs = [await it.events(order) for order in orders]
    assert logs == [["created", "settled"]] * 20
