from dataclasses import replace

from store import dead_letters, payments
from store.database import Database
from store.dead_letters import DeadLetter
from tests.builders import NOW, make_event, make_payment, make_verdict


LETTER = DeadLetter(
    signature="5abc",
    key="watch",
    slot=100,
    reason="malformed",
    detail="no meta",
    payload=b'{"slot":100}\x00\xff',
    attempts=1,
    next_try_at=50,
    created_at=40,
    updated_at=40,
)


async def test_a_letter_comes_back_as_it_was_parked(database: Database) -> None:
    bare = replace(
        LETTER, signature="6", key=None, slot=None, payload=None, next_try_at=None, created_at=39
    )
    await database.write([dead_letters.park(LETTER), dead_letters.park(bare)])

    assert await dead_letters.listing(database, 10) == [LETTER, bare]
    assert await dead_letters.listing(database, 1) == [LETTER]
    assert await dead_letters.count(database) == 2


async def test_parked_again_its_attempts_grow_and_its_age_stays(database: Database) -> None:
    await database.write([dead_letters.park(LETTER)])
    again = replace(
        LETTER, key=None, slot=None, reason="not_found", detail="gone", payload=None, attempts=1,
        next_try_at=70, created_at=60, updated_at=60,
    )  # fmt: skip
    await database.write([dead_letters.park(again)])

    assert await dead_letters.listing(database, 10) == [
        replace(
            LETTER, reason="not_found", detail="gone", attempts=2, next_try_at=70, updated_at=60
        )
    ]


async def test_what_is_due_comes_longest_due_first(database: Database) -> None:
    times = {"a": 30, "b": 10, "c": None, "d": 31, "e": 20}
    await database.write(
        [
            dead_letters.park(replace(LETTER, signature=name, next_try_at=time))
            for name, time in times.items()
        ]
    )

    async def due(limit: int) -> list[str]:
        return [letter.signature for letter in await dead_letters.due(database, 30, limit)]

    assert await due(10) == ["b", "e", "a"]
    assert await due(2) == ["b", "e"]


async def test_only_what_is_tried_again_by_itself_holds_up_expiry(database: Database) -> None:
    await database.write([dead_letters.park(LETTER)])
    assert await dead_letters.holding(database) == 1

    await database.write([dead_letters.park(replace(LETTER, next_try_at=None))])
    assert await dead_letters.holding(database) == 0
    assert await dead_letters.count(database) == 1


async def test_a_resolved_letter_is_gone(database: Database) -> None:
    await database.write([dead_letters.park(LETTER)])
    await database.write([dead_letters.resolve("5abc"), dead_letters.resolve("unknown")])

    assert await dead_letters.listing(database, 10) == []


async def test_one_letter_is_found_by_its_signature(database: Database) -> None:
    await database.write([dead_letters.park(LETTER)])

    assert await dead_letters.get(database, "5abc") == LETTER
    assert await dead_letters.get(database, "5ab") is None


async def test_a_dropped_letter_is_gone_and_comes_back_to_who_dropped_it(
    database: Database,
) -> None:
    await database.write([dead_letters.park(LETTER)])

    assert await dead_letters.drop(database, "5abc") == LETTER
    assert await dead_letters.drop(database, "5abc") is None
    assert await dead_letters.count(database) == 0


async def test_it_is_told_why_some_were_set_aside(database: Database) -> None:
    await database.write([dead_letters.park(LETTER)])

    assert await dead_letters.reasons(database, ["5abc", "6"]) == {"5abc": "malformed"}
    assert await dead_letters.reasons(database, []) == {}


async def test_what_became_of_a_transaction_is_told(database: Database) -> None:
    payment = make_payment()
    await database.write(payments.insert(payment, make_event(payment)))
    verdict = make_verdict(payment, credit=5)
    await database.write(payments.save(payment, payment, verdicts=[verdict], now=NOW))

    [found] = await dead_letters.outcomes(database, [verdict.signature, "other"])

    assert (found.signature, found.payment_id) == (verdict.signature, payment.terms.id)
    assert (found.credit, found.symbol, found.decimals, found.status) == (5, "SOL", 9, "pending")
