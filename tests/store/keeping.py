"""Payments in a store: what the tests of the store act with."""

from dataclasses import replace

from indexer.core.payment import Payment
from indexer.core.types import Status
from store import cursors, everything, payments
from store.cursors import Frontier
from store.database import Database
from store.payments import Record
from tests.builders import NOW, make_event, make_payment


async def create(database: Database, *created: Payment) -> None:
    for payment in created:
        await database.write(payments.insert(payment, make_event(payment)))


async def complete(database: Database, payment: Payment, block_time: int) -> None:
    """The payment's own reference is known up to that block time."""
    frontier = Frontier(key=payment.terms.reference, slot=1, block_time=block_time, updated_at=NOW)
    await database.write([cursors.advance(frontier)])


def settled(payment: Payment) -> Payment:
    state = make_payment(status=Status.SETTLED, amount=payment.terms.amount).state
    return replace(payment, state=state, version=payment.version + 1)


async def stored(database: Database, payment: Payment) -> Record:
    record = await payments.get(database, payment.terms.id)
    assert record is not None
    return record


async def ids(database: Database, **filters: object) -> list[int]:
    """The numbers of the payments on a page."""
    page = await everything.page(database, **({"limit": 100} | filters))  # type: ignore[arg-type]  # filters by name
    return [int(record.payment.terms.id[4:]) for record in page]
