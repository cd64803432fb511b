"""A person gives a transfer without a reference to a payment: once, and only what is true."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from indexer.core import suggest
from indexer.core.types import DecisionKind, Paid, Reason, Status
from indexer.review import CannotDecide
from store import suggestions
from store.payments import Record
from tests.chain import (
    ata,
    key,
    signature_of,
    sol_transfer,
    token_transfer,
)
from tests.indexer.desk import MINT, TOO_LATE, USDC, desk, send, states, suggest_all
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    FINAL_SLOT,
    SHOP,
    forged,
    stage,
)


# --------------------------------------------------------------------------------------- match


async def test_a_match_settles_once_and_closes_every_suggestion_of_the_transfer(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(), await it.expect(name="other")
        signature = send(it)
        await suggest_all(it)
        it.woken.clear()

        record = await desk(it).match(signature, order.terms.id, note="mail of Tuesday")

        state = record.payment.state
        assert (state.status, state.paid, state.review) == (Status.SETTLED, Paid.EXACT, ())
        (verdict,) = record.verdicts
        assert (verdict.signature, verdict.credit, verdict.clean) == (signature, AMOUNT, True)
        assert verdict.reasons == (Reason.MATCHED,)
        (leg,) = verdict.legs
        assert (leg.source, leg.destination, leg.net) == (BUYER, SHOP, AMOUNT)
        (decision,) = record.decisions
        assert (decision.kind, decision.note) == (DecisionKind.MATCHED, "mail of Tuesday")
        assert decision.decided_at == int(it.clock())
        assert await it.events(order) == ["created", "settled"]
        assert await states(it) == {"matched": 1, "dismissed": 1}
        assert await it.events(other) == ["created"]
        assert it.woken == [1]


async def test_a_match_needs_no_suggestion(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()

        record = await desk(it).match(send(it), order.terms.id)

        assert record.payment.state.status is Status.SETTLED


async def test_a_match_in_tokens(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect(asset=USDC, token_account=ata(SHOP, MINT))
        landed = token_transfer(BUYER, SHOP, AMOUNT, mint=MINT, slot=FINAL_SLOT)
        it.chain.add(landed)

        record = await desk(it).match(signature_of(landed), order.terms.id)

        assert record.payment.state.status is Status.SETTLED


async def test_a_match_of_less_is_a_part_and_the_rest_may_come_as_usual(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()

        record = await desk(it).match(send(it, AMOUNT - 1), order.terms.id)

        assert (record.payment.state.status, record.payment.state.paid) == (
            Status.PENDING,
            Paid.PARTIAL,
        )
        assert record.payment.state.review == ()
        await it.settle(it.pay(order, amount=1))
        assert await it.events(order) == ["created", "partially_paid", "settled"]


async def test_a_match_counts_however_late_it_came(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = send(it, block_time=TOO_LATE)

        record = await desk(it).match(signature, order.terms.id)

        assert (record.payment.state.status, record.payment.state.late) == (Status.SETTLED, True)


async def test_the_same_transfer_is_matched_to_one_payment(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(), await it.expect(name="other")
        signature = send(it)
        await desk(it).match(signature, order.terms.id)

        with pytest.raises(CannotDecide, match=f"pays {order.terms.id} already"):
            await desk(it).match(signature, other.terms.id)
        with pytest.raises(CannotDecide, match=r"was matched .* already"):
            await desk(it).match(signature, order.terms.id)

        assert await it.record(other) == Record(other)
        assert len(await it.table("transfers")) == 1


CANNOT = {
    "no such payment": ({}, {}, "there is no payment"),
    "not there": ({}, {"signature": forged("x")}, "cannot be examined now: no node has it"),
    "not final": ({"slot": FINAL_SLOT + 1}, {}, "cannot be examined now: no node has it"),
    "failed": ({"err": "AccountInUse"}, {}, "it moved nothing"),
    "to somebody else": ({"to": key("another shop")}, {}, "pays no SOL to"),
}


@pytest.mark.parametrize(("sent", "asked", "says"), CANNOT.values(), ids=CANNOT)
async def test_what_cannot_be_matched_is_said_and_changes_nothing(
    tmp_path: Path, sent: dict[str, Any], asked: dict[str, str], says: str
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = asked.get("signature") or send(it, **sent)
        id_ = "pay_" + "0" * 26 if says == "there is no payment" else order.terms.id

        with pytest.raises(CannotDecide, match=says):
            await desk(it).match(signature, id_)

        assert await it.record(order) == Record(order)
        assert await it.table("decisions") == []


async def test_a_suggestion_is_not_believed(tmp_path: Path) -> None:
    """What it said of the transfer may be anything; the chain decides."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = send(it, 1)
        lie = suggest.Suggestion(
            signature=signature,
            outer=0,
            inner=None,
            sub=None,
            payment_id=order.terms.id,
            why=suggest.Why.AMOUNT,
            source=BUYER,
            destination=SHOP,
            amount=AMOUNT,
            memo=None,
            slot=FINAL_SLOT,
            block_time=1,
            found_at=1,
        )
        await it.database.write([suggestions.insert(lie)])

        record = await desk(it).match(signature, order.terms.id)

        assert (record.payment.state.status, record.payment.state.received) == (Status.PENDING, 1)


