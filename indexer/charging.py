"""What is written when something is told of the charges of a payment by card, and who tells it.

    callbacks, inquiries ──► learn ──► learned ──► fold_card ──► advance ──► ONE write

learned      what is known of each charge, with the news
fold_card    the state that all charges add up to
advance      the payment in it, and the events of the change
             ─► ONE write, refused when anybody else has learned something meanwhile
"""

from collections.abc import Callable, Sequence, Set as AbstractSet
from dataclasses import replace
from typing import Final, Protocol

import structlog

from indexer.core import card, events
from indexer.core.card_schedule import next_check_at
from indexer.core.charge import Charge, ChargeNews, learned
from indexer.errors import Conflict
from store import cards
from store.cards import CardRecord
from store.database import Database, Statement


log = structlog.get_logger(__name__)

#: Times that a write is tried which another writer was faster than.
TRIES_MAX: Final = 8


class Acquirer(Protocol):
    """Who is asked about charges. Raises SourceError when nothing can be said."""

    async def inquire(
        self, *, order_id: int | None = None, special_reference: str | None = None
    ) -> Sequence[ChargeNews] | None:
        """The latest charge of an order, by its number or our name of it; None: nothing known."""
        ...

    async def transaction(self, id: int) -> ChargeNews | None:
        """What was charged, by the number of it, or of what was done to it; None: not known."""
        ...


class Charging:
    """Stores news of charges."""

    def __init__(
        self, database: Database, *, clock: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        """Nothing is written yet.

        Args:
            database: migrated.
            clock: unix seconds.
            wake: called after each commit.
        """
        self._database = database
        self._clock = clock
        self._wake = wake

    async def learn(
        self,
        payment_id: str,
        told: Sequence[ChargeNews],
        told_at: int,
        *,
        complete_to: int | None = None,
        also: Sequence[Statement] = (),
    ) -> CardRecord:
        """Stores what was told of a payment's charges, with all that follows from it.

        Args:
            payment_id: of a payment by card.
            told: of charges of its orders.
            told_at: unix seconds.
            complete_to: of `fold_card`. Not None: Paymob was asked as it was to be, and the next
                time is set.
            also: belongs into the same write.

        Raises:
            InvalidInput: what is told contradicts what is known.
            Conflict: others were faster, too often.
            StoreUnavailable: whether it was written is not known.
        """
        for _ in range(TRIES_MAX):
            record = await cards.get(self._database, payment_id)
            if record is None:
                raise Conflict(f"there is no payment by card {payment_id}")
            charges, after = with_news(record, told, told_at, complete_to=complete_to)
            now = int(self._clock())
            changes = events.of_change(record.payment, after.payment, now)
            batch = cards.save(record, after.payment, charges=charges, events=changes)
            is_change = bool(batch)
            batch += also
            if complete_to is not None:
                payment = after.payment
                next_at = next_check_at(payment.terms, payment.state.status, now)
                batch.append(cards.answered(payment_id, next_at))
            try:
                await self._database.write(batch)
            except Conflict:
                continue  # somebody else has learned something: decide anew
            if is_change:
                self._wake()
                _log(after)
            return after
        raise Conflict(f"{payment_id} kept changing")


def with_news(
    record: CardRecord, told: Sequence[ChargeNews], told_at: int, *, complete_to: int | None
) -> tuple[list[Charge], CardRecord]:
    """The charges that change, and the record as it is with them.

    Raises:
        InvalidInput: what is told contradicts what is known.
    """
    known = {charge.id: charge for charge in record.charges}
    changed: dict[int, Charge] = {}
    for news in told:
        charge = learned(before := known.get(news.id), news, told_at)
        if charge is not before:
            known[charge.id] = changed[charge.id] = charge
    payment = record.payment
    state = card.fold_card(
        payment.terms,
        known.values(),
        complete_to=complete_to,
        canceled_at=payment.state.canceled_at,
    )
    charges = tuple(known[id_] for id_ in sorted(known))
    after = replace(record, payment=card.advance(payment, state), charges=charges)
    return list(changed.values()), after


def _log(record: CardRecord) -> None:
    payment = record.payment
    log.info(
        "card.charged",
        payment_id=payment.terms.id,
        status=payment.state.status,
        version=payment.version,
        charges=len(record.charges),
    )


def of_orders(told: Sequence[ChargeNews], order_ids: AbstractSet[int | None]) -> list[ChargeNews]:
    """What was told of these orders: an answer about another one is none."""
    return [news for news in told if news.order_id in order_ids]
