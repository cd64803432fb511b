"""The slow sweep of recipients: what it finds, what it suggests, and what it costs."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer import recipients as recipients_module
from indexer.core.suggest import CREATED_MARGIN_S, Suggestion, Why
from indexer.core.types import Reason, Status
from indexer.errors import SourceError, SourceUnavailable, StoreUnavailable
from indexer.recipients import Recipients
from indexer.survey import OVERLAP_SLOTS
from store import suggestions
from tests.chain import (
    BLOCK_TIME,
    ata,
    call,
    key,
    signature_of,
    system_transfer,
    token_transfer,
    transaction,
)
from tests.indexer.desk import MINT, USDC, send
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    FINAL_SLOT,
    SHOP,
    WATCH_KEY,
    Stage,
    stage,
)
from tests.servers.fake_rpc import eventually, http, null, rpc_error


LISTING = "getSignaturesForAddress"


def net(it: Stage) -> Recipients:
    return Recipients(it.database, it.rpc, it.pipeline, clock=it.clock)


async def open_suggestions(it: Stage) -> Sequence[Suggestion]:
    return await suggestions.listing(it.database, 1_000)


async def pairs(it: Stage) -> list[tuple[str, str]]:
    """Signature and payment of each open suggestion."""
    return sorted((each.signature, each.payment_id) for each in await open_suggestions(it))


def listed(it: Stage) -> list[str]:
    """The keys that were listed, in order."""
    return [call.params[0] for call in it.node.calls if call.method == LISTING]


# ------------------------------------------------------------------------------ what is found


async def test_a_transfer_without_any_reference_is_suggested_and_changes_nothing(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = send(it, memo_text=f"for {order.terms.id}")

        await net(it).round()

        (found,) = await open_suggestions(it)
        assert (found.signature, found.payment_id) == (signature, order.terms.id)
        assert (found.why, found.amount) == (Why.AMOUNT_AND_MEMO, AMOUNT)
        assert (found.found_at, found.block_time) == (int(it.clock()), BLOCK_TIME)
        assert await it.events(order) == ["created"]
        record = await it.record(order)
        assert record.payment == order
        assert (record.verdicts, record.sightings) == ((), ())
        assert await it.table("transfers") == []


async def test_tokens_are_found_at_the_token_account(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        account = ata(SHOP, MINT)
        order = await it.expect(asset=USDC, token_account=account)
        landed = token_transfer(BUYER, SHOP, AMOUNT, mint=MINT, slot=FINAL_SLOT)
        it.chain.add(landed)

        await net(it).round()

        assert set(listed(it)) == {account}
        assert await pairs(it) == [(signature_of(landed), order.terms.id)]


async def test_a_transfer_that_lost_only_the_watch_key_settles(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(), await it.expect(name="other")
        signature = send(it, references=[order.terms.reference])

        await net(it).round()

        assert await it.events(order) == ["created", "settled"]
        assert await it.events(other) == ["created"]
        assert [v.signature for v in (await it.record(order)).verdicts] == [signature]
        assert await open_suggestions(it) == []


async def test_what_names_a_payment_elsewhere_than_in_the_transfer_is_no_suggestion(
    tmp_path: Path,
) -> None:
    """It has its verdict, which a person can read; and whose the money is, it says."""
    async with stage(tmp_path) as it:
        order, _ = await it.expect(), await it.expect(name="other")
        landed = transaction(
            [call(key("program"), order.terms.reference), system_transfer(BUYER, SHOP, AMOUNT)],
            slot=FINAL_SLOT,
        )
        it.chain.add(landed)

        await net(it).round()

        (verdict,) = (await it.record(order)).verdicts
        assert (verdict.credit, verdict.reasons) == (0, (Reason.NOT_BOUND,))
        assert await open_suggestions(it) == []


async def test_a_failed_transaction_is_not_even_fetched(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        send(it, err={"InstructionError": [0, {"Custom": 1}]})

        await net(it).round()

        assert it.fetched() == []
        assert await open_suggestions(it) == []


async def test_what_names_a_payment_is_suggested_for_no_other(tmp_path: Path) -> None:
    """Though it settles none: it names one that is settled long since."""
    async with stage(tmp_path) as it:
        order, other = await it.expect(), await it.expect(name="other")
        await it.settle(it.pay(order))
        send(it, references=[order.terms.reference], name="again")

        await net(it).round()

        assert await open_suggestions(it) == []
        assert await it.events(other) == ["created"]


@pytest.mark.parametrize(
    "rest",
    [
        {"slot": FINAL_SLOT + 1},
        {"lamports": AMOUNT + 1},
        {"to": key("another shop")},
    ],
)
async def test_what_does_not_fit_is_not_suggested(tmp_path: Path, rest: dict[str, Any]) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        send(it, **({"lamports": AMOUNT} | rest))

        await net(it).round()

        assert await open_suggestions(it) == []


async def test_a_memo_is_found_whatever_the_amount(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = send(it, 1, memo_text=order.terms.reference)

        await net(it).round()

        assert await pairs(it) == [(signature, order.terms.id)]
        assert (await open_suggestions(it))[0].why is Why.MEMO


async def test_a_second_sweep_after_a_restart_finds_nothing_new(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = send(it)
        await net(it).round()
        it.chain.finalize(FINAL_SLOT + 1)

        await net(it).round()

        assert await pairs(it) == [(signature, order.terms.id)]
        assert len(await it.table("suggestions")) == 1


async def test_what_a_person_dismissed_does_not_come_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        send(it)
        await net(it).round()
        (found,) = await open_suggestions(it)
        closed = suggestions.close(found, suggestions.Fate.DISMISSED, 1)
        await it.database.write([closed])
        it.chain.finalize(FINAL_SLOT + 1)

        await net(it).round()

        assert await open_suggestions(it) == []


# ----------------------------------------------------------------------- how far, how much


async def test_the_first_sweep_goes_back_to_the_oldest_payment_and_the_next_to_the_cursor(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        before = order.terms.created_at - CREATED_MARGIN_S
        send(it, slot=10, block_time=before - 1, name="older")
        kept = send(it, slot=11, block_time=before, name="old")

        await net(it).round()

        assert it.fetched() == [kept]
        frontier = await it.frontier(SHOP)
        assert frontier is not None
        assert frontier.slot == FINAL_SLOT
        it.node.calls.clear()
        it.chain.finalize(FINAL_SLOT + OVERLAP_SLOTS)
        fresh = send(it, slot=FINAL_SLOT + 1, name="fresh")

        await net(it).round()

        assert it.fetched() == [fresh]


async def test_each_transaction_is_fetched_once(tmp_path: Path) -> None:
    """Neither what is under the watch key already nor what was looked at before."""
    async with stage(tmp_path) as it:
        order, _ = await it.expect(), await it.expect(name="other")
        await it.settle(it.pay(order))
        strange = send(it, 17)
        it.node.calls.clear()
        recipients = net(it)

        for _ in range(3):
            await recipients.round()
            it.chain.finalize(it.chain.finalized + 1)

        assert it.fetched() == [strange]


async def test_the_cursor_moves_over_what_was_looked_at_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        slots = [900, 901, 901, 901, 902, 903, 950]
        sent = [send(it, slot=slot, index=n, name=f"{n}") for n, slot in enumerate(slots)]
        recipients = net(it)

        async def turn() -> tuple[int, list[str]]:
            it.node.calls.clear()
            await recipients.sweep(SHOP, order.terms.created_at, limit=2)
            frontier = await it.frontier(SHOP)
            assert frontier is not None
            return frontier.slot, it.fetched()

        # A slot is looked at as a whole, or its cursor could not be told.
        assert await turn() == (901, sent[:4])
        assert await turn() == (949, sent[4:6])
        assert await turn() == (FINAL_SLOT, sent[6:])
        assert await turn() == (FINAL_SLOT, [])
        assert await pairs(it) == sorted((each, order.terms.id) for each in sent)


async def test_a_crash_between_two_batches_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients_module, "BATCH_SIZE", 2)
    async with stage(tmp_path) as it:
        order = await it.expect()
        sent = [
            send(it, slot=slot, index=n, block_time=BLOCK_TIME + slot, name=f"{n}")
            for n, slot in enumerate([900, 901, 902, 903, 903])
        ]
        write, batches = it.database.write, []

        async def write_twice(batch: Any) -> Any:
            batches.append(batch)
            if len(batches) > 2:
                raise StoreUnavailable("the process dies")
            return await write(batch)

        with monkeypatch.context() as now:
            now.setattr(it.database, "write", write_twice)
            with pytest.raises(StoreUnavailable):
                await net(it).sweep(SHOP, order.terms.created_at)

        frontier = await it.frontier(SHOP)
        assert frontier is not None
        # The second of the two in one slot is still to come: the slot is not complete.
        assert (frontier.slot, frontier.block_time) == (902, BLOCK_TIME + 902)
        assert await pairs(it) == sorted((each, order.terms.id) for each in sent[:4])
        await net(it).sweep(SHOP, order.terms.created_at)
        assert await pairs(it) == sorted((each, order.terms.id) for each in sent)


@pytest.mark.parametrize("quorum", [1, 2])
async def test_a_busy_wallet_is_cheap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quorum: int
) -> None:
    """Thousands of strange transfers: a few at a time, each once, and lists of a thousand."""
    monkeypatch.setattr(recipients_module, "FETCHED_PER_TURN", 100)
    count = 450
    async with stage(tmp_path, nodes=quorum, quorum=quorum) as it:
        order = await it.expect()
        for n in range(count):
            send(it, 10 + n, slot=500 + n, name=f"{n}")
        wanted = send(it, slot=999)
        recipients = net(it)

        for turn in range(1, 6):
            await recipients.round()
            assert len(it.fetched()) == quorum * min(100 * turn, count + 1)

        assert await pairs(it) == [(wanted, order.terms.id)]
        # One page, and three requests to be sure that it is the last.
        assert sum(node.count(LISTING) for node in it.nodes) <= 5 * 4 * quorum


async def test_a_wallet_that_is_too_busy_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients_module, "LISTED_MAX", 3)
    async with stage(tmp_path) as it:
        other = await it.expect(name="other", recipient=key("a quiet shop"))
        await it.expect()
        for n in range(4):
            send(it, name=f"{n}")
        wanted = send(it, to=key("a quiet shop"))

        with pytest.raises(SourceUnavailable, match="too many to look at"):
            await net(it).round()

        assert it.fetched() == [wanted]
        assert await pairs(it) == [(wanted, other.terms.id)]
        assert await it.frontier(SHOP) is None


async def test_keys_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients_module, "KEYS_PER_ROUND", 2)
    async with stage(tmp_path) as it:
        shops = sorted(key(f"shop {n}") for n in range(5))
        for shop in shops:
            await it.expect(name=shop, recipient=shop)
        recipients, turns = net(it), []

        for _ in range(4):
            it.node.calls.clear()
            await recipients.round()
            it.chain.finalize(it.chain.finalized + 1)
            turns.append(list(dict.fromkeys(listed(it))))

        assert turns == [shops[:2], shops[2:4], shops[4:], shops[:2]]


async def test_a_round_fetches_so_many_and_the_next_key_comes_first_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients_module, "FETCHED_PER_ROUND", 3)
    async with stage(tmp_path) as it:
        shops = sorted(key(f"shop {n}") for n in range(3))
        for shop in shops:
            await it.expect(name=shop, recipient=shop)
            for n in range(2):
                send(it, to=shop, slot=900 + n, name=f"{shop} {n}")
        recipients, turns = net(it), []

        for _ in range(2):
            it.node.calls.clear()
            await recipients.round()
            turns.append((list(dict.fromkeys(listed(it))), len(it.fetched())))

        assert turns == [(shops[:2], 3), (shops[2:], 2)]


async def test_where_no_payment_waits_nothing_is_asked(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.settle(it.pay(order))
        it.node.calls.clear()

        await net(it).round()

        assert it.node.calls == []


# --------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("method", "fault"),
    [(LISTING, http(500)), ("getSlot", http(500)), (LISTING, null())],
)
async def test_a_list_that_is_not_complete_moves_nothing(
    tmp_path: Path, method: str, fault: Any
) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        send(it)
        it.node.fail(method, fault, times=None)

        with pytest.raises(SourceError):
            await net(it).round()

        assert await it.frontier(SHOP) is None
        assert await open_suggestions(it) == []


async def test_what_no_node_can_give_is_parked_like_anything_else(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        signature = send(it, references=[key("a reference")])
        it.node.fail("getTransaction", null(), times=None)

        await net(it).round()

        (letter,) = await it.letters()
        assert (letter.signature, letter.key, letter.reason) == (signature, SHOP, "not_found")
        assert await it.frontier(SHOP) is not None


async def test_a_key_that_fails_does_not_keep_the_others_from_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        shops = sorted(key(f"shop {n}") for n in range(2))
        orders = [await it.expect(name=shop, recipient=shop) for shop in shops]
        sent = [send(it, to=shop) for shop in shops]
        recipients = net(it)
        unseen = recipients._unseen

        async def fail_once(name: str, *rest: Any) -> Any:
            if name == shops[0]:
                raise SourceUnavailable("a short list")
            return await unseen(name, *rest)

        with monkeypatch.context() as now:
            now.setattr(recipients, "_unseen", fail_once)
            with pytest.raises(SourceUnavailable, match="a short list"):
                await recipients.round()
        assert await pairs(it) == [(sent[1], orders[1].terms.id)]

        await recipients.round()
        assert len(await pairs(it)) == 2


async def test_failures_are_told_waited_out_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients_module, "INTERVAL_S", 0.01)
    async with stage(tmp_path) as it:
        await it.expect()
        signature = send(it)
        it.node.fail(LISTING, rpc_error(-32601), times=None)
        recipients = net(it)
        running = asyncio.create_task(recipients.run())
        try:
            await eventually(lambda: recipients.problem is not None, timeout_s=30)
            assert "-32601" in (recipients.problem or "")
            it.node.heal()
            await eventually(lambda: recipients.problem is None, timeout_s=30)
        finally:
            running.cancel()

        assert [each.signature for each in await open_suggestions(it)] == [signature]


async def test_a_sweep_of_a_key_that_is_watched_otherwise_too_disturbs_nothing(
    tmp_path: Path,
) -> None:
    """The cursors of wallets are no frontiers of payments: nothing expires by them."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.chain.block_times[FINAL_SLOT] = order.terms.expires_at + 1

        await net(it).round()

        assert await it.frontier(WATCH_KEY) is None
        record = await it.record(order)
        assert record.payment.state.status is Status.PENDING


async def test_many_payments_of_one_amount_get_the_youngest_suggested(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        orders = [await it.expect(name=f"{n}", created_at=BLOCK_TIME - 100 + n) for n in range(30)]
        send(it)

        await net(it).round()

        found = {payment_id for _, payment_id in await pairs(it)}
        assert found == {order.terms.id for order in orders[-10:]}
