"""Payments that were lost are put back once, and what contradicts the store is told."""

from store import restoring, watch_keys
from store.database import Database
from store.restoring import Known
from tests.builders import NOW, WATCH_KEY, make_payment
from tests.store.keeping import create, settled, stored


async def test_those_that_are_put_back_are_there_with_their_watch_key(database: Database) -> None:
    lost = [make_payment(number) for number in range(restoring.AT_ONCE + 2)]

    await restoring.put_back(database, lost, now=NOW)

    for payment in (lost[0], lost[-1]):
        assert (await stored(database, payment)).payment == payment
        assert await restoring.look(database, payment) == Known(is_there=True)
    [known] = await watch_keys.listing(database)
    assert (known.key, known.retired_at) == (WATCH_KEY, NOW)


async def test_one_that_was_paid_meanwhile_is_there(database: Database) -> None:
    await create(database, settled(make_payment()))

    assert await restoring.look(database, make_payment()) == Known(is_there=True)


async def test_what_contradicts_the_store_is_told(database: Database) -> None:
    await create(database, make_payment())

    other = make_payment(amount=7)
    assert "another amount" in str((await restoring.look(database, other)).contradiction)
    assert await restoring.look(database, make_payment(2)) == Known()
