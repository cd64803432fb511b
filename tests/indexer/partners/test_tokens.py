"""A token is bought once: by one process or several, whatever dies, lies or is slow meanwhile."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from structlog.testing import capture_logs

from indexer.partners import tokens as module
from indexer.partners.figures import Figures
from indexer.partners.shelf import look
from indexer.partners.tokens import (
    EXPIRES_IN_S,
    EXPIRES_IN_S_MAX,
    KEPT_S_MIN,
    REFUSED_S,
    Credentials,
    NoToken,
    Tokens,
    _margin_s,
    _seconds,
)
from indexer.sources.partner import Partner, Why
from store import shared as shared_module
from store.shared import Shared
from tests.servers.fake_amadeus import (
    CLIENT_ID,
    CLIENT_SECRET,
    MISSING,
    FakeAmadeus,
    cut_off,
    endless,
    gzip_bomb,
    problem,
    redirect,
    says,
)
from tests.servers.faults import Fault, hang, hang_up
from tests.servers.redis_server import RedisServer


def credentials(fake: FakeAmadeus, **others: Any) -> Credentials:
    made = Credentials(
        upstream="amadeus",
        url=f"{fake.url}/v1/security/oauth2/token",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
    )
    return replace(made, **others)


@asynccontextmanager
async def several(
    fake: FakeAmadeus, count: int, redis: RedisServer | None = None, **others: Any
) -> AsyncIterator[list[Tokens]]:
    """The tokens of so many processes, which know nothing of one another but through Redis."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            partner = await stack.enter_async_context(
                Partner(fake.url, (IPv4Network("127.0.0.0/8"),), connect_timeout_s=30)
            )
            shared = None
            if redis is not None:
                shared = await stack.enter_async_context(Shared(redis.url))
                task = asyncio.create_task(shared.run())
                stack.callback(task.cancel)
            tokens = Tokens(credentials(fake, **others), partner, shared, Figures())
            stack.push_async_callback(tokens.close)
            made.append(tokens)
        yield made


@asynccontextmanager
async def alone(fake: FakeAmadeus, **others: Any) -> AsyncIterator[Tokens]:
    async with several(fake, 1, **others) as [tokens]:
        yield tokens


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not holds():
            await asyncio.sleep(0.005)


def counted(tokens: Tokens, outcome: str) -> float:
    labels = {"upstream": "amadeus", "outcome": outcome}
    value = tokens._figures.registry.get_sample_value("axiom_partner_tokens_total", labels)
    return value or 0.0


# -------------------------------------------------------------------------------- one process


async def test_two_hundred_who_ask_at_once_cost_one_request() -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        found = await asyncio.gather(*(tokens.bearer() for _ in range(200)))
        found.append(await tokens.bearer())

        assert set(found) == set(fake.tokens)
        assert fake.count("token") == 1
        assert counted(tokens, "bought") == 1


async def test_who_buys_it_may_leave_and_the_others_get_it() -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        fake.hold("token")
        waiting = [asyncio.create_task(tokens.bearer()) for _ in range(10)]
        await until(lambda: fake.count("token") == 1)
        waiting[0].cancel()
        waiting[1].cancel()
        fake.release("token")
        found = await asyncio.gather(*waiting, return_exceptions=True)

        assert found[2:] == fake.tokens * 8
        assert fake.count("token") == 1


async def test_a_purchase_whose_callers_are_all_gone_is_for_the_next_ones() -> None:
    """Else a partner that is slower than callers are patient would sell for nothing, for ever."""
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        fake.hold("token")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await tokens.bearer()
        await until(lambda: fake.count("token") == 1)
        fake.release("token")

        assert await tokens.bearer() in fake.tokens
        assert fake.count("token") == 1


async def test_what_is_sent_is_a_form_with_the_credentials() -> None:
    async with FakeAmadeus() as fake:
        strange = "a&b=c d%2F+é\r\nX: 1"
        fake.client_secret = strange
        async with alone(fake, client_secret=strange) as tokens:
            assert await tokens.bearer() in fake.tokens
        assert fake.last("token").token is None


async def test_a_token_that_has_ended_is_bought_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_S_MIN", 0.0)
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        fake.expires_in = 0.001
        first = await tokens.bearer()
        await asyncio.sleep(0.002)
        fake.expires_in = 1_799
        second = await tokens.bearer()

        assert first != second
        assert await tokens.bearer() == second


async def test_a_refused_token_is_dropped_and_only_that() -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        old = await tokens.bearer()
        await asyncio.gather(*(tokens.drop(old) for _ in range(200)))
        assert list(tokens._dropped) == [old]  # the others had nothing to do any more
        found = await asyncio.gather(*(tokens.bearer() for _ in range(200)))
        [new] = set(found)
        await tokens.drop(old)  # somebody heard of it late

        assert new != old
        assert await tokens.bearer() == new
        assert fake.count("token") == 2


