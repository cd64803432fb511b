"""Nodes that are slow, behind, away, forgetful or dishonest: settled in the end, never wrongly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from indexer.core.types import Paid, Status
from indexer.live import DROPPED_AFTER_BLOCKS
from tests.chain import key, moved_to, sol_transfer
from tests.indexer.daemons import (
    Running,
    hurry,
    running,
    settings_for,
    until_events,
    until_swept,
    until_told,
)
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    EXPIRES_AT,
    FINAL_SLOT,
    SHOP,
    WATCH_KEY,
    Stage,
    paying,
    stage,
)
from tests.servers.fake_rpc import Fault, eventually, http, null, rpc_error


NEXT = FINAL_SLOT + 40  # beyond what is final, or even confirmed, at the start


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch.setattr)


@asynccontextmanager
async def deployment(
    folder: Path, *, nodes: int = 1, quorum: int = 1, ticking: bool = True
) -> AsyncIterator[tuple[Stage, Running]]:
    """A daemon that serves, has swept, and is subscribed, on nodes whose slots go by."""
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(stage(folder, nodes=nodes, quorum=quorum))
        if ticking:
            await stack.enter_async_context(it.chain.ticking(0.02))
        settings = settings_for(folder, *it.nodes, verify_quorum=quorum)
        daemon = await stack.enter_async_context(running(settings, api=True))
        await until_swept(it.database)
        await eventually(lambda: all(node.subscribed_keys for node in it.nodes))
        yield it, daemon


def soon(it: Stage) -> int:
    """The slot in which something lands that is sent now."""
    return it.chain.tip + 1


def pass_deadline(it: Stage) -> None:
    """Blocks are from after the deadline, from the next one on."""
    for slot in range(it.chain.finalized + 1, it.chain.finalized + 3_000):
        it.chain.block_times[slot] = EXPIRES_AT + 1


# ---------------------------------------------------------------------------- slow and away


async def test_a_node_that_asks_for_a_pause_costs_time_only(tmp_path: Path) -> None:
    async with deployment(tmp_path) as (it, daemon):
        order = await it.expect()
        it.node.fail("getTransaction", http(429, retry_after="1"), times=2)
        it.pay(order, slot=soon(it))

        await until_events(it, order, "settled", also="detected")
        await daemon.until_ready("ready")


async def test_a_node_that_is_away_for_a_while_costs_time_only(tmp_path: Path) -> None:
    async with deployment(tmp_path) as (it, daemon):
        before, after = await it.expect(name="before"), await it.expect(name="after")
        it.pay(before, slot=soon(it))
        await until_events(it, before, "settled", also="detected")

        await it.node.stop()
        it.pay(after, slot=soon(it))
        problems = await daemon.until_ready("unready", "rpc", "sweep", "pubsub:0")
        assert "ConnectorError" in problems["rpc"]
        assert await it.events(after) == ["created"]

        await it.node.start()
        await until_events(it, after, "settled", also="detected")
        await daemon.until_ready("ready")


@pytest.mark.parametrize(
    ("fault", "status", "parts"),
    [
        # The node is in trouble, and left alone for a while each time.
        (http(500), "unready", {"rpc"}),
        # It is well, and only has no transactions to give.
        (rpc_error(-32001, "cleaned up"), "degraded", {"dead_letters"}),
        (rpc_error(-32014, "no status yet"), "degraded", {"dead_letters"}),
    ],
    ids=["in_trouble", "cleaned_up", "not_yet"],
)
async def test_a_node_that_gives_lists_and_no_transactions_costs_time_only(
    tmp_path: Path, fault: Fault, status: str, parts: set[str]
) -> None:
    async with deployment(tmp_path) as (it, daemon):
        orders = [await it.expect(name=f"order {n}") for n in range(5)]
        it.node.fail("getTransaction", fault, times=None)
        for order in orders:
            it.pay(order, slot=soon(it))
        await daemon.until_ready(status, *parts)

        it.node.heal()

        for order in orders:
            await until_events(it, order, "settled", also="detected")
        await daemon.until_ready("ready")


async def test_a_second_node_stands_in_for_one_that_is_away(tmp_path: Path) -> None:
    async with deployment(tmp_path, nodes=2) as (it, daemon):
        order = await it.expect()
        await it.nodes[0].stop()
        it.pay(order, slot=soon(it))

        await until_events(it, order, "settled", also="detected")
        await daemon.until_ready("degraded", "pubsub:0")


# ----------------------------------------------------------------------------------- behind


async def test_a_first_node_that_stands_still_does_not_hold_up_the_second(tmp_path: Path) -> None:
    async with deployment(tmp_path, nodes=2, ticking=False) as (it, _):
        order = await it.expect()
        landed = soon(it)
        it.pay(order, slot=landed)
        for _ in range(landed + 50 - it.chain.finalized):
            it.chain.advance()
            it.nodes[0].behind += 1

        await until_events(it, order, "settled", also="detected")
        assert it.nodes[0]._seen("finalized") < landed


async def test_a_chain_that_stands_still_is_not_called_ready(tmp_path: Path) -> None:
    """Nothing can be settled then, and a health check that says so is worth having."""
    async with deployment(tmp_path, ticking=False) as (it, daemon):
        order = await it.expect()
        it.pay(order, slot=soon(it))

        async with asyncio.timeout(90):
            while "frontier" not in (said := await daemon.readiness())[2]:
                await asyncio.sleep(0.1)

        assert said[:2] == (503, "unready")
        assert "has not moved" in said[2]["frontier"]
        assert await it.events(order) == ["created"]


async def test_nodes_of_one_name_that_differ_by_some_slots_are_no_trouble(tmp_path: Path) -> None:
    async with deployment(tmp_path) as (it, daemon):
        orders = [await it.expect(name=f"order {n}") for n in range(4)]
        for order in orders:
            it.pay(order, slot=soon(it))
            it.node.behind = 25
            await asyncio.sleep(0.3)
            it.node.behind = 0
            await asyncio.sleep(0.1)

        for order in orders:
            await until_events(it, order, "settled", also="detected")
        await daemon.until_ready("ready")


# -------------------------------------------------------------------------------- dishonest


def more(landed: dict[str, Any]) -> None:
    """Ten times the amount, and books that balance."""
    recipient = landed["transaction"]["message"]["accountKeys"].index(SHOP)
    landed["meta"]["postBalances"][recipient] += 9 * AMOUNT
    landed["meta"]["preBalances"][0] += 9 * AMOUNT


def other_failure(landed: dict[str, Any]) -> None:
    landed["meta"]["err"] = {"InstructionError": [0, "Custom"]}


@pytest.mark.parametrize("lie", [more, other_failure])
@pytest.mark.parametrize("liar", [0, 1])
async def test_two_honest_nodes_settle_against_one_that_lies(
    tmp_path: Path, liar: int, lie: Any
) -> None:
    with capture_logs() as logs:
        async with deployment(tmp_path, nodes=3, quorum=2) as (it, _):
            order = await it.expect()
            landed = paying(order, slot=soon(it))
            it.nodes[liar].lies[it.found(landed).signature] = lie
            it.chain.add(landed)

            await until_events(it, order, "settled", also="detected")
            state = (await it.record(order)).payment.state

    assert (state.paid, state.received) == (Paid.EXACT, AMOUNT)
    complaints = [line for line in logs if line["event"] == "quorum.disagreement"]
    assert {line["signature"] for line in complaints} == {it.found(landed).signature}
    assert {line["log_level"] for line in complaints} == {"error"}


async def test_two_that_must_agree_and_do_not_settle_nothing(tmp_path: Path) -> None:
    async with deployment(tmp_path, nodes=2, quorum=2) as (it, daemon):
        order, unpaid = await it.expect(name="order"), await it.expect(name="unpaid")
        landed = paying(order, slot=soon(it))
        it.nodes[1].lies[it.found(landed).signature] = more
        it.chain.add(landed)
        problems = await daemon.until_ready("degraded", "dead_letters")
        assert "1 transaction" in problems["dead_letters"]
        (letter,) = await it.letters()
        assert "endpoints disagree" in letter.detail

        pass_deadline(it)
        await passed_deadline(it)
        for each in (order, unpaid):
            assert not {"settled", "expired"} & set(await it.events(each))

        it.nodes[1].lies.clear()
        await until_events(it, order, "settled", also="detected")
        await until_events(it, unpaid, "expired")
        await daemon.until_ready("ready")


async def passed_deadline(it: Stage) -> None:
    """Waits until sweeps have passed the deadline by several."""
    for _ in range(3):
        async with asyncio.timeout(90):
            before = await it.frontier()
            while True:
                now = await it.frontier()
                assert before is not None
                assert now is not None
                if now.slot > before.slot and now.block_time > EXPIRES_AT:
                    break
                await asyncio.sleep(0.02)


async def test_what_the_first_node_hides_is_settled_by_the_others(tmp_path: Path) -> None:
    async with deployment(tmp_path, nodes=3, quorum=2) as (it, _):
        order = await it.expect()
        landed = paying(order, slot=soon(it))
        it.nodes[0].hidden.add(it.found(landed).signature)
        it.nodes[0].silent = it.nodes[1].silent = it.nodes[2].silent = True
        it.chain.add(landed)

        await until_events(it, order, "settled")


# -------------------------------------------------------------------------------- forgetful


async def test_a_null_for_what_is_final_is_no_answer(tmp_path: Path) -> None:
    async with deployment(tmp_path) as (it, daemon):
        order, unpaid = await it.expect(name="order"), await it.expect(name="unpaid")
        it.node.fail("getTransaction", null(), times=None)
        it.pay(order, slot=soon(it))
        problems = await daemon.until_ready("degraded", "dead_letters")
        assert "1 transaction" in problems["dead_letters"]
        assert [letter.reason for letter in await it.letters()] == ["not_found"]

        pass_deadline(it)
        await passed_deadline(it)
        for each in (order, unpaid):
            assert await it.events(each) == ["created"]

        it.node.heal()
        await until_events(it, order, "settled", also="detected")
        await until_events(it, unpaid, "expired")
        await daemon.until_ready("ready")
        assert await it.letters() == []


async def test_a_fork_takes_a_payment_back_and_it_may_land_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployment(tmp_path) as (it, daemon):
        it.chain.held = True
        order = await it.expect()
        landed = paying(order, slot=soon(it))
        signature = it.chain.add(landed)
        await until_events(it, order, "detected")

        it.chain.drop(signature)
        it.chain.held = False
        await until_events(it, order, "detected", "reverted")
        record = await it.record(order)
        assert (record.payment.state.status, record.sightings) == (Status.PENDING, ())

        it.chain.held = True
        it.chain.add(moved_to(landed, soon(it)))
        await until_events(it, order, "detected", "reverted", "detected")
        it.chain.held = False
        await until_events(it, order, "detected", "reverted", "detected", "settled")
        await daemon.until_ready("ready")


async def test_a_sighting_that_was_dropped_while_the_daemon_was_away_is_taken_back(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=FINAL_SLOT + 20)
        await it.pipeline.sight([found])
        it.chain.drop(found.signature)
        it.chain.finalize(FINAL_SLOT + 20 + DROPPED_AFTER_BLOCKS)

        async with running(settings_for(tmp_path, it.node)):
            await until_events(it, order, "detected", "reverted")


async def test_an_expired_payment_whose_sighting_was_dropped_does_not_end_the_daemon(
    tmp_path: Path,
) -> None:
    async with deployment(tmp_path) as (it, daemon):
        it.chain.held = True
        order, other = await it.expect(name="order"), await it.expect(name="other")
        landed = soon(it)
        signature = it.chain.add(paying(order, slot=landed))
        await until_events(it, order, "detected")
        pass_deadline(it)
        it.chain.finalize(landed - 1)
        await until_events(it, order, "detected", "expired")
        it.chain.drop(signature)
        it.chain.finalize(landed + DROPPED_AFTER_BLOCKS)
        async with asyncio.timeout(90):
            while (await it.record(order)).sightings:
                await asyncio.sleep(0.02)

        await until_events(it, other, "expired")
        assert not daemon.task.done()
        assert await it.events(order) == ["created", "detected", "expired"]


# ------------------------------------------------------------------------------ other speech


async def test_a_newer_transaction_version_is_asked_for_when_the_node_names_it(
    tmp_path: Path,
) -> None:
    async with deployment(tmp_path) as (it, daemon):
        order, plain = await it.expect(name="order"), await it.expect(name="plain")
        it.pay(order, slot=soon(it), version=2)
        it.pay(plain, slot=soon(it))

        for each in (order, plain):
            await until_events(it, each, "settled", also="detected")
        await daemon.until_ready("ready")


async def test_notices_that_answer_nothing_stop_no_doorbell(tmp_path: Path) -> None:
    async with deployment(tmp_path) as (it, _):
        order = await it.expect()
        for frame in (
            {"jsonrpc": "2.0", "error": {"code": -32701, "message": "we close soon"}},
            {"jsonrpc": "2.0", "method": "newsNotification", "params": {"result": 1}},
            "no JSON",
            "[]",
        ):
            it.node.push(frame)
        it.chain.held = True
        it.pay(order, slot=soon(it))

        await until_events(it, order, "detected")
        it.chain.held = False
        await until_events(it, order, "detected", "settled")
        assert it.node.connections == 1


@pytest.mark.parametrize("way", ["doubled", "refused", "silent"])
async def test_subscriptions_that_do_as_they_like_lose_nothing(tmp_path: Path, way: str) -> None:
    async with stage(tmp_path) as it, it.chain.ticking(0.02):
        match way:
            case "doubled":
                it.node.doubled = it.node.eager = True
            case "refused":
                it.node.refused_keys.add(WATCH_KEY)
            case "silent":
                it.node.silent = True
        async with running(settings_for(tmp_path, it.node)):
            await until_swept(it.database)
            orders = [await it.expect(name=f"order {n}") for n in range(3)]
            for order in orders:
                it.pay(order, slot=soon(it))

            for order in orders:
                await until_events(it, order, "settled", also="detected")
            if way == "refused":
                await until_told(it.database, "pubsub:0", lambda p: "limit reached" in str(p))


async def test_failed_transactions_are_heard_of_and_listed_and_never_fetched(
    tmp_path: Path,
) -> None:
    async with deployment(tmp_path) as (it, _):
        order = await it.expect()
        err = {"InstructionError": [0, {"Custom": 1}]}
        failed = {
            it.pay(order, name=f"failed {n}", slot=soon(it), err=err).signature for n in range(5)
        }
        good = it.pay(order, slot=soon(it) + 1)

        await until_events(it, order, "settled", also="detected")
        asked = {call.params[0] for call in it.node.calls if call.method == "getTransaction"}
        assert asked == {good.signature}
        assert not asked & failed


# -------------------------------------------------------------------------------------- many


async def test_more_than_a_page_of_others_hides_nothing(tmp_path: Path) -> None:
    """No doorbell rings, and the payment is far down the list."""
    async with stage(tmp_path) as it, it.chain.ticking(0.02):
        it.node.silent = True
        order = await it.expect()
        it.pay(order, slot=FINAL_SLOT - 300)
        for n in range(1_200):
            slot = FINAL_SLOT - n // 5
            junk = sol_transfer(BUYER, SHOP, 1, references=[WATCH_KEY], name=f"junk {n}", slot=slot)
            it.chain.add(junk)

        async with running(settings_for(tmp_path, it.node)):
            await until_events(it, order, "settled")


async def test_garbage_on_one_reference_neither_blocks_nor_breaks_anything(
    tmp_path: Path,
) -> None:
    async with deployment(tmp_path) as (it, daemon):
        order, other = await it.expect(name="order"), await it.expect(name="other")
        at = soon(it)
        for n in range(400):
            it.pay(order, amount=1, name=f"dust {n}", slot=at + n // 20, index=n % 20)
        it.pay(order, slot=at + 10, index=99)
        it.pay(other, slot=at + 25)

        await until_events(it, other, "settled", also="detected")
        async with asyncio.timeout(90):
            while len((await it.record(order)).verdicts) < 401:
                await asyncio.sleep(0.05)
        record = await it.record(order)
        assert record.payment.state.status is Status.SETTLED
        assert record.payment.state.received == AMOUNT + 400
        assert (await it.events(order)).count("settled") == 1
        await daemon.until_ready("ready")


async def test_a_second_deployment_may_share_a_leg_of_an_old_transaction(tmp_path: Path) -> None:
    """A payment that is created for a reference which an old transaction already carried."""
    async with deployment(tmp_path) as (it, daemon):
        first = await it.expect(name="first")
        twice = key("an old reference")
        landed = sol_transfer(
            BUYER, SHOP, AMOUNT, references=[twice, first.terms.reference, WATCH_KEY], slot=soon(it)
        )
        it.chain.add(landed)
        await until_events(it, first, "settled", also="detected")

        second = await it.expect(name="second", reference=twice, watch_key=None)
        await until_events(it, second, "review")

        assert not daemon.task.done()
        assert (await it.record(second)).payment.state.received == 0
        await daemon.until_ready("ready")
