"""Equal calls at once are one, and answers are kept: for whoever asks the same, and nobody else."""

import asyncio
import json
from typing import Any

import pytest

from indexer.core.profile import PartnerSecrets
from indexer.partners import road as module
from indexer.partners.shelf import VALUE_BYTES_MAX
from tests.indexer.partners.calling import (
    FLIGHT,
    SEARCH,
    SECRETS,
    caller,
    callers,
    until,
)
from tests.servers.fake_amadeus import (
    FakeAmadeus,
    oversized,
    says,
)
from tests.servers.redis_server import RedisServer


# --------------------------------------------------------------------------- equal calls at once


async def test_equal_calls_at_once_are_one() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        it.change("location", cache_s=0)
        fake.hold("location")
        waiting = [asyncio.create_task(it.call("location", id="ALEI")) for _ in range(200)]
        await until(lambda: fake.count("location") == 1)
        await asyncio.sleep(0.05)
        waiting[0].cancel()  # the one who asked
        fake.release("location")
        found = await asyncio.gather(*waiting, return_exceptions=True)

        assert isinstance(found[0], asyncio.CancelledError)
        statuses = [each.headers["Cache-Status"] for each in found[1:]]  # type: ignore[union-attr]  # else it fails, as it should
        assert statuses == ["axiompay; fwd=bypass; collapsed"] * 199
        assert fake.count("location") == 1
        assert (it.count("answered"), it.count("merged")) == (1, 199)


async def test_a_failure_of_one_is_that_of_all_who_asked_the_same_and_is_not_kept() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("location", says(500))
        found = await asyncio.gather(*(it.outcome("location", id="ALEI") for _ in range(10)))
        assert found == ["failed"] * 10
        assert await it.outcome("location", id="ALEI") == "200"


async def test_what_is_not_repeatable_is_never_merged_or_kept() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        calls = [it.call("flight-orders", {"data": {"same": True}}) for _ in range(20)]
        found = await asyncio.gather(*calls)

        assert fake.bookings == 20
        assert {each.headers["Cache-Status"] for each in found} == {"axiompay; fwd=method"}


async def test_when_all_who_asked_are_gone_the_call_ends_and_the_next_one_asks_anew() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        await it.call("location", id="ABC")
        fake.hold("location")
        waiting = [asyncio.create_task(it.call("location", id="ALEI")) for _ in range(3)]
        await until(lambda: fake.count("location") == 2)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        fake.release("location")
        assert await it.outcome("location", id="ALEI") == "200"
        assert it.figure("axiom_partner_breaker") == 0

    assert fake.count("location") == 3


# ------------------------------------------------------------------------------- what is kept


async def test_an_answer_is_kept_for_its_time_and_told_to_be() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        first = await it.call("location", id="ALEI")
        second = await it.call("location", id="ALEI")

        assert second.body == first.body
        assert second.headers["Cache-Status"].startswith("axiompay; hit; ttl=8")
        it.change("location", cache_s=0)
        third = await it.call("location", id="ALEI")
        assert third.headers["Cache-Status"] == "axiompay; fwd=bypass"

    assert fake.count("location") == 2


@pytest.mark.parametrize("status", [201, 204, 400, 401, 404, 429, 500])
async def test_only_a_whole_answer_is_kept(status: int) -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("location", says(status, b'{"data":"not kept"}'), times=3)
        await it.outcome("location", id="ALEI")
        fake.heal()
        assert b"not kept" not in (await it.call("location", id="ALEI")).body


async def test_an_answer_of_another_kind_is_not_said_to_be_kept() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("location", says(201, b'{"data":1}'))
        passed = await it.call("location", id="ALEI")

    assert passed.status == 201
    assert passed.headers["Cache-Status"] == "axiompay; fwd=uri-miss"


async def test_calls_that_differ_in_anything_have_answers_of_their_own() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        bodies: list[Any] = [SEARCH | {"currencyCode": each} for each in ("EUR", "USD")]
        bodies += [SEARCH | {"sources": ["EUR"]}, SEARCH | {"sources": "EUR"}]
        for body in bodies:
            await it.call("flight-search", body)
        for query in (FLIGHT, FLIGHT | {"adults": 2}, FLIGHT | {"max": 12}, FLIGHT | {"max": 1}):
            await it.call("flight-offers", **query)

    assert fake.count("flight-search") == 4
    assert fake.count("flight-offers") == 4


async def test_a_route_that_shows_less_now_does_not_show_what_was_kept_before() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        assert b"iataCode" in (await it.call("location", id="ALEI")).body
        it.change("location", response=("data.name",))
        assert b"iataCode" not in (await it.call("location", id="ALEI")).body


async def test_what_was_given_to_one_account_is_not_shown_to_another() -> None:
    others = PartnerSecrets(client_id=SECRETS.client_id, client_secret="rotated1")
    async with RedisServer() as redis, FakeAmadeus() as fake, callers(fake, 1, redis) as [one]:
        await one.call("location", id="ALEI")
        fake.client_secret = "rotated1"
        async with callers(fake, 1, redis, secrets=others) as [two]:
            passed = await two.call("location", id="ALEI")

    assert passed.headers["Cache-Status"] == "axiompay; fwd=uri-miss; stored"


@pytest.mark.parametrize("value", [b"", b"{}", b'{"a":1}\n{}', b"[]\n{}", b"\xff\xfe", b"\n{}"])
async def test_what_lies_in_redis_and_is_no_answer_is_asked_over(
    value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, callers(fake, 1, redis) as [it]:
        monkeypatch.setattr(module, "_packed", lambda _: value)
        for _ in range(2):
            assert await it.outcome("location", id="ALEI") == "200"

    assert fake.count("location") == 2


async def test_a_long_answer_comes_whole() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        it.change("location", response=("data",))
        body = json.dumps({"data": ["x" * 100] * 5_000}).encode()
        fake.fail("location", says(200, body))
        assert len(body) > module.LONG_BYTES
        passed = await it.call("location", id="ALEI")
        assert json.loads(passed.body) == json.loads(body)


async def test_an_answer_that_is_too_long_to_be_kept_is_not_said_to_be() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        it.change("location", response=("data",))
        length = VALUE_BYTES_MAX - len(b'{}\n{"data":""}')
        for number, (more, status) in enumerate([(0, "fwd=uri-miss; stored"), (1, "fwd=uri-miss")]):
            fake.fail("location", oversized(length + more))
            passed = await it.call("location", id=f"A{number}")
            assert passed.headers["Cache-Status"] == f"axiompay; {status}"
            again = await it.call("location", id=f"A{number}")
            assert (again.body == passed.body) is not bool(more)
