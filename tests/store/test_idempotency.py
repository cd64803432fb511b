from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from indexer.errors import Conflict
from store import deployment, idempotency
from store.database import Database, Statement
from store.idempotency import CLOCKS_APART_S_MAX, ENDED_KEPT_S, LEASE_S, Lease, Once, Stored


NOW = 1_000
ONCE = Once("key_1", "POST /api/pay", "abc")
OURS = Lease(once=ONCE, fingerprint="ab" * 32, holder="ours")
THEIRS = replace(OURS, holder="theirs")
ANSWER = Stored(
    fingerprint="ab" * 32,
    status=201,
    headers={"content-type": "application/json", "location": "/api/pay/1"},
    body=b'{"id":"1"}\x00\xff',
    created_at=100,
)


def effect(name: str) -> Statement:
    return Statement("INSERT INTO deployment (name, value) VALUES (?, 'x')", (name,))


async def is_ours(database: Database, lease: Lease, now: int) -> bool:
    return (await idempotency.claim(database, lease, now)).holder == lease.holder


async def answered(database: Database, once: Once, stored: Stored = ANSWER) -> None:
    """What a request leaves that nobody disturbs."""
    lease = replace(OURS, once=once)
    assert await is_ours(database, lease, NOW)
    await database.write(idempotency.store(lease, stored))


async def leases(database: Database) -> list[str]:
    sql = "SELECT key FROM idempotency_leases ORDER BY key"
    [rows] = await database.read([Statement(sql)])
    return [key for (key,) in rows]


async def keys_answered(database: Database) -> list[str]:
    sql = "SELECT key FROM idempotency_keys ORDER BY created_at"
    [rows] = await database.read([Statement(sql)])
    return [key for (key,) in rows]


# ------------------------------------------------------------------------------------- answers


async def test_an_answer_comes_back_byte_by_byte(database: Database) -> None:
    await answered(database, ONCE)

    assert (await idempotency.look(database, ONCE, NOW)).stored == ANSWER


@pytest.mark.parametrize(
    "other",
    [
        Once("key_2", "POST /api/pay", "abc"),
        Once("key_1", "POST /other", "abc"),
        Once("key_1", "POST /api/pay", "ABC"),
    ],
)
async def test_a_key_means_one_caller_and_one_route(database: Database, other: Once) -> None:
    await answered(database, ONCE)

    assert (await idempotency.look(database, other, NOW)).stored is None
    await answered(database, other, replace(ANSWER, status=200))


async def test_with_the_answer_the_lease_ends(database: Database) -> None:
    await answered(database, ONCE)

    standing = await idempotency.claim(database, THEIRS, NOW)

    assert (standing.stored, standing.holder) == (ANSWER, None)
    assert await leases(database) == []


# -------------------------------------------------------------------------------------- leases


async def test_one_of_two_has_the_lease(database: Database) -> None:
    assert await is_ours(database, OURS, NOW)

    standing = await idempotency.claim(database, replace(THEIRS, fingerprint="cd"), NOW)

    assert (standing.stored, standing.holder, standing.fingerprint) == (
        None,
        "ours",
        OURS.fingerprint,
    )


@pytest.mark.parametrize(
    ("now", "taken"),
    [
        (NOW + LEASE_S - 1, False),
        (NOW + LEASE_S, True),
        (NOW - CLOCKS_APART_S_MAX, False),
        (NOW - CLOCKS_APART_S_MAX - 1, True),  # it seems to last longer than any lease could
    ],
)
async def test_a_lease_is_taken_when_it_has_ended(
    database: Database, now: int, taken: bool
) -> None:
    await is_ours(database, OURS, NOW)

    assert ((await idempotency.look(database, ONCE, now)).holder is None) is taken
    assert await is_ours(database, THEIRS, now) is taken


async def test_a_lease_that_is_taken_is_for_the_new_body(database: Database) -> None:
    await is_ours(database, OURS, NOW)
    another = replace(THEIRS, fingerprint="cd" * 32)

    standing = await idempotency.claim(database, another, NOW + LEASE_S)

    assert (standing.holder, standing.fingerprint) == ("theirs", "cd" * 32)


async def test_a_renewed_lease_lasts_longer(database: Database) -> None:
    await is_ours(database, OURS, NOW)

    assert await idempotency.renew(database, OURS, NOW + 3)
    assert not await is_ours(database, THEIRS, NOW + LEASE_S)
    assert await is_ours(database, THEIRS, NOW + LEASE_S + 3)


