"""Watch keys: put to use, put in another's place, retired; never none, never back."""

import asyncio

import pytest

from indexer.core.ranges import Slots
from indexer.core.types import SYSTEM_PROGRAM, Status
from indexer.errors import Conflict, InvalidInput
from store import cursors, gaps, keys, watch_keys, watching
from store.cursors import Frontier
from store.database import Database, Statement
from store.watch_keys import Purpose, Standing, WatchKey
from store.watching import LISTED_LATE_S
from tests.builders import GRACE_S, MERCHANT, NOW, make_payment
from tests.instructions import key
from tests.store.keeping import create, settled


FIRST = key("first watch key")


async def begin(database: Database, configured: str | None = None) -> None:
    await watch_keys.ensure(database, configured=configured, fresh=FIRST, now=NOW)


async def in_use(database: Database) -> dict[str, str]:
    """Name to key."""
    listed = await watch_keys.listing(database)
    return {each.name: each.key for each in listed if each.retired_at is None}


async def caller(database: Database, name: str, watch: str | None) -> str:
    """An API key that was made for that watch key."""
    secret = keys.new_key(name.encode().ljust(32))
    values = {"key": secret, "id": f"key_{name}", "now": NOW, "watch": watch}
    await keys.create(database, name, ["payments:write"], **values)  # type: ignore[arg-type]  # by name
    return secret


async def meant_for(database: Database, secret: str) -> str | None:
    found = await keys.find(database, secret, NOW)
    assert found is not None
    return found.watch_key


# ----------------------------------------------------------------------------- the first one


async def test_one_is_made_where_there_is_none_to_share(database: Database) -> None:
    await begin(database)
    await watch_keys.ensure(database, configured=None, fresh=key("another"), now=NOW + 1)

    assert list((await in_use(database)).values()) == [FIRST]


async def test_of_processes_that_start_at_once_one_makes_it(database: Database) -> None:
    made = [key(f"made by {number}") for number in range(10)]

    await asyncio.gather(
        *(watch_keys.ensure(database, configured=None, fresh=each, now=NOW) for each in made)
    )

    assert len(await in_use(database)) == 1


async def test_a_reserved_one_is_no_key_for_everybody(database: Database) -> None:
    await watch_keys.add(database, key("reserved"), "shop", Purpose.RESERVED, now=NOW)

    await begin(database)

    assert set((await in_use(database)).values()) == {key("reserved"), FIRST}


async def test_a_configured_one_is_taken_in_unless_it_is_known(database: Database) -> None:
    await begin(database, configured=key("configured"))
    assert list((await in_use(database)).values()) == [key("configured")]
    await watch_keys.add(database, key("other"), "other", Purpose.SHARED, now=NOW)
    [name] = [name for name, each in (await in_use(database)).items() if name != "other"]
    await watch_keys.retire(database, name, now=NOW + 1)

    await begin(database, configured=key("configured"))

    assert await in_use(database) == {"other": key("other")}


# -------------------------------------------------------------------------------- one more


async def test_one_more_is_listed(database: Database) -> None:
    await begin(database)

    added = await watch_keys.add(database, key("more"), "east", Purpose.RESERVED, now=NOW + 5)

    assert added == WatchKey(
        key=key("more"), name="east", purpose=Purpose.RESERVED, created_at=NOW + 5
    )
    assert (await watch_keys.listing(database))[1] == added
    assert await watch_keys.named(database, "east") == added


@pytest.mark.parametrize(
    ("name", "watch_key", "field", "problem"),
    [
        ("", key("more"), "name", "printable"),
        (" \u00a0 ", key("more"), "name", "printable"),
        ("a\nb", key("more"), "name", "printable"),
        ("\u202eeast", key("more"), "name", "printable"),
        ("x" * 101, key("more"), "name", "1 to 100"),
        ("first", key("more"), "name", "a watch key named 'first' already"),
        ("east", "", "key", "is no key"),
        ("east", "0OIl", "key", "is no key"),
        ("east", key("more") + "1", "key", "is no key"),
        ("east", "'; DROP TABLE watch_keys; --", "key", "is no key"),
        ("east", "1" * 10_000, "key", "is no key"),
        ("east", SYSTEM_PROGRAM, "key", "is a program"),
        ("east", FIRST, "key", "is the watch key 'first' already, which is in use"),
        ("east", key("old"), "key", "is the watch key 'old' already, which is retired"),
        ("east", key("reference 1"), "key", "the reference or the destination of a payment"),
        ("east", MERCHANT, "key", "the reference or the destination of a payment"),
    ],
)
async def test_what_is_none_or_something_else_is_refused(
    database: Database, name: str, watch_key: str, field: str, problem: str
) -> None:
    await watch_keys.add(database, FIRST, "first", Purpose.SHARED, now=NOW)
    await watch_keys.add(database, key("old"), "old", Purpose.SHARED, now=NOW)
    await watch_keys.retire(database, "old", now=NOW)
    await create(database, make_payment(1))

    with pytest.raises(InvalidInput, match=problem) as refused:
        await watch_keys.add(database, watch_key, name, Purpose.SHARED, now=NOW)

    assert refused.value.field == field
    assert await in_use(database) == {"first": FIRST}


