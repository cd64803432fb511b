"""The books of payments by card: what is stored follows from the charges, or it is named."""

from pathlib import Path

import pytest

from indexer import card_audit
from indexer.card_audit import audit_cards
from indexer.core import events, settle
from indexer.core.payment import CardPayment
from indexer.core.types import Status
from store import everything, payments
from store.cards import CardRecord
from store.database import Statement
from tests.builders import NOW, make_event, make_payment
from tests.cards import EXPIRES_IN_S, make_card_payment
from tests.indexer.acquiring import Acquiring, acquiring


ALWAYS = NOW + 10**7


async def differences(it: Acquiring, *, since: int = 0) -> list[tuple[str, str]]:
    """What differs, and where."""
    report = await audit_cards(it.database, since=since, clock=lambda: ALWAYS)
    return [(each.what, each.payment_id) for each in report.differences]


async def lived(it: Acquiring) -> dict[str, CardPayment]:
    """One payment for each thing that may become of one."""
    names = (
        "open", "begun", "declined", "settled", "twice", "partly", "refunded", "voided",
        "voided at once", "expired", "late", "too late", "canceled", "paid after", "given back",
    )  # fmt: skip
    made = {name: await it.expect() for name in names}

    def id_of(name: str) -> str:
        return made[name].terms.id

    await it.fake.begin(id_of("begun"))
    await it.fake.decline(id_of("declined"))
    for name in ("settled", "twice", "twice", "partly", "refunded", "voided"):
        await it.fake.pay(id_of(name))
    await it.told()
    for name in ("canceled", "paid after", "given back"):
        record = await it.record(made[name])
        after = settle.cancel(record.payment, NOW + 1)
        change = events.of_change(record.payment, after, NOW + 1)
        await it.database.write(everything.save(record, after, events=change, now=NOW + 1))
    await it.fake.refund(it.fake.order(id_of("partly")).transactions[0], 100)
    await it.fake.refund(it.fake.order(id_of("refunded")).transactions[0])
    await it.fake.void(it.fake.order(id_of("voided")).transactions[0])
    await it.fake.pay(id_of("paid after"))
    back = await it.fake.pay(id_of("given back"))
    await it.told()
    await it.fake.refund(back)
    await it.told()
    at_once = await it.fake.pay(id_of("voided at once"))
    it.fake.held.clear()
    await it.fake.void(at_once)
    await it.told()
    it.clock.now = NOW + EXPIRES_IN_S + 30
    for name in ("expired", "late", "too late"):
        await it.check(made[name])
    await it.fake.pay(id_of("late"))
    await it.told()
    it.clock.now += 10**6
    await it.fake.pay(id_of("too late"))
    await it.told()
    return made


async def test_whatever_became_of_a_payment_follows_from_its_charges(tmp_path: Path) -> None:
    async with acquiring(tmp_path) as it:
        made = await lived(it)
        order = make_payment(99)
        await it.database.write(payments.insert(order, make_event(order)))
        statuses = {await it.status(payment) for payment in made.values()}

        report = await audit_cards(it.database, since=0, clock=lambda: ALWAYS)

        assert report.differences == []
        assert report.payments == len(made)
        assert statuses == {
            "pending", "processing", "failed", "settled", "refunded", "expired", "canceled",
        }  # fmt: skip


def of_payment(change: str) -> str:
    return f"UPDATE payments SET {change} WHERE id = ?"  # noqa: S608 - the test's own words


def of_charges(change: str) -> str:
    return f"UPDATE charges SET {change} WHERE payment_id = ?"  # noqa: S608 - the same


#: What the database refuses, and a person at it can take away.
GUARDS = ("charges_move_forward", "charges_stay", "events_stay", "payments_terms_are_final")


@pytest.mark.parametrize(
    ("name", "sql", "what"),
    [
        ("settled", of_payment("received = '1'"), "payment.received"),
        ("settled", of_payment("late = 1"), "payment.late"),
        ("settled", of_payment("review = '[\"paid_again\"]'"), "payment.review"),
        ("twice", of_payment("review = '[]'"), "payment.review"),
        ("settled", of_payment("settled_at = 1"), "payment.settled_at"),
        ("open", of_payment("status = 'settled', settled_at = 1"), "payment.status"),
        ("open", of_payment("status = 'failed'"), "payment.status"),
        ("settled", of_payment("paid = 'over'"), "payment.paid"),
        ("settled", of_charges("state = 'declined', paid_at = NULL"), "payment.status"),
        ("settled", of_charges("refunded = '4999'"), "payment.review"),
        ("settled", "DELETE FROM charges WHERE payment_id = ?", "payment.status"),
        ("settled", "DELETE FROM events WHERE payment_id = ? AND version = 2", "event"),
        ("open", "DELETE FROM events WHERE payment_id = ?", "event"),
        ("open", of_payment("amount = '1'"), "payment.amount"),
    ],
)  # fmt: skip
async def test_what_was_changed_by_hand_is_named(
    tmp_path: Path, name: str, sql: str, what: str
) -> None:
    async with acquiring(tmp_path) as it:
        id_ = (await lived(it))[name].terms.id
        for trigger in GUARDS:
            await it.database.write([Statement(f"DROP TRIGGER {trigger}")])
        await it.database.write([Statement(sql, (id_,))])

        found = await differences(it)

        assert (what, id_) in found
        assert {payment_id for _, payment_id in found} == {id_}


def test_nothing_fails_without_a_charge() -> None:
    record = CardRecord(make_card_payment(status=Status.FAILED))

    assert card_audit._should_be(record).status is Status.PENDING


async def test_only_payments_of_the_time_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_audit, "PAYMENTS_AT_ONCE", 2)
    async with acquiring(tmp_path) as it:
        for second in range(5):
            await it.expect(created_at=NOW + second)

        async def looked_at(since: int, until: int) -> int:
            report = await audit_cards(it.database, since=since, clock=lambda: until)
            return report.payments

        assert await looked_at(0, ALWAYS) == 5
        assert await looked_at(NOW + 1, NOW + 3) == 3
