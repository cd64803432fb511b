"""What is stored comes back as it was, to the last base unit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import apsw
import pytest
from hypothesis import given, strategies as st

from indexer.core.payment import Payment
from indexer.core.types import AMOUNT_MAX, Paid, Reason, Status
from indexer.core.verdict import CreditedLeg, Evidence, Verdict
from indexer.errors import StoreBroken
from store import migrate, payments
from store.connection import run
from store.payments import Record
from tests.builders import (
    NOW,
    SOL,
    USDC,
    WATCH_KEY,
    make_event,
    make_payment,
    make_sighting,
    make_terms,
    make_verdict,
)
from tests.instructions import key


SUM_MAX = 2**80  # a sum of amounts may be larger than any amount

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
amounts = st.integers(1, AMOUNT_MAX)
sums = st.integers(0, SUM_MAX)
times = st.integers(0, 2**37)  # the year 6325: a date can still be made of it
positions = st.integers(0, 255)
reasons = st.sets(st.sampled_from(Reason)).map(lambda found: tuple(sorted(found)))


@st.composite
def any_payment(draw: st.DrawFn) -> Payment:
    terms = make_terms(
        draw(st.integers(1, 10**20)),
        asset=draw(st.sampled_from([SOL, USDC])),
        amount=draw(amounts),
        watch_key=draw(st.sampled_from([None, WATCH_KEY])),
        created_at=draw(times),
        expires_in_s=draw(st.integers(1, 10**6)),
        grace_s=draw(st.integers(0, 10**6)),
    )
    payment = make_payment(
        status=draw(st.sampled_from(Status)),
        state={
            "paid": draw(st.sampled_from(Paid)),
            "late": draw(st.booleans()),
            "received": draw(sums),
            "review": draw(reasons),
        },
        version=draw(st.integers(1, 10**6)),
        order_id=draw(st.none() | texts),
        label=draw(st.none() | texts),
        message=draw(st.none() | texts),
        memo=draw(st.none() | texts),
        metadata=draw(st.dictionaries(texts, texts, max_size=3)),
    )
    return replace(payment, terms=terms)


@st.composite
def any_verdict(draw: st.DrawFn, payment: Payment, name: str) -> Verdict:
    places = draw(
        st.sets(st.tuples(positions, st.none() | positions, st.none() | positions), max_size=4)
    )
    legs = [
        CreditedLeg(
            outer=outer,
            inner=inner,
            sub=sub,
            source=key("source"),
            destination=key("destination"),
            amount=draw(amounts),
            net=draw(st.integers(0, AMOUNT_MAX)),
        )
        for outer, inner, sub in sorted(
            places, key=lambda place: tuple(-1 if part is None else part for part in place)
        )
    ]
    verdict = make_verdict(
        payment,
        name=name,
        credit=draw(sums),
        slot=draw(st.integers(0, 2**50)),
        index=draw(st.none() | positions),
        block_time=draw(times),
        clean=draw(st.booleans()),
        reasons=draw(reasons),
        legs=legs,
    )
    evidence = Evidence(
        bound=draw(sums),
        debited=draw(sums),
        delta=draw(st.integers(-SUM_MAX, SUM_MAX)),
        other_inflow=draw(sums),
        fee_lamports=draw(sums),
    )
    return replace(verdict, evidence=evidence)


@pytest.fixture(scope="module")
def schema() -> apsw.Connection:
    """The real schema, in memory: a file adds nothing to what a row can hold."""
    connection = apsw.Connection(":memory:")
    connection.execute("PRAGMA foreign_keys = ON")
    for migration in migrate.known():
        run(connection, migrate.batch(migration))
    return connection


@contextmanager
def nothing_kept(connection: apsw.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def stored(connection: apsw.Connection, payment: Payment) -> Record:
    ids = [payment.terms.id]
    [record] = payments.assemble(ids, run(connection, payments.record_statements(ids)))
    return record


@given(any_payment())
def test_a_payment_comes_back(schema: apsw.Connection, payment: Payment) -> None:
    with nothing_kept(schema):
        run(schema, payments.insert(payment, make_event(payment)))

        assert stored(schema, payment) == Record(payment)


@given(st.data())
def test_a_changed_payment_comes_back_with_its_verdicts(
    schema: apsw.Connection, data: st.DataObject
) -> None:
    before = make_payment()
    drawn = data.draw(any_payment().filter(lambda each: each.state.status is not Status.REFUNDED))
    after = replace(before, state=drawn.state, version=before.version + 1)
    verdicts = [data.draw(any_verdict(before, name)) for name in ("a", "b")]
    sighting = make_sighting(before, name="c", credit=data.draw(amounts))

    with nothing_kept(schema):
        run(schema, payments.insert(before, make_event(before)))
        run(
            schema,
            payments.save(before, after, verdicts=verdicts, sightings=[sighting], now=NOW),
        )

        assert stored(schema, before) == Record(
            after, tuple(sorted(verdicts, key=lambda each: each.order)), (sighting,)
        )


def test_the_largest_amount_that_the_chain_knows(schema: apsw.Connection) -> None:
    payment = make_payment(amount=AMOUNT_MAX, state={"received": 3 * AMOUNT_MAX})

    with nothing_kept(schema):
        run(schema, payments.insert(payment, make_event(payment)))
        record = stored(schema, payment)

    assert record.payment.terms.amount == 18_446_744_073_709_551_615
    assert record.payment.state.received == 55_340_232_221_128_654_845


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_MAX + 1, 10**20])
def test_no_other_amount_is_stored(schema: apsw.Connection, amount: int) -> None:
    payment = make_payment(amount=amount)

    with nothing_kept(schema), pytest.raises(apsw.ConstraintError, match="amount"):
        run(schema, payments.insert(payment, make_event(make_payment())))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE payments SET review = '{}'", "payment pay_"),
        ("UPDATE payments SET review = '[1]'", "payment pay_"),
        ("UPDATE verdicts SET reasons = '{}'", "the verdict on "),
        ("UPDATE verdicts SET reasons = '[\"unheard_of\"]'", "the verdict on "),
        ("UPDATE verdicts SET evidence = '[]'", "the verdict on "),
        ('UPDATE verdicts SET evidence = \'{"delta":"1"}\'', "the verdict on "),
    ],
)
def test_a_row_that_nobody_wrote_is_named(schema: apsw.Connection, change: str, named: str) -> None:
    payment = make_payment()
    verdict = make_verdict(payment)
    with nothing_kept(schema):
        run(schema, payments.insert(payment, make_event(payment)))
        after = replace(payment, version=payment.version + 1)
        run(schema, payments.save(payment, after, verdicts=[verdict], now=NOW))
        schema.execute(change)

        with pytest.raises(StoreBroken, match="changed by hand") as raised:
            stored(schema, payment)

    assert str(raised.value).startswith(named)
    assert payment.terms.id in str(raised.value)
