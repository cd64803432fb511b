"""What could not be examined: kept with all that is needed to try again, or to look."""

from dataclasses import dataclass

from store.database import Database, Statement
from store.queries import QUERIES


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


async def holding(database: Database) -> int:
    """How many are tried again by themselves: while there are any, nothing may expire."""
    [[(number,)]] = await database.read([Statement(QUERIES["dead_letters_holding"])])
    return int(number)


async def _letters(database: Database, statement: Statement) -> list[DeadLetter]:
    [found] = await database.read([statement])
    return [
        DeadLetter(
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
        for (
            signature, key, slot, reason, detail, payload, attempts, next_try_at, created_at,
            updated_at,
        ) in found
    ]  # fmt: skip
