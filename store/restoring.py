"""Payments that the database lost, put back from what others kept of them.

A payment gets the id, the reference and the watch key that it had, and waits for its money anew;
a watch key that is unknown is taken in as one that was retired: no new payment gets it, and it is
watched until the payment's grace time is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.core import events
from indexer.core.payment import Payment
from store import everything, payments
from store.database import Database, Statement
from store.queries import QUERIES


#: Payments of one write.
AT_ONCE = 200
_SHOWN_CHARS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the database has of a payment.

    Attributes:
        is_there: it has it, with the same terms.
        contradiction: why it cannot be put back; None: it can, or is there.
    """

    is_there: bool = False
    contradiction: str | None = None


async def look(database: Database, payment: Payment) -> Known:
    """Whether the payment is there, or something that rules it out."""
    terms = payment.terms
    found = await everything.get(database, terms.id)
    if found is not None:
        return _compared(payment, found.payment.terms)
    others = await payments.by_references(database, [terms.reference])
    if others:
        known = others[0].payment.terms.id
        return Known(contradiction=f"its reference is that of {known}")
    return Known()


def _compared(payment: Payment, stored: object) -> Known:
    names = ("recipient", "token_account", "amount", "reference", "created_at", "expires_at")
    different = [
        name for name in names if getattr(stored, name, None) != getattr(payment.terms, name)
    ]
    if different:
        return Known(contradiction=f"it is stored with another {', '.join(different)}")
    return Known(is_there=True)


async def put_back(database: Database, lost: Sequence[Payment], *, now: int) -> None:
    """Stores payments that are not there.

    Raises:
        Conflict: somebody else has put one of them back meanwhile; those of its write are not
            stored, those before are.
    """
    for first in range(0, len(lost), AT_ONCE):
        batch: list[Statement] = []
        for payment in lost[first : first + AT_ONCE]:
            key = payment.terms.watch_key
            if key is not None:
                name = f"restored {key[:_SHOWN_CHARS]}"
                batch.append(Statement(QUERIES["watch_key_take_in_retired"], (key, name, now)))
            batch += payments.insert(payment, events.created(payment, now))
        await database.write(batch)
