"""The judge: compares what the daemon made of a simulated world with what was true in it.

    objections = judge(outcome)      # sentences; none when all is well

Every rule of the product that an outsider may rely on is one function below. What should have
come out is reckoned in `reckoning`, without any of the code that is being judged.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from tests.simulation import (
    judge_deliveries as deliveries,
    judge_frontier as frontier,
    judge_history as history,
    judge_inbox as inbox,
)
from tests.simulation.case import Case, Row, Rule
from tests.simulation.outcome import Landed, Outcome
from tests.simulation.reckoning import Credit


#: Seconds of block time after a deadline in which a payment may still be pending at the end.
EXPIRY_SLACK_S: Final = 60


def judge(outcome: Outcome) -> list[str]:
    """What is wrong with the outcome, in sentences."""
    case = Case(outcome)
    return [objection for rule in RULES for objection in rule(case)]


# ------------------------------------------------------------------------------ what it came to


def nothing_died(case: Case) -> Iterator[str]:
    """The daemon ends when it is told to, and never by itself."""
    for death in case.outcome.deaths:
        yield f"the daemon ended by itself at {death.at_s:.3f}: {death.problem}"


def every_payment_is_there(case: Case) -> Iterator[str]:
    """What the merchant was promised is stored, and nothing else."""
    for payment_id in case.truth.terms.keys() - case.payments.keys():
        yield f"{payment_id} was accepted and is not stored"
    for payment_id in case.payments.keys() - case.truth.terms.keys():
        yield f"{payment_id} is stored and nobody asked for it"


def nothing_is_lost(case: Case) -> Iterator[str]:
    """What names a payment was judged, as far as it may still change where the payment stands."""
    for landed, terms in case.truth.named:
        is_hidden = terms.watch_key is None or terms.watch_key not in landed.keys
        if not (landed.failed or is_hidden or landed.signature in case.found[terms.id]):
            yield f"{terms.id} is named by {_say(landed)}, which was never judged"
    for payment_id, credits_ in case.truth.credits.items():
        found = case.found[payment_id]
        for credit in credits_:
            if credit.signature not in found and not (
                credit.is_hidden and _counts_no_more(case, payment_id, credit)
            ):
                yield f"{payment_id} was paid {credit.amount} by {_say(credit)}: it is lost"


def _counts_no_more(case: Case, payment_id: str, credit: Credit) -> bool:
    """Nobody looks for money any more that cannot change where the payment stands."""
    terms = case.truth.terms[payment_id]
    found, unplaced = case.found[payment_id], case.unplaced
    is_decided = case.truth.expected(payment_id, found, unplaced).status is not None
    return is_decided or credit.block_time > terms.expires_at + terms.grace_s


def _say(landed: Landed | Credit) -> str:
    return f"{landed.signature} in slot {landed.slot} at {landed.block_time}"


def states_are_true(case: Case) -> Iterator[str]:
    """Each payment is settled, expired, canceled, or open, exactly as the chain says."""
    for payment_id, row in case.payments.items():
        if payment_id not in case.truth.terms:
            continue
        expected = case.truth.expected(payment_id, case.found[payment_id], case.unplaced)
        allowed = {expected.status} if expected.status else _undecided(case, payment_id)
        wanted = {
            "paid": expected.paid,
            "late": int(expected.late),
            "review": json.dumps(expected.review, separators=(",", ":")),
            "received": str(expected.received),
            "settled_at": expected.settled_at,
            "canceled_at": case.truth.canceled_at[payment_id],
        }
        if row["status"] not in allowed:
            yield f"{payment_id} is {row['status']}, in truth {' or '.join(sorted(allowed))}"
        for column, value in wanted.items():
            if row[column] != value:
                yield f"{payment_id}: {column} is {row[column]!r}, in truth {value!r}"


def _undecided(case: Case, payment_id: str) -> set[str]:
    """Where a payment may stand at the end that was neither paid nor canceled."""
    over_s = case.outcome.finalized_time - case.truth.terms[payment_id].expires_at
    if over_s <= 0:
        return {"pending"}
    return {"pending", "expired"} if over_s <= EXPIRY_SLACK_S else {"expired"}


def verdicts_are_true(case: Case) -> Iterator[str]:
    """Every verdict is about a transaction that is final, and credits what it truly pays."""
    true = {(c.signature, id_): c for id_, cs in case.truth.credits.items() for c in cs}
    named = {(landed.signature, terms.id) for landed, terms in case.truth.named}
    for (signature, payment_id), row in case.verdicts.items():
        landed, credit = case.finalized.get(signature), true.get((signature, payment_id))
        if landed is None or (signature, payment_id) not in named:
            yield f"{payment_id} was judged by {signature}, which is not final or not its own"
            continue
        stored = (row["credit"], row["slot"], row["transaction_index"], row["block_time"])
        index = None if row["transaction_index"] is None else landed.index
        time = None if credit is None and row["block_time"] is None else landed.block_time
        expected = (str(credit.amount) if credit else "0", landed.slot, index, time)
        if stored != expected:
            yield f"{payment_id}: the verdict of {signature} is {stored}, in truth {expected}"


def legs_are_credited_once(case: Case) -> Iterator[str]:
    """The legs behind a verdict are the transfers that pay, each for one payment only."""
    stored: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in case.outcome.rows["transfers"]:
        stored[row["signature"], row["payment_id"]].append(row)
    names = Counter(
        (row["signature"], row["outer_index"], row["inner_index"], row["sub_index"])
        for row in case.outcome.rows["transfers"]
    )
    for name, count in names.items():
        if count > 1:
            yield f"the leg {name} is credited {count} times"
    for (signature, payment_id), verdict in case.verdicts.items():
        legs = stored.pop((signature, payment_id), [])
        arrived = sum(int(leg["net"]) for leg in legs)
        if arrived != int(verdict["credit"]):
            yield f"{payment_id}: {signature} credits {verdict['credit']} and its legs {arrived}"
        true = next(
            (c.legs for c in case.truth.credits.get(payment_id, ()) if c.signature == signature), ()
        )
        if Counter((leg["source"], leg["destination"], int(leg["amount"])) for leg in legs) != (
            Counter((leg.source, leg.destination, leg.amount) for leg in true)
        ):
            yield f"{payment_id}: the legs of {signature} are not those of the chain"
    for signature, payment_id in stored:
        yield f"{payment_id} has legs of {signature} without a verdict"


def money_is_conserved(case: Case) -> Iterator[str]:
    """What payments received, what verdicts credit and what legs brought is one sum."""
    received = sum(int(row["received"]) for row in case.payments.values())
    credited = sum(int(row["credit"]) for row in case.verdicts.values())
    brought = sum(int(row["net"]) for row in case.outcome.rows["transfers"])
    if not received == credited == brought:
        yield f"payments received {received}, verdicts credit {credited}, legs brought {brought}"


def nothing_is_left_over(case: Case) -> Iterator[str]:
    """After the quiet period nothing is parked, merely sighted, or an open gap.

    Except what a liar lists and never was, or was lost with a fork: once enough others deny it,
    it waits for a person, and holds back nothing.
    """
    for row in case.outcome.rows["dead_letters"]:
        is_untrue = row["signature"] not in case.finalized
        if not (is_untrue and row["next_try_at"] is None):
            yield f"{row['signature']} is still parked: {row['reason']}, {row['detail']}"
    for row in case.outcome.rows["sightings"]:
        yield f"{row['payment_id']}: {row['signature']} is still merely sighted"
    frontiers = {row["key"]: row["slot"] for row in case.outcome.rows["cursors"]}
    for row in case.outcome.rows["gaps"]:
        if row["closed_at"] is None and row["last_slot"] <= frontiers.get(row["key"], 0):
            yield (
                f"the gap {row['first_slot']} to {row['last_slot']} of {row['key']} "
                f"({row['reason']}) is still open"
            )


#: Every rule, the ones that say most of what went wrong first.
RULES: Final[Sequence[Rule]] = (
    nothing_died,
    every_payment_is_there,
    nothing_is_lost,
    states_are_true,
    verdicts_are_true,
    legs_are_credited_once,
    money_is_conserved,
    history.nothing_counts_before_it_is_final,
    history.expiry_waits_for_the_truth,
    history.reverts_have_a_fork,
    history.steps_are_legal,
    history.versions_are_complete,
    history.the_log_is_gapless,
    history.every_change_has_its_event,
    history.events_tell_the_state,
    frontier.the_frontier_passes_nothing,
    frontier.the_frontier_is_final,
    frontier.the_frontier_keeps_up,
    frontier.coverage_reaches_the_frontier,
    inbox.every_webhook_is_kept_once,
    inbox.every_webhook_comes_to_an_end,
    inbox.nothing_is_done_unseen,
    *deliveries.SAFETY,
    nothing_is_left_over,
)
