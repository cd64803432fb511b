"""Payments by card in the store: what was told of their charges is one write, or none."""

from dataclasses import replace

import pytest

from indexer.core.charge import Charge
from indexer.core.types import ChargeState, EventType, Status
from indexer.errors import Conflict, InvariantError
from store import cards, events, everything, payments
from store.cards import CardRecord, Check
from store.database import Database, Statement
from tests.builders import NOW, make_event, make_payment
from tests.cards import (
    ORDER_ID,
    card,
    due_at,
    make_card_payment,
    make_charge,
    make_order,
    stored_card,
)


def advanced(record: CardRecord, status: Status = Status.PROCESSING) -> CardRecord:
    payment = record.payment
    state = replace(payment.state, status=status)
    return replace(record, payment=replace(payment, state=state, version=payment.version + 1))


async def test_a_payment_comes_back_as_it_was_stored(database: Database) -> None:
    payment = make_card_payment(order_id="1042", label="Shop", metadata={"table": "7"})

    record = await stored_card(database, payment)

    assert record == CardRecord(payment, (make_order(payment),))
    assert record.checkout_url == make_order(payment).checkout_url
    assert await payments.get(database, payment.terms.id) is None, "it is not on the chain"
    assert await due_at(database, payment.terms.id) == NOW + 60


async def test_several_orders_are_found_and_the_last_page_is_the_one_to_pay_on(
    database: Database,
) -> None:
    payment = make_card_payment()
    lost = make_order(payment, None, checkout_url=None, intention_id=None)
    second = make_order(payment, 8, special_reference=f"{payment.terms.id}-2")

    record = await stored_card(database, payment, lost, second)

    assert record.orders == (lost, second)
    assert record.checkout_url == second.checkout_url
    assert await cards.by_order(database, 8) == record
    assert await cards.by_order(database, 9) is None
    assert CardRecord(payment, (lost,)).checkout_url is None
    assert CardRecord(payment, (make_order(payment), second)).checkout_url == second.checkout_url


async def test_an_order_belongs_to_one_payment(database: Database) -> None:
    await stored_card(database)

    with pytest.raises(Conflict):
        await stored_card(database, make_card_payment(2))

    assert await cards.get(database, make_card_payment(2).terms.id) is None, "all or nothing"


async def test_charges_are_stored_with_the_payment_and_its_events(database: Database) -> None:
    before = await stored_card(database)
    after = advanced(before)
    charge = make_charge(7, ChargeState.PENDING)
    news = make_event(after.payment, EventType.DETECTED)

    await database.write(cards.save(before, after.payment, charges=[charge], events=[news]))

    assert await card(database, before.payment) == replace(after, charges=(charge,))
    assert await cards.owner_of(database, 7) == before.payment.terms.id
    assert await cards.owner_of(database, 8) is None
    assert await events.last_seq(database) == 2


async def test_what_does_not_change_is_not_written(database: Database) -> None:
    record = await stored_card(database)

    assert cards.save(record, record.payment) == []
    with pytest.raises(InvariantError, match="next version"):
        cards.save(record, replace(record.payment, version=3))


@pytest.mark.parametrize(
    "faster",
    [
        pytest.param([make_charge(7, ChargeState.DECLINED)], id="another charge"),
        pytest.param([make_charge(6, ChargeState.PAID)], id="another state"),
        pytest.param([make_charge(6, ChargeState.PENDING, refunded=1)], id="another refund"),
        pytest.param([make_charge(6, ChargeState.PENDING, paid_at=NOW)], id="another time"),
    ],
)
async def test_nothing_is_decided_on_charges_that_were_not_all_read(
    database: Database, faster: list[Charge]
) -> None:
    """Also where the other writer's news did not change the payment, nor its version."""
    first = await stored_card(database)
    await database.write(
        cards.save(first, first.payment, charges=[make_charge(6, ChargeState.PENDING)])
    )
    before = await card(database, first.payment)
    await database.write(cards.save(before, before.payment, charges=faster))
    known = (await card(database, first.payment)).charges

    for after, charges in ((advanced(before).payment, []), (before.payment, [make_charge(9)])):
        with pytest.raises(Conflict):
            await database.write(cards.save(before, after, charges=charges))

    left = await card(database, first.payment)
    assert (left.payment, left.charges) == (first.payment, known)


async def test_another_version_refuses_the_batch(database: Database) -> None:
    before = await stored_card(database)
    await database.write(cards.save(before, advanced(before).payment))

    for after, charges in ((advanced(before).payment, []), (before.payment, [make_charge(9)])):
        with pytest.raises(Conflict):
            await database.write(cards.save(before, after, charges=charges))

    assert (await card(database, before.payment)).charges == ()


async def test_a_charge_of_another_payment_is_refused(database: Database) -> None:
    one = await stored_card(database)
    other = await stored_card(database, make_card_payment(2), order_id=5)
    await database.write(cards.save(one, one.payment, charges=[make_charge(7)]))

    with pytest.raises(Conflict):
        await database.write(cards.save(other, other.payment, charges=[make_charge(7)]))

    assert (await card(database, other.payment)).charges == ()


@pytest.mark.parametrize("other", [make_charge(7, amount=4_999), make_charge(7, order_id=5)])
async def test_a_charge_never_changes_its_order_or_amount(
    database: Database, other: Charge
) -> None:
    first = await stored_card(database)
    await database.write(cards.save(first, first.payment, charges=[make_charge(7)]))
    before = await card(database, first.payment)

    with pytest.raises(Conflict):
        await database.write(cards.save(before, before.payment, charges=[other]))

    assert await card(database, first.payment) == before