async def test_who_hears_late_of_a_token_long_replaced_does_no_harm() -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        token = await tokens.bearer()
        await tokens.drop("one of before")

        assert await tokens.bearer() == token
        assert fake.count("token") == 1


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (says(500, b"SECRET"), None),
        (problem(429, 38194, "Too many requests", Retry_After="7"), None),
        (hang_up(), Why.UNREACHABLE),
        (cut_off(), Why.UNREADABLE),
        (redirect(), Why.REDIRECT),
        (endless(), Why.TOO_LARGE),
        (gzip_bomb(10_000_000), Why.TOO_LARGE),
        (says(200, b"<html>"), Why.UNREADABLE),
        (says(200, b"[]"), Why.UNREADABLE),
        (says(200, b"{}"), Why.UNREADABLE),
        (says(200, b"[" * 100_000), Why.TOO_LARGE),
        (says(200, b"[" * 10_000), Why.UNREADABLE),
        (says(200, b"\xff{"), Why.UNREADABLE),
        (says(200, b'{"access_token":null}'), Why.UNREADABLE),
        (says(200, b'{"access_token":""}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"a b"}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"a\\r\\nX: 1"}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"\\u00e9"}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"' + b"a" * 4_097 + b'"}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"a","token_type":"mac"}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"a","token_type":1}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"a","expires_in":0}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"a","expires_in":-1}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"a","expires_in":"soon"}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"a","expires_in":null}'), Why.UNREADABLE),
        (says(200, b'{"access_token":"a","expires_in":true}'), Why.UNREADABLE),
    ],
)
async def test_what_is_no_token_fails_all_who_wait_and_the_next_one_tries_again(
    fault: Fault, why: Why | None
) -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        fake.fail("token", fault)
        failed = await asyncio.gather(*(tokens.bearer() for _ in range(5)), return_exceptions=True)

        for each in failed:
            assert isinstance(each, NoToken)
            assert not each.is_refused
            assert each.why == why
        assert fake.count("token") == 1
        assert counted(tokens, "failed") == 1
        assert await tokens.bearer() in fake.tokens


async def test_a_slow_endpoint_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        fake.fail("token", hang())
        with pytest.raises(NoToken) as raised:
            await tokens.bearer()

    assert raised.value.why is Why.TIMEOUT


async def test_a_pause_that_is_asked_for_is_told() -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        fake.fail("token", problem(429, 38194, "Too many requests", Retry_After="7"))
        with pytest.raises(NoToken) as raised:
            await tokens.bearer()

    assert raised.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"expires_in": 1_799}, 1_799),
        ({"expires_in": "1799"}, 1_799),
        ({"expires_in": 1.5}, 1.5),
        ({}, EXPIRES_IN_S),
        ({"expires_in": 10**30}, EXPIRES_IN_S_MAX),
        ({"expires_in": 1e308}, EXPIRES_IN_S_MAX),
        ({"expires_in": float("inf")}, EXPIRES_IN_S_MAX),
        ({"expires_in": "9" * 12}, EXPIRES_IN_S_MAX),
        ({"expires_in": "9" * 13}, None),
        ({"expires_in": float("nan")}, None),
        ({"expires_in": "-1"}, None),
        ({"expires_in": "\u0661"}, None),
        ({"expires_in": []}, None),
    ],
)
def test_what_is_said_of_a_tokens_time_is_believed_within_reason(
    said: dict[str, Any], seconds: float | None
) -> None:
    assert _seconds(said) == seconds


@pytest.mark.parametrize(
    ("good_for_s", "margin_s"), [(1_799, 89.95), (3_600, 180), (600, 30), (60, 30), (10, 5)]
)
def test_a_token_is_not_used_up_to_its_end(good_for_s: float, margin_s: float) -> None:
    assert _margin_s(good_for_s) == pytest.approx(margin_s)


async def test_a_token_that_is_said_to_end_at_once_is_still_used_a_little() -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        fake.expires_in = 1e-9
        await tokens.bearer()
        held = tokens._held
        assert held is not None
        assert held.until - asyncio.get_running_loop().time() > KEPT_S_MIN / 2


# ------------------------------------------------------------------------- refused credentials


@pytest.mark.parametrize("as_strings", [False, True])
async def test_refused_credentials_are_not_tried_again_for_a_minute(
    monkeypatch: pytest.MonkeyPatch, as_strings: bool
) -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        fake.client_secret, fake.codes_as_strings = "another one", as_strings
        with capture_logs() as logs:
            for _ in range(5):
                with pytest.raises(NoToken) as raised:
                    await tokens.bearer()
                assert raised.value.is_refused
        assert fake.count("token") == 1
        [line] = logs
        assert line["event"] == "partner.credentials_refused"
        assert (line["status"], line["error"]) == (401, "invalid_client")
        held = tokens._held
        assert held is not None
        left_s = held.until - asyncio.get_running_loop().time()
        assert REFUSED_S / 2 < left_s <= REFUSED_S

        fake.client_secret = CLIENT_SECRET
        monkeypatch.setattr(tokens, "_held", replace(held, until=0.0))
        assert await tokens.bearer() in fake.tokens


