"""Which payments may expire, which keys are watched, and since when money may count."""

from dataclasses import replace
from typing import Any

import pytest

from indexer.core.payment import Payment
from indexer.core.types import Paid, Status
from store import cursors, payments, watching
from store.cursors import Frontier
from store.database import Database
from store.payments import Record
from tests.builders import (
    CUSTOMER,
    GRACE_S,
    MERCHANT,
    NOW,
    USDC,
    make_payment,
    make_verdict,
)
from tests.instructions import key, signature
from tests.store.keeping import complete, create


FULL = {"paid": Paid.EXACT, "received": 1_000_000}


@pytest.mark.parametrize(
    ("payment", "expires"),
    [
        (make_payment(), True),
        (make_payment(status=Status.PROCESSING), True),
        (make_payment(status=Status.PROCESSING, state={"paid": Paid.PARTIAL}), True),
        (make_payment(expires_in_s=901), False),
        (make_payment(status=Status.EXPIRED), False),
        (make_payment(status=Status.SETTLED), False),
        (make_payment(status=Status.CANCELED), False),
        (make_payment(watch_key=key("another")), False),
        (make_payment(watch_key=None), False),
        # All of it came in time and waits for a person.
        (make_payment(status=Status.PROCESSING, state=FULL), False),
        # Only with what came late is it enough.
        (make_payment(status=Status.PROCESSING, state={**FULL, "late": True}), True),
    ],
)
async def test_what_the_frontier_has_passed_may_expire(
    database: Database, payment: Payment, expires: bool
) -> None:
    await create(database, payment)
    await complete(database, payment, NOW + 902)

    found = await payments.expirable(database, key=key("watch key"), block_time=NOW + 901, limit=10)

    assert found == ([Record(payment)] if expires else [])


@pytest.mark.parametrize(("block_time", "expires"), [(None, False), (900, False), (901, True)])
async def test_nothing_expires_whose_own_reference_is_not_complete_to_the_deadline(
    database: Database, block_time: int | None, expires: bool
) -> None:
    payment = make_payment()
    await create(database, payment)
    if block_time is not None:
        await complete(database, payment, NOW + block_time)

    found = await payments.expirable(database, key=key("watch key"), block_time=NOW + 901, limit=10)

    assert found == ([Record(payment)] if expires else [])


async def test_a_payment_without_watch_key_expires_by_its_reference(database: Database) -> None:
    payment, other = make_payment(1, watch_key=None), make_payment(2, watch_key=None)
    await create(database, payment, other)

    found = await payments.expirable(
        database, key=payment.terms.reference, block_time=NOW + 10**6, limit=10
    )

    assert found == [Record(payment)]


async def test_the_first_to_expire_come_first(database: Database) -> None:
    for number, expires_in_s in ((1, 30), (2, 10), (3, 20)):
        payment = make_payment(number, expires_in_s=expires_in_s)
        await create(database, payment)
        await complete(database, payment, NOW + 100)

    found = await payments.expirable(database, key=key("watch key"), block_time=NOW + 100, limit=2)

    assert [record.payment.terms.expires_at - NOW for record in found] == [10, 20]


GRACE_ENDS = NOW + 900 + GRACE_S


@pytest.mark.parametrize(
    ("payment", "counts"),
    [
        (make_payment(), True),
        (make_payment(status=Status.PROCESSING), True),
        (make_payment(status=Status.EXPIRED), True),
        (make_payment(status=Status.EXPIRED, grace_s=0), False),
        (make_payment(status=Status.SETTLED), False),
        (make_payment(status=Status.CANCELED), False),
        (make_payment(watch_key=key("another")), False),
        (make_payment(watch_key=None), False),
    ],
)
async def test_the_oldest_payment_that_money_may_count_for(
    database: Database, payment: Payment, counts: bool
) -> None:
    younger = make_payment(2, created_at=NOW + 5)
    await create(database, payment, younger)

    oldest = await watching.oldest_payable(database, key("watch key"), now=GRACE_ENDS)

    assert oldest == (NOW if counts else NOW + 5)
    assert await watching.oldest_payable(database, key("unknown"), now=GRACE_ENDS) is None


