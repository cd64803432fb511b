"""What the road would make of transactions, for whoever wants to know beforehand."""

from collections.abc import Iterable, Sequence

from indexer.core.judge import Read, holders_of, verdicts_of
from indexer.core.outcome import Outcome, Preview, preview_of
from indexer.core.verdict import Verdict
from indexer.pipeline import Unread
from store import payments
from store.database import Database


async def previews(database: Database, outcomes: Sequence[Read | Unread]) -> list[Preview]:
    """What storing each would change, in order; writes nothing."""
    reads = [outcome for outcome in outcomes if isinstance(outcome, Read)]
    keys = {key for read in reads for key in read.transaction.keys}
    signatures = {read.transaction.signature for read in reads}
    records = await payments.by_references(database, keys, signatures) if keys else []
    stored = [verdict for record in records for verdict in record.verdicts]
    terms = [record.payment.terms for record in records]
    judged = verdicts_of(terms, reads, holders_of(stored))
    new = _by_signature(verdict for verdicts in judged.values() for verdict in verdicts)
    known = _by_signature(stored)
    return [
        _unreadable(each)
        if isinstance(each, Unread)
        else preview_of(
            each.transaction.signature,
            each.transaction.slot,
            new.get(each.transaction.signature, {}),
            known.get(each.transaction.signature, {}),
        )
        for each in outcomes
    ]


def _by_signature(verdicts: Iterable[Verdict]) -> dict[str, dict[str, Verdict]]:
    """Signature -> payment id -> verdict."""
    found: dict[str, dict[str, Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.signature, {})[verdict.payment_id] = verdict
    return found


def _unreadable(unread: Unread) -> Preview:
    return Preview(
        signature=unread.found.signature,
        slot=unread.found.slot,
        outcome=Outcome.UNREADABLE,
        credits={},
        reasons=(unread.reason,),
        detail=unread.detail,
    )
