"""Doubtful money is accepted or refused, suggestions are dismissed: once, whoever is first."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from indexer import review as review_module
from indexer.core.types import DecisionKind, Reason, Status
from indexer.errors import Conflict, InvalidInput, StoreUnavailable
from indexer.review import CannotDecide
from store.payments import Record
from tests.chain import (
    TokenAccount,
    ata,
    checked_transfer,
    holding,
    key,
    signature_of,
    system_transfer,
    transaction,
)
from tests.indexer.desk import MINT, TOO_LATE, USDC, desk, doubtful, send, states, suggest_all
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    EXPIRES_AT,
    FINAL_SLOT,
    SHOP,
    forged,
    stage,
)
from tests.servers.fake_rpc import null


# ------------------------------------------------------------------------------ accept, refuse


async def test_doubtful_money_that_is_accepted_settles(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = await doubtful(it, order)
        (question,) = (await desk(it).waiting(9)).questions
        assert (question.record.payment.terms.id, dict(question.asked)) == (
            order.terms.id,
            {signature: (Reason.DEBITED,)},
        )
        it.node.calls.clear()

        record = await desk(it).accept(order.terms.id, note="seen")

        assert (record.payment.state.status, record.payment.state.review) == (Status.SETTLED, ())
        (decision,) = record.decisions
        assert (decision.signature, decision.kind) == (signature, DecisionKind.ACCEPTED)
        assert (await it.events(order))[-1] == "settled"
        assert (await desk(it).waiting(9)).questions == ()
        assert it.node.calls == []  # nothing is asked of the chain


async def test_doubtful_money_that_is_refused_lets_the_payment_wait_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = await doubtful(it, order)
        assert (await it.record(order)).payment.state.status is Status.PROCESSING

        refusal = await desk(it).refuse(order.terms.id)

        (record,) = refusal.payments
        state = record.payment.state
        assert (state.status, state.review, state.received) == (Status.PENDING, (), AMOUNT)
        assert (refusal.refused, refusal.dismissed) == (1, 0)
        assert record.refused == {signature}
        await it.settle(it.pay(order))
        assert (await it.record(order)).payment.state.status is Status.SETTLED


async def test_one_of_several_is_accepted_and_another_refused(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        first, second, third = [await doubtful(it, order, amount) for amount in (400, 600, 7)]

        record = await desk(it).accept(order.terms.id, signature=first)
        assert record.payment.state.review == (Reason.DEBITED,)
        refusal = await desk(it).refuse(second)

        (record,) = refusal.payments
        assert record.accepted == {first}
        assert record.refused == {second}
        assert record.payment.state.received == 1_007
        (question,) = (await desk(it).waiting(9)).questions
        assert list(question.asked) == [third]


@pytest.mark.parametrize("answer", ["accept", "refuse"])
async def test_money_for_a_canceled_payment_is_answered_and_it_stays_canceled(
    tmp_path: Path, answer: str
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.cancel(order)
        await it.settle(it.pay(order))
        assert (await it.record(order)).payment.state.review == (Reason.PAID_AFTER_CANCEL,)

        await getattr(desk(it), answer)(order.terms.id)

        state = (await it.record(order)).payment.state
        assert (state.status, state.review, state.received) == (Status.CANCELED, (), AMOUNT)


async def test_money_after_the_grace_time_settles_once_it_is_accepted(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.settle(it.pay(order, block_time=TOO_LATE))
        assert (await it.record(order)).payment.state.review == (Reason.LATE_AFTER_GRACE,)

        record = await desk(it).accept(order.terms.id)

        assert (record.payment.state.status, record.payment.state.late) == (Status.SETTLED, True)


@pytest.mark.parametrize("answer", ["accept", "refuse"])
async def test_a_second_payment_is_answered_and_the_first_stays(
    tmp_path: Path, answer: str
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.settle(it.pay(order), it.pay(order, name="again"))
        before = (await it.record(order)).payment.state
        assert before.review == (Reason.PAID_AGAIN,)

        await getattr(desk(it), answer)(order.terms.id)

        after = (await it.record(order)).payment.state
        assert (after.status, after.review, after.settled_at) == (
            Status.SETTLED,
            (),
            before.settled_at,
        )
        assert (await it.events(order)).count("settled") == 1


async def test_what_settled_a_payment_cannot_be_refused(tmp_path: Path) -> None:
    """Enough came to where it belongs, and a little beside it: that can only be accepted."""
    async with stage(tmp_path) as it:
        order = await it.expect(asset=USDC, token_account=ata(SHOP, MINT))
        beside = TokenAccount(account=key("beside"), mint=MINT, owner=SHOP)
        reference = order.terms.reference
        landed = transaction(
            [
                checked_transfer(ata(BUYER, MINT), MINT, to, BUYER, amount, reference)
                for to, amount in ((ata(SHOP, MINT), AMOUNT), (beside.account, 1))
            ],
            tokens=[holding(BUYER, MINT), holding(SHOP, MINT), beside],
            slot=FINAL_SLOT,
        )
        it.chain.add(landed)
        await it.settle(it.found(landed))
        before = await it.record(order)
        assert before.payment.state.review == (Reason.AUXILIARY_ACCOUNT,)
        assert before.payment.state.status is Status.SETTLED

        for subject in (order.terms.id, signature_of(landed)):
            with pytest.raises(CannotDecide, match="was settled by this money"):
                await desk(it).refuse(subject)

        assert await it.record(order) == before
        record = await desk(it).accept(order.terms.id)
        assert (record.payment.state.status, record.payment.state.review) == (Status.SETTLED, ())


@pytest.mark.parametrize("kind", ["payment", "signature"])
async def test_suggestions_are_dismissed(tmp_path: Path, kind: str) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(), await it.expect(name="other")
        signature, second = send(it), send(it, name="second")
        await suggest_all(it)

        subject = order.terms.id if kind == "payment" else signature
        refusal = await desk(it).refuse(subject)

        assert (refusal.refused, refusal.dismissed) == (0, 2)
        touched = {order.terms.id} if kind == "payment" else {order.terms.id, other.terms.id}
        assert {record.payment.terms.id for record in refusal.payments} == touched
        left = [(s.signature, s.payment_id) for s, _ in (await desk(it).waiting(9)).suggested]
        wanted = (
            [(signature, other.terms.id), (second, other.terms.id)]
            if kind == "payment"
            else [(second, order.terms.id), (second, other.terms.id)]
        )
        assert sorted(left) == sorted(wanted)
        assert await it.table("decisions") == []
        with pytest.raises(CannotDecide, match=r"nothing about .* waits for a decision"):
            await desk(it).refuse(subject)


async def test_where_nothing_is_in_doubt_nothing_can_be_decided(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, unpaid = await it.expect(), await it.expect(name="unpaid")
        found = it.pay(order)
        paid = found.signature
        await it.settle(found)
        seen = desk(it)

        with pytest.raises(CannotDecide, match="waits for a decision"):
            await seen.accept(unpaid.terms.id)
        with pytest.raises(CannotDecide, match="waits for a decision"):
            await seen.refuse(unpaid.terms.id)
        with pytest.raises(CannotDecide, match=r"nothing about .* is in doubt"):
            await seen.accept(order.terms.id, signature=paid)
        with pytest.raises(CannotDecide, match=r"is no transaction of .* review match"):
            await seen.accept(unpaid.terms.id, signature=paid)
        with pytest.raises(CannotDecide, match="waits for a decision"):
            await seen.refuse(paid)
        with pytest.raises(CannotDecide, match="waits for a decision"):
            await seen.refuse(forged("unknown"))
        with pytest.raises(CannotDecide, match="there is no payment"):
            await seen.accept("pay_" + "0" * 26)
        with pytest.raises(CannotDecide, match="there is no payment"):
            await seen.refuse("pay_" + "0" * 26)


async def test_a_question_without_money_can_only_be_refused(tmp_path: Path) -> None:
    """There is nothing in it that could count."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        landed = transaction(
            [
                system_transfer(BUYER, SHOP, 5, order.terms.reference),
                system_transfer(SHOP, BUYER, 5),
            ],
            slot=FINAL_SLOT,
        )
        it.chain.add(landed)
        await it.settle(it.found(landed))
        assert (await it.record(order)).payment.state.review == (Reason.DEBITED,)

        with pytest.raises(CannotDecide, match=r"credits .* with nothing"):
            await desk(it).accept(order.terms.id)
        await desk(it).refuse(order.terms.id)

        assert (await it.record(order)).payment.state.review == ()