async def test_of_what_a_partner_says_of_a_refusal_little_is_logged() -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        said = {"error": CLIENT_SECRET, "error_description": CLIENT_SECRET, "code": CLIENT_SECRET}
        fake.fail("token", says(400, json.dumps(said).encode()))
        with capture_logs() as logs, pytest.raises(NoToken) as raised:
            await tokens.bearer()

    assert CLIENT_SECRET not in f"{logs}{raised.value}{raised.value!r}"


async def test_no_log_and_no_error_has_a_token_or_a_secret() -> None:
    async with FakeAmadeus() as fake, alone(fake) as tokens:
        with capture_logs() as logs:
            fake.fail("token", says(500, CLIENT_SECRET.encode()))
            with pytest.raises(NoToken) as raised:
                await tokens.bearer()
            token = await tokens.bearer()
            await tokens.drop(token)
        told = f"{logs}{raised.value!r}{credentials(fake)!r}{credentials(fake).key}"

    assert [line["event"] for line in logs] == ["partner.token_failed", "partner.token_bought"]
    assert not any(secret in told for secret in (token, CLIENT_SECRET))


async def test_other_credentials_have_another_token() -> None:
    fake = FakeAmadeus()
    keys = {
        credentials(fake).key,
        credentials(fake, client_secret="rotated").key,
        credentials(fake, client_id="another").key,
        credentials(fake, url="https://api.amadeus.com/token").key,
        credentials(fake, upstream="other").key,
        credentials(fake, client_id="a", client_secret="bc").key,
        credentials(fake, client_id="ab", client_secret="c").key,
    }
    assert len(keys) == 7


# ------------------------------------------------------------------------------ through Redis


async def test_four_processes_and_two_hundred_who_ask_cost_one_request() -> None:
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        several(fake, 4, redis) as all_of_them,
    ):
        fake.pause_s = 0.3
        found = await asyncio.gather(
            *(tokens.bearer() for tokens in all_of_them for _ in range(50))
        )

        assert found == fake.tokens * 200
        assert fake.count("token") == 1


async def test_a_token_that_one_process_dropped_is_bought_once_by_whoever_is_first() -> None:
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        several(fake, 4, redis) as all_of_them,
    ):
        [old] = set(await asyncio.gather(*(tokens.bearer() for tokens in all_of_them)))

        async def refused(tokens: Tokens) -> str:
            await tokens.drop(old)
            return await tokens.bearer()

        found = await asyncio.gather(
            *(refused(tokens) for tokens in all_of_them for _ in range(50))
        )

        assert found == fake.tokens[1:] * 200
        assert fake.count("token") == 2


async def test_a_fresh_token_of_another_process_is_not_lost_by_dropping_the_old_one() -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, several(fake, 2, redis) as [one, two]:
        old = await one.bearer()
        assert await two.bearer() == old
        await one.drop(old)
        fresh = await one.bearer()
        await two.drop(old)

        assert await two.bearer() == fresh
        assert fake.count("token") == 2


async def test_who_looks_just_before_another_is_done_and_locks_just_after_buys_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, several(fake, 2, redis) as [one, two]:
        token = await one.bearer()
        look, looks = two._look, itertools.count()

        async def first_too_early(shared: Shared) -> Any:
            return await look(shared) if next(looks) else None

        monkeypatch.setattr(two, "_look", first_too_early)
        assert await two.bearer() == token
        assert fake.count("token") == 1


async def test_refused_credentials_are_known_to_all_processes() -> None:
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        several(fake, 3, redis) as all_of_them,
    ):
        fake.client_secret = "another one"
        failed = await asyncio.gather(
            *(tokens.bearer() for tokens in all_of_them for _ in range(20)), return_exceptions=True
        )

        assert {repr(each) for each in failed} == {
            "NoToken('no token: our credentials are refused')"
        }
        assert fake.count("token") == 1


async def test_a_lock_whose_owner_died_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, several(fake, 1, redis) as [tokens]:
        dead = Shared(redis.url)
        async with dead:
            await dead.put(f"{credentials(fake).key}:lock", b"dead", ttl_ms=300)
        assert await tokens.bearer() in fake.tokens
        assert await tokens.bearer() in fake.tokens

    assert fake.count("token") == 1


