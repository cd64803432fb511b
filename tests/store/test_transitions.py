"""The database's table of legal moves is the code's."""

import pytest

from indexer.core.settle import TRANSITIONS
from indexer.core.types import Status
from indexer.errors import Conflict
from store import payments
from store.database import Database, Statement
from tests.builders import make_event, make_payment


async def test_the_two_tables_are_equal(database: Database) -> None:
    [rows] = await database.read(
        [Statement("SELECT from_status, to_status FROM status_transitions")]
    )

    legal = {(before, after) for before, allowed in TRANSITIONS.items() for after in allowed}
    assert set(rows) == legal


@pytest.mark.parametrize("before", Status)
async def test_the_database_lets_through_what_is_legal_and_nothing_else(
    database: Database, before: Status
) -> None:
    for number, after in enumerate(Status, start=1):
        payment = make_payment(number, status=before)
        await database.write(payments.insert(payment, make_event(payment)))
        settled_at = 1 if after in {Status.SETTLED, Status.REFUNDED} else None
        canceled_at = 1 if after is Status.CANCELED else None
        change = Statement(
            "UPDATE payments SET status = ?, settled_at = ?, canceled_at = ? WHERE id = ?",
            (after, settled_at, canceled_at, payment.terms.id),
        )

        if after is before or after in TRANSITIONS[before]:
            await database.write([change])
        else:
            with pytest.raises(Conflict, match="illegal change of a payment's status"):
                await database.write([change])