@pytest.mark.parametrize(
    ("status", "now", "counts"),
    [
        (Status.PENDING, GRACE_ENDS + 1, True),
        (Status.EXPIRED, GRACE_ENDS, True),
        (Status.EXPIRED, GRACE_ENDS + 1, False),
        (Status.SETTLED, NOW, False),
    ],
)
async def test_a_payment_without_watch_key_counts_for_its_reference(
    database: Database, status: Status, now: int, counts: bool
) -> None:
    payment = make_payment(status=status, watch_key=None)
    await create(database, payment)

    oldest = await watching.oldest_payable(database, payment.terms.reference, now=now)

    assert oldest == (NOW if counts else None)


async def test_what_was_judged_for_a_payment_is_known_by_its_signatures(
    database: Database,
) -> None:
    payment, other = make_payment(1), make_payment(2)
    await create(database, payment, other)
    for each, name in ((payment, "a"), (payment, "b"), (other, "c")):
        verdict = make_verdict(each, name=name, credit=0)
        await database.write(payments.save(each, each, verdicts=[verdict], now=NOW))

    assert await watching.judged(database, payment.terms.id) == {signature("a"), signature("b")}


async def test_references_are_watched_while_money_may_still_count(database: Database) -> None:
    for number, status in enumerate(Status, start=1):
        await create(database, make_payment(number, status=status, watch_key=None))
    await create(database, make_payment(99))  # the watch key finds it
    open_ones = [Status.PENDING, Status.PROCESSING]

    async def watched(now: int, limit: int = 100) -> list[str]:
        return await watching.foreign(database, now=now, limit=limit)

    def references(statuses: list[Status]) -> list[str]:
        numbers = sorted((list(Status).index(each) + 1 for each in statuses), reverse=True)
        return [key(f"reference {number}") for number in numbers]

    assert await watched(GRACE_ENDS) == references([*open_ones, Status.EXPIRED])
    assert await watched(GRACE_ENDS, limit=1) == references([Status.EXPIRED])
    assert await watched(GRACE_ENDS + watching.LOOKED_AFTER_S + 1) == references(open_ones)

    # The clock alone does not end it: what was paid in time may not be final yet.
    all_seen = GRACE_ENDS + watching.LISTED_LATE_S + 1
    for block_time, wanted in ((all_seen - 1, [*open_ones, Status.EXPIRED]), (all_seen, open_ones)):
        [reference] = references([Status.EXPIRED])
        frontier = Frontier(key=reference, slot=9, block_time=block_time, updated_at=NOW)
        await database.write([cursors.advance(frontier)])
        assert await watched(all_seen + 1) == references(wanted)


async def test_watch_keys_are_listed_while_money_may_still_count(database: Database) -> None:
    for number, status in enumerate(Status, start=1):
        await create(database, make_payment(number, status=status, watch_key=f"key {status}"))
        await create(database, make_payment(100 + number, status=status, watch_key="shared"))
    await create(database, make_payment(99, watch_key=None))

    assert await watching.watch_keys(database, now=GRACE_ENDS) == [
        "key expired", "key pending", "key processing", "shared",
    ]  # fmt: skip
    looked_after = GRACE_ENDS + watching.LOOKED_AFTER_S
    assert "key expired" in await watching.watch_keys(database, now=looked_after)
    open_ones = ["key pending", "key processing", "shared"]
    assert await watching.watch_keys(database, now=looked_after + 1) == open_ones

    # The clock alone does not end it: what was paid in time may not be final yet.
    all_seen = GRACE_ENDS + watching.LISTED_LATE_S
    for block_time, wanted in ((all_seen, ["key expired", *open_ones]), (all_seen + 1, open_ones)):
        moved = Frontier(key="key expired", slot=9, block_time=block_time, updated_at=NOW)
        await database.write([cursors.advance(moved)])
        assert await watching.watch_keys(database, now=all_seen + 1) == wanted


async def test_without_payments_nothing_is_watched(database: Database) -> None:
    assert await watching.watch_keys(database, now=NOW) == []
    assert await watching.foreign(database, now=NOW, limit=10) == []


# ------------------------------------------------------------ where money is waited for


