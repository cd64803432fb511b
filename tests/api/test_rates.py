"""Who may call how often, seen from outside, over the real server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from api.auth import PUBLIC
from api.errors import Problem
from api.limits import DOOR_RATE, STREAM_OVERLOAD_RETRY_MS
from api.rates import QUOTA_EXCEEDED, Limit, Policy
from api.routes import CALLS
from indexer.core.rate import Rate
from indexer.errors import ConfigError
from store import keys
from store.limiter import Limiter
from store.shared import Shared
from tests.api.knocking import HELIUS_SECRETS
from tests.api.running import NOW, Api, Clock, make_key, running
from tests.api.sse import stream
from tests.servers.redis_server import RedisServer


THREE: Final = Rate(3, 10)
NO_KEY: Final[Mapping[str, str]] = {}
WRONG_KEY: Final = {"Authorization": f"Bearer {keys.new_key(b'wrong'.ljust(32, b'.'))}"}
#: Anybody may ask for it; nobody finds it.
PATH: Final = "/api/pay/pay_00000000000000000000000000"
LOCAL: Final = ip_network("127.0.0.1")


@dataclass(frozen=True)
class Said:
    """What of an answer this is about."""

    status: int
    policy: str | None
    limit: str | None
    retry_after: str | None
    body: dict[str, Any]


@asynccontextmanager
async def limited(path: Path, **settings: Any) -> AsyncIterator[tuple[Api, Clock]]:
    """An API whose default is 3 in 10 seconds of a clock that stands still."""
    clock = Clock(1_000.0)
    values: dict[str, Any] = {"rate_limit": THREE, "rate_limits": {}} | settings
    async with running(path, limiter=Limiter(None, clock), **values) as api:
        api.app.state.context.rates._wrong_keys._monotonic = clock
        yield api, clock


async def ask(
    api: Api, path: str = PATH, headers: Mapping[str, str] = NO_KEY, method: str = "GET"
) -> Said:
    async with api.session.request(method, path, headers=headers) as response:
        given = response.headers
        return Said(
            response.status,
            given.get("RateLimit-Policy"),
            given.get("RateLimit"),
            given.get("Retry-After"),
            await response.json(content_type=None) if response.content_length else {},
        )


async def statuses(api: Api, times: int, *arguments: Any, **named: Any) -> list[int]:
    return [(await ask(api, *arguments, **named)).status for _ in range(times)]


# ------------------------------------------------------------------------------- what is answered


async def test_each_answer_says_what_is_left(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, clock):
        first = await ask(api)
        clock.now += 4.5
        second, third = await ask(api), await ask(api)

    assert [each.status for each in (first, second, third)] == [404] * 3
    assert first.policy == '"default";q=3;w=10'
    assert [each.limit for each in (first, second, third)] == [
        '"default";r=2;t=10',
        '"default";r=1;t=6',
        '"default";r=0;t=6',
    ]


async def test_one_more_is_a_problem_that_says_when_to_come_again(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, clock):
        await statuses(api, 3)
        clock.now += 0.1
        refused = await ask(api)
        clock.now += 9.8
        assert (await ask(api)).status == 429
        clock.now += 0.1
        assert (await ask(api)).status == 404

    assert refused == Said(
        429,
        '"default";q=3;w=10',
        '"default";r=0;t=10',
        "10",
        {
            "type": QUOTA_EXCEEDED,
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "code": "rate_limited",
            "detail": "too many requests; the next one is answered in 10 s",
            "violated-policies": ["default"],
        },
    )


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/api/openapi.json"])
async def test_health_figures_and_the_description_are_exempt(tmp_path: Path, path: str) -> None:
    async with limited(tmp_path) as (api, _):
        for _ in range(10):
            async with api.session.get(path) as response:
                assert response.status in {200, 503}
                assert "RateLimit" not in response.headers
        assert await statuses(api, 4) == [404, 404, 404, 429]


async def test_a_preflight_is_never_counted_nor_refused(tmp_path: Path) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    async with limited(tmp_path, cors_origins=("https://shop.example",)) as (api, _):
        for _ in range(10):
            async with api.session.options(PATH, headers=asked) as response:
                assert response.status == 200
        assert await statuses(api, 4) == [404, 404, 404, 429]
        for _ in range(10):
            async with api.session.options(PATH, headers=asked) as response:
                assert response.status == 200


async def test_a_page_may_read_what_is_left_also_of_a_refusal(tmp_path: Path) -> None:
    origin = "https://shop.example"
    async with limited(tmp_path, cors_origins=(origin,)) as (api, _):
        for _ in range(4):
            async with api.session.get(PATH, headers={"Origin": origin}) as response:
                exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
                assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed)
                assert response.headers["Access-Control-Allow-Origin"] == origin
        assert response.status == 429


# ----------------------------------------------------------------------------------- who is asking


async def test_each_key_is_a_caller_and_everyone_else_an_address(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, _):
        for headers, status in ((api.reader, 404), (api.writer, 404), (NO_KEY, 404)):
            assert await statuses(api, 4, headers=headers) == [status] * 3 + [429]


async def test_a_key_is_counted_over_all_of_its_calls(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, _):
        assert (await ask(api, "/api/pay", api.reader)).status == 200
        assert (await ask(api, PATH, api.reader)).status == 404
        assert (await ask(api, PATH, api.reader, "HEAD")).status == 404
        assert (await ask(api, "/api/pay", api.reader)).status == 429


async def test_a_key_s_own_rate_stands_in_for_the_default(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, _):
        token = keys.new_key(b"fast".ljust(32, b"."))
        scopes = ("payments:read",)
        await keys.create(
            api.database, "fast", scopes, key=token, id="key_fast", now=NOW, rate=Rate(5, 60)
        )
        fast = {"Authorization": f"Bearer {token}"}
        said = [await ask(api, headers=fast) for _ in range(6)]

    assert [each.status for each in said] == [404] * 5 + [429]
    assert said[0].policy == '"default";q=5;w=60'
    assert said[-1].retry_after == "60"


async def test_a_key_that_lacks_the_scope_is_counted_too(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, _):
        got = await statuses(api, 4, "/api/webhooks/endpoints", api.reader)

    assert got == [403, 403, 403, 429]


async def test_a_call_that_its_handler_counts_is_counted_before_it_is_forbidden(
    tmp_path: Path,
) -> None:
    async with limited(tmp_path) as (api, _):
        assert await statuses(api, 4, "/api/proxy/a/b", api.reader) == [403, 403, 403, 429]
        assert await statuses(api, 4, "/api/proxy/a/b", NO_KEY) == [401, 401, 401, 429]


@pytest.mark.parametrize(
    "headers",
    [NO_KEY, WRONG_KEY, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer axk_"}],
    ids=["none", "wrong", "other scheme", "no key"],
)
async def test_without_a_good_key_the_address_is_counted(
    tmp_path: Path, headers: Mapping[str, str]
) -> None:
    async with limited(tmp_path) as (api, _):
        assert (await ask(api, "/api/pay", api.reader)).status == 200
        assert await statuses(api, 4, "/api/pay", headers) == [401, 401, 401, 429]
        assert (await ask(api)).status == 429
        assert (await ask(api, "/api/pay", api.reader)).status == 200


async def test_a_wrong_key_is_told_what_is_left(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, _):
        refused = await ask(api, "/api/pay", WRONG_KEY)

    assert (refused.status, refused.limit) == (401, '"default";r=2;t=10')


@dataclass
class Looking:
    """Counts how often a key is looked for in the database."""

    times: int = 0


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Looking:
    looking, find = Looking(), keys.find

    async def counted(*arguments: Any) -> Any:
        looking.times += 1
        return await find(*arguments)

    monkeypatch.setattr(keys, "find", counted)
    return looking


async def test_an_address_that_guesses_is_not_even_looked_up(
    tmp_path: Path, looking: Looking
) -> None:
    async with limited(tmp_path) as (api, clock):
        guesses = [
            {"Authorization": f"Bearer {keys.new_key(b'%d' % number + b'.' * 31)}"}
            for number in range(10)
        ]
        got = [(await ask(api, "/api/pay", each)).status for each in guesses]
        assert (got, looking.times) == ([401] * 3 + [429] * 7, 3)

        clock.now += 10
        assert (await ask(api, "/api/pay", guesses[9])).status == 401
        assert looking.times == 4


async def test_who_asks_without_a_key_leaves_the_keys_of_his_neighbours_alone(
    tmp_path: Path, looking: Looking
) -> None:
    """A shop's customers and its backend may well share an address."""
    async with limited(tmp_path) as (api, _):
        assert await statuses(api, 5) == [404] * 3 + [429] * 2

        assert (await ask(api, "/api/pay", api.reader)).status == 200
        assert looking.times == 1


