"""What became of the webhooks that a provider sent."""

from collections.abc import Iterator
from typing import Final

from tests.simulation.case import Case
from tests.simulation.chain import EPOCH
from tests.simulation.outcome import Handled, Told


#: Seconds after which even a webhook about nothing that is true has come to an end.
WAITS_S_MAX: Final = 300.0

#: In the order in which payments go through them, those in which a look may change something.
OPEN: Final = frozenset({"pending", "processing"})


def every_webhook_is_kept_once(case: Case) -> Iterator[str]:
    """What the door said that it has is one row, and says how often it came."""
    rows = {row["dedupe_key"]: row for row in case.outcome.rows["webhook_events"]}
    for told in case.outcome.told:
        row = rows.pop(told.dedupe_key, None)
        if row is None:
            if told.accepted:
                yield f"{_say(told)} was accepted {told.accepted} times and is not stored"
        elif not told.accepted <= row["repeats"] + 1 <= told.tried:
            yield (
                f"{_say(told)} was accepted {told.accepted} times of {told.tried} and "
                f"is stored with {row['repeats']} repeats"
            )
    for key, row in rows.items():
        if row["source"] == "helius":
            yield f"webhook {row['id']} is stored, and nobody sent it: {key}"


def every_webhook_comes_to_an_end(case: Case) -> Iterator[str]:
    """None waits for ever, and none fails that tells the truth, or because of us."""
    told = {each.dedupe_key: each for each in case.outcome.told}
    for row in case.outcome.rows["webhook_events"]:
        each = told.get(row["dedupe_key"])
        if each is None:
            continue
        is_final = all(signature in case.finalized for signature in each.signatures)
        is_our_fault = "a fault of ours" in (row["detail"] or "")
        if row["verdict"] == "failed" and (is_final or is_our_fault):
            yield f"{_say(each)} failed: {row['detail']}"
        age_s = case.outcome.ended_at_s - (row["received_at"] - EPOCH)
        if row["verdict"] == "waiting" and (is_final or age_s > WAITS_S_MAX):
            yield f"{_say(each)} still waits after {age_s:.0f} s: {row['detail']}"


def nothing_is_done_unseen(case: Case) -> Iterator[str]:
    """When a true webhook is done, all that it told of payments that were open is stored.

    Except what a fork took away: that may have been taken back before.
    """
    told = {each.dedupe_key: each for each in case.outcome.told}
    dropped = {landed.signature for landed in case.outcome.dropped}
    for handled in case.outcome.handled:
        each = told.get(handled.dedupe_key)
        if each is None or not each.is_true or handled.verdict not in {"done", "ignored"}:
            continue
        for signature in each.signatures:
            landed = case.finalized.get(signature)
            if landed is None or signature in dropped:
                continue
            for terms in case.truth.mentions(landed):
                known = (signature, terms.id) in handled.judged | handled.sighted
                if not known and _was_open(case, terms.id, handled):
                    yield (
                        f"{_say(each)} was {handled.verdict} at {handled.at_s:.3f}, and nobody "
                        f"had looked at {signature}, which names {terms.id}"
                    )


def _was_open(case: Case, payment_id: str, handled: Handled) -> bool:
    """From before the webhook came until it was done."""
    changes = [c for c in case.changes.get(payment_id, ()) if c.at_s < handled.received_at_s]
    return bool(changes) and handled.statuses[payment_id] in OPEN


def _say(told: Told) -> str:
    return f"webhook {told.dedupe_key[:8]} about {[name[:6] for name in told.signatures]}"
