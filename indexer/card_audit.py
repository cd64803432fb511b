"""The part of the audit that needs no chain: payments by card, reckoned from their charges.

What Paymob said is stored as charges, and everything else about a payment follows from them: its
state, by the same fold as ever, and the events that were published. Both are compared. Whether
the charges themselves are true, only Paymob's own books can tell.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from indexer.core.card import advance, fold_card
from indexer.core.chronicle import differing_log
from indexer.core.payment import State
from indexer.core.reckoning import Difference, differing_state
from indexer.core.types import ChargeState, Status
from indexer.errors import InvariantError
from store import audit, cards
from store.audit import OLDEST
from store.cards import CardRecord
from store.database import Database


#: Payments that are read and reckoned together.
PAYMENTS_AT_ONCE: Final = 200


@dataclass(slots=True, kw_only=True)
class CardReport:
    """What it came to.

    Attributes:
        payments: how many were compared.
        differences: what is stored otherwise than it should be.
    """

    payments: int = 0
    differences: list[Difference] = field(default_factory=list)


async def audit_cards(database: Database, *, since: int, clock: Callable[[], float]) -> CardReport:
    """Looks at every payment by card that was created from `since` (unix seconds) until now.

    Each is read from one moment, so whoever writes meanwhile makes no difference.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    report, until, after = CardReport(), int(clock()), OLDEST
    while page := await cards.audit_page(
        database, since, until, after=after, limit=PAYMENTS_AT_ONCE
    ):
        records, entries = await audit.card_snapshot(database, [id_ for _, id_ in page])
        for record in records:
            payment = record.payment
            report.differences += _differing(record)
            report.differences += differing_log(
                payment, entries.get(payment.terms.id, ()), decided=_went_back(record)
            )
        report.payments += len(page)
        after = page[-1]
    return report


def _differing(record: CardRecord) -> Iterator[Difference]:
    """The state that the stored charges add up to, beside the one that is stored."""
    stored = record.payment.state
    yield from differing_state(record.payment.terms.id, stored, _should_be(record))


def _should_be(record: CardRecord) -> State:
    payment, terms = record.payment, record.payment.terms
    stood = payment.state.status
    # That Paymob was asked late enough is not stored: what expired, could.
    complete_to = terms.expires_at + terms.grace_s + 1 if stood is Status.EXPIRED else None
    folded = fold_card(
        terms, record.charges, complete_to=complete_to, canceled_at=payment.state.canceled_at
    )
    if stood is Status.FAILED and not record.charges:
        return folded  # nothing failed
    try:
        return advance(payment, folded).state
    except InvariantError:
        return folded


def _went_back(record: CardRecord) -> bool:
    """Money went back to a card: what a person was asked may be settled by it, without a word."""
    return any(each.refunded or each.state is ChargeState.VOIDED for each in record.charges)
