"""The watch key of a new payment: the caller's, else a shared one; a rotation is noticed."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from api.watch_keys import KEPT_S, WatchKeys
from indexer.errors import InvariantError, StoreUnavailable
from indexer.settings import Settings
from store import keys, watch_keys
from store.database import Database, Rows, Statement
from store.watch_keys import Purpose
from tests.api.running import WATCH_KEY, Api
from tests.instructions import key


class Time:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


async def add(api: Api, name: str, purpose: Purpose = Purpose.SHARED) -> str:
    await watch_keys.add(api.database, key(name), name, purpose, now=0)
    return key(name)


async def chosen(known: WatchKeys, times: int, reserved: str | None = None) -> Counter[str]:
    return Counter([(await known.policy(reserved)).watch_key for _ in range(times)])


def of(api: Api, time: Time) -> WatchKeys:
    return WatchKeys(api.database, Settings().policy, monotonic=time)


async def test_payments_are_spread_evenly_over_the_shared_ones(api: Api) -> None:
    shared = {WATCH_KEY, await add(api, "east"), await add(api, "west")}
    await add(api, "reserved", Purpose.RESERVED)

    counted = await chosen(of(api, Time()), 30)

    assert counted == dict.fromkeys(shared, 10)


async def test_a_caller_gets_the_one_that_is_meant_for_it_while_it_is_in_use(api: Api) -> None:
    mine, time = await add(api, "mine", Purpose.RESERVED), Time()
    known = of(api, time)
    assert await chosen(known, 3, mine) == {mine: 3}

    await watch_keys.retire(api.database, "mine", now=1)
    time.s += KEPT_S

    assert await chosen(known, 3, mine) == {WATCH_KEY: 3}
    assert await chosen(known, 3, key("nobody's")) == {WATCH_KEY: 3}


async def test_a_rotation_is_noticed_once_the_list_is_old(api: Api) -> None:
    time = Time()
    known = of(api, time)
    assert await chosen(known, 2) == {WATCH_KEY: 2}
    [first] = await watch_keys.listing(api.database)
    await watch_keys.rotate(api.database, first.name, key("fresh"), now=1)

    time.s += KEPT_S - 0.01
    assert await chosen(known, 2) == {WATCH_KEY: 2}
    time.s += 0.01
    assert await chosen(known, 2) == {key("fresh"): 2}


async def test_no_payment_is_about_any_watch_key(api: Api) -> None:
    """Neither to one, nor known by one; also not by one that was retired."""
    names = ("east", "old")
    for name in names:
        await add(api, name)
    await watch_keys.retire(api.database, "old", now=1)

    for name in names:
        for field, word in (("recipient", "nobody can spend"), ("reference", "many payments")):
            sold = {"amount": "1", "token": "SOL", field: key(name)}
            headers = {**api.writer, "Idempotency-Key": f"{name}-{field}"}
            async with api.session.post("/api/pay", json=sold, headers=headers) as answer:
                problem = await answer.json()
            assert answer.status == 422
            [error] = problem["errors"]
            assert (error["field"], word in error["message"]) == (field, True)


async def test_the_database_is_asked_once_for_all_who_wait(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = [], api.database.read

    async def counted(batch: Sequence[Statement]) -> list[Rows]:
        reads.append(batch)
        return await read(batch)

    monkeypatch.setattr(api.database, "read", counted)
    known = of(api, Time())

    await asyncio.gather(*(known.policy() for _ in range(50)))

    assert len(reads) == 1


async def test_who_gives_up_waiting_keeps_nobody_from_the_answer(api: Api) -> None:
    known = of(api, Time())
    impatient = asyncio.create_task(known.policy())
    await asyncio.sleep(0)
    impatient.cancel()

    assert (await known.policy()).watch_key == WATCH_KEY
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_a_database_that_is_away_is_no_reason_to_guess(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    known = of(api, time)
    await known.policy()
    time.s += KEPT_S

    async def away(batch: Sequence[Statement]) -> list[Rows]:
        raise StoreUnavailable("away")

    with monkeypatch.context() as for_now:
        for_now.setattr(api.database, "read", away)
        with pytest.raises(StoreUnavailable):
            await known.policy()
    assert (await known.policy()).watch_key == WATCH_KEY


async def test_without_any_it_is_said_loudly(api: Api) -> None:
    await api.database.write([Statement("DELETE FROM watch_keys")])

    with pytest.raises(InvariantError, match="no shared watch key"):
        await of(api, Time()).policy()


# ------------------------------------------------------------------------------- over HTTP


async def watch_key_of(database: Database, payment_id: str) -> str:
    statement = Statement("SELECT watch_key FROM payments WHERE id = ?", (payment_id,))
    [[(found,)]] = await database.read([statement])
    return str(found)


async def test_each_callers_payments_carry_the_key_that_is_meant_for_it(api: Api) -> None:
    mine = await add(api, "mine", Purpose.RESERVED)
    secret = keys.new_key(b"m" * 32)
    await keys.create(
        api.database, "mine", ["payments:write"], key=secret, id="key_mine", now=0, watch="mine"
    )
    headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": "a"}

    async with api.session.post(
        "/api/pay", json={"amount": "1", "token": "SOL"}, headers=headers
    ) as answer:
        made = await answer.json()
    others = await api.create()

    assert await watch_key_of(api.database, made["id"]) == mine
    assert mine in made["url"]
    assert await watch_key_of(api.database, others["id"]) == WATCH_KEY
