"""Transfers that may pay a payment without naming it, until a person has looked at them."""

from enum import StrEnum
from typing import Final

from indexer.core.suggest import Suggestion, Why
from store.database import Database, Rows, Statement
from store.queries import QUERIES
from store.rows import NOWHERE


#: Open suggestions of one payment; what is beyond is not stored.
OPEN_PER_PAYMENT_MAX: Final = 100


class Fate(StrEnum):
    """What became of a suggestion."""

    MATCHED = "matched"
    DISMISSED = "dismissed"


def insert(suggestion: Suggestion) -> Statement:
    """Stores a suggestion once, open; nothing, where its transaction pays somebody already."""
    values = (
        *_name(suggestion),
        suggestion.why,
        suggestion.source,
        suggestion.destination,
        str(suggestion.amount),
        suggestion.memo,
        suggestion.slot,
        suggestion.block_time,
        suggestion.found_at,
        OPEN_PER_PAYMENT_MAX,
    )
    return Statement(QUERIES["suggestion_insert"], values)


def close(suggestion: Suggestion, fate: Fate, now: int) -> Statement:
    """Closes an open suggestion; one that was closed meanwhile refuses the whole batch."""
    return Statement(QUERIES["suggestion_close"], (*_name(suggestion), fate, now))


async def listing(database: Database, limit: int) -> list[Suggestion]:
    """Open ones whose payment can still be paid by them, the oldest first."""
    return await _suggestions(database, Statement(QUERIES["suggestions_listing"], (limit,)))


async def of_signature(database: Database, signature: str) -> list[Suggestion]:
    """Open ones of one transaction, for whatever payment."""
    return await _suggestions(
        database, Statement(QUERIES["suggestions_of_signature"], (signature,))
    )


async def of_payment(database: Database, payment_id: str) -> list[Suggestion]:
    """Open ones of one payment."""
    statement = Statement(QUERIES["suggestions_of_payment"], (payment_id, OPEN_PER_PAYMENT_MAX))
    return await _suggestions(database, statement)


def _name(suggestion: Suggestion) -> tuple[str, int, int, int, str]:
    """The key: leg and payment."""
    return (
        suggestion.signature,
        suggestion.outer,
        NOWHERE if suggestion.inner is None else suggestion.inner,
        NOWHERE if suggestion.sub is None else suggestion.sub,
        suggestion.payment_id,
    )


async def _suggestions(database: Database, statement: Statement) -> list[Suggestion]:
    [found] = await database.read([statement])
    return _read(found)


def _read(found: Rows) -> list[Suggestion]:
    return [
        Suggestion(
            signature=signature,
            outer=outer,
            inner=None if inner == NOWHERE else inner,
            sub=None if sub == NOWHERE else sub,
            payment_id=payment_id,
            why=Why(why),
            source=source,
            destination=destination,
            amount=int(amount),
            memo=memo,
            slot=slot,
            block_time=block_time,
            found_at=found_at,
        )
        for (
            signature, outer, inner, sub, payment_id, why, source, destination, amount, memo,
            slot, block_time, found_at,
        ) in found
    ]  # fmt: skip
