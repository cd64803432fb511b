"""What the chain is searched for: keys, references and destinations of payments that still wait.

Money for a payment may count until its grace time is over, and only as long as it does is it
looked for.
"""

from collections.abc import AsyncIterator, Collection
from typing import Final

from indexer.core.verdict import Sighting
from store import payments, rows
from store.database import Database, Statement
from store.payments import Record
from store.queries import QUERIES


#: Seconds of block time after a payment's grace time in which its reference is still looked
#: after: some nodes list a transaction a while after it was finalized.
LISTED_LATE_S: Final = 300
#: Seconds after the grace time until a reference that nobody could look at is left alone.
LOOKED_AFTER_S: Final = 7 * 86_400


async def watch_keys(database: Database, *, now: int) -> list[str]:
    """Watch keys in use, and those of before for which money may still count, in order.

    Those of before also as long as slots in which something may have been missed are not swept.
    """
    parameters = (now - LOOKED_AFTER_S, LISTED_LATE_S)
    return await payments.column(database, "watch_keys", parameters)


async def foreign(database: Database, *, now: int, limit: int) -> list[str]:
    """References that are watched one by one, because their URL lacks the watch key."""
    parameters = (now - LOOKED_AFTER_S, limit, LISTED_LATE_S)
    return await payments.column(database, "foreign_references", parameters)


async def references_alive(
    database: Database, *, created_to: int, grace_from: int, page_size: int
) -> AsyncIterator[list[str]]:
    """References of all payments for which money may count between two times, page by page.

    Args:
        database: read once for each page.
        created_to: unix seconds; payments made later are left out.
        grace_from: unix seconds; payments whose grace time had ended before are left out.
        page_size: references at a time.
    """
    before: tuple[int, str] = payments.NEWEST
    while True:
        values = (created_to, grace_from, *before, page_size)
        [found] = await database.read([Statement(QUERIES["references_alive"], values)])
        if not found:
            return
        yield [reference for reference, _, _ in found]
        before = found[-1][1:]


async def oldest_payable(database: Database, key: str, *, now: int) -> int | None:
    """When the oldest payment of a watched key was made for which money may still count.

    Unix seconds; None when there is none.
    """
    [[(created_at,)]] = await database.read([Statement(QUERIES["oldest_payable"], (key, now))])
    return None if created_at is None else int(created_at)


async def known_references(database: Database, keys: Collection[str]) -> set[str]:
    """Those of the keys that are a payment's reference."""
    return set(await payments.column(database, "references_known", (rows.json_text(sorted(keys)),)))


async def judged(database: Database, payment_id: str) -> frozenset[str]:
    """The signatures that have a verdict for this payment."""
    return frozenset(await payments.column(database, "verdict_signatures", (payment_id,)))


async def with_verdict(database: Database, signatures: Collection[str]) -> set[str]:
    """Those of the signatures that some payment has a verdict of."""
    return set(
        await payments.column(database, "signatures_judged", (rows.json_text(list(signatures)),))
    )


async def worth_a_look(database: Database, keys: Collection[str], *, now: int) -> set[str]:
    """Those of the keys that somebody who pays a payment of ours would name.

    Watch keys in use; and of payments for which money may still count: watch keys, references,
    and where the money goes (the wallet for SOL, the token account for tokens).
    """
    parameters = (rows.json_text(sorted(keys)), now)
    return set(await payments.column(database, "keys_worth_a_look", parameters))


async def sightings_of(database: Database, signatures: Collection[str]) -> list[Sighting]:
    """What is shown as detected because of these transactions."""
    statement = Statement(QUERIES["sightings_of_signatures"], (rows.json_text(sorted(signatures)),))
    [found] = await database.read([statement])
    return [rows.sighting(row) for row in found]


async def touched(database: Database, signatures: Collection[str]) -> tuple[str, ...]:
    """Ids of the payments that have a verdict or a sighting of one of these transactions."""
    parameters = (rows.json_text(sorted(signatures)),)
    return tuple(sorted(await payments.column(database, "ids_touched", parameters)))


async def destinations(
    database: Database, *, now: int, after: str, limit: int
) -> list[tuple[str, int]]:
    """Keys that payments are waited for at, in order, from the first one after `after`.

    Wallets for SOL, token accounts for tokens; each with the creation time (unix seconds) of
    the oldest payment to it for which money may still count.
    """
    [found] = await database.read([Statement(QUERIES["destinations"], (now, after, limit))])
    return [(key, created_at) for key, created_at in found]


async def awaiting(
    database: Database,
    destination: str,
    *,
    amounts: Collection[int],
    memos: Collection[str],
    names: Collection[str],
    times: tuple[int, int],
    limit: int,
) -> list[Record]:
    """Payments to one destination that wait for money, by what a transfer tells of them.

    Args:
        database: where they are.
        destination: a wallet or a token account.
        amounts: base units asked for.
        memos: memos asked for.
        names: ids, references or order numbers.
        times: the first and the last block time (unix seconds) of what may pay them; younger
            payments than the last are left out, and those whose time was over at the first.
        limit: of payments for each amount, each memo, and all names; the youngest ones.
    """
    common = (destination, *times, limit)
    statements = [
        *(Statement(QUERIES["awaiting_amount"], (*common, str(amount))) for amount in amounts),
        *(Statement(QUERIES["awaiting_memo"], (*common, memo)) for memo in memos),
    ]
    if names:
        by_name = (*common, rows.json_text(sorted(names)))
        statements.append(Statement(QUERIES["awaiting_name"], by_name))
    answers = await database.read(statements)
    return await payments.by_ids(database, sorted({id_ for found in answers for (id_,) in found}))
