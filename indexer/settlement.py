"""What is written when something new is known of a payment: the fold, and all that goes along."""

from collections.abc import Sequence
from dataclasses import replace

from indexer.core import events
from indexer.core.settle import advance, fold
from indexer.core.types import Status
from indexer.core.verdict import Decision, Sighting, Verdict
from store import payments
from store.database import Statement
from store.payments import Record


def settlement(
    record: Record,
    verdicts: Sequence[Verdict] = (),
    *,
    now: int,
    sightings: Sequence[Sighting] = (),
    unsighted: Sequence[str] = (),
    decisions: Sequence[Decision] = (),
    complete_to: int | None = None,
) -> list[Statement]:
    """The statements that take a payment from what is stored to what the facts now say.

    Args:
        record: the payment as it is stored, with its verdicts, sightings and decisions.
        verdicts: new ones.
        now: unix seconds, the time of the events.
        sightings: new ones.
        unsighted: signatures that were sighted and are no more.
        decisions: new ones.
        complete_to: block time up to which nothing that may pay is unknown; None when that
            cannot be said, and then the payment does not expire.
    """
    before = record.payment
    decided = replace(record, decisions=(*record.decisions, *decisions))
    gone = {*unsighted, *(verdict.signature for verdict in verdicts)}
    left = [s for s in (*record.sightings, *sightings) if s.signature not in gone]
    if before.state.status is Status.EXPIRED:
        complete_to = before.terms.expires_at + 1  # it was, and what is complete stays complete
    state = fold(
        before.terms,
        (*record.verdicts, *verdicts),
        frontier_time=complete_to,
        sighted=bool(left),
        canceled_at=before.state.canceled_at,
        accepted=decided.accepted,
        refused=decided.refused,
    )
    after = advance(before, state)
    cause = max(verdicts, key=lambda v: v.order).signature if verdicts else None
    if cause is None and sightings:
        cause = sightings[-1].signature
    if cause is None and decisions:
        cause = decisions[-1].signature
    return payments.save(
        before,
        after,
        verdicts=verdicts,
        sightings=sightings,
        unsighted=tuple(gone),
        decisions=decisions,
        events=events.of_change(before, after, now, signature=cause),
        now=now,
    )