async def test_a_charge_becomes_what_was_told_of_it(database: Database) -> None:
    first = await stored_card(database)
    await database.write(
        cards.save(first, first.payment, charges=[make_charge(7, ChargeState.PENDING)])
    )
    before = await card(database, first.payment)
    paid = make_charge(7, refunded=100, updated_at=NOW + 9)

    await database.write(cards.save(before, before.payment, charges=[paid]))

    assert (await card(database, first.payment)).charges == (paid,)


async def test_the_number_of_an_order_is_learned_once(database: Database) -> None:
    payment = make_card_payment()
    await stored_card(database, payment, make_order(payment, None))

    await database.write([cards.learn_order(payment.terms.id, ORDER_ID)])
    await database.write([cards.learn_order(payment.terms.id, ORDER_ID)])
    with pytest.raises(Conflict):
        await database.write([cards.learn_order(payment.terms.id, ORDER_ID + 1)])

    assert (await card(database, payment)).orders == (
        make_order(payment, checkout_url=make_order(payment, None).checkout_url),
    )


async def test_checks_come_when_they_are_due_the_longest_due_first(database: Database) -> None:
    for number, at in ((1, NOW + 30), (2, NOW + 10), (3, NOW + 99)):
        payment = make_card_payment(number)
        await stored_card(database, payment, order_id=number, check_at=at)

    due = await cards.due(database, NOW + 30, 9)

    assert [each.payment_id[-1] for each in due] == ["2", "1"]
    assert due[0] == Check(payment_id=make_card_payment(2).terms.id, due_at=NOW + 10, asked=0)
    assert len(await cards.due(database, NOW + 99, 2)) == 2


async def test_what_an_answer_and_a_question_do_to_a_check(database: Database) -> None:
    id_ = (await stored_card(database)).payment.terms.id

    await database.write([cards.ask(id_, NOW + 90)])
    assert await due_at(database, id_) == NOW + 60, "sooner, never later"
    await database.write([cards.ask(id_, NOW + 5)])
    assert await due_at(database, id_) == NOW + 5
    await database.write([cards.not_answered(id_, NOW + 20)])
    await database.write([cards.not_answered(id_, NOW + 10)])
    assert await due_at(database, id_) == NOW + 20
    await database.write([cards.answered(id_, NOW + 600)])
    [check] = await cards.due(database, NOW + 600, 1)
    assert (check.due_at, check.asked) == (NOW + 600, 1)
    await database.write([cards.answered(id_, None)])
    await database.write([cards.ask(id_, NOW), cards.answered(id_, NOW)])
    assert await due_at(database, id_) is None, "of which no news is expected stays without one"


async def test_those_in_review_come_oldest_first_and_apart_from_the_chains(
    database: Database,
) -> None:
    for number, created_at in ((1, NOW + 1), (2, NOW), (3, NOW)):
        review = () if number == 3 else ("paid_again",)
        payment = make_card_payment(number, created_at=created_at, state={"review": review})
        await stored_card(database, payment, order_id=number)

    found = await cards.in_review(database, limit=9)

    assert [record.payment.terms.id[-1] for record in found] == ["2", "1"]
    assert await payments.in_review(database, limit=9) == []
    assert await payments.in_review_count(database) == 2
    on_chain = make_payment(9, created_at=NOW + 99, state={"review": ("paid_again",)})
    await database.write(payments.insert(on_chain, make_event(on_chain)))
    [first] = await payments.in_review(database, limit=1)
    assert first.payment == on_chain, "those by card do not hide it"


async def test_an_audit_passes_all_of_a_time_the_oldest_first(database: Database) -> None:
    for number in (1, 2, 3):
        payment = make_card_payment(number, created_at=NOW + number)
        await stored_card(database, payment, order_id=number)
    after, seen = (-1, ""), []

    while page := await cards.audit_page(database, NOW + 2, NOW + 9, after=after, limit=1):
        seen += [id_[-1] for _, id_ in page]
        after = page[-1]

    assert seen == ["2", "3"]


async def test_a_payment_on_the_chain_is_none_by_card(database: Database) -> None:
    record = await stored_card(database)

    assert await cards.by_ids(database, []) == []
    assert await everything.by_ids(database, []) == []
    assert await cards.by_ids(database, ["pay_no", record.payment.terms.id]) == [record]


async def test_the_store_refuses_what_the_code_should_never_ask(database: Database) -> None:
    record = await stored_card(database)
    charge = make_charge(7, state=ChargeState.PAID, refunded=10, paid_at=NOW)
    await database.write(cards.save(record, record.payment, charges=[charge]))

    for sql in (
        "UPDATE charges SET amount = '1'",
        "UPDATE charges SET state = 'declined'",
        "UPDATE charges SET refunded = '9'",
        "UPDATE charges SET paid_at = NULL",
        "UPDATE charges SET paid_at = paid_at + 1",
        "DELETE FROM charges",
        "UPDATE card_orders SET order_id = order_id + 1",
        "UPDATE card_orders SET order_id = NULL",
        "UPDATE card_orders SET special_reference = 'another'",
        "DELETE FROM card_orders",
    ):
        with pytest.raises(Conflict, match="never"):
            await database.write([Statement(sql)])
