"""A decision is made once, and is part of the payment."""

import pytest

from indexer.core.types import DecisionKind
from indexer.core.verdict import Decision
from indexer.errors import Conflict
from store import decisions, payments
from store.database import Database, Statement
from tests.builders import NOW, make_event, make_payment, make_verdict
from tests.instructions import signature


PAYMENT = make_payment()


def decision(name: str = "paid", kind: DecisionKind = DecisionKind.ACCEPTED) -> Decision:
    return Decision(
        payment_id=PAYMENT.terms.id,
        signature=signature(name),
        kind=kind,
        note=None if name == "paid" else f"about {name}",
        decided_at=NOW,
    )


@pytest.fixture
async def stored(database: Database) -> Database:
    await database.write(payments.insert(PAYMENT, make_event(PAYMENT)))
    return database


async def test_decisions_come_back_with_the_payment(stored: Database) -> None:
    made = [decision(f"{kind}", kind) for kind in DecisionKind]
    await stored.write(payments.save(PAYMENT, PAYMENT, decisions=made, now=NOW))

    record = await payments.get(stored, PAYMENT.terms.id)

    assert record is not None
    assert list(record.decisions) == sorted(made, key=lambda each: each.signature)
    assert record.accepted == {signature("accepted"), signature("matched")}
    assert record.refused == {signature("refused")}


async def test_money_that_was_decided_on_is_summed_up(stored: Database) -> None:
    verdicts = [make_verdict(PAYMENT, name=f"{n}", credit=10**n) for n in range(4)]
    made = [decision("1"), decision("3", DecisionKind.REFUSED), decision("elsewhere")]
    await stored.write(payments.save(PAYMENT, PAYMENT, verdicts=verdicts, decisions=made, now=NOW))

    record = await payments.get(stored, PAYMENT.terms.id)

    assert record is not None
    assert record.decided == 1_010


@pytest.mark.parametrize("kind", DecisionKind)
async def test_a_decision_is_made_once(stored: Database, kind: DecisionKind) -> None:
    await stored.write([decisions.insert(decision())])

    with pytest.raises(Conflict):
        await stored.write([decisions.insert(decision(kind=kind))])

    [rows] = await stored.read([Statement("SELECT decision FROM decisions")])
    assert rows == [("accepted",)]


@pytest.mark.parametrize(
    "sql", ["UPDATE decisions SET decision = 'refused'", "DELETE FROM decisions"]
)
async def test_a_decision_stays(stored: Database, sql: str) -> None:
    await stored.write([decisions.insert(decision())])

    with pytest.raises(Conflict, match="made once"):
        await stored.write([Statement(sql)])


async def test_a_decision_about_a_payment_that_changed_meanwhile_is_refused(
    stored: Database,
) -> None:
    stale = make_payment(version=9)

    with pytest.raises(Conflict):
        await stored.write(payments.save(stale, stale, decisions=[decision()], now=NOW))

    record = await payments.get(stored, PAYMENT.terms.id)
    assert record is not None
    assert record.decisions == ()
