"""How payments got where they are: their versions, and the log of events."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from tests.simulation.case import Case
from tests.simulation.outcome import Change


#: What the event of a change of status may be called.
STATUS_EVENTS: Final[Mapping[str, frozenset[str]]] = {
    "pending": frozenset({"payment.reverted", "payment.partially_paid", "payment.review"}),
    "processing": frozenset({"payment.detected"}),
    "settled": frozenset({"payment.settled"}),
    "expired": frozenset({"payment.expired"}),
    "canceled": frozenset({"payment.canceled"}),
    "failed": frozenset({"payment.failed"}),
    "refunded": frozenset({"payment.refunded"}),
}
MONEY_EVENTS: Final = frozenset({"payment.partially_paid", "payment.review"})


# --------------------------------------------------------------------------- how it came to that


def versions_are_complete(case: Case) -> Iterator[str]:
    """The versions of a payment are 1, 2, 3 …, each stored once."""
    for payment_id, row in case.payments.items():
        versions = [change.version for change in case.changes.get(payment_id, ())]
        if versions != list(range(1, row["version"] + 1)):
            yield f"{payment_id} is at version {row['version']} and went through {versions}"


def steps_are_legal(case: Case) -> Iterator[str]:
    """A settled payment stays settled, a canceled one canceled, and money never goes away."""
    for payment_id, changes in case.changes.items():
        for before, after in pairwise(changes):
            if before.status in {"settled", "canceled"} and after.status != before.status:
                yield f"{payment_id} was {before.status} and became {after.status}"
            if before.status == "expired" and after.status not in {"expired", "settled"}:
                yield f"{payment_id} was expired and became {after.status}"
            if after.received < before.received:
                yield f"{payment_id} had received {before.received}, then {after.received}"


def nothing_counts_before_it_is_final(case: Case) -> Iterator[str]:
    """At every moment, money and `settled` rest on slots that the cluster had finalized."""
    for payment_id, changes in case.changes.items():
        for change in changes:
            final = [
                credit
                for credit in case.truth.credits.get(payment_id, ())
                if credit.slot <= change.finalized_slot
            ]
            if change.received > sum(credit.amount for credit in final):
                yield (
                    f"{payment_id} had received {change.received} at {change.at_s:.3f}, when "
                    f"slot {change.finalized_slot} was final and {len(final)} transactions were"
                )
            if change.status == "settled" and change.received < case.truth.terms[payment_id].amount:
                yield f"{payment_id} was settled with {change.received}"


def expiry_waits_for_the_truth(case: Case) -> Iterator[str]:
    """Nothing expires before its keys' frontiers are past the deadline, nor what was paid."""
    for payment_id, changes in case.changes.items():
        expired = next((change for change in changes if change.status == "expired"), None)
        terms = case.truth.terms.get(payment_id)
        if expired is None or terms is None:
            continue
        if case.truth.is_paid_in_time(payment_id, case.outcome.listed_late):
            yield f"{payment_id} was expired at {expired.at_s:.3f}, though it was paid in time"
        for key in filter(None, (terms.watch_key, terms.reference)):
            known = [m.block_time for m in case.moves.get(key, ()) if m.at_s <= expired.at_s]
            if max(known, default=0) <= terms.expires_at:
                yield (
                    f"{payment_id} was expired at {expired.at_s:.3f}, when the frontier of {key} "
                    f"was at {max(known, default=0)}, not past {terms.expires_at}"
                )


def reverts_have_a_fork(case: Case) -> Iterator[str]:
    """What was detected is taken back only when a transaction of it was truly dropped."""
    for event in case.outcome.events:
        if event["type"] != "payment.reverted" or event["payment_id"] not in case.truth.terms:
            continue
        reference = case.truth.terms[event["payment_id"]].reference
        if case.outcome.invented or any(reference in x.keys for x in case.outcome.dropped):
            continue
        yield f"{event['payment_id']} was taken back (seq {event['seq']}), and no fork dropped it"


# -------------------------------------------------------------------------------- the event log


def the_log_is_gapless(case: Case) -> Iterator[str]:
    """Events are numbered 1, 2, 3 and so on."""
    seqs = [event["seq"] for event in case.outcome.events]
    if seqs != list(range(1, len(seqs) + 1)):
        yield f"the log has {len(seqs)} events, numbered {seqs[:3]} … {seqs[-3:]}"


def every_change_has_its_event(case: Case) -> Iterator[str]:
    """One event for each change of status, in order, and none without a change."""
    for payment_id in case.payments:
        changes, events = case.changes.get(payment_id, ()), case.events.get(payment_id, ())
        if not events or (events[0]["type"], events[0]["version"]) != ("payment.created", 1):
            yield f"{payment_id} does not begin with payment.created"
        order = [(event["version"], event["ordinal"]) for event in events]
        if order != sorted(set(order)):
            yield f"the events of {payment_id} are out of order: {order}"
        for before, after in pairwise(changes):
            types = [event["type"] for event in events if event["version"] == after.version]
            if problem := _wrong_events(before, after, types):
                yield f"{payment_id}, version {after.version}: {problem}"
        if {event["version"] for event in events} - {change.version for change in changes}:
            yield f"{payment_id} has events of versions that it never had"


def _wrong_events(before: Change, after: Change, types: Sequence[str]) -> str | None:
    """What is wrong with the events of one change; None when they are as they must be."""
    said = " and ".join(types) or "nothing"
    what = f"{before.status} to {after.status} was told as {said}"
    main, rest = types[:1], types[1:]
    has_new_reasons = bool(set(after.review) - set(before.review))
    if after.status != before.status:
        is_told = bool(main) and main[0] in STATUS_EVENTS[after.status]
    elif after.received > before.received and after.status != "settled":
        is_told = bool(main) and main[0] in MONEY_EVENTS
    else:
        is_told, rest = True, types
    if _facts(before) == _facts(after):
        return "nothing changed"
    if not is_told or (has_new_reasons and "payment.review" not in types):
        return what
    if rest not in ([], ["payment.review"]) or (rest and not has_new_reasons):
        return what
    return None


def _facts(change: Change) -> Sequence[object]:
    money = (change.paid, change.received, change.settled_at)
    return (change.status, *money, change.late, change.review)


def events_tell_the_state(case: Case) -> Iterator[str]:
    """Each event carries the state that its version had; the last one that of the row."""
    for payment_id, events in case.events.items():
        versions = {change.version: change for change in case.changes.get(payment_id, ())}
        for event in events:
            change, told = versions.get(event["version"]), json.loads(event["data"])["payment"]
            if change is None:
                continue
            state = (change.version, change.status, change.paid, change.late, [*change.review])
            said = (told["version"], told["status"], told["paid"], told["late"], told["review"])
            if (*state, str(change.received)) != (*said, told["received_base_units"]):
                yield f"{payment_id}: event {event['seq']} tells {said}, stored was {state}"
        last = json.loads(events[-1]["data"])["payment"]["status"]
        if payment_id in case.payments and last != case.payments[payment_id]["status"]:
            yield f"{payment_id} is {case.payments[payment_id]['status']}, the log ends with {last}"
