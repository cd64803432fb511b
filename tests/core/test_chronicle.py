"""The events of a payment tell its life, or it is said where they do not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from indexer.core import events
from indexer.core.chronicle import Entry, differing_log
from indexer.core.payment import Payment
from indexer.core.settle import advance, cancel, fold
from indexer.core.types import Reason, Status
from indexer.core.verdict import Verdict
from tests.builders import AMOUNT, NOW, make_payment, make_verdict


def entries_of(*changes: Sequence[events.Event]) -> list[Entry]:
    """As they are stored, one after another."""
    return [
        Entry(
            seq=seq,
            type=str(event.type),
            version=event.version,
            ordinal=event.ordinal,
            data=event.data,
        )
        for seq, event in enumerate((each for change in changes for each in change), start=5)
    ]


class Life:
    """A payment that goes its way, and its log."""

    def __init__(self, payment: Payment | None = None) -> None:
        self.payment = payment or make_payment()
        self.verdicts: list[Verdict] = []
        self.changes: list[Sequence[events.Event]] = [[events.created(self.payment, NOW)]]

    def change(
        self, *verdicts: Verdict, sighted: bool = False, frontier_time: int | None = None
    ) -> "Life":
        self.verdicts += verdicts
        state = fold(
            self.payment.terms,
            self.verdicts,
            frontier_time=frontier_time,
            sighted=sighted,
            canceled_at=self.payment.state.canceled_at,
        )
        return self.become(advance(self.payment, state))

    def become(self, after: Payment) -> "Life":
        self.changes.append(events.of_change(self.payment, after, NOW))
        self.payment = after
        return self

    @property
    def entries(self) -> list[Entry]:
        return entries_of(*self.changes)

    def differences(self, entries: Sequence[Entry] | None = None) -> list[tuple[str, str]]:
        found = differing_log(self.payment, self.entries if entries is None else entries)
        return [(each.what, each.where) for each in found]


def paying(life: Life, name: str, credit: int = AMOUNT, slot: int = 100, **rest: Any) -> Verdict:
    return make_verdict(life.payment, name=name, credit=credit, slot=slot, **rest)


def settled() -> Life:
    life = Life()
    return life.change(sighted=True).change(paying(life, "it"))


def lives() -> dict[str, Life]:
    found = {"new": Life(), "settled": settled(), "dropped": Life().change(sighted=True).change()}
    partly = Life()
    found["partly"] = partly.change(paying(partly, "a", 1)).change(paying(partly, "b", 2, 101))
    over = settled()
    found["over"] = over.change(paying(over, "more", 5, 101)).change(paying(over, "x", 5, 102))
    twice = settled()
    twice.change(paying(twice, "more", 5, 101))
    found["twice"] = twice.change(paying(twice, "again", AMOUNT, 102))
    expired = Life()
    found["expired"] = expired.change(frontier_time=expired.payment.terms.expires_at + 1)
    late = Life()
    time = late.payment.terms.expires_at + 5
    late.change(frontier_time=time)
    found["late"] = late.change(paying(late, "late", block_time=time), frontier_time=time)
    canceled = Life()
    canceled.become(cancel(canceled.payment, NOW))
    found["canceled"] = canceled.change(paying(canceled, "it"))
    doubtful = Life()
    doubt = paying(doubtful, "it", clean=False, reasons=[Reason.DEBITED])
    found["doubtful"] = doubtful.change(doubt)
    return found


@pytest.mark.parametrize("name", lives())
def test_every_way_that_a_payment_can_go_is_told_without_a_fault(name: str) -> None:
    assert lives()[name].differences() == []


@pytest.mark.parametrize("name", sorted(lives().keys() - {"new"}))
def test_no_event_can_be_taken_away_unseen(name: str) -> None:
    life = lives()[name]
    for missing in range(len(life.entries)):
        left = [entry for number, entry in enumerate(life.entries) if number != missing]
        assert life.differences(left), f"event {missing}"


@pytest.mark.parametrize("name", sorted(lives()))
def test_no_event_can_be_told_twice(name: str) -> None:
    life = lives()[name]
    for number, entry in enumerate(life.entries):
        again = replace(entry, seq=entry.seq + 100)
        assert life.differences([*life.entries, again]), f"event {number}"


def test_no_two_can_change_places() -> None:
    life = settled()
    first, second, third = life.entries

    assert life.differences([first, third, second])
    assert life.differences([second, first, third])


def test_a_payment_without_events_is_found() -> None:
    assert Life().differences([]) == [("event", "")]


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "payment.expired"},
        {"type": "payment.settled"},
        {"version": 9},
        {"ordinal": 1},
        {"data": None},
        {"data": {}},
        {"data": {"payment": {}}},
        {"data": []},
    ],
)
def test_an_event_that_was_changed_is_found(changes: dict[str, Any]) -> None:
    life = settled()
    first, second, third = life.entries

    assert life.differences([first, replace(second, **changes), third])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "expired"),
        ("paid", "none"),
        ("late", True),
        ("review", ["debited"]),
        ("received_base_units", "1"),
        ("settled_at", None),
        ("version", 7),
        ("amount_base_units", "1"),
        ("recipient", "somebody"),
        ("reference", "another"),
        ("expires_at", "2020-01-01T00:00:00Z"),
    ],
)
def test_what_an_event_says_is_compared(name: str, value: Any) -> None:
    life = settled()
    *others, last = life.entries
    shown = {**last.data["payment"], name: value}

    assert life.differences([*others, replace(last, data={**last.data, "payment": shown})])


@pytest.mark.parametrize(
    "changes", [{"late": True}, {"received": 1}, {"review": ("debited",)}, {"settled_at": 1}]
)
def test_a_row_that_the_last_event_does_not_tell_is_found(changes: dict[str, Any]) -> None:
    life = settled()
    life.payment = replace(life.payment, state=replace(life.payment.state, **changes))

    assert life.differences()


def test_a_version_that_changed_nothing_is_found() -> None:
    for life in (settled(), Life()):
        life.payment = replace(life.payment, version=life.payment.version + 1)
        assert life.differences()


def test_more_money_after_it_was_settled_needs_no_event() -> None:
    life = settled()
    before = len(life.entries)
    life.change(paying(life, "more", 5, 101))

    assert (len(life.entries), life.payment.version) == (before, 4)
    assert life.differences() == []


def test_a_step_that_no_payment_may_take_is_found() -> None:
    life = Life()
    life.become(cancel(life.payment, NOW))
    state = replace(life.payment.state, status=Status.PENDING)
    life.become(replace(life.payment, state=state, version=3))

    assert life.differences()


def test_what_a_person_decided_may_change_a_payment_without_a_word() -> None:
    life = Life()
    doubt = paying(life, "it", 1, clean=False, reasons=[Reason.DEBITED])
    life.change(doubt)
    state = replace(life.payment.state, review=())
    life.payment = replace(life.payment, state=state, version=life.payment.version + 1)

    assert life.differences()
    assert list(differing_log(life.payment, life.entries, decided=True)) == []
