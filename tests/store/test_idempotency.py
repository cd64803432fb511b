from dataclasses import replace

import pytest

from indexer.errors import Conflict
from store import deployment, idempotency
from store.database import Database, Statement
from store.idempotency import Stored


ANSWER = Stored(
    fingerprint="ab" * 32,
    status=201,
    headers={"content-type": "application/json", "location": "/api/pay/1"},
    body=b'{"id":"1"}\x00\xff',
    created_at=100,
)


async def test_an_answer_comes_back_byte_by_byte(database: Database) -> None:
    await database.write([idempotency.insert("key_1", "POST /api/pay", "abc", ANSWER)])

    assert await idempotency.find(database, "key_1", "POST /api/pay", "abc") == ANSWER


@pytest.mark.parametrize(
    "other",
    [
        ("key_2", "POST /api/pay", "abc"),
        ("key_1", "POST /other", "abc"),
        ("key_1", "POST /api/pay", "ABC"),
    ],
)
async def test_a_key_means_one_caller_and_one_route(
    database: Database, other: tuple[str, str, str]
) -> None:
    await database.write([idempotency.insert("key_1", "POST /api/pay", "abc", ANSWER)])

    assert await idempotency.find(database, *other) is None
    await database.write([idempotency.insert(*other, replace(ANSWER, status=200))])


async def test_the_second_of_two_is_refused_with_its_effect(database: Database) -> None:
    once = ("key_1", "POST /api/pay", "abc")
    effects = [
        Statement("INSERT INTO deployment (name, value) VALUES (?, 'x')", (name,))
        for name in ("first", "second")
    ]
    await database.write([effects[0], idempotency.insert(*once, ANSWER)])

    with pytest.raises(Conflict, match="idempotency_keys"):
        await database.write([effects[1], idempotency.insert(*once, ANSWER)])

    assert await deployment.get(database, "second") is None


async def test_old_answers_are_forgotten(database: Database) -> None:
    await database.write(
        [
            idempotency.insert("key_1", "r", str(time), replace(ANSWER, created_at=time))
            for time in (98, 99, 100, 101)
        ]
    )

    await database.write([idempotency.prune(100)])

    [rows] = await database.read(
        [Statement("SELECT key FROM idempotency_keys ORDER BY created_at")]
    )
    assert rows == [("100",), ("101",)]


async def test_the_oldest_are_forgotten_first_and_not_too_many_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "PRUNED_MAX", 2)
    await database.write(
        [
            idempotency.insert("key_1", "r", str(time), replace(ANSWER, created_at=time))
            for time in (3, 1, 2)
        ]
    )

    await database.write([idempotency.prune(100)])

    [rows] = await database.read([Statement("SELECT key FROM idempotency_keys")])
    assert rows == [("3",)]