async def test_a_node_that_lies_alone_is_not_believed(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=2, quorum=2) as it:
        order = await it.expect()
        signature = send(it)
        it.nodes[1].lies[signature] = lambda answer: answer["meta"]["postBalances"].__setitem__(
            0, 1
        )

        with pytest.raises(CannotDecide, match=r"cannot be examined now: .*disagree"):
            await desk(it).match(signature, order.terms.id)

        assert await it.record(order) == Record(order)


@pytest.mark.parametrize("is_own", [True, False])
@pytest.mark.parametrize("is_settled", [True, False])
async def test_what_names_a_payment_is_not_matched(
    tmp_path: Path, is_own: bool, is_settled: bool
) -> None:
    """Neither to it nor to another, whether it was judged already or not."""
    async with stage(tmp_path) as it:
        order, other = await it.expect(), await it.expect(name="other")
        found = it.pay(order, amount=AMOUNT - 1)
        if is_settled:
            await it.settle(found)
        target = order if is_own else other
        before = await it.record(target)

        with pytest.raises(CannotDecide, match=f"names {order.terms.id}|pays {order.terms.id}"):
            await desk(it).match(found.signature, target.terms.id)

        assert await it.record(target) == before


@pytest.mark.parametrize("status", [Status.SETTLED, Status.CANCELED])
async def test_nothing_is_matched_to_a_payment_that_is_over(tmp_path: Path, status: Status) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        if status is Status.SETTLED:
            await it.settle(it.pay(order))
        else:
            await it.cancel(order)
        before = await it.record(order)
        it.node.calls.clear()

        with pytest.raises(CannotDecide, match=f"is {status} already"):
            await desk(it).match(send(it), order.terms.id)

        assert await it.record(order) == before
        assert it.node.calls == []


async def test_a_payment_that_is_settled_while_its_match_is_fetched_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = send(it)
        read = it.pipeline.read

        async def read_slowly(found: Any) -> Any:
            monkeypatch.setattr(it.pipeline, "read", read)
            await it.settle(it.pay(order, name="the real one"))
            return await read(found)

        monkeypatch.setattr(it.pipeline, "read", read_slowly)

        with pytest.raises(CannotDecide, match="is settled already"):
            await desk(it).match(signature, order.terms.id)

        assert await it.events(order) == ["created", "settled"]


async def test_two_people_match_one_transfer_to_two_payments_and_one_wins(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        orders = [await it.expect(name=f"{n}") for n in range(4)]
        signature = send(it)
        await suggest_all(it)

        done = await asyncio.gather(
            *(desk(it).match(signature, each.terms.id) for each in (*orders, orders[0])),
            return_exceptions=True,
        )

        won = [each for each in done if isinstance(each, Record)]
        told = [each for each in done if isinstance(each, CannotDecide)]
        assert (len(won), len(told)) == (1, 4)
        assert len(await it.table("transfers")) == 1
        assert await states(it) == {"matched": 1, "dismissed": 3}
        settled = [await it.events(each) for each in orders]
        assert sorted(settled) == [["created"]] * 3 + [["created", "settled"]]


async def test_a_payment_that_is_made_later_for_a_matched_transfer_gets_nothing_of_it(
    tmp_path: Path,
) -> None:
    """Whoever brings a reference of his own may bring one that stands there already."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        stranger = key("a key that names nobody yet")
        landed = sol_transfer(BUYER, SHOP, AMOUNT, references=[stranger], slot=FINAL_SLOT)
        it.chain.add(landed)
        await desk(it).match(signature_of(landed), order.terms.id)
        later = await it.expect(name="later", reference=stranger, watch_key=None)

        await it.settle(it.found(landed))
        await it.sweeper(stranger).sweep(stranger)

        (verdict,) = (await it.record(later)).verdicts
        assert (verdict.credit, verdict.legs) == (0, ())
        assert Reason.ALREADY_ALLOCATED in verdict.reasons
        assert (await it.record(later)).payment.state.status is Status.PENDING
        assert (await it.record(order)).payment.state.status is Status.SETTLED