async def test_a_key_that_was_good_is_looked_up_whoever_guesses_beside_it(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, clock):
        api.app.state.context.gate._monotonic = clock
        assert (await ask(api, "/api/pay", api.reader)).status == 200
        assert await statuses(api, 5, "/api/pay", WRONG_KEY) == [401] * 3 + [429] * 2
        clock.now += 5  # by now the gate looks again whether it is still good

        assert (await ask(api, "/api/pay", api.reader)).status == 200


# --------------------------------------------------------------------------------- through proxies


async def test_behind_a_trusted_proxy_each_client_is_a_caller(tmp_path: Path) -> None:
    async with limited(tmp_path, trusted_proxies=(LOCAL,)) as (api, _):
        for address in ("203.0.113.1", "203.0.113.2", "2001:db8:1::1"):
            forwarded = {"X-Forwarded-For": address}
            assert await statuses(api, 4, headers=forwarded) == [404, 404, 404, 429]
        assert (await ask(api, headers={"X-Forwarded-For": "2001:db8:1::2"})).status == 429


async def test_a_client_that_forges_the_header_is_the_same_caller(tmp_path: Path) -> None:
    async with limited(tmp_path, trusted_proxies=(LOCAL,)) as (api, _):
        got = [
            (await ask(api, headers={"X-Forwarded-For": f"198.51.100.{n}, 203.0.113.1"})).status
            for n in range(4)
        ]
    assert got == [404, 404, 404, 429]


