"""How far the frontiers went, and over what."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from tests.simulation.case import Case, grouped
from tests.simulation.outcome import Move


#: Slots that a frontier may be behind at the end: a few rounds of sweeps, of short slots.
BEHIND_SLOTS_MAX: Final = 250


def the_frontier_passes_nothing(case: Case) -> Iterator[str]:
    """At every moment, all that a frontier has passed was stored: judged, or parked.

    Except what a node listed too late, which nobody could know: that is stored by the end. How
    far a recipient was looked at claims nothing of payments.
    """
    excused = case.outcome.listed_late
    for move in _of_payments(case):
        for landed, terms in case.truth.named:
            if landed.failed or landed.slot > move.slot or move.key not in landed.keys:
                continue
            if terms.id not in move.payment_ids or landed.signature in excused:
                continue
            if landed.signature in move.parked:
                continue
            if (landed.signature, terms.id) not in move.judged:
                yield (
                    f"the frontier of {move.key} went to slot {move.slot} at {move.at_s:.3f} "
                    f"over {landed.signature} in slot {landed.slot}, which pays {terms.id}"
                )


def _of_payments(case: Case) -> Iterator[Move]:
    """The movements of the watch keys' frontiers, and of those of references."""
    outcome = case.outcome
    for key in (outcome.watch_key, *outcome.retired_keys, *case.truth.by_reference):
        yield from case.moves.get(key, ())


def the_frontier_is_final(case: Case) -> Iterator[str]:
    """A frontier lies on finalized slots, tells their time, and never moves back."""
    for key, moves in case.moves.items():
        for move in moves:
            if move.slot > move.finalized_slot:
                yield (
                    f"the frontier of {key} was at {move.slot} at {move.at_s:.3f}, when "
                    f"{move.finalized_slot} was final"
                )
            later = [x.block_time for x in case.outcome.finalized if x.slot > move.slot]
            if move.block_time > min(later, default=move.block_time):
                yield f"the frontier of {key} at slot {move.slot} has a time of later slots"
        for before, after in pairwise(moves):
            if (after.slot, after.block_time) < (before.slot, before.block_time):
                yield f"the frontier of {key} moved back from {before.slot} to {after.slot}"


def the_frontier_keeps_up(case: Case) -> Iterator[str]:
    """After the quiet period the frontier of the watch key is close behind the chain."""
    reached = max((move.slot for move in case.moves.get(case.outcome.watch_key, ())), default=0)
    if case.payments and reached < case.outcome.finalized_slot - BEHIND_SLOTS_MAX:
        yield f"the frontier stands at {reached}, the chain at {case.outcome.finalized_slot}"


def coverage_reaches_the_frontier(case: Case) -> Iterator[str]:
    """The ledger of examined slots has no hole before the frontier, and nothing after the tip."""
    ranges = grouped(case.outcome.rows["coverage"], lambda row: row["key"])
    outcome = case.outcome
    keys = {outcome.watch_key, *outcome.retired_keys, *case.truth.by_reference}
    for cursor in case.outcome.rows["cursors"]:
        if cursor["key"] not in keys:
            continue  # of a recipient
        covered = [(row["first_slot"], row["last_slot"]) for row in ranges.get(cursor["key"], ())]
        if not any(first <= cursor["slot"] <= last for first, last in covered):
            yield f"the frontier of {cursor['key']}, {cursor['slot']}, is in none of {covered}"
        before = [span for span in covered if span[0] <= cursor["slot"]]
        if len(before) > 1:
            yield f"what was examined for {cursor['key']} has holes: {covered}"
        if any(last > case.outcome.finalized_slot for _, last in covered):
            yield f"{covered} of {cursor['key']} goes beyond {case.outcome.finalized_slot}"
