"""The verdicts of transactions that name payments: the rule, and who has a leg already.

A leg counts for one payment, for ever. Where one transaction names several payments, `verify`
says whose each leg is. Where a leg is stored for one of them, because the others did not exist
yet when it was judged, it stays there, and the others are judged without it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from indexer.core.match import mentioned
from indexer.core.payment import Terms
from indexer.core.transaction import Transaction
from indexer.core.types import Reason
from indexer.core.verdict import CreditedLeg, Verdict
from indexer.core.verify import verify


#: Names a leg inside its transaction: outer, inner and sub position.
LegName = tuple[int, int | None, int | None]

#: Signature -> leg -> id of the payment that it is stored for.
Holders = Mapping[str, Mapping[LegName, str]]


@dataclass(frozen=True, slots=True)
class Read:
    """A transaction as the chain has it, and its block's time (unix seconds)."""

    transaction: Transaction
    block_time: int | None


def verdicts_of(
    payments: Iterable[Terms], reads: Iterable[Read], holders: Holders
) -> dict[str, list[Verdict]]:
    """The verdicts of all transactions, by payment, each transaction judged once.

    Args:
        payments: all whose reference any of the transactions carries, open or not.
        reads: finalized transactions, or sighted ones; the same one may stand there twice.
        holders: whose the legs are that were stored before.
    """
    by_reference = {terms.reference: terms for terms in payments}
    found: dict[str, list[Verdict]] = {}
    for signature, read in {read.transaction.signature: read for read in reads}.items():
        named = mentioned(
            [by_reference[key] for key in read.transaction.keys if key in by_reference],
            read.transaction,
        )
        held = holders.get(signature, {})
        for verdict in verify(named, read.transaction, block_time=read.block_time):
            found.setdefault(verdict.payment_id, []).append(without_taken(verdict, held))
    return found


def holders_of(verdicts: Iterable[Verdict]) -> Holders:
    """Whose the legs of these verdicts are."""
    holders: dict[str, dict[LegName, str]] = {}
    for verdict in verdicts:
        held = holders.setdefault(verdict.signature, {})
        held |= dict.fromkeys(map(name_of, verdict.legs), verdict.payment_id)
    return holders


def without_taken(verdict: Verdict, held: Mapping[LegName, str]) -> Verdict:
    """The verdict less the legs that another payment got when this one did not exist yet.

    Whoever creates a payment may name a reference that stands in a transaction of long ago.
    """
    left: Sequence[CreditedLeg] = [
        leg
        for leg in verdict.legs
        if held.get(name_of(leg), verdict.payment_id) == verdict.payment_id
    ]
    if len(left) == len(verdict.legs):
        return verdict
    evidence, bound = verdict.evidence, sum(leg.net for leg in left)
    taken = sum(leg.net for leg in verdict.legs) - bound
    return replace(
        verdict,
        credit=max(0, min(bound - evidence.debited, verdict.credit)),
        reasons=tuple(sorted({*verdict.reasons, Reason.ALREADY_ALLOCATED})),
        evidence=replace(evidence, bound=bound, other_inflow=evidence.other_inflow + taken),
        legs=tuple(left),
    )


def name_of(leg: CreditedLeg) -> LegName:
    """What tells the leg from the others of its transaction."""
    return leg.outer, leg.inner, leg.sub