async def test_without_a_trusted_proxy_the_header_means_nothing_and_is_told_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with limited(tmp_path) as (api, _):
        got = [
            (await ask(api, headers={"X-Forwarded-For": f"198.51.100.{n}"})).status
            for n in range(4)
        ]
    assert got == [404, 404, 404, 429]
    assert capsys.readouterr().out.count("http.forwarded_for_is_not_believed") == 1


# ----------------------------------------------------------------------------------- other policies


async def test_a_call_with_a_rate_of_its_own_is_counted_apart(tmp_path: Path) -> None:
    own = {"listPayments": Rate(1, 60)}
    async with limited(tmp_path, rate_limits=own) as (api, _):
        first, second = [await ask(api, "/api/pay", api.reader) for _ in range(2)]
        assert await statuses(api, 4, headers=api.reader) == [404] * 3 + [429]

    assert (first.status, first.limit) == (200, '"listPayments";r=0;t=60')
    assert (second.status, second.body["violated-policies"]) == (429, ["listPayments"])


@pytest.mark.parametrize("name", ["listPayment", "isAlive", "getMetrics", "receiveEvent"])
async def test_a_rate_of_no_call_that_has_one_is_refused_at_the_start(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match=f"AXIOM_RATE_LIMITS: {name}: no such call"):
        async with limited(tmp_path, rate_limits={name: THREE}):
            pass


