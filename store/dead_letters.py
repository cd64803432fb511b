"""What could not be examined: kept with all that is needed to try again, or to look."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A signature of which nothing could be learned.

    Attributes:
        key: the watched key it was found by; None when a doorbell rang.
        reason: one word for counting; `detail` says it to a person.
        payload: the raw answer, where there was one that could not be read.
        next_try_at: unix seconds; None when only a person can help.
    """

    signature: str
    key: str | None
    slot: int | None
    reason: str
    detail: str
    payload: bytes | None
    attempts: int
    next_try_at: int | None
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a transaction meant for one payment, and where that stands now.

    Attributes:
        credit: base units of the payment's asset.
    """

    signature: str
    payment_id: str
    credit: int
    symbol: str
    decimals: int
    status: str


def park(letter: DeadLetter) -> Statement:
    """Parks a signature, or parks it once more: then its attempts grow and its age stays."""
    values = (
        letter.signature,
        letter.key,
        letter.slot,
        letter.reason,
        letter.detail,
        letter.payload,
        letter.attempts,
        letter.next_try_at,
        letter.created_at,
        letter.updated_at,
    )
    return Statement(QUERIES["dead_letter_park"], values)


def resolve(signature: str) -> Statement:
    """Takes a letter away, because its transaction was examined after all."""
    return Statement(QUERIES["dead_letter_resolve"], (signature,))


async def due(database: Database, now: int, limit: int) -> list[DeadLetter]:
    """Letters whose next try has come, the longest due first."""
    return await _letters(database, Statement(QUERIES["dead_letters_due"], (now, limit)))


async def listing(database: Database, limit: int) -> list[DeadLetter]:
    """Letters, the newest first."""
    return await _letters(database, Statement(QUERIES["dead_letters_listing"], (limit,)))


async def count(database: Database) -> int:
    """How many letters there are."""
    [[(number,)]] = await database.read([Statement(QUERIES["dead_letters_count"])])
    return int(number)


async def by_reason(database: Database) -> list[tuple[str, bool, int]]:
    """How many letters there are for each reason, apart those that wait for a person (True)."""
    [found] = await database.read([Statement(QUERIES["dead_letters_summary"])])
    return [(reason, bool(is_given_up), count) for reason, is_given_up, count in found]


async def holding(database: Database) -> int:
    """How many are tried again by themselves: while there are any, nothing may expire."""
    [[(number,)]] = await database.read([Statement(QUERIES["dead_letters_holding"])])
    return int(number)


async def get(database: Database, signature: str) -> DeadLetter | None:
    """One letter; None when there is none of that signature."""
    letters = await _letters(database, Statement(QUERIES["dead_letter_get"], (signature,)))
    return letters[0] if letters else None


async def drop(database: Database, signature: str) -> DeadLetter | None:
    """Takes a letter away for good and returns it as it was; None when there was none."""
    [found] = await database.write([Statement(QUERIES["dead_letter_drop"], (signature,))])
    return _letter(found[0]) if found else None


async def reasons(database: Database, signatures: Collection[str]) -> dict[str, str]:
    """Why each of these was set aside; those that were not are left out."""
    if not signatures:
        return {}
    statement = Statement(QUERIES["dead_letters_among"], (json_text(sorted(signatures)),))
    [found] = await database.read([statement])
    return dict(found)


async def outcomes(database: Database, signatures: Collection[str]) -> list[Outcome]:
    """What these transactions meant for payments, where they could be read."""
    statement = Statement(QUERIES["dead_letter_outcomes"], (json_text(sorted(signatures)),))
    [found] = await database.read([statement])
    return [
        Outcome(
            signature=signature,
            payment_id=payment_id,
            credit=int(credit),
            symbol=symbol,
            decimals=decimals,
            status=status,
        )
        for signature, payment_id, credit, symbol, decimals, status in found
    ]


async def _letters(database: Database, statement: Statement) -> list[DeadLetter]:
    [found] = await database.read([statement])
    return [_letter(row) for row in found]


def _letter(row: Sequence[Any]) -> DeadLetter:
    (
        signature, key, slot, reason, detail, payload, attempts, next_try_at, created_at,
        updated_at,
    ) = row  # fmt: skip
    return DeadLetter(
        signature=signature,
        key=key,
        slot=slot,
        reason=reason,
        detail=detail,
        payload=payload,
        attempts=attempts,
        next_try_at=next_try_at,
        created_at=created_at,
        updated_at=updated_at,
    )