@pytest.mark.parametrize(("first", "then"), [("accept", "refuse"), ("refuse", "accept")])
async def test_a_decision_is_made_once(tmp_path: Path, first: str, then: str) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = await doubtful(it, order)
        it.clock.now = EXPIRES_AT
        await getattr(desk(it), first)(order.terms.id)
        before = await it.record(order)

        again = (
            desk(it).refuse(signature)
            if then == "refuse"
            else desk(it).accept(order.terms.id, signature=signature)
        )
        with pytest.raises(CannotDecide, match=r"was (accepted|refused) .* already"):
            await again

        assert await it.record(order) == before


async def test_of_many_people_who_decide_at_once_one_wins_and_the_others_are_told(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = await doubtful(it, order)
        made = [desk(it).accept(order.terms.id, signature=signature) for _ in range(3)]
        unmade = [desk(it).refuse(signature) for _ in range(3)]

        done = await asyncio.gather(*made, *unmade, return_exceptions=True)

        assert sum(not isinstance(each, BaseException) for each in done) == 1
        assert sum(isinstance(each, CannotDecide) for each in done) == 5
        assert len((await it.record(order)).decisions) == 1
        state = (await it.record(order)).payment.state
        accepted = bool((await it.record(order)).accepted)
        assert state.status is (Status.SETTLED if accepted else Status.PENDING)


async def test_a_transfer_that_arrives_while_it_is_decided_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision was made on what was read; it is made anew on what is there now."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        await doubtful(it, order, 400)
        write, done = it.database.write, list[int]()

        async def write_later(batch: Any) -> Any:
            if not done:
                done.append(1)
                await it.settle(it.pay(order, amount=AMOUNT - 400))
            return await write(batch)

        monkeypatch.setattr(it.database, "write", write_later)

        record = await desk(it).accept(order.terms.id)

        assert record.payment.state.status is Status.SETTLED
        assert len(record.verdicts) == 2


async def test_a_write_that_fails_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = send(it)
        await suggest_all(it)

        async def fail(batch: Any) -> Any:
            raise StoreUnavailable("disk full")

        with monkeypatch.context() as now:
            now.setattr(it.database, "write", fail)
            with pytest.raises(StoreUnavailable):
                await desk(it).match(signature, order.terms.id)

        assert await it.record(order) == Record(order)
        assert await states(it) == {"open": 1}
        assert (await desk(it).match(signature, order.terms.id)).payment.state.status is (
            Status.SETTLED
        )


async def test_decisions_of_one_write_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_module, "DECISIONS_MAX", 2)
    async with stage(tmp_path) as it:
        order = await it.expect()
        for n in range(3):
            await doubtful(it, order, 10, name=f"{n}", slot=FINAL_SLOT - n)

        first = await desk(it).refuse(order.terms.id)
        second = await desk(it).refuse(order.terms.id)

        assert (first.refused, second.refused) == (2, 1)
        assert second.payments[0].payment.state.review == ()


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "signature", ["", "x", "0OIl", forged("a")[:-4], forged("a") * 1_000, "pay_x", "\0", "é" * 88]
)
async def test_what_is_no_signature_is_refused(tmp_path: Path, signature: str) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()

        with pytest.raises(InvalidInput, match="is no signature"):
            await desk(it).match(signature, order.terms.id)
        with pytest.raises(InvalidInput, match="is no signature"):
            await desk(it).accept(order.terms.id, signature=signature)
        if not signature.startswith("pay_"):
            with pytest.raises(InvalidInput, match="is no signature"):
                await desk(it).refuse(signature)

        assert it.node.calls == []