async def test_so_many_are_in_use_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_keys, "IN_USE_MAX", 3)
    for number in range(3):
        await watch_keys.add(database, key(f"{number}"), f"{number}", Purpose.SHARED, now=NOW)
    with pytest.raises(InvalidInput, match="3 keys are in use already: retire one first"):
        await watch_keys.add(database, key("more"), "more", Purpose.SHARED, now=NOW)

    await watch_keys.rotate(database, "0", key("in its place"), now=NOW)
    await watch_keys.retire(database, "1", now=NOW)
    await watch_keys.add(database, key("more"), "more", Purpose.SHARED, now=NOW)

    assert set(await in_use(database)) == {"0", "2", "more"}


# -------------------------------------------------------------------------------- rotation


@pytest.mark.parametrize("purpose", Purpose)
async def test_a_fresh_one_takes_the_place_of_an_old_one(
    database: Database, purpose: Purpose
) -> None:
    old = await watch_keys.add(database, FIRST, "east", purpose, now=NOW)

    fresh = await watch_keys.rotate(database, "east", key("fresh"), now=NOW + 9)

    assert fresh == WatchKey(key=key("fresh"), name="east", purpose=purpose, created_at=NOW + 9)
    retired, listed = await watch_keys.listing(database)
    assert (retired.key, retired.retired_at, listed) == (old.key, NOW + 9, fresh)


async def test_callers_move_on_with_a_rotation(database: Database) -> None:
    await begin(database)
    for name in ("east", "west"):
        await watch_keys.add(database, key(name), name, Purpose.RESERVED, now=NOW)
    east, west, other = [await caller(database, n, n) for n in ("east", "west")] + [
        await caller(database, "other", None)
    ]
    await watch_keys.rotate(database, "east", key("fresh"), now=NOW)

    assert [await meant_for(database, each) for each in (east, west, other)] == [
        key("fresh"),
        key("west"),
        None,
    ]


async def test_of_two_rotations_at_once_neither_is_half_done(database: Database) -> None:
    await watch_keys.add(database, FIRST, "east", Purpose.RESERVED, now=NOW)
    secret = await caller(database, "shop", "east")
    fresh = [key(f"fresh {number}") for number in range(6)]

    answers = await asyncio.gather(
        *(watch_keys.rotate(database, "east", each, now=NOW) for each in fresh),
        return_exceptions=True,
    )

    made = [each for each in answers if isinstance(each, WatchKey)]
    assert all(isinstance(each, WatchKey | Conflict) for each in answers)
    [standing] = (await in_use(database)).values()
    assert len(await watch_keys.listing(database)) == 1 + len(made)
    assert standing in {each.key for each in made}
    assert await meant_for(database, secret) == standing


@pytest.mark.parametrize("name", ["none", "old", "", "first'; --"])
async def test_only_a_key_in_use_can_be_rotated_or_retired(database: Database, name: str) -> None:
    await begin(database)
    await watch_keys.add(database, key("old"), "old", Purpose.SHARED, now=NOW)
    await watch_keys.retire(database, "old", now=NOW)

    for change in (
        watch_keys.rotate(database, name, key("fresh"), now=NOW),
        watch_keys.retire(database, name, now=NOW),
    ):
        with pytest.raises(InvalidInput, match=r"no watch key named .* is in use"):
            await change


# ------------------------------------------------------------------------------- the end


async def test_the_last_shared_one_cannot_be_retired(database: Database) -> None:
    for name, purpose in (("a", "shared"), ("b", "shared"), ("c", "reserved")):
        await watch_keys.add(database, key(name), name, Purpose(purpose), now=NOW)

    answers = await asyncio.gather(
        *(watch_keys.retire(database, name, now=NOW) for name in "ab"), return_exceptions=True
    )

    assert sorted(type(each).__name__ for each in answers) == ["InvalidInput", "WatchKey"]
    assert "is the last shared key: rotate it instead" in "".join(map(str, answers))
    assert len(await in_use(database)) == 2


