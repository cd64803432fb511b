from dataclasses import replace

import pytest

from indexer.core.rate import Rate
from indexer.errors import InvalidInput
from store import keys
from store.database import Database, Statement
from store.keys import ApiKey


KEY = keys.new_key(bytes(range(32)))


async def make(
    database: Database,
    name: str = "shop",
    *,
    key: str = KEY,
    id: str = "key_1",
    now: int = 100,
    expires_at: int | None = None,
    rate: Rate | None = None,
) -> ApiKey:
    return await keys.create(
        database,
        name,
        ["payments:read"],
        key=key,
        id=id,
        now=now,
        expires_at=expires_at,
        rate=rate,
    )


def test_a_key_is_256_bits_behind_a_prefix() -> None:
    assert KEY == "axk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert keys.new_key(b"\xff" * 32) == "axk_" + "_" * 42 + "8"
    with pytest.raises(ValueError, match="32 random bytes"):
        keys.new_key(b"too few")


async def test_a_key_is_found_by_itself(database: Database) -> None:
    created = await make(database)

    assert created == ApiKey(
        id="key_1",
        name="shop",
        scopes=frozenset({"payments:read"}),
        created_at=100,
        revoked_at=None,
    )
    assert await keys.find(database, KEY, 150) == created
    assert await keys.find(database, KEY[:-1], 150) is None
    assert await keys.find(database, keys.hash_key(KEY), 150) is None


async def test_a_key_is_not_stored_in_clear(database: Database) -> None:
    await make(database)

    [rows] = await database.read([Statement("SELECT * FROM api_keys")])
    assert KEY not in str(rows)
    assert KEY.removeprefix("axk_") not in str(rows)
    assert keys.hash_key(KEY) in rows[0]


@pytest.mark.parametrize("handle", ["shop", "key_1"])
async def test_a_revoked_key_is_found_no_more_but_listed(database: Database, handle: str) -> None:
    created = await make(database)

    assert await keys.revoke(database, handle, 200)
    assert await keys.find(database, KEY, 150) is None
    assert await keys.listing(database) == [replace(created, revoked_at=200)]
    assert not await keys.revoke(database, handle, 300)
    assert not await keys.revoke(database, "unknown", 300)


async def test_a_name_is_free_again_once_its_key_is_revoked(database: Database) -> None:
    await make(database)
    other = keys.new_key(bytes(32))

    with pytest.raises(InvalidInput, match="there is a key named 'shop' already"):
        await make(database, key=other, id="key_2")
    await keys.revoke(database, "shop", 200)
    await make(database, key=other, id="key_2")

    assert [each.id for each in await keys.listing(database)] == ["key_1", "key_2"]


@pytest.mark.parametrize(("now", "is_good"), [(199, True), (200, False), (201, False)])
async def test_a_key_ends_by_itself(database: Database, now: int, is_good: bool) -> None:
    created = await make(database, expires_at=200)

    assert (await keys.find(database, KEY, now) == created) is is_good
    assert created.expired(now) is not is_good
    assert await keys.listing(database) == [created]


async def test_a_key_may_have_a_rate_of_its_own(database: Database) -> None:
    created = await make(database, rate=Rate(100, 60))

    assert created.rate == Rate(100, 60)
    assert await keys.find(database, KEY, 150) == created
    assert await keys.listing(database) == [created]


async def test_the_name_of_an_expired_key_is_free(database: Database) -> None:
    created = await make(database, expires_at=110)
    other = keys.new_key(bytes(32))

    with pytest.raises(InvalidInput, match="already"):
        await make(database, key=other, id="key_2", now=109)
    await make(database, key=other, id="key_2", now=110)

    first, second = await keys.listing(database)
    assert first == replace(created, revoked_at=110)
    assert (second.id, second.revoked_at) == ("key_2", None)
    assert await keys.revoke(database, "shop", 120)
    assert (await keys.listing(database))[1].revoked_at == 120


async def test_a_key_that_was_revoked_before_its_end_keeps_that_time(database: Database) -> None:
    await make(database, expires_at=200)
    await keys.revoke(database, "shop", 150)

    await make(database, key=keys.new_key(bytes(32)), id="key_2", now=300)

    assert [key.revoked_at for key in await keys.listing(database)] == [150, None]


async def test_a_refused_key_leaves_the_expired_one_as_it_was(database: Database) -> None:
    """Freeing the name and taking it are one write."""
    created = await make(database, expires_at=110)

    with pytest.raises(InvalidInput):
        await make(database, now=120)  # the same key again: its hash is taken

    assert await keys.listing(database) == [created]


@pytest.mark.parametrize("expires_at", [99, 100])
async def test_a_key_that_has_ended_already_is_refused(database: Database, expires_at: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        await make(database, expires_at=expires_at)

    assert caught.value.field == "expires_at"
    assert await keys.listing(database) == []


@pytest.mark.parametrize(
    ("name", "scopes", "field"),
    [
        ("", ["payments:read"], "name"),
        ("shop\nother", ["payments:read"], "name"),
        ("shop\x1b[2K", ["payments:read"], "name"),
        ("\u202epohs", ["payments:read"], "name"),
        (" ", ["payments:read"], "name"),
        ("x" * 101, ["payments:read"], "name"),
        ("shop", [], "scopes"),
        ("shop", ["payments:read", "payments:everything"], "scopes"),
    ],
)
async def test_a_faulty_request_is_refused_by_field(
    database: Database, name: str, scopes: list[str], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await keys.create(database, name, scopes, key=KEY, id="key_1", now=100)

    assert caught.value.field == field
    assert await keys.listing(database) == []