@pytest.mark.parametrize("note", ["", "x" * 501, "two\nlines", "\x1b[2J"])
async def test_a_note_is_one_line_of_some_length(tmp_path: Path, note: str) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await doubtful(it, order)

        with pytest.raises(InvalidInput, match="note"):
            await desk(it).accept(order.terms.id, note=note)
        with pytest.raises(InvalidInput, match="note"):
            await desk(it).refuse(order.terms.id, note=note)
        with pytest.raises(InvalidInput, match="note"):
            await desk(it).match(forged("x"), order.terms.id, note=note)


# ------------------------------------------------------------------------------------- waiting


async def test_only_so_much_is_listed_and_that_there_is_more_is_said(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        orders = [await it.expect(name=f"{n}") for n in range(3)]
        for order in orders:
            await doubtful(it, order, 1, name=order.terms.id)
        send(it)
        await suggest_all(it)

        some, everything = await desk(it).waiting(2), await desk(it).waiting(3)

        assert (len(some.questions), len(some.suggested), some.is_all) == (2, 2, False)
        assert (len(everything.questions), len(everything.suggested)) == (3, 3)
        assert everything.is_all


async def test_a_null_of_a_node_is_no_answer_to_a_match(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        signature = send(it)
        it.node.fail("getTransaction", null(), times=None)

        with pytest.raises(CannotDecide, match="cannot be examined now"):
            await desk(it).match(signature, order.terms.id)

        assert await it.letters() == []
        it.node.heal()
        await desk(it).match(signature, order.terms.id)


async def test_a_payment_that_changes_all_the_time_is_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await doubtful(it, order)

        async def refuse(batch: Any) -> Any:
            raise Conflict("somebody was faster")

        monkeypatch.setattr(it.database, "write", refuse)

        with pytest.raises(Conflict, match="in a row were refused"):
            await desk(it).accept(order.terms.id)
