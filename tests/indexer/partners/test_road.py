"""The road of a call to a partner, against a fake that behaves as Amadeus did, and worse."""

import asyncio
import itertools
import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from indexer.core.partner_answer import PartnerFailed, Trouble
from indexer.core.profile import Auth, AuthKind, PartnerSecrets
from indexer.core.rate import Rate
from indexer.partners import road as module
from indexer.partners.breaker import FAILURES_MIN
from indexer.partners.road import TRIES_MAX, UNDER_WAY_MAX
from tests.indexer.partners.calling import (
    FLIGHT,
    SEARCH,
    Caller,
    caller,
    callers,
    until,
)
from tests.servers.fake_amadeus import (
    CLIENT_SECRET,
    FakeAmadeus,
    cut_off,
    endless,
    gzip_bomb,
    oversized,
    problem,
    quota_exceeded,
    redirect,
    says,
    too_many,
)
from tests.servers.faults import Fault, hang, hang_up
from tests.servers.redis_server import RedisServer


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again, is so without a pause worth the name."""
    monkeypatch.setattr(module, "PAUSE_S", 0.01)


async def different(it: Caller, count: int, name: str = "location") -> list[str]:
    """How so many calls at once end that are not equal."""
    return await asyncio.gather(*(it.outcome(name, id=f"A{number}") for number in range(count)))


# ------------------------------------------------------------------------------- what is sent


async def test_a_call_is_authorized_and_what_is_let_through_comes_back() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        passed = await it.call("flight-offers", **FLIGHT)
        sent = fake.last("flight-offers")

        assert passed.status == 200
        shown = json.loads(passed.body)
        assert shown["data"][0]["price"]["total"] == "546.70"
        assert sent.token in fake.tokens
        assert (sent.method, sent.path) == ("GET", "/v2/shopping/flight-offers")
        assert sent.query.startswith("originLocationCode=CAI&destinationLocationCode=LEI&")
        assert passed.headers == {"Cache-Status": "axiompay; fwd=uri-miss; stored"}


async def test_a_search_with_a_body_is_sent_as_amadeus_wants_it() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        passed = await it.call("flight-search", SEARCH)
        sent = fake.last("flight-search")

        assert passed.status == 200
        assert json.loads(sent.body) == SEARCH
        assert sent.headers["X-HTTP-Method-Override"] == "GET"
        assert sent.headers["Content-Type"] == "application/vnd.amadeus+json"


async def test_nothing_of_the_partners_own_reaches_a_client() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        for fake.packs in (False, True):
            for name, body, query in (
                ("flight-offers", None, FLIGHT | {"max": 3 + fake.packs}),
                ("flight-search", SEARCH | {"sources": [fake.packs]}, {}),
                ("location", None, {"id": f"ALEI{fake.packs:d}"}),
            ):
                passed = await it.call(name, body, **query)
                told = f"{passed}"
                # The one route whose `data` is let through as a whole shows the partner's links.
                assert name == "location" or "LEAKED" not in told
                assert not any(token in told for token in fake.tokens)
                assert set(passed.headers) == {"Cache-Status"}


async def test_headers_hold_nothing_but_the_profiles_and_the_token() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        await it.call("location", id="ALEI")
        sent = {name.lower() for name in fake.last("location").headers}

    assert sent == {"host", "user-agent", "accept", "accept-encoding", "authorization"}


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        (Auth(kind=AuthKind.KEY), "Authorization", "Bearer k3y"),
        (Auth(kind=AuthKind.KEY, header="X-Api-Key", scheme=""), "X-Api-Key", "k3y"),
        (Auth(kind=AuthKind.NONE), "Authorization", None),
    ],
)
async def test_a_partner_with_a_key_or_none_is_asked_without_a_token(
    auth: Auth, header: str, value: str | None
) -> None:
    secrets = PartnerSecrets(key="" if value is None else "k3y")
    async with FakeAmadeus() as fake, caller(fake, secrets=secrets, auth=auth) as it:
        fake.fail("location", says(200, b'{"data":1}'), times=2)
        assert await it.outcome("location", id="ALEI") == "200"
        assert fake.last("location").headers.get(header) == value
        fake.heal()
        assert await it.outcome("location", id="AXXX") == "locked"

    assert fake.count("token") == 0
    assert fake.count("location") == 2  # no other key: no other try


async def test_what_the_partner_was_shown_of_us_is_not_repeated_to_a_frontend() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        it.change("location", response=("data",))
        await it.call("location", id="A0")
        [token] = fake.tokens
        for number, secret in enumerate((token, CLIENT_SECRET)):
            for body in (f'{{"data":"{secret}"}}', json.dumps({"data": ["x" * 99_999, secret]})):
                fake.fail("location", says(200, body.encode()))
                assert await it.outcome("location", id=f"A{number}{len(body)}") == "failed"
            fake.fail("location", problem(400, 477, f"bad: {secret}"))
            with pytest.raises(PartnerFailed) as caught:
                await it.call("location", id=f"B{number}")
            assert caught.value.trouble is Trouble.REFUSED
            assert caught.value.complaints == ()


async def test_headers_that_the_route_names_come_back_and_no_others() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        it.change("location", response_headers=("x-total",))
        fake.fail("location", says(200, b'{"data":1}', X_Total="7", X_Other="8"))
        first, again = await it.call("location", id="ALEI"), await it.call("location", id="ALEI")
        it.change("location", response_headers=())
        fewer = await it.call("location", id="ALEI")

    assert set(first.headers) == set(again.headers) == {"x-total", "Cache-Status"}
    assert first.headers["x-total"] == again.headers["x-total"] == "7"
    assert again.headers["Cache-Status"].startswith("axiompay; hit")
    assert set(fewer.headers) == {"Cache-Status"}


# ------------------------------------------------------------------------------------ tokens


async def test_two_hundred_calls_with_an_expired_token_cost_one_token() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        assert await it.outcome("location", id="ALEI") == "200"
        fake.expire_tokens()
        assert await different(it, 200) == ["200"] * 200

    assert fake.count("token") == 2


async def test_a_storm_of_401_costs_one_token_for_each_that_ends() -> None:
    async with FakeAmadeus() as fake, callers(fake, 2) as both:
        for end in (fake.expire_tokens, fake.revoke_tokens, fake.expire_tokens):
            end()
            before = fake.count("token")
            found = await asyncio.gather(*(different(it, 100) for it in both))
            for it in both:
                it.change("location", cache_s=0)
            assert found == [["200"] * 100] * 2
            assert fake.count("token") - before == 2  # without Redis one for each process


async def test_a_token_that_ends_on_the_way_is_replaced_once_also_for_what_is_not_repeatable() -> (
    None
):
    async with FakeAmadeus() as fake, caller(fake) as it:
        await it.call("location", id="ALEI")
        fake.expire_tokens()
        assert await it.outcome("flight-orders", {"data": {}}) == "200"

    assert fake.bookings == 1
    assert fake.count("booking") == 2
    assert fake.count("token") == 2


@pytest.mark.parametrize("as_strings", [False, True])
async def test_a_partner_that_refuses_every_token_costs_one_and_not_one_for_each_call(
    as_strings: bool,
) -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.codes_as_strings = as_strings
        fake.fail("location", problem(401, 38190, "Invalid access token"), times=99)
        for number in range(10):
            assert await it.outcome("location", id=f"A{number}") == "locked"
        assert fake.count("token") == 2
        assert fake.count("location") == 11
        fake.heal()
        assert await it.outcome("location", id="ALEI") == "200"
        fake.expire_tokens()
        assert await it.outcome("location", id="ABC") == "200"

    assert fake.count("token") == 3


async def test_refused_credentials_lock_the_partner_and_are_not_tried_again() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.client_secret = "another one"
        assert await different(it, 50) == ["locked"] * 50
        assert await different(it, 50) == ["locked"] * 50
        assert it.figure("axiom_partner_breaker") == 0  # it is there, and at work

    assert fake.count("token") == 1
    assert fake.count("location") == 0


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (hang_up(), Trouble.AWAY),
        (says(500), Trouble.FAILED),
        (says(200, b"<html>"), Trouble.FAILED),
        (redirect(), Trouble.FAILED),
        (too_many(), Trouble.FAILED),
        (problem(429, 1, "x", Retry_After="7"), Trouble.BUSY),
    ],
)
async def test_without_a_token_nothing_is_asked(fault: Fault, trouble: Trouble) -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("token", fault)
        assert await it.outcome("location", id="ALEI") == trouble

    assert fake.count("location") == 0


async def test_a_slow_token_takes_no_longer_than_the_call_may_and_is_for_the_next_one() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.hold("token")
        patient = it.profile
        it.change("location", timeout_s=0.2)
        assert await it.outcome("location", id="ALEI") == "slow"
        assert fake.count("token") == 1
        fake.release("token")
        it.profile = patient
        assert await it.outcome("location", id="ALEI") == "200"

    assert fake.count("token") == 1


# ---------------------------------------------------------------------- through Redis, several


async def test_four_processes_with_an_expired_token_buy_one() -> None:
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        callers(fake, 4, redis) as all_of_them,
    ):
        await asyncio.gather(*(it.call("location", id="ALEI") for it in all_of_them))
        fake.expire_tokens()
        before = fake.count("token")
        for number, it in enumerate(all_of_them):
            it.change("location", cache_s=0, response=(f"data{number}",))
        found = await asyncio.gather(*(different(it, 50) for it in all_of_them))

        assert found == [["200"] * 50] * 4
        assert before == 1
        assert fake.count("token") == 2


async def test_an_answer_that_one_process_has_serves_all() -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, callers(fake, 2, redis) as [one, two]:
        first = await one.call("location", id="ALEI")
        second = await two.call("location", id="ALEI")

        assert first.body == second.body
        assert second.headers["Cache-Status"].startswith("axiompay; hit; ttl=86")
        assert fake.count("location") == 1
        assert two.count("hit") == 1


async def test_redis_that_dies_under_way_is_not_noticed_by_callers() -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, callers(fake, 2, redis) as both:
        numbers = itertools.count()
        found: list[str] = []

        async def client(it: Caller) -> None:
            for _ in range(40):
                outcome = await it.outcome("location", id=f"A{next(numbers)}")
                found.append(outcome)

        running = [asyncio.create_task(client(it)) for it in both for _ in range(5)]
        for _ in range(3):
            await asyncio.sleep(0.05)
            redis.kill()
            fake.expire_tokens()
            await asyncio.sleep(0.05)
            await redis.start()
        await asyncio.gather(*running)

        assert found == ["200"] * 400


async def test_all_processes_together_keep_to_the_rate_that_the_partner_allows() -> None:
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        callers(fake, 3, redis, rate=Rate(20, 60)) as all_of_them,
    ):
        for number, it in enumerate(all_of_them):
            it.change("location", response=(f"data{number}",))
        found = await asyncio.gather(*(different(it, 20) for it in all_of_them))

        assert sorted(itertools.chain(*found)) == ["200"] * 20 + ["busy"] * 40
        assert fake.count("location") == 20


# -------------------------------------------------------------------------------------- rates


async def test_a_rate_that_has_room_soon_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACED_S_MAX", 30.0)
    async with FakeAmadeus() as fake, caller(fake, rate=Rate(5, 1)) as it:
        begun = asyncio.get_running_loop().time()
        assert await different(it, 11) == ["200"] * 11
        assert asyncio.get_running_loop().time() - begun >= 2.0  # five, five and one


async def test_a_rate_that_has_no_room_soon_is_told() -> None:
    async with FakeAmadeus() as fake, caller(fake, rate=Rate(1, 3_600)) as it:
        await it.call("location", id="ALEI")
        with pytest.raises(PartnerFailed) as raised:
            await it.call("location", id="ABC")

    assert raised.value.trouble is Trouble.BUSY
    assert raised.value.retry_after_s is not None
    assert raised.value.retry_after_s > 3_000


async def test_what_is_kept_is_not_counted_against_the_rate() -> None:
    async with FakeAmadeus() as fake, caller(fake, rate=Rate(1, 3_600)) as it:
        for _ in range(5):
            assert await it.outcome("location", id="ALEI") == "200"


async def test_so_many_calls_are_under_way_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNDER_WAY_MAX", 10)
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.hold("location")
        waiting = [asyncio.create_task(it.outcome("location", id=f"A{n}")) for n in range(10)]
        await until(lambda: fake.count("location") == 10)
        assert await it.outcome("location", id="ALEI") == "busy"
        fake.release("location")
        assert await asyncio.gather(*waiting) == ["200"] * 10
        assert await it.outcome("location", id="ALEI") == "200"

    assert UNDER_WAY_MAX >= 200


# ------------------------------------------------------------------------------- trying again


@pytest.mark.parametrize(
    "fault",
    [
        hang_up(),
        cut_off(),
        says(502),
        says(503),
        says(503, Retry_After="1"),
        says(504),
        too_many(),
        says(200, b"\x1f\x8bno gzip", Content_Encoding="gzip"),
    ],
)
async def test_what_fails_in_passing_is_tried_again_where_that_does_no_harm(fault: Fault) -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("location", fault)
        assert await it.outcome("location", id="ALEI") == "200"
        assert fake.count("location") == 2

        fake.fail("flight-search", fault)
        assert await it.outcome("flight-search", SEARCH) == "200"
        assert fake.count("flight-search") == 2

        fake.fail("booking", fault)
        assert await it.outcome("flight-orders", {"data": {}}) in {"away", "failed", "busy"}
        assert fake.count("booking") == 1


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (says(500), "failed"),
        (says(400), "refused"),
        (says(404), "not_found"),
        (says(410), "failed"),
        (says(403), "locked"),
        (says(503, Retry_After="5"), "failed"),
        (problem(429, 38195, "Quota", Retry_After="5"), "busy"),
        (redirect(), "failed"),
        (oversized(9_000_000), "failed"),
        (endless(), "failed"),
        (gzip_bomb(50_000_000), "failed"),
    ],
)
async def test_what_will_not_be_better_is_not_tried_again(fault: Fault, outcome: str) -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("location", fault)
        assert await it.outcome("location", id="ALEI") == outcome
        assert fake.count("location") == 1


async def test_a_call_is_tried_so_often_and_no_more() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("location", says(503), times=99)
        assert await it.outcome("location", id="ALEI") == "failed"
        assert fake.count("location") == TRIES_MAX
        fake.heal()
        fake.fail("location", quota_exceeded(), times=99)
        assert await it.outcome("location", id="ALEI") == "busy"
        assert fake.count("location") == 2 * TRIES_MAX


async def test_a_call_takes_no_longer_than_it_may_with_all_its_tries() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        it.change("location", timeout_s=1.5)
        fake.fail("location", says(503, Retry_After="1"), times=99)
        assert await it.outcome("location", id="ALEI") in {"failed", "slow"}
        assert fake.count("location") <= 2

        fake.heal()
        fake.fail("location", hang(), times=99)
        it.change("location", timeout_s=0.2)
        assert await it.outcome("location", id="AXXX") == "slow"


# ---------------------------------------------------------------------------------- the breaker


async def test_a_partner_in_trouble_is_left_alone_and_then_tried_by_one() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("location", says(500), times=FAILURES_MIN)
        for number in range(FAILURES_MIN):
            assert await it.outcome("location", id=f"A{number}") == "failed"
        breaker = it.partners._roads["amadeus"]._breaker
        breaker._opened_until = asyncio.get_running_loop().time() + 60
        assert it.figure("axiom_partner_breaker") == 2
        with pytest.raises(PartnerFailed) as raised:
            await it.call("location", id="ALEI")
        assert raised.value.trouble is Trouble.AWAY
        assert raised.value.retry_after_s == pytest.approx(60, abs=30)
        assert fake.count("location") == FAILURES_MIN

        fake.hold("location")
        breaker._opened_until = asyncio.get_running_loop().time()
        assert it.figure("axiom_partner_breaker") == 1
        trying = [asyncio.create_task(it.outcome("location", id=f"B{n}")) for n in range(200)]
        await until(lambda: sum(task.done() for task in trying) == 199)
        await until(lambda: fake.count("location") == FAILURES_MIN + 1)
        fake.release("location")
        found = await asyncio.gather(*trying)

        assert sorted(found) == ["200"] + ["away"] * 199
        assert it.figure("axiom_partner_breaker") == 0
        assert await different(it, 10) == ["200"] * 10


@pytest.mark.parametrize(
    ("fault", "opens"),
    [
        (says(500), True),
        (hang_up(), True),
        (cut_off(), True),
        (redirect(), True),
        (says(400), False),
        (says(404), False),
        (says(401), False),
        (says(403), False),
        (too_many(), False),
        (oversized(9_000_000), False),
    ],
)
async def test_only_what_says_that_it_is_in_trouble_opens_the_breaker(
    fault: Fault, opens: bool
) -> None:
    """No caller can shut out the others by values that a partner does not like."""
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("location", fault, times=999)
        await different(it, 2 * FAILURES_MIN)
        assert (it.figure("axiom_partner_breaker") == 2) is opens


async def test_callers_that_leave_open_nothing() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.hold("location")
        for number in range(2 * FAILURES_MIN):
            task = asyncio.create_task(it.call("location", id=f"A{number}"))
            await until(lambda number=number: fake.count("location") == number + 1)  # type: ignore[misc]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        fake.release("location")
        assert await it.outcome("location", id="ALEI") == "200"


async def test_a_token_endpoint_in_trouble_opens_the_breaker_too() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        fake.fail("token", says(500), times=999)
        for number in range(3 * FAILURES_MIN):
            await it.outcome("location", id=f"A{number}")
        assert it.figure("axiom_partner_breaker") == 2

    assert fake.count("token") == FAILURES_MIN


# --------------------------------------------------------------------------------------- words


async def test_no_log_and_no_error_has_a_secret_or_what_was_asked() -> None:
    async with FakeAmadeus() as fake, caller(fake) as it:
        faults: list[Any] = [
            says(500, CLIENT_SECRET.encode()),
            says(401, CLIENT_SECRET.encode()),
            says(403, CLIENT_SECRET.encode()),
            redirect(f"http://127.0.0.1/{CLIENT_SECRET}"),
            hang_up(),
            says(200, CLIENT_SECRET.encode()),
        ]
        told = []
        with capture_logs() as logs:
            for number, fault in enumerate(faults):
                fake.fail("location", fault, times=99)
                with pytest.raises(PartnerFailed) as raised:
                    await it.call("location", id=f"CUSTOMER{number}")
                told.append(repr(raised.value))
                fake.heal()
        text = f"{logs}{told}"

        assert logs
        assert not any(token in text for token in fake.tokens)
        assert CLIENT_SECRET not in text
        assert "CUSTOMER" not in text
        assert "127.0.0.1" not in text