async def test_whom_a_retired_one_was_reserved_for_gets_a_shared_one(database: Database) -> None:
    await begin(database)
    await watch_keys.add(database, key("east"), "east", Purpose.RESERVED, now=NOW)
    secret = await caller(database, "shop", "east")

    await watch_keys.retire(database, "east", now=NOW)

    assert await meant_for(database, secret) is None
    [shop] = await keys.listing(database)
    assert shop.watch_key is None


async def test_an_api_key_names_a_reserved_one_in_use(database: Database) -> None:
    await watch_keys.add(database, FIRST, "first", Purpose.SHARED, now=NOW)
    await watch_keys.add(database, key("old"), "old", Purpose.RESERVED, now=NOW)
    await watch_keys.retire(database, "old", now=NOW)

    for name in ("first", "old", "none", ""):
        with pytest.raises(InvalidInput, match="no reserved watch key named") as refused:
            await caller(database, "shop", name)
        assert refused.value.field == "watch"
    assert await keys.listing(database) == []


async def test_an_api_key_gets_another_by_name_or_id_and_a_shared_one_again(
    database: Database,
) -> None:
    for name in ("east", "west"):
        await watch_keys.add(database, key(name), name, Purpose.RESERVED, now=NOW)
    secret, other = await caller(database, "shop", None), await caller(database, "bar", "west")
    [id_] = [each.id for each in await keys.listing(database) if each.name == "shop"]

    for name, watch in (("shop", "east"), (id_, "west"), ("shop", "west"), ("shop", None)):
        assigned = await keys.assign(database, name, watch)
        assert assigned == await meant_for(database, secret) == (watch and key(watch))
        assert await meant_for(database, other) == key("west")


async def test_an_api_key_keeps_its_own_where_there_is_no_other(database: Database) -> None:
    await watch_keys.add(database, key("east"), "east", Purpose.RESERVED, now=NOW)
    await watch_keys.add(database, FIRST, "first", Purpose.SHARED, now=NOW)
    await watch_keys.add(database, key("old"), "old", Purpose.RESERVED, now=NOW)
    await watch_keys.retire(database, "old", now=NOW)
    secret, _ = await caller(database, "shop", "east"), await caller(database, "gone", "east")
    await keys.revoke(database, "gone", NOW)

    for watch in ("first", "old", "none", ""):
        with pytest.raises(InvalidInput, match="no reserved watch key named") as refused:
            await keys.assign(database, "shop", watch)
        assert refused.value.field == "watch"
    for name, wanted in (("gone", None), ("none", "east"), ("", None), ("none", "none")):
        with pytest.raises(InvalidInput, match="there is no valid key") as refused:
            await keys.assign(database, name, wanted)
        assert refused.value.field == "name"

    assert await meant_for(database, secret) == key("east")
    assert {each.watch_key for each in await keys.listing(database)} == {key("east")}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE watch_keys SET retired_at = NULL",
        "UPDATE watch_keys SET retired_at = retired_at + 1",
        "UPDATE watch_keys SET key = 'x' || substr(key, 2)",
    ],
)
async def test_a_retired_one_stays_so_whoever_writes(database: Database, change: str) -> None:
    await begin(database)
    await watch_keys.add(database, key("old"), "old", Purpose.SHARED, now=NOW)
    await watch_keys.retire(database, "old", now=NOW)
    before = await watch_keys.listing(database)

    with pytest.raises(Conflict, match="stays so"):
        await database.write([Statement(f"{change} WHERE name = 'old'")])

    assert await watch_keys.listing(database) == before


# ---------------------------------------------------------------- what hangs on one, and until when


async def test_what_hangs_on_each_is_told(database: Database) -> None:
    await begin(database)
    await watch_keys.add(database, key("east"), "east", Purpose.RESERVED, now=NOW)
    for name in ("b", "a"):
        await caller(database, name, "east")
    await keys.revoke(database, "b", NOW)
    await create(database, *(make_payment(n, watch_key=key("east")) for n in range(1, 4)))
    await create(database, settled(make_payment(4, watch_key=key("east"))))
    moved = Frontier(key=key("east"), slot=7, block_time=NOW - 3, updated_at=NOW)
    timeless = Frontier(key=FIRST, slot=8, block_time=0, updated_at=NOW)
    await database.write([cursors.advance(each) for each in (moved, timeless)])

    assert await watch_keys.standings(database, [key("east"), FIRST, key("unknown")]) == [
        Standing(open_payments=3, slot=7, block_time=NOW - 3, callers=("a",)),
        Standing(open_payments=0, slot=8, block_time=None, callers=()),
        Standing(open_payments=0, slot=None, block_time=None, callers=()),
    ]
    assert await watch_keys.standings(database, []) == []