async def test_payments_are_waited_for_at_their_wallets_and_token_accounts(
    database: Database,
) -> None:
    """As long as money may count, from the oldest on; nobody else's reference among them."""
    in_tokens = make_payment(3, asset=USDC)
    assert in_tokens.terms.token_account is not None
    stranger = make_payment(4, asset=USDC)
    stranger = replace(stranger, terms=replace(stranger.terms, token_account=key("stranger")))
    as_reference = make_payment(5)
    as_reference = replace(
        as_reference, terms=replace(as_reference.terms, reference=key("stranger"))
    )
    await create(
        database,
        make_payment(1, created_at=NOW - 50),
        make_payment(2, created_at=NOW - 80),
        in_tokens,
        stranger,
        as_reference,
        make_payment(6, created_at=NOW - 99, status=Status.SETTLED),
        make_payment(7, created_at=NOW - 99, status=Status.CANCELED),
        make_payment(8, created_at=NOW - 99_999, status=Status.EXPIRED),
    )
    both = sorted([(MERCHANT, NOW - 80), (in_tokens.terms.token_account, NOW)])

    async def waited_for(now: int = NOW, after: str = "", limit: int = 9) -> list[tuple[str, int]]:
        return await watching.destinations(database, now=now, after=after, limit=limit)

    assert await waited_for() == both
    assert await waited_for(limit=1) == both[:1]
    assert await waited_for(after=both[0][0]) == both[1:]
    assert await waited_for(after=both[1][0]) == []
    end = NOW + 900 + GRACE_S
    assert await waited_for(end) == [(key_, NOW) for key_, _ in both]
    assert await waited_for(end + 1) == []


@pytest.mark.parametrize(
    ("clues", "found"),
    [
        ({"amounts": [7]}, [1, 2]),
        ({"amounts": [8, 9]}, [3]),
        ({"memos": ["tea"]}, [3]),
        ({"names": ["order 4"]}, [4]),
        ({"names": [make_payment(4).terms.id, "x"]}, [4]),
        ({"names": [make_payment(4).terms.reference]}, [4]),
        ({"amounts": [7], "memos": ["tea"], "names": ["order 4"]}, [1, 2, 3, 4]),
        ({"amounts": [7], "limit": 1}, [2]),
        ({"amounts": [7], "times": (NOW, NOW)}, [1]),
        ({"amounts": [7], "times": (NOW + 901 + GRACE_S, NOW + 10**9)}, [2]),
        ({"amounts": [7], "times": (NOW + 906 + GRACE_S, NOW + 10**9)}, []),
        ({}, []),
    ],
)
async def test_payments_that_wait_are_found_by_what_a_transfer_tells(
    database: Database, clues: dict[str, Any], found: list[int]
) -> None:
    elsewhere = make_payment(9, amount=7, memo="tea", order_id="order 4")
    elsewhere = replace(elsewhere, terms=replace(elsewhere.terms, recipient=CUSTOMER))
    await create(
        database,
        make_payment(1, amount=7),
        make_payment(2, amount=7, created_at=NOW + 5),
        make_payment(3, amount=8, memo="tea", status=Status.EXPIRED),
        make_payment(4, amount=100, order_id="order 4", status=Status.PROCESSING),
        make_payment(5, amount=7, memo="tea", order_id="order 4", status=Status.SETTLED),
        elsewhere,
    )
    asked: dict[str, Any] = {"amounts": [], "memos": [], "names": [], "times": (NOW, NOW + 5)}

    records = await watching.awaiting(database, MERCHANT, **({"limit": 9} | asked | clues))

    assert [int(record.payment.terms.id[4:]) for record in records] == found


async def test_a_payment_that_holds_a_leg_is_found_by_its_transaction(database: Database) -> None:
    payment, other = make_payment(), make_payment(2)
    await create(database, payment, other)
    verdict = make_verdict(payment)
    await database.write(payments.save(payment, payment, verdicts=[verdict], now=NOW))
    signatures = [verdict.signature, signature("else")]

    by_leg = await payments.by_references(database, [], signatures)
    by_both = await payments.by_references(database, [other.terms.reference], signatures)

    assert [r.payment.terms.id for r in by_leg] == [payment.terms.id]
    assert {r.payment.terms.id for r in by_both} == {payment.terms.id, other.terms.id}
    assert await payments.by_signature(database, verdict.signature) == by_leg
    assert await watching.with_verdict(database, signatures) == {verdict.signature}


async def test_references_are_told_from_other_keys(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)

    known = await watching.known_references(database, [MERCHANT, payment.terms.reference])

    assert known == {payment.terms.reference}


async def test_payments_in_review_come_oldest_first(database: Database) -> None:
    await create(
        database,
        make_payment(1),
        make_payment(2, created_at=NOW + 2, state={"review": ("debited",)}),
        make_payment(3, created_at=NOW + 1, state={"review": ("debited",)}),
    )

    found = await payments.in_review(database, limit=9)

    assert [int(record.payment.terms.id[4:]) for record in found] == [3, 2]
    assert len(await payments.in_review(database, limit=1)) == 1
