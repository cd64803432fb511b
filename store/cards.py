"""Payments by card: their orders and charges at Paymob, and when Paymob is asked about them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from indexer.core.charge import Charge
from indexer.core.events import Event
from indexer.core.payment import CardPayment
from indexer.core.types import ChargeState
from indexer.errors import InvariantError
from store import events as event_log, payments, rows
from store.database import Database, Rows, Statement
from store.queries import QUERIES


#: Where `charges_by_ids` says whose a charge is.
_PAYMENT_COLUMN: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOrder:
    """An order at Paymob: what a customer can pay, if anybody gave him its URL.

    Attributes:
        special_reference: our name for it: the payment's id, and `-2` … behind from the second on.
        order_id: theirs, signed in callbacks; None: not known.
        intention_id: theirs, of the intention that the order belongs to; None: not known.
        checkout_url: where the customer pays; None: nobody can pay there.
        created_at: unix seconds.
    """

    special_reference: str
    payment_id: str
    order_id: int | None = None
    intention_id: str | None = None
    checkout_url: str | None = None
    created_at: int


@dataclass(frozen=True, slots=True)
class CardRecord:
    """A payment by card as it is stored.

    Attributes:
        orders: in the order in which they were made.
        charges: by Paymob's number, ascending.
    """

    payment: CardPayment
    orders: tuple[CardOrder, ...] = ()
    charges: tuple[Charge, ...] = ()

    @property
    def decided(self) -> int:
        """Base units about which a person decided: of charges nobody does, they are Paymob's."""
        return 0

    @property
    def checkout_url(self) -> str | None:
        """Where the customer pays: of several orders the last one that can be paid."""
        urls = [order.checkout_url for order in self.orders if order.checkout_url is not None]
        return urls[-1] if urls else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A payment about which Paymob is to be asked.

    Attributes:
        due_at: unix seconds.
        asked: how often that was answered.
    """

    payment_id: str
    due_at: int
    asked: int


# --------------------------------------------------------------------------------- statements


def insert(
    payment: CardPayment, event: Event, orders: Sequence[CardOrder], *, check_at: int
) -> list[Statement]:
    """Creates a payment with its first event, its orders and its first check (unix seconds)."""
    return [
        *payments.insert(payment, event),
        *(Statement(QUERIES["card_order_insert"], _order_values(order)) for order in orders),
        Statement(QUERIES["card_check_insert"], (payment.terms.id, check_at)),
    ]


def save(
    before: CardRecord,
    after: CardPayment,
    *,
    charges: Sequence[Charge] = (),
    events: Sequence[Event] = (),
) -> list[Statement]:
    """Takes a payment from one version to the next, with what was told of its charges.

    Args:
        before: as it was read; the batch is refused when the store has another version of the
            payment, or when anything else is known of its charges.
        after: as it shall be; the same as `before` when only charges change.
        charges: new ones and changed ones.
        events: what the change publishes.
    """
    payment, id_ = before.payment, before.payment.terms.id
    if after == payment and not charges:
        return []
    batch = [Statement(QUERIES["charges_as_read"], (id_, _known(before.charges)))]
    if after != payment:
        if (after.terms, after.version) != (payment.terms, payment.version + 1):
            raise InvariantError(f"{id_} changes otherwise than to its next version")
        values = (id_, payment.version, *rows.state_values(after.state))
        batch.append(Statement(QUERIES["payment_update"], values))
    else:
        batch.append(Statement(QUERIES["payment_unchanged"], (id_, payment.version)))
    batch += [Statement(QUERIES["charge_save"], _charge_values(id_, charge)) for charge in charges]
    return batch + [event_log.append(event) for event in events]


def learn_order(special_reference: str, order_id: int) -> Statement:
    """Their number of an order whose answer was lost; refuses another number than is known."""
    return Statement(QUERIES["card_order_learn"], (special_reference, order_id))


def answered(payment_id: str, next_at: int | None) -> Statement:
    """Paymob was asked and has answered; the next time is then (unix seconds), or never."""
    if next_at is None:
        return Statement(QUERIES["card_check_end"], (payment_id,))
    return Statement(QUERIES["card_check_answered"], (payment_id, next_at))


def not_answered(payment_id: str, next_at: int) -> Statement:
    """Paymob was asked and did not answer: the next try is then (unix seconds)."""
    return Statement(QUERIES["card_check_move"], (payment_id, next_at))


def ask(payment_id: str, at: int) -> Statement:
    """Somebody wants to know: Paymob is asked then (unix seconds), unless it is sooner anyway."""
    return Statement(QUERIES["card_check_ask"], (payment_id, at))


# ------------------------------------------------------------------------------------ reading


async def get(database: Database, payment_id: str) -> CardRecord | None:
    """One payment; None when there is none of that id, or it is not by card."""
    found = await by_ids(database, [payment_id])
    return found[0] if found else None


async def by_ids(database: Database, ids: Collection[str]) -> list[CardRecord]:
    """Payments by id, in the order of the ids; those that are not by card are left out."""
    if not ids:
        return []
    parameters = (rows.json_text(list(ids)),)
    answers = await database.read(
        [
            Statement(QUERIES["payments_by_ids"], parameters),
            Statement(QUERIES["metadata_by_ids"], parameters),
            *own_statements(ids),
        ]
    )
    return assemble(list(ids), answers)


async def by_order(database: Database, order_id: int) -> CardRecord | None:
    """The payment that an order of Paymob belongs to; None when it is none of ours."""
    ids = await payments.column(database, "card_payment_of_order", (order_id,))
    return await get(database, ids[0]) if ids else None


async def owner_of(database: Database, charge_id: int) -> str | None:
    """The payment that a charge belongs to; None when nothing was told of it yet."""
    ids = await payments.column(database, "payment_of_charge", (charge_id,))
    return str(ids[0]) if ids else None


async def due(database: Database, now: int, limit: int) -> list[Check]:
    """The checks that are due, the longest due first."""
    [found] = await database.read([Statement(QUERIES["card_checks_due"], (now, limit))])
    return [Check(payment_id=id_, due_at=due_at, asked=asked) for id_, due_at, asked in found]


async def in_review(database: Database, *, limit: int) -> list[CardRecord]:
    """Payments by card that a person must look at, the oldest first."""
    return await by_ids(database, await payments.column(database, "card_ids_in_review", (limit,)))


async def count(database: Database, since: int, until: int) -> int:
    """How many payments by card were created from `since` to `until`, both included."""
    [[(number,)]] = await database.read([Statement(QUERIES["card_audit_count"], (since, until))])
    return int(number)


async def charge_counts(database: Database) -> dict[ChargeState, int]:
    """How many charges are in each state."""
    [found] = await database.read([Statement(QUERIES["charge_counts"])])
    return dict.fromkeys(ChargeState, 0) | {ChargeState(state): count for state, count in found}


async def audit_page(
    database: Database, since: int, until: int, *, after: tuple[int, str], limit: int
) -> list[tuple[int, str]]:
    """Creation time and id of payments by card, the oldest first, after one of them."""
    parameters = (since, until, *after, limit)
    [found] = await database.read([Statement(QUERIES["card_audit_page"], parameters)])
    return [(created_at, id_) for created_at, id_ in found]


def own_statements(ids: Iterable[str]) -> list[Statement]:
    """The reads of what only payments by card have: orders, then charges."""
    parameters = (rows.json_text(list(ids)),)
    return [
        Statement(QUERIES[name], parameters) for name in ("card_orders_by_ids", "charges_by_ids")
    ]


def assemble(ids: Sequence[str], answers: Sequence[Rows]) -> list[CardRecord]:
    """Records of payments, metadata, orders and charges, in the order of the ids."""
    found, metadata, order_rows, charge_rows = answers
    notes: dict[str, dict[str, str]] = defaultdict(dict)
    for payment_id, key, value in metadata:
        notes[payment_id][key] = value
    orders: dict[str, list[CardOrder]] = defaultdict(list)
    for order in map(_order, order_rows):
        orders[order.payment_id].append(order)
    charges: dict[str, list[Charge]] = defaultdict(list)
    for row in charge_rows:
        charges[row[_PAYMENT_COLUMN]].append(_charge(row))
    each = [rows.payment(row, notes.get(row[0], {})) for row in found]
    records = {
        (id_ := payment.terms.id): CardRecord(
            payment, tuple(orders.get(id_, ())), tuple(charges.get(id_, ()))
        )
        for payment in each
        if isinstance(payment, CardPayment)
    }
    return [records[id_] for id_ in dict.fromkeys(ids) if id_ in records]


# ----------------------------------------------------------------------------------- the rows


def _order_values(order: CardOrder) -> tuple[str | int | None, ...]:
    return (
        order.special_reference,
        order.payment_id,
        order.order_id,
        order.intention_id,
        order.checkout_url,
        order.created_at,
    )


def _order(row: tuple[Any, ...]) -> CardOrder:
    special_reference, payment_id, order_id, intention_id, checkout_url, created_at = row
    return CardOrder(
        special_reference=special_reference,
        payment_id=payment_id,
        order_id=order_id,
        intention_id=intention_id,
        checkout_url=checkout_url,
        created_at=created_at,
    )


def _charge_values(payment_id: str, charge: Charge) -> tuple[str | int | None, ...]:
    return (
        charge.id,
        payment_id,
        charge.order_id,
        charge.state,
        str(charge.amount),
        str(charge.refunded),
        charge.made_at,
        charge.seen_at,
        charge.paid_at,
        charge.updated_at,
    )


def _charge(row: tuple[Any, ...]) -> Charge:
    id_, _, order_id, state, amount, refunded, made_at, seen_at, paid_at, updated_at = row
    return Charge(
        id=id_,
        order_id=order_id,
        state=ChargeState(state),
        amount=int(amount),
        refunded=int(refunded),
        made_at=made_at,
        seen_at=seen_at,
        paid_at=paid_at,
        updated_at=updated_at,
    )


def _known(charges: Iterable[Charge]) -> str:
    """What `charges_as_read` compares: a line for each charge, with all of it that may change."""
    return rows.json_text(
        [
            f"{each.id} {each.state} {each.refunded} "
            f"{'-' if each.paid_at is None else each.paid_at}"
            for each in charges
        ]
    )