async def test_the_doors_have_a_generous_rate_of_their_own(tmp_path: Path) -> None:
    secrets = {"helius_webhook_secrets": HELIUS_SECRETS}
    async with limited(tmp_path, **secrets) as (api, _):
        said = [
            await ask(api, "/api/webhooks/helius", {"Authorization": "no"}, "POST")
            for _ in range(5)
        ]
        limiter = api.app.state.context.rates.limiter
        await statuses(api, 3)
        [log] = [each for name, each in limiter._logs.items() if "webhooks:address" in name]
        for _ in range(DOOR_RATE.quota - len(log)):
            log.note(int(limiter._monotonic() * 1_000_000))
        refused = await ask(api, "/api/webhooks/helius", {"Authorization": "no"}, "POST")

    assert [each.status for each in said] == [401] * 5
    assert said[-1].limit == f'"webhooks";r={DOOR_RATE.quota - 5};t=10'
    assert (refused.status, refused.body["violated-policies"]) == (429, ["webhooks"])


def test_what_is_exempt_is_for_everyone_and_tells_nothing_of_payments() -> None:
    exempt = {call.name for call in CALLS if call.limit is Limit.EXEMPT}

    assert exempt == {"getDescription", "isAlive", "isReady", "getMetrics"}
    assert all(call.access == PUBLIC for call in CALLS if call.limit is Limit.EXEMPT)


async def test_a_handler_may_count_against_several_policies(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, _):
        rates = api.app.state.context.rates
        request = _Request()
        both = (Policy("one", Rate(5, 10)), Policy("other", Rate(1, 60)))
        await rates.charge(request, None, *both)
        assert request.state.headers == {
            "RateLimit-Policy": '"one";q=5;w=10, "other";q=1;w=60',
            "RateLimit": '"one";r=4;t=10, "other";r=0;t=60',
        }
        with pytest.raises(Problem) as refused:
            await rates.charge(request, None, *both)

    assert refused.value.violated_policies == ("other",)
    assert refused.value.headers == {"Retry-After": "60"}
    assert request.state.headers["RateLimit"] == '"one";r=4;t=10, "other";r=0;t=60'


class _Request:
    """As much of a request as is looked at."""

    class State:
        headers: Mapping[str, str]

    state = State()
    headers: Mapping[str, str] = MappingProxyType({})
    client = None


# ------------------------------------------------------------------------------------------ streams


async def retry_of(api: Api, path: str, headers: Mapping[str, str] = NO_KEY) -> int:
    """Of a stream that is closed at once."""
    async with stream(api.session, path, headers) as reader:
        assert reader.response.status == 200
        assert reader.response.content_type == "text/event-stream"
        messages = []
        while (message := await reader.next()) is not None:
            messages.append(message)
    [message] = messages
    assert message.data is None
    return int(message.retry or 0)


async def test_a_stream_is_never_answered_429(tmp_path: Path) -> None:
    """It would end a browser's EventSource for good."""
    async with limited(tmp_path) as (api, _):
        payment = await api.create()
        await statuses(api, 3)
        path = f"/api/sse/payments/{payment['id']}"
        assert await retry_of(api, path) >= STREAM_OVERLOAD_RETRY_MS
        assert await retry_of(api, "/api/sse/events") >= STREAM_OVERLOAD_RETRY_MS, "not even 401"
        assert await retry_of(api, "/api/sse/payments/none") >= STREAM_OVERLOAD_RETRY_MS


async def test_who_is_sent_away_for_long_is_told_to_stay_as_long(tmp_path: Path) -> None:
    async with limited(tmp_path, rate_limits={"streamPayment": Rate(1, 3_600)}) as (api, _):
        payment = await api.create()
        path = f"/api/sse/payments/{payment['id']}"
        async with stream(api.session, path) as reader:
            assert (await reader.event()) is not None
        assert await retry_of(api, path) >= 3_600_000


