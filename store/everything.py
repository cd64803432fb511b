"""Any payment, on the chain or by card: for those who show them and do not care which.

Whoever decides about money asks `payments` or `cards`, which know one kind each.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from indexer.core.events import Event
from indexer.core.payment import AnyPayment, CardPayment, Payment
from indexer.core.types import Provider, Status
from indexer.errors import InvariantError
from store import cards, payments
from store.cards import CardRecord
from store.database import Database, Rows, Statement
from store.payments import NEWEST, Record


AnyRecord = Record | CardRecord

#: Where `payments_by_ids` says who moves the money.
_PROVIDER_COLUMN: Final = 1


async def get(database: Database, payment_id: str) -> AnyRecord | None:
    """One payment; None when there is none of that id."""
    found = await by_ids(database, [payment_id])
    return found[0] if found else None


async def by_ids(database: Database, ids: Collection[str]) -> list[AnyRecord]:
    """Payments by id, in the order of the ids; unknown ones are left out."""
    if not ids:
        return []
    return assemble(list(ids), await database.read(record_statements(ids)))


async def page(
    database: Database,
    *,
    status: Status | None = None,
    order_id: str | None = None,
    reference: str | None = None,
    created_after: int | None = None,
    before: tuple[int, str] | None = None,
    limit: int,
) -> list[AnyRecord]:
    """Payments, newest first, that fit all filters given.

    `created_after` is unix seconds, not included. `before` is the creation time and id of the
    last payment of the page before this one.
    """
    if reference is not None:
        name = "page_by_reference"
    elif order_id is not None:
        name = "page_by_order"
    elif status is not None:
        name = "page_by_status"
    else:
        name = "page"
    after = -1 if created_after is None else created_after
    parameters = (status, order_id, reference, after, *(before or NEWEST), limit)
    return await by_ids(database, await payments.column(database, name, parameters))


def changed(record: AnyRecord, after: AnyPayment) -> AnyRecord:
    """The record, with the payment as it is now."""
    if isinstance(record, Record) and isinstance(after, Payment):
        return replace(record, payment=after)
    if isinstance(record, CardRecord) and isinstance(after, CardPayment):
        return replace(record, payment=after)
    raise InvariantError(f"{record.payment.terms.id} becomes another kind of payment")


def save(
    before: AnyRecord, after: AnyPayment, *, events: Sequence[Event], now: int
) -> list[Statement]:
    """Takes any payment to its next version, with nothing new known of its money.

    The batch is refused when the store has another version than `before`.
    """
    if isinstance(before, Record) and isinstance(after, Payment):
        return payments.save(before.payment, after, events=events, now=now)
    if isinstance(before, CardRecord) and isinstance(after, CardPayment):
        return cards.save(before, after, events=events)
    raise InvariantError(f"{before.payment.terms.id} becomes another kind of payment")


def record_statements(ids: Iterable[str]) -> list[Statement]:
    """The reads whose rows `assemble` makes records of, to be sent as one batch."""
    wanted = list(ids)
    return [*payments.record_statements(wanted), *cards.own_statements(wanted)]


def assemble(ids: Sequence[str], answers: Sequence[Rows]) -> list[AnyRecord]:
    """Records from the answers to `record_statements`, in the order of the ids."""
    found, metadata, verdicts, transfers, sightings, decisions, orders, charges = answers
    by_card = [row for row in found if row[_PROVIDER_COLUMN] == Provider.PAYMOB]
    on_chain = [row for row in found if row[_PROVIDER_COLUMN] != Provider.PAYMOB]
    both: list[AnyRecord] = [
        *payments.assemble(ids, (on_chain, metadata, verdicts, transfers, sightings, decisions)),
        *cards.assemble(ids, (by_card, metadata, orders, charges)),
    ]
    records = {record.payment.terms.id: record for record in both}
    return [records[id_] for id_ in dict.fromkeys(ids) if id_ in records]
