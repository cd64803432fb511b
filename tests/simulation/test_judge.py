"""The judge objects to every kind of lie that the books of a simulated world could tell."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from indexer.core.payment import Terms
from tests.builders import AMOUNT, CUSTOMER, NOW, WATCH_KEY, make_terms
from tests.instructions import key, signature
from tests.simulation import judge_deliveries, judge_inbox
from tests.simulation.case import Case
from tests.simulation.judge import RULES, judge
from tests.simulation.outcome import Asked, Change, Death, Landed, Leg, Move, Outcome


SETTLED, PARTED, CANCELED, EXPIRED = (make_terms(n, grace_s=600) for n in (1, 2, 3, 4))
#: Block time of a slot, and virtual second in which it is final: a slot takes 10 s here.
SLOT_S = 10


def landed(name: str, slot: int, *paid: tuple[Terms, int], failed: bool = False) -> Landed:
    """A transaction that pays these payments, beside the watch key."""
    legs = tuple(
        Leg(
            source=CUSTOMER,
            destination=terms.recipient,
            owner=terms.recipient,
            mint=None,
            amount=amount,
            references=(terms.reference, WATCH_KEY),
        )
        for terms, amount in paid
    )
    return Landed(
        signature=signature(name),
        slot=slot,
        index=0,
        block_time=NOW + slot * SLOT_S,
        failed=failed,
        keys=(CUSTOMER, *(terms.reference for terms, _ in paid), WATCH_KEY),
        legs=legs,
        finalized_at_s=slot * SLOT_S,
    )


class Books:
    """Keeps the books of one world by hand, as the daemon should."""

    def __init__(self) -> None:
        tables = "payments verdicts transfers events coverage cursors gaps dead_letters sightings"
        self.rows: dict[str, list[dict[str, Any]]] = {table: [] for table in tables.split()}
        self.rows |= {"webhook_events": [], "webhook_deliveries": []}
        self.outcome = Outcome(seed=1, profile={}, watch_key=WATCH_KEY, quorum=1, rows=self.rows)
        self.asked: list[Asked] = []
        self.changes: list[Change] = []
        self.moves: list[Move] = []
        self.finalized_slot: int | None = None

    def create(self, terms: Terms, *, canceled_at: int | None = None) -> None:
        self.asked.append(Asked(terms=terms, stored_at_s=1.0, canceled_at=canceled_at))
        self.rows["payments"].append({"id": terms.id, "version": 0, "canceled_at": None})
        self.change(terms, 0, "created", status="pending", received=0)

    def change(self, terms: Terms, slot: int, *events: str, received: int, **facts: Any) -> None:
        row = self.row(terms)
        paid = "none" if not received else "partial" if received < AMOUNT else "exact"
        state: dict[str, Any] = {"late": False, "review": (), "settled_at": None, "paid": paid}
        state |= facts
        row["version"] += 1
        self.changes.append(
            Change(
                at_s=slot * SLOT_S + 1,
                process=1,
                payment_id=terms.id,
                version=row["version"],
                finalized_slot=slot,
                received=received,
                **state,
            )
        )
        row |= state | {"received": str(received), "late": int(state["late"])}
        row["review"] = json.dumps(state["review"], separators=(",", ":"))
        self.tell(terms, *events)

    def tell(self, terms: Terms, *events: str) -> None:
        row = self.row(terms)
        state = {name: row[name] for name in ("version", "status", "paid")}
        state |= {"late": bool(row["late"]), "review": json.loads(row["review"])}
        data = {"payment": state | {"received_base_units": row["received"]}, "signature": None}
        for ordinal, event in enumerate(events):
            self.rows["events"].append(
                {
                    "seq": len(self.rows["events"]) + 1,
                    "payment_id": terms.id,
                    "type": f"payment.{event}",
                    "version": row["version"],
                    "ordinal": ordinal,
                    "data": json.dumps(data),
                }
            )

    def row(self, terms: Terms) -> dict[str, Any]:
        [row] = [row for row in self.rows["payments"] if row["id"] == terms.id]
        return row

    def judged(self, transaction: Landed, terms: Terms) -> None:
        amount = 0 if transaction.failed else sum(leg.amount for leg in transaction.legs)
        ids = {"signature": transaction.signature, "payment_id": terms.id}
        self.rows["verdicts"].append(
            ids
            | {"slot": transaction.slot, "transaction_index": 0, "credit": str(amount)}
            | {"block_time": transaction.block_time}
        )
        if amount:
            self.rows["transfers"].append(
                ids
                | {"outer_index": 0, "inner_index": -1, "sub_index": -1, "source": CUSTOMER}
                | {"destination": terms.recipient, "amount": str(amount), "net": str(amount)}
            )

    def move(self, slot: int, key: str = WATCH_KEY) -> None:
        self.moves.append(
            Move(
                at_s=slot * SLOT_S,
                process=1,
                key=key,
                slot=slot,
                block_time=NOW + slot * SLOT_S,
                finalized_slot=slot,
                judged=frozenset(
                    (row["signature"], row["payment_id"]) for row in self.rows["verdicts"]
                ),
                parked=frozenset(row["signature"] for row in self.rows["dead_letters"]),
                payment_ids=frozenset(row["id"] for row in self.rows["payments"]),
            )
        )
        for table in ("cursors", "coverage"):
            self.rows[table] = [row for row in self.rows[table] if row["key"] != key]
        self.rows["cursors"].append({"key": key, "slot": slot})
        self.rows["coverage"].append({"key": key, "first_slot": 0, "last_slot": slot})

    def close(self, *finalized: Landed, dropped: tuple[Landed, ...] = ()) -> Outcome:
        self.outcome.finalized, self.outcome.dropped = finalized, dropped
        self.outcome.payments, self.outcome.changes = self.asked, self.changes
        self.outcome.moves = self.moves
        self.outcome.finalized_slot = self.finalized_slot or self.moves[-1].slot
        self.outcome.finalized_time = self.moves[-1].block_time
        return self.outcome


WHOLE = landed("whole", 10, (SETTLED, AMOUNT))
BROKEN = landed("broken", 11, (SETTLED, AMOUNT), failed=True)
PART = landed("part", 12, (PARTED, 400_000))
REST = landed("rest", 95, (PARTED, 600_000))
FORKED = landed("forked", 13, (EXPIRED, AMOUNT))


def kept() -> Books:
    """The books of a world in which all went well: one payment of each fate."""
    books = Books()
    for terms in (SETTLED, PARTED, EXPIRED):
        books.create(terms)
    books.create(CANCELED, canceled_at=NOW + 50)
    books.change(CANCELED, 5, "canceled", status="canceled", received=0)
    books.row(CANCELED)["canceled_at"] = NOW + 50
    books.judged(WHOLE, SETTLED)
    books.change(
        SETTLED, 10, "settled", status="settled", received=AMOUNT, settled_at=WHOLE.block_time
    )
    books.judged(BROKEN, SETTLED)
    books.judged(PART, PARTED)
    books.change(PARTED, 12, "partially_paid", status="pending", received=400_000)
    books.change(EXPIRED, 13, "detected", status="processing", received=0)
    books.change(EXPIRED, 80, "reverted", status="pending", received=0)
    books.move(91)
    for terms in (PARTED, EXPIRED):
        books.move(91, terms.reference)
        received = 400_000 if terms is PARTED else 0
        books.change(terms, 91, "expired", status="expired", received=received)
    books.judged(REST, PARTED)
    books.change(
        PARTED,
        95,
        "settled",
        status="settled",
        received=AMOUNT,
        late=True,
        settled_at=REST.block_time,
    )
    books.move(120)
    return books


def close(books: Books) -> Outcome:
    return books.close(WHOLE, BROKEN, PART, REST, dropped=(FORKED,))


def test_good_books_pass() -> None:
    assert judge(close(kept())) == []


def forget_whole(books: Books) -> None:
    for table in ("verdicts", "transfers"):
        kept_rows = [row for row in books.rows[table] if row["signature"] != WHOLE.signature]
        books.rows[table][:] = kept_rows


def settle_expired(books: Books) -> None:
    books.change(EXPIRED, 96, "settled", status="settled", received=AMOUNT, settled_at=NOW)


def settle_early(books: Books) -> None:
    books.changes = [
        replace(c, finalized_slot=9) if c.status == "settled" and c.version == 2 else c
        for c in books.changes
    ]


def credit_more(books: Books) -> None:
    [verdict] = [row for row in books.rows["verdicts"] if row["signature"] == WHOLE.signature]
    verdict["credit"] = str(2 * AMOUNT)


def credit_failed(books: Books) -> None:
    [verdict] = [row for row in books.rows["verdicts"] if row["signature"] == BROKEN.signature]
    verdict["credit"] = str(AMOUNT)


def credit_forked(books: Books) -> None:
    books.judged(FORKED, EXPIRED)


def credit_leg_again(books: Books) -> None:
    books.rows["transfers"].append(books.rows["transfers"][0] | {"payment_id": EXPIRED.id})


def swap_leg(books: Books) -> None:
    books.rows["transfers"][0]["source"] = key("somebody else")


def shrink_leg(books: Books) -> None:
    books.rows["transfers"][0]["net"] = "1"


def lose_payment(books: Books) -> None:
    books.rows["payments"].remove(books.row(SETTLED))


def invent_payment(books: Books) -> None:
    books.rows["payments"].append(books.row(SETTLED) | {"id": "pay_nobody"})


def keep_processing(books: Books) -> None:
    books.change(EXPIRED, 96, "detected", status="processing", received=0)


def expire_early(books: Books) -> None:
    books.moves = [m for m in books.moves if m.key != WATCH_KEY or m.slot > 91]


def expire_without_last_look(books: Books) -> None:
    books.moves = [m for m in books.moves if m.key != EXPIRED.reference]


def expire_paid(books: Books) -> None:
    change = next(change for change in books.changes if change.payment_id == SETTLED.id)
    books.changes.append(replace(change, version=3, status="expired", at_s=1_000.0))


def never_expire(books: Books) -> None:
    books.rows["payments"].remove(books.row(EXPIRED))
    books.create(EXPIRED)


def revert_without_fork(books: Books) -> None:
    books.change(CANCELED, 80, "reverted", status="pending", received=0)


def unsettle(books: Books) -> None:
    books.change(SETTLED, 96, "reverted", status="pending", received=AMOUNT)


def skip_version(books: Books) -> None:
    books.changes.remove(next(c for c in books.changes if c.version == 2))


def store_version_twice(books: Books) -> None:
    books.changes.append(books.changes[-1])


def lose_event(books: Books) -> None:
    books.rows["events"].pop()


def drop_event_in_the_middle(books: Books) -> None:
    del books.rows["events"][2]


def store_for_nothing(books: Books) -> None:
    books.change(EXPIRED, 96, status="expired", received=0)


def tell_twice(books: Books) -> None:
    books.tell(PARTED, "settled", "settled")


def tell_otherwise(books: Books) -> None:
    event = books.rows["events"][-1]
    event["data"] = event["data"].replace('"late": true', '"late": false')


def tell_wrong_type(books: Books) -> None:
    books.rows["events"][-1]["type"] = "payment.expired"


def begin_wrong(books: Books) -> None:
    books.rows["events"][0]["type"] = "payment.detected"


def disorder(books: Books) -> None:
    events = books.rows["events"]
    events[0]["version"] = 9


def pass_over(books: Books) -> None:
    books.moves[0] = replace(books.moves[0], judged=frozenset())


def run_ahead(books: Books) -> None:
    books.moves[0] = replace(books.moves[0], finalized_slot=90)


def take_later_time(books: Books) -> None:
    books.moves[0] = replace(books.moves[0], block_time=REST.block_time + 1)


def stand_still(books: Books) -> None:
    books.finalized_slot = 1_000


def move_back(books: Books) -> None:
    books.moves.append(replace(books.moves[-1], slot=119))


def leave_hole(books: Books) -> None:
    books.rows["coverage"].append({"key": WATCH_KEY, "first_slot": 0, "last_slot": 3})
    books.rows["coverage"][-2]["first_slot"] = 5


def cover_less(books: Books) -> None:
    books.rows["coverage"][-1]["last_slot"] = 100


def cover_more(books: Books) -> None:
    books.rows["coverage"][-1]["last_slot"] = 1_000


def leave_letter(books: Books) -> None:
    letter = {"signature": REST.signature, "reason": "not_found", "detail": "no node has it"}
    books.rows["dead_letters"].append(letter | {"next_try_at": None})


def leave_sighting(books: Books) -> None:
    books.rows["sightings"].append({"payment_id": EXPIRED.id, "signature": FORKED.signature})


def leave_gap(books: Books) -> None:
    books.rows["gaps"].append(
        {"key": WATCH_KEY, "first_slot": 1, "last_slot": 2, "reason": "start", "closed_at": None}
    )


def take_received(books: Books) -> None:
    books.row(SETTLED)["received"] = "5"


def forget_review(books: Books) -> None:
    books.row(SETTLED)["review"] = '["paid_again"]'


def die(books: Books) -> None:
    books.outcome.deaths = [Death(at_s=3.0, process=1, problem="KeyError: 7", traceback="")]


LIES: list[tuple[Callable[[Books], None], str]] = [
    (forget_whole, "it is lost"),
    (forget_whole, "was never judged"),
    (settle_expired, "is settled, in truth expired"),
    (settle_early, "when slot 9 was final"),
    (credit_more, "the verdict of"),
    (credit_failed, "the verdict of"),
    (credit_forked, "is not final or not its own"),
    (credit_leg_again, "is credited 2 times"),
    (credit_leg_again, "without a verdict"),
    (swap_leg, "are not those of the chain"),
    (shrink_leg, "its legs 1"),
    (shrink_leg, "legs brought"),
    (lose_payment, "is not stored"),
    (invent_payment, "nobody asked for it"),
    (keep_processing, "is processing, in truth expired"),
    (keep_processing, "was expired and became processing"),
    (expire_early, f"the frontier of {WATCH_KEY} was at 0"),
    (expire_without_last_look, f"the frontier of {EXPIRED.reference} was at 0"),
    (expire_paid, "though it was paid in time"),
    (never_expire, "is pending, in truth expired"),
    (revert_without_fork, "no fork dropped it"),
    (revert_without_fork, "was canceled and became pending"),
    (unsettle, "was settled and became pending"),
    (skip_version, "and went through"),
    (store_version_twice, "and went through"),
    (lose_event, "was told as nothing"),
    (lose_event, "the log ends with"),
    (drop_event_in_the_middle, "numbered"),
    (store_for_nothing, "nothing changed"),
    (tell_twice, "was told as"),
    (tell_otherwise, "stored was"),
    (tell_wrong_type, "was told as payment.expired"),
    (begin_wrong, "does not begin with payment.created"),
    (disorder, "out of order"),
    (disorder, "versions that it never had"),
    (pass_over, f"the frontier of {WATCH_KEY} went to slot 91"),
    (run_ahead, "when 90 was final"),
    (take_later_time, "has a time of later slots"),
    (stand_still, "the frontier stands at 120, the chain at 1000"),
    (move_back, "moved back from 120 to 119"),
    (leave_hole, "has holes"),
    (cover_less, "is in none of"),
    (cover_more, "goes beyond"),
    (leave_letter, "is still parked"),
    (leave_sighting, "still merely sighted"),
    (leave_gap, "is still open"),
    (take_received, "received is '5'"),
    (forget_review, "review is"),
    (die, "KeyError"),
]


@pytest.mark.parametrize(("lie", "words"), LIES, ids=[f"{lie.__name__}: {w}" for lie, w in LIES])
def test_the_judge_objects(lie: Callable[[Books], None], words: str) -> None:
    books = kept()
    lie(books)

    assert [sentence for sentence in judge(close(books)) if words in sentence]


def test_every_rule_objects_to_some_lie() -> None:
    """Those of webhooks are tried on worlds that have some: see `test_judge_webhooks`."""
    others = {judge_inbox.__name__, judge_deliveries.__name__}
    silent = {rule for rule in RULES if rule.__module__ not in others}
    for lie, _ in LIES:
        books = kept()
        lie(books)
        case = Case(close(books))
        silent -= {rule for rule in RULES if list(rule(case))}

    assert silent == set()


def test_what_a_node_listed_too_late_is_excused() -> None:
    books = kept()
    pass_over(books)
    books.outcome.listed_late = frozenset(each.signature for each in (WHOLE, PART))

    assert judge(close(books)) == []


@pytest.mark.parametrize(("next_try_at", "is_well"), [(None, True), (5, False)])
def test_what_a_liar_invented_waits_for_a_person(next_try_at: int | None, is_well: bool) -> None:
    books = kept()
    letter = {"signature": signature("lie"), "reason": "not_found", "detail": "no node has it"}
    books.rows["dead_letters"].append(letter | {"next_try_at": next_try_at})

    assert (judge(close(books)) == []) is is_well


def test_a_gap_beyond_the_frontier_is_open() -> None:
    books = kept()
    leave_gap(books)
    books.rows["gaps"][0]["last_slot"] = 121

    assert judge(close(books)) == []