async def test_one_in_use_is_watched_without_a_payment(database: Database) -> None:
    await begin(database)
    await watch_keys.add(database, key("east"), "east", Purpose.RESERVED, now=NOW)
    assert await watching.watch_keys(database, now=NOW) == sorted([FIRST, key("east")])
    named = [FIRST, key("east"), key("stranger")]
    assert await watching.worth_a_look(database, named, now=NOW) == {FIRST, key("east")}

    await watch_keys.retire(database, "east", now=NOW)

    assert await watching.watch_keys(database, now=NOW) == [FIRST]
    assert await watching.worth_a_look(database, named, now=NOW) == {FIRST}


async def test_a_retired_one_is_watched_while_slots_may_have_been_missed(
    database: Database,
) -> None:
    """Nobody else would sweep them, and the gap would stay open for ever."""
    await begin(database)
    await watch_keys.add(database, key("east"), "east", Purpose.SHARED, now=NOW)
    missed = gaps.note(key("east"), Slots(5, 9), gaps.GapReason.RECONNECT, NOW)
    await database.write([missed])

    await watch_keys.retire(database, "east", now=NOW)

    assert await watching.watch_keys(database, now=NOW) == sorted([FIRST, key("east")])
    await database.write([gaps.close_up_to(key("east"), 9, NOW)])
    assert await watching.watch_keys(database, now=NOW) == [FIRST]


@pytest.mark.parametrize("status", [Status.SETTLED, Status.EXPIRED, Status.CANCELED])
async def test_a_retired_one_is_watched_until_every_grace_time_is_over(
    database: Database, status: Status
) -> None:
    """By the time of blocks; also for what is settled, because money may come twice."""
    await begin(database)
    await watch_keys.add(database, key("east"), "east", Purpose.SHARED, now=NOW)
    await create(database, make_payment(1, watch_key=key("east")))  # sets the end
    short = make_payment(2, watch_key=key("east"), expires_in_s=1)
    await create(database, short)
    await watch_keys.retire(database, "east", now=NOW)
    how = {
        Status.SETTLED: f", paid = 'exact', received = amount, settled_at = {NOW}",
        Status.CANCELED: f", canceled_at = {NOW}",
    }
    closed = f"UPDATE payments SET status = '{status}'{how.get(status, '')}, version = version + 1"  # noqa: S608 - our own words
    await database.write([Statement(closed)])
    ends = NOW + 900 + GRACE_S

    async def is_watched(now: int) -> bool:
        return key("east") in await watching.watch_keys(database, now=now)

    assert await is_watched(ends + watching.LOOKED_AFTER_S)
    assert not await is_watched(ends + watching.LOOKED_AFTER_S + 1)
    for block_time, expected in ((ends + LISTED_LATE_S, True), (ends + LISTED_LATE_S + 1, False)):
        moved = Frontier(key=key("east"), slot=9, block_time=block_time, updated_at=NOW)
        await database.write([cursors.advance(moved)])
        assert await is_watched(ends) is expected
    assert await watching.worth_a_look(database, [key("east")], now=ends) == {key("east")}
    assert await watching.worth_a_look(database, [key("east")], now=ends + 1) == set()


async def test_the_payments_of_before_count_for_one_that_is_taken_in(database: Database) -> None:
    await create(database, settled(make_payment(1, watch_key=key("configured"))))
    await begin(database, configured=key("configured"))
    [configured] = await in_use(database)
    await watch_keys.add(database, FIRST, "first", Purpose.SHARED, now=NOW)

    await watch_keys.retire(database, configured, now=NOW)

    assert key("configured") in await watching.watch_keys(database, now=NOW)


async def test_a_payment_made_with_a_retired_one_is_watched(database: Database) -> None:
    """A process may believe for seconds that it is in use."""
    await begin(database)
    await watch_keys.add(database, key("east"), "east", Purpose.SHARED, now=NOW)
    await watch_keys.retire(database, "east", now=NOW)

    await create(database, make_payment(1, watch_key=key("east")))

    assert key("east") in await watching.watch_keys(database, now=NOW)
    assert await watching.worth_a_look(database, [key("east")], now=NOW) == {key("east")}