async def test_one_address_takes_no_more_than_its_streams(tmp_path: Path) -> None:
    more = {"streams_per_address": 2, "trusted_proxies": (LOCAL,), "rate_limit": Rate(100, 1)}
    async with limited(tmp_path, **more) as (api, _):
        payment = await api.create()
        path, one = f"/api/sse/payments/{payment['id']}", {"X-Forwarded-For": "203.0.113.1"}
        other = {"X-Forwarded-For": "203.0.113.2"}
        merchant = "/api/sse/events"
        async with stream(api.session, path, one) as first:
            await first.event()
            async with stream(api.session, merchant, {**one, **api.reader}) as second:
                await second.next()
                assert await retry_of(api, path, one) >= STREAM_OVERLOAD_RETRY_MS
                async with stream(api.session, path, other) as third:
                    assert (await third.event()) is not None
        await until(lambda: not api.app.state.context.hub._of_address)
        async with stream(api.session, path, one) as again:
            assert (await again.event()) is not None


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------ what is told


async def test_the_figures_tell_who_was_let_through(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, _):
        await statuses(api, 5)
        await ask(api, "/api/webhooks/helius", method="POST")
        async with api.session.get("/metrics") as response:
            text = await response.text()

    lines = [line for line in text.splitlines() if line.startswith("axiom_rate")]
    assert sorted(lines) == [
        'axiom_rate_limited_requests_total{outcome="accepted",policy="default"} 3.0',
        'axiom_rate_limited_requests_total{outcome="accepted",policy="webhooks"} 1.0',
        'axiom_rate_limited_requests_total{outcome="rejected",policy="default"} 2.0',
    ]
    assert "axiom_redis_up" not in text


async def test_who_is_over_his_rate_does_not_fill_the_log(tmp_path: Path) -> None:
    async with limited(tmp_path) as (api, _):
        with capture_logs() as lines:
            await statuses(api, 5)

    levels = [line["log_level"] for line in lines if line["event"] == "http.request_served"]
    assert levels == ["info"] * 3 + ["debug"] * 2


async def test_two_apis_with_one_redis_count_together_and_apart_without_it(tmp_path: Path) -> None:
    """Redis goes under load: nothing fails, and the figures and `/readyz` tell of it."""
    more: dict[str, Any] = {"rate_limit": THREE, "rate_limits": {}}
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    async with (
        RedisServer() as redis,
        Shared(redis.url) as shared,
        Shared(redis.url) as other_shared,
        running(tmp_path / "one", shared=shared, **more) as one,
        running(tmp_path / "other", shared=other_shared, **more) as other,
    ):
        keyed = await make_key(one.database, "shop", "payments:read")
        assert await statuses(one, 2) == [404, 404]
        assert await statuses(other, 2) == [404, 429]
        assert await figures(one) == {"axiom_redis_up": 1.0, "axiom_rate_limit_fallbacks_total": 0}

        redis.kill()
        assert sorted(await statuses(one, 4, headers=keyed)) == [404, 404, 404, 429]
        assert "redis" in await degraded(one)
        found = await figures(one)
        assert found["axiom_redis_up"] == 0
        assert found["axiom_rate_limit_fallbacks_total"] > 0

        await redis.start()
        await shared._probe()
        await shared._probe()
        assert "redis" not in await degraded(one)
        assert (await figures(one))["axiom_redis_up"] == 1
        assert (await ask(one, headers=keyed)).status == 429, "what it knows itself still counts"


async def degraded(api: Api) -> dict[str, str]:
    async with api.session.get("/readyz") as response:
        body = await response.json()
    return {reason["component"]: reason["problem"] for reason in body["reasons"]}


async def figures(api: Api) -> dict[str, float]:
    async with api.session.get("/metrics") as response:
        text = await response.text()
    wanted = ("axiom_redis_up", "axiom_rate_limit_fallbacks_total")
    pairs = (line.split() for line in text.splitlines() if line.startswith(wanted))
    return {name: float(value) for name, value in pairs}
