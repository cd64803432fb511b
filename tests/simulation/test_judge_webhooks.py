"""The judge objects to every lie that could be told about webhooks and cards.

The books are those of worlds that truly ran, and in which all was well; each lie changes them.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from tests.simulation import judge_deliveries, judge_inbox
from tests.simulation.case import Case
from tests.simulation.judge import RULES, judge
from tests.simulation.judge_cards import CardCase
from tests.simulation.judge_shop import SHOP_RULES, judge_shop
from tests.simulation.outcome import Learned, Outcome, Post, Sold, Turn
from tests.simulation.paymob import Moods
from tests.simulation.profile import Profile
from tests.simulation.provider import Manners
from tests.simulation.receivers import Habits
from tests.simulation.shop import Shop
from tests.simulation.trade import Trade
from tests.simulation.world import World


RECEIVER = "we_00000000000000000000000000"


def quiet_profile() -> Profile:
    """A world without troubles, in which a provider tells of everything."""
    profile = World(3).profile
    tempers = [replace(profile.tempers[0], nulls=0.0, late_index=0.0, lies=frozenset())]
    pace = replace(profile.pace, fork=0.0)
    return replace(
        profile,
        quorum=1,
        crashes=0,
        daemons=1,
        tempers=tempers,
        lines=profile.lines[:1],
        pace=pace,
        provider=Manners(),
        habits=(),
        write_fails=0.0,
    )


def quiet_trade() -> Trade:
    """A shop without troubles, with a receiver of everything."""
    return Trade(
        payments=8,
        busy_s=30.0,
        crashes=0,
        store_latency_s=0.001,
        read_fails=0.0,
        write_fails=0.0,
        moods=Moods(),
        habits=[Habits(latency_s=0.1)],
    )


@cache
def _world() -> Outcome:
    return World(3, quiet_profile()).run()


@cache
def _shop() -> Outcome:
    return Shop(1, quiet_trade()).run()


def world() -> Outcome:
    return deepcopy(_world())


def shop() -> Outcome:
    return deepcopy(_shop())


def test_good_books_pass() -> None:
    assert judge(world()) == []
    assert judge_shop(shop()) == []


def test_there_is_something_to_lie_about() -> None:
    statuses = {row["status"] for row in shop().rows["payments"]}

    assert {"settled", "refunded", "failed", "expired"} <= statuses
    assert len(world().told) >= 3
    assert len(shop().reached[0].posts) >= 10


# ------------------------------------------------------------------------------------- inbox


def a_told_row(outcome: Outcome) -> dict[str, Any]:
    """The row of a webhook about something that is final."""
    keys = {
        told.dedupe_key
        for told in outcome.told
        if all(any(x.signature == s for x in outcome.finalized) for s in told.signatures)
    }
    return next(dict_of(row) for row in outcome.rows["webhook_events"] if row["dedupe_key"] in keys)


def dict_of(row: Mapping[str, Any]) -> dict[str, Any]:
    assert isinstance(row, dict)
    return row


def lose_webhook(outcome: Outcome) -> None:
    del rows(outcome, "webhook_events")[0]


def count_webhook_again(outcome: Outcome) -> None:
    a_told_row(outcome)["repeats"] += 1


def invent_webhook(outcome: Outcome) -> None:
    rows(outcome, "webhook_events").append(a_told_row(outcome) | {"dedupe_key": "f" * 64})


def fail_webhook(outcome: Outcome) -> None:
    a_told_row(outcome).update(verdict="failed", detail="given up")


def break_down(outcome: Outcome) -> None:
    a_told_row(outcome).update(verdict="failed", detail="a fault of ours: KeyError")
    outcome.finalized = ()


def leave_webhook(outcome: Outcome) -> None:
    a_told_row(outcome)["verdict"] = "waiting"


def leave_untrue_webhook(outcome: Outcome) -> None:
    a_told_row(outcome)["verdict"] = "waiting"
    outcome.finalized = ()
    outcome.ended_at_s = 1_000.0


def look_too_late(outcome: Outcome) -> None:
    outcome.handled = [
        replace(handled, judged=frozenset(), sighted=frozenset()) for handled in outcome.handled
    ]


def rows(outcome: Outcome, table: str) -> list[dict[str, Any]]:
    found = outcome.rows[table]
    assert isinstance(found, list)
    return found


Lie = Callable[[Outcome], None]

INBOX_LIES: list[tuple[Lie, str]] = [
    (lose_webhook, "and is not stored"),
    (count_webhook_again, "with 1 repeats"),
    (invent_webhook, "nobody sent it"),
    (fail_webhook, "failed: given up"),
    (break_down, "failed: a fault of ours"),
    (leave_webhook, "still waits"),
    (leave_untrue_webhook, "still waits"),
    (look_too_late, "nobody had looked at"),
]


@pytest.mark.parametrize(
    ("lie", "words"), INBOX_LIES, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_judge_objects_to_what_came_in(lie: Lie, words: str) -> None:
    outcome = world()
    lie(outcome)

    assert [sentence for sentence in judge(outcome) if words in sentence]


def test_every_rule_of_the_inbox_objects_to_some_lie() -> None:
    silent = {rule for rule in RULES if rule.__module__ == judge_inbox.__name__}
    assert len(silent) >= 3
    for lie, _ in INBOX_LIES:
        outcome = world()
        lie(outcome)
        case = Case(outcome)
        silent -= {rule for rule in silent if list(rule(case))}

    assert silent == set()


def test_a_webhook_about_nothing_may_wait_for_a_while() -> None:
    outcome = world()
    row = a_told_row(outcome)
    row["verdict"] = "waiting"
    outcome.finalized = ()

    rule = judge_inbox.every_webhook_comes_to_an_end
    assert list(rule(Case(outcome))) == []


# ------------------------------------------------------------------------------------- cards


def sold(outcome: Outcome) -> Sold:
    assert outcome.sold is not None
    return outcome.sold


def payment(outcome: Outcome, status: str) -> dict[str, Any]:
    return next(row for row in rows(outcome, "payments") if row["status"] == status)


def lose_payment(outcome: Outcome) -> None:
    del rows(outcome, "payments")[0]


def lose_charge(outcome: Outcome) -> None:
    del rows(outcome, "charges")[0]


def invent_charge(outcome: Outcome) -> None:
    rows(outcome, "charges")[0]["id"] = 7


def move_charge(outcome: Outcome) -> None:
    charge = rows(outcome, "charges")[0]
    others = [row["id"] for row in rows(outcome, "payments") if row["id"] != charge["payment_id"]]
    charge["payment_id"] = others[0]


def refund_charge(outcome: Outcome) -> None:
    next(row for row in rows(outcome, "charges") if row["state"] == "paid")["refunded"] = "1"


def pay_too_early(outcome: Outcome) -> None:
    next(row for row in rows(outcome, "charges") if row["paid_at"])["paid_at"] -= 1_000


def go_back(outcome: Outcome) -> None:
    learned = sold(outcome).learned
    paid = next(each for each in learned if each.state == "paid")
    assert isinstance(learned, list)
    learned += [
        replace(paid, state="pending"),
        Learned(id=paid.id, state="pending", refunded=-1, paid_at=None),
    ]


def fail_settled(outcome: Outcome) -> None:
    payment(outcome, "settled")["status"] = "failed"


def take_received(outcome: Outcome) -> None:
    payment(outcome, "settled")["received"] = "5"


def settle_unpaid(outcome: Outcome) -> None:
    paid = sold(outcome).paid
    assert isinstance(paid, dict)
    paid.update(dict.fromkeys(paid, 0))


def settle_in_part(outcome: Outcome) -> None:
    outcome.changes = [
        replace(change, received=1) if change.status == "settled" else change
        for change in outcome.changes
    ]


def expire_unasked(outcome: Outcome) -> None:
    answered = sold(outcome).answered
    assert isinstance(answered, list)
    answered.clear()


def unsettle(outcome: Outcome) -> None:
    settled = next(change for change in outcome.changes if change.status == "settled")
    outcome.changes = [
        *outcome.changes,
        replace(settled, version=settled.version + 1, status="pending", received=0),
    ]


def leave_callback(outcome: Outcome) -> None:
    rows(outcome, "webhook_events")[0]["verdict"] = "waiting"


def never_end(outcome: Outcome) -> None:
    outcome.is_quiet = False


# -------------------------------------------------------------------------------- deliveries


def posts(outcome: Outcome) -> list[Post]:
    found = outcome.reached[0].posts
    assert isinstance(found, list)
    return found


def turns(outcome: Outcome) -> list[Turn]:
    found = outcome.reached[0].turns
    assert isinstance(found, list)
    return found


def never_send(outcome: Outcome) -> None:
    last = posts(outcome)[-1]
    posts(outcome)[:] = [p for p in posts(outcome) if p.headers != last.headers]


def answer_500(outcome: Outcome) -> None:
    posts(outcome)[0].status = 500


def give_up_early(outcome: Outcome) -> None:
    rows(outcome, "webhook_deliveries")[0]["state"] = "failed"


def swap(outcome: Outcome) -> None:
    """The last event of some payment arrives before the one before it."""
    by_payment: dict[str, list[Post]] = {}
    for post in posts(outcome):
        by_payment.setdefault(post.headers["webhook-id"].rsplit("_", 2)[0], []).append(post)
    several = next(found for found in by_payment.values() if len(found) > 1)
    several[-1].received_at = 0.0


def send_unknown(outcome: Outcome) -> None:
    posts(outcome)[0].headers = dict(posts(outcome)[0].headers) | {"webhook-id": "evt_1"}


def send_other_type(outcome: Outcome) -> None:
    outcome.reached = [replace(outcome.reached[0], event_types=("payment.nothing",))]


def send_of_before(outcome: Outcome) -> None:
    turns(outcome)[0] = replace(turns(outcome)[0], last_seq=1_000)


def send_other_body(outcome: Outcome) -> None:
    post = posts(outcome)[0]
    post.body = json.dumps(json.loads(post.body) | {"type": "payment.nothing"}).encode()


def break_signature(outcome: Outcome) -> None:
    posts(outcome)[0].body += b" "


def stamp_early(outcome: Outcome) -> None:
    posts(outcome)[0].at += 60


def send_to_disabled(outcome: Outcome) -> None:
    turns(outcome).append(Turn(at=posts(outcome)[0].at, last_seq=1, state="disabled"))


def ignore_410(outcome: Outcome) -> None:
    posts(outcome)[-1].status = 410


def wait_for_disabled(outcome: Outcome) -> None:
    turns(outcome).append(Turn(at=2**40, last_seq=1_000, state="disabled"))
    leave_delivery(outcome)


def leave_delivery(outcome: Outcome) -> None:
    rows(outcome, "webhook_deliveries")[0]["state"] = "waiting"


def hammer(outcome: Outcome) -> None:
    first = replace(posts(outcome)[0], status=500)
    posts(outcome)[:0] = [replace(first, at=first.at - 12 + n) for n in range(12)]


SHOP_LIES: list[tuple[Lie, str]] = [
    (lose_payment, "not stored, or the other way round"),
    (lose_charge, "it is lost"),
    (invent_charge, "is not, or of another payment"),
    (move_charge, "is not, or of another payment"),
    (refund_charge, "is stored as"),
    (pay_too_early, "was paid at"),
    (go_back, "was paid and became pending"),
    (go_back, "were refunded, then less"),
    (go_back, "then None"),
    (fail_settled, "is failed, in truth settled"),
    (take_received, "received is '5'"),
    (settle_unpaid, "when 0 were paid"),
    (settle_in_part, "was settled with 1"),
    (expire_unasked, "nobody had asked after"),
    (unsettle, "was settled and became pending"),
    (unsettle, "then 0"),
    (leave_callback, "is waiting"),
    (never_end, "was left to do"),
    (never_send, "never got evt_"),
    (answer_500, "is delivered, and was answered [500]"),
    (give_up_early, "was given up early"),
    (swap, "before evt_"),
    (send_unknown, "which nobody knows"),
    (send_other_type, "a payment.created"),
    (send_of_before, "when it was not enabled"),
    (send_other_body, "the log {"),
    (break_signature, "does not verify"),
    (stamp_early, "left at"),
    (send_to_disabled, "was sent something"),
    (ignore_410, "wants nothing more, and is enabled"),
    (wait_for_disabled, "something waits for it"),
    (leave_delivery, "still waits"),
    (hammer, "try 2"),
    (hammer, "times"),
]


@pytest.mark.parametrize(
    ("lie", "words"), SHOP_LIES, ids=[f"{lie.__name__}: {words}" for lie, words in SHOP_LIES]
)
def test_the_judge_objects_to_the_shop(lie: Lie, words: str) -> None:
    outcome = shop()
    lie(outcome)

    assert [sentence for sentence in judge_shop(outcome) if words in sentence]


def test_every_rule_of_shops_objects_to_some_lie() -> None:
    """Those about versions and the log are tried in the judge's own tests."""
    silent = {rule for rule in SHOP_RULES if "history" not in rule.__module__}
    silent -= {rule for rule in silent if rule.__name__ == "nothing_died"}
    for lie, _ in SHOP_LIES:
        outcome = shop()
        lie(outcome)
        case = CardCase(outcome)
        silent -= {rule for rule in silent if list(rule(case))}

    assert silent == set()


def test_every_rule_of_deliveries_is_asked() -> None:
    rules = {*judge_deliveries.SAFETY, *judge_deliveries.IN_THE_END}

    assert rules <= set(SHOP_RULES)
    assert set(judge_deliveries.SAFETY) <= set(RULES)