async def test_a_lock_that_never_ends_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        several(fake, 1, redis) as [tokens],
        Shared(redis.url) as dead,
    ):
        await dead.put(f"{credentials(fake).key}:lock", b"dead", ttl_ms=60_000)
        with pytest.raises(NoToken) as raised:
            await tokens.bearer()

    assert raised.value.why is Why.TIMEOUT
    assert fake.count("token") == 0


async def test_the_lock_of_another_is_not_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was so slow that his lock ended leaves that of the next one alone."""
    monkeypatch.setattr(module, "LOCK_TTL_S", 0.2)
    async with RedisServer() as redis, FakeAmadeus() as fake, several(fake, 1, redis) as [tokens]:
        fake.hold("token")
        waiting = asyncio.create_task(tokens.bearer())
        await until(lambda: fake.count("token") == 1)
        lock = f"{credentials(fake).key}:lock"
        async with Shared(redis.url) as other:
            async with asyncio.timeout(90):
                while not await other.put(lock, b"other", ttl_ms=60_000, only_new=True):
                    await asyncio.sleep(0.01)
            fake.release("token")
            await waiting
            assert await other.get(lock) == b"other"


async def test_redis_that_dies_while_a_token_is_bought_costs_nothing() -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, several(fake, 2, redis) as [one, two]:
        fake.hold("token")
        buying = [asyncio.create_task(one.bearer()) for _ in range(10)]
        await until(lambda: fake.count("token") == 1)
        waiting = [asyncio.create_task(two.bearer()) for _ in range(10)]
        await asyncio.sleep(0.1)
        redis.kill()
        await until(lambda: fake.count("token") == 2)  # the other one cannot know, and buys
        fake.release("token")
        found = await asyncio.gather(*buying, *waiting)

        assert set(found) == set(fake.tokens)
        assert fake.count("token") == 2


async def test_a_redis_that_is_paused_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_module, "TIMEOUT_S", 0.3)
    async with RedisServer() as redis, FakeAmadeus() as fake, several(fake, 1, redis) as [tokens]:
        redis.pause()
        assert await tokens.bearer() in fake.tokens
        redis.resume()


@pytest.mark.parametrize(
    "value",
    [b"", b"no json", b"[]", b'{"token":""}', b'{"token":"a b"}', b'{"token":1}', b"\xff", b"{}"],
)
async def test_what_lies_in_redis_and_is_no_token_is_bought_over(value: bytes) -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, several(fake, 1, redis) as [tokens]:
        async with Shared(redis.url) as stranger:
            await stranger.put(credentials(fake).key, value, ttl_ms=60_000)
            token = await tokens.bearer()
            assert token in fake.tokens
            kept = await stranger.get(credentials(fake).key)
        assert kept is not None
        assert json.loads(kept) == {"token": token, "refused": False}


async def test_a_dropped_token_that_is_found_in_redis_again_is_not_used() -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, several(fake, 1, redis) as [tokens]:
        old = await tokens.bearer()
        await tokens.drop(old)
        async with Shared(redis.url) as stranger:
            raw = json.dumps({"token": old, "refused": False}).encode()
            await stranger.put(credentials(fake).key, raw, ttl_ms=60_000)
        assert await tokens.bearer() != old


async def test_closing_gives_the_lock_back() -> None:
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        several(fake, 1, redis) as [tokens],
        Shared(redis.url) as other,
    ):
        fake.hold("token")
        waiting = asyncio.create_task(tokens.bearer())
        await until(lambda: fake.count("token") == 1)
        await tokens.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await other.get(f"{credentials(fake).key}:lock") is None
        fake.release("token")


async def test_a_missing_end_is_taken_for_a_short_one() -> None:
    async with RedisServer() as redis, FakeAmadeus() as fake, several(fake, 1, redis) as [tokens]:
        fake.expires_in = MISSING
        await tokens.bearer()
        held = tokens._held
        assert held is not None
        left_s = held.until - asyncio.get_running_loop().time()
        assert EXPIRES_IN_S / 2 < left_s <= EXPIRES_IN_S - module.MARGIN_S


async def test_no_process_keeps_a_token_for_longer_than_it_is_good_for() -> None:
    async with (
        RedisServer() as redis,
        FakeAmadeus() as fake,
        several(fake, 2, redis) as both,
        Shared(redis.url) as other,
    ):
        begun = asyncio.get_running_loop().time()
        for tokens in both:
            await tokens.bearer()
        kept = await look(other, credentials(fake).key)
        assert kept is not None
        ends = [asyncio.get_running_loop().time() + kept.left_s]
        ends += [tokens._held.until for tokens in both if tokens._held is not None]

        good_for_s = fake.expires_in - _margin_s(fake.expires_in)
        passed_s = asyncio.get_running_loop().time() - begun
        assert len(ends) == 3
        assert all(good_for_s - 1 < end - begun <= good_for_s + passed_s for end in ends)