async def test_a_lease_that_ended_lasts_again_when_it_is_renewed(database: Database) -> None:
    """Nobody has taken it: the holder was slow, and goes on."""
    await is_ours(database, OURS, NOW)

    assert await idempotency.renew(database, OURS, NOW + 100)
    assert not await is_ours(database, THEIRS, NOW + 100)


async def test_a_lost_lease_is_neither_renewed_nor_given_back(database: Database) -> None:
    await is_ours(database, OURS, NOW)
    await is_ours(database, THEIRS, NOW + LEASE_S)

    assert not await idempotency.renew(database, OURS, NOW + LEASE_S)
    assert await idempotency.release(database, OURS) == (False, None)
    assert (await idempotency.look(database, ONCE, NOW + LEASE_S)).holder == "theirs"


async def test_a_lease_given_back_is_free(database: Database) -> None:
    await is_ours(database, OURS, NOW)

    assert await idempotency.release(database, OURS) == (True, None)
    assert await is_ours(database, THEIRS, NOW)


async def test_giving_back_tells_what_was_stored(database: Database) -> None:
    await answered(database, ONCE)

    assert await idempotency.release(database, OURS) == (False, ANSWER)


# ------------------------------------------------------------------------------------- fencing


async def lost(database: Database) -> None:
    await is_ours(database, THEIRS, NOW + LEASE_S)


async def lost_and_answered(database: Database) -> None:
    await lost(database)
    await database.write(idempotency.store(THEIRS, ANSWER))


async def lost_and_given_back(database: Database) -> None:
    await lost(database)
    await idempotency.release(database, THEIRS)


async def given_back(database: Database) -> None:
    await idempotency.release(database, OURS)


@pytest.mark.parametrize(
    "what_happened", [lost, lost_and_answered, lost_and_given_back, given_back]
)
async def test_without_the_lease_nothing_is_written(
    database: Database, what_happened: Callable[[Database], Awaitable[None]]
) -> None:
    await is_ours(database, OURS, NOW)
    await what_happened(database)
    before = await keys_answered(database), await leases(database)

    with pytest.raises(Conflict, match="idempotency_keys"):
        await database.write([effect("effect"), *idempotency.store(OURS, ANSWER)])

    assert await deployment.get(database, "effect") is None
    assert (await keys_answered(database), await leases(database)) == before


async def test_an_ended_lease_that_nobody_took_still_writes(database: Database) -> None:
    await is_ours(database, OURS, NOW)

    await database.write([effect("effect"), *idempotency.store(OURS, ANSWER)])

    assert await deployment.get(database, "effect") == "x"


async def test_the_lease_of_another_key_writes_nothing(database: Database) -> None:
    await is_ours(database, OURS, NOW)
    other = replace(OURS, once=ONCE._replace(key="other"))

    with pytest.raises(Conflict):
        await database.write([effect("effect"), *idempotency.store(other, ANSWER)])


# ------------------------------------------------------------------------------------- pruning


async def test_old_answers_are_forgotten(database: Database) -> None:
    for time in (98, 99, 100, 101):
        once = ONCE._replace(key=str(time))
        await answered(database, once, replace(ANSWER, created_at=time))

    await database.write(idempotency.prune(100, NOW))

    assert await keys_answered(database) == ["100", "101"]


async def test_only_leases_that_ended_long_ago_are_forgotten(database: Database) -> None:
    for lease, at in ((OURS, NOW), (replace(OURS, once=ONCE._replace(key="new")), NOW + 1)):
        await is_ours(database, lease, at)

    await database.write(idempotency.prune(0, NOW + LEASE_S + ENDED_KEPT_S + 1))

    assert await leases(database) == ["new"]
    with pytest.raises(Conflict):
        await database.write(idempotency.store(OURS, ANSWER))


async def test_the_oldest_are_forgotten_first_and_not_too_many_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "PRUNED_MAX", 2)
    for time in (3, 1, 2):
        once = ONCE._replace(key=str(time))
        await answered(database, once, replace(ANSWER, created_at=time))
        await is_ours(database, replace(OURS, once=once._replace(route="r")), time)

    await database.write(idempotency.prune(100, NOW + 2 * ENDED_KEPT_S))

    assert await keys_answered(database) == ["3"]
    assert await leases(database) == ["3"]
