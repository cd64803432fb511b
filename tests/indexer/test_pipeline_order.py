"""The same transactions in any order, in any company, any number of times: one result."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings, strategies as st

from indexer.core.payment import Payment
from indexer.core.types import Paid, Reason, Status
from store import events as event_log
from tests.chain import system_transfer, transaction
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    EXPIRES_AT,
    FINAL_SLOT,
    SHOP,
    WATCH_KEY,
    Stage,
    paying,
    payment,
    stage,
)


def market() -> tuple[list[Any], list[dict[str, Any]]]:
    """Payments of every fate, and the transactions that decide it."""
    exact, dusty, parts, twice, late, unpaid, canceled = (
        payment(name) for name in ("exact", "dusty", "parts", "twice", "late", "unpaid", "canceled")
    )
    pair = payment("pair one"), payment("pair two")
    both = transaction(
        [system_transfer(BUYER, SHOP, AMOUNT, each.terms.reference, WATCH_KEY) for each in pair],
        slot=FINAL_SLOT - 4,
    )
    transactions = [
        paying(exact),
        paying(exact, amount=2, slot=FINAL_SLOT - 9, err={"InstructionError": [0, "Custom"]}),
        paying(dusty, amount=1, slot=FINAL_SLOT - 8, index=0),
        paying(dusty, amount=AMOUNT, slot=FINAL_SLOT - 8, index=1),
        paying(dusty, amount=3, slot=FINAL_SLOT - 7),
        paying(parts, amount=AMOUNT - 1, slot=FINAL_SLOT - 6),
        paying(parts, amount=1, slot=FINAL_SLOT - 5),
        paying(twice, name="once", slot=FINAL_SLOT - 3),
        paying(twice, name="and again", slot=FINAL_SLOT - 2),
        paying(late, slot=FINAL_SLOT - 1, block_time=EXPIRES_AT + 5),
        paying(canceled, slot=FINAL_SLOT - 10),
        paying(payment("of somebody else"), slot=FINAL_SLOT - 11),
        both,
    ]
    return [exact, dusty, parts, twice, late, unpaid, canceled, *pair], transactions


#: Steps: show or settle, and which transactions together.
Plan = list[tuple[str, list[int]]]

EVERYTHING = list(range(len(market()[1])))


async def play(plan: Plan, *, at_once: bool) -> dict[str, Any]:
    """What is stored after the steps, in a database of its own."""
    with tempfile.TemporaryDirectory() as folder:
        async with stage(Path(folder)) as it:
            expected, transactions = market()
            for each in expected:
                await it.put(each)
            await it.cancel(expected[-3])
            for landed in transactions:
                it.chain.add(landed)
            found = [it.found(landed) for landed in transactions]
            doing = []
            for act, chosen in plan:
                walk = it.pipeline.settle if act == "settle" else it.pipeline.sight
                doing.append(walk([found[n] for n in chosen]))
            if at_once:
                await asyncio.gather(*doing)
            else:
                for each in doing:
                    await each
            return await outcome(it, expected)


async def outcome(it: Stage, expected: Sequence[Payment]) -> dict[str, Any]:
    """Everything that must be the same; asserts what must hold in any case."""
    events = await event_log.after(it.database, 0, limit=10_000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert await it.letters() == []
    assert await it.table("sightings") == [], "what is judged is sighted no more"
    told = Counter((event.payment_id, event.type) for event in events)
    return {
        "states": [(await it.record(each)).payment.state for each in expected],
        "verdicts": await it.table("verdicts"),
        "transfers": await it.table("transfers"),
        "status events": {
            (each.terms.id, status): told[each.terms.id, f"payment.{status}"]
            for each in expected
            for status in ("created", "settled", "expired", "canceled")
        },
    }


@cache
def in_one_go() -> dict[str, Any]:
    return asyncio.run(play([("settle", EVERYTHING)], at_once=False))


def test_the_market_holds_every_fate() -> None:
    """Otherwise the next test would compare little."""
    reached = in_one_go()

    assert [state.status for state in reached["states"]] == [
        Status.SETTLED,
        Status.SETTLED,
        Status.SETTLED,
        Status.SETTLED,
        Status.SETTLED,
        Status.PENDING,
        Status.CANCELED,
        Status.SETTLED,
        Status.SETTLED,
    ]
    assert {state.paid for state in reached["states"]} == {Paid.EXACT, Paid.OVER, Paid.NONE}
    assert {reason for state in reached["states"] for reason in state.review} == {
        Reason.PAID_AGAIN,
        Reason.PAID_AFTER_CANCEL,
    }
    assert max(reached["status events"].values()) == 1
    assert len(reached["verdicts"]) == len(EVERYTHING)  # one concerns nobody, one concerns two


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations(EVERYTHING),
    cuts=st.sets(st.integers(1, len(EVERYTHING) - 1)),
    repeated=st.lists(st.sampled_from(EVERYTHING), max_size=8),
    sighted=st.lists(st.sampled_from(EVERYTHING), max_size=8),
    at_once=st.booleans(),
)
def test_order_company_and_repetition_change_nothing(
    order: list[int], cuts: set[int], repeated: list[int], sighted: list[int], at_once: bool
) -> None:
    bounds = [0, *sorted(cuts), len(order)]
    plan: Plan = [("settle", order[a:b]) for a, b in pairwise(bounds)]
    for number, again in enumerate(repeated):
        plan.insert(number * 2, ("settle", [again]))
    for number, seen in enumerate(sighted):
        plan.insert(number * 3, ("sight", [seen]))

    assert asyncio.run(play(plan, at_once=at_once)) == in_one_go()
