"""What examining a transaction comes to, in one word, for reports of replays."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from indexer.core.verdict import Verdict


class Outcome(StrEnum):
    """What a transaction changes, against what is stored now."""

    WOULD_CREDIT = "would_credit"  # a payment gets money that it does not have yet
    ALREADY_CREDITED = "already_credited"  # all of it is stored
    ORPHAN = "orphan"  # names no payment
    INVALID = "invalid"  # names a payment, and pays it nothing
    UNREADABLE = "unreadable"  # nothing is known of it now; it never means "not paid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """One transaction, judged.

    Attributes:
        slot: None where nobody knows it.
        credits: payment id -> base units that it pays that payment, stored or not.
        reasons: why it pays nothing, or not cleanly; of an unreadable one, why it is that.
        detail: a sentence for a person; empty where the reasons say it all.
    """

    signature: str
    slot: int | None
    outcome: Outcome
    credits: Mapping[str, int]
    reasons: tuple[str, ...] = ()
    detail: str = ""


def preview_of(
    signature: str, slot: int, verdicts: Mapping[str, Verdict], stored: Mapping[str, Verdict]
) -> Preview:
    """The transaction, by its verdicts and by those that are stored, both by payment id."""
    told = {**verdicts, **stored}  # what is stored was judged first, and stays
    credits_ = {id_: verdict.credit for id_, verdict in told.items() if verdict.credit > 0}
    if credits_.keys() - stored.keys():
        outcome = Outcome.WOULD_CREDIT
    elif credits_:
        outcome = Outcome.ALREADY_CREDITED
    else:
        outcome = Outcome.INVALID if told else Outcome.ORPHAN
    return Preview(
        signature=signature,
        slot=slot,
        outcome=outcome,
        credits=credits_,
        reasons=tuple(sorted({str(reason) for each in told.values() for reason in each.reasons})),
    )
