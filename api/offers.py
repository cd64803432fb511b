"""Offers, made and taken back, by whoever asks: over HTTP or at the command line.

What is made here is not stored yet: the caller writes the statements, with what else belongs into
the same write. By card an offer is made by `cards.make`.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from api.chain import Accounts
from api.limits import CANCEL_TRIES_MAX
from indexer.core import creation, events, ids, settle
from indexer.core.creation import NewPayment, Policy
from indexer.core.types import Status
from indexer.errors import Conflict
from store import everything, payments
from store.database import Database, Statement
from store.everything import AnyRecord
from store.payments import Record


_REFERENCE_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new payment, ready to be stored.

    Attributes:
        record: as it will be read.
        statements: the write that makes it, all or nothing.
        warnings: sentences that its merchant should read.
    """

    record: AnyRecord
    statements: list[Statement]
    warnings: tuple[str, ...] = ()


def fresh_id() -> str:
    """An id for a new payment."""
    return ids.payment_id(secrets.token_bytes(ids.BYTES))


async def make(
    accounts: Accounts, policy: Policy, asked: NewPayment, *, clock: Callable[[], float]
) -> Made:
    """The payment on the chain that was asked for.

    Args:
        accounts: what the chain says of addresses.
        policy: what the deployment allows.
        asked: what the merchant asks for.
        clock: unix seconds; read when the chain has answered.

    Raises:
        InvalidInput: names the field.
        SourceError: the chain does not answer.
    """
    found = await accounts.read(creation.keys_to_read(asked, policy))
    rent_exempt_minimum = await accounts.rent_exempt_minimum()
    now = int(clock())
    payment, warnings = creation.create(
        asked,
        policy,
        found,
        rent_exempt_minimum=rent_exempt_minimum,
        id=fresh_id(),
        fresh_reference=creation.reference(secrets.token_bytes(_REFERENCE_BYTES)),
        now=now,
    )
    return Made(
        record=Record(payment=payment),
        statements=payments.insert(payment, events.created(payment, now)),
        warnings=warnings,
    )


async def take_back(
    database: Database, payment_id: str, *, clock: Callable[[], float]
) -> tuple[AnyRecord, bool] | None:
    """Cancels a payment while it is pending; None when there is none of that id.

    Returns the payment as it stands then, which is not canceled when it was not pending any more,
    and whether this has changed it.

    Raises:
        Conflict: it kept changing.
        StoreUnavailable: whether it was written is not known.
    """
    for _ in range(CANCEL_TRIES_MAX):
        record = await everything.get(database, payment_id)
        if record is None:
            return None
        if record.payment.state.status is not Status.PENDING:
            return record, False
        now = int(clock())
        canceled = settle.cancel(record.payment, now, decided=record.decided)
        change = events.of_change(record.payment, canceled, now)
        try:
            await database.write(everything.save(record, canceled, events=change, now=now))
        except Conflict:
            continue  # it has changed since it was read: decide anew
        return everything.changed(record, canceled), True
    raise Conflict(f"{payment_id} kept changing")
