from typing import Any

import pytest
from starlette.requests import Request

from api.auth import PUBLIC, Access, Gate, needs, shows_more_with
from api.errors import Problem
from api.limits import KEY_CACHE_ENTRIES_MAX, KEY_CACHE_S
from api.routes import CALLS
from indexer.core.rate import Rate
from store import keys
from tests.api.running import NOW, Api, Clock, make_key


def request(header: str | None) -> Request:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    return Request({"type": "http", "headers": headers})


async def admit(api: Api, header: str | None, access: Access) -> str | None:
    key = await Gate(api.database, api.clock, Clock()).admit(request(header), access)
    return None if key is None else key.id


async def status(api: Api, header: str | None, access: Access) -> int:
    with pytest.raises(Problem) as refused:
        await admit(api, header, access)
    return refused.value.status


async def test_a_key_with_the_scope_is_admitted(api: Api) -> None:
    header = api.reader["Authorization"]

    assert await admit(api, header, needs("payments:read")) == "key_reader"
    assert await admit(api, header.replace("Bearer", "bearer "), needs("payments:read"))
    assert await admit(api, header, shows_more_with("payments:read")) == "key_reader"


async def test_a_key_without_the_scope_is_forbidden(api: Api) -> None:
    header = api.reader["Authorization"]

    assert await status(api, header, needs("payments:write")) == 403
    assert await admit(api, header, shows_more_with("payments:write")) is None


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer axk_unknown", "Basic eDp5", "Bearer  x y", "Bearer axk_é"]
)
async def test_an_invalid_key_is_refused_wherever_keys_mean_something(
    api: Api, header: str
) -> None:
    assert await status(api, header, needs("payments:read")) == 401
    assert await status(api, header, shows_more_with("payments:read")) == 401
    assert await admit(api, header, PUBLIC) is None


async def test_no_key_is_refused_only_where_one_is_needed(api: Api) -> None:
    assert await status(api, None, needs("payments:read")) == 401
    assert await admit(api, None, shows_more_with("payments:read")) is None


async def test_a_revoked_key_is_refused_within_the_cache_time(api: Api) -> None:
    clock = Clock(0.0)
    gate = Gate(api.database, api.clock, clock)
    asked: dict[str, Any] = {"access": needs("payments:read")}
    assert await gate.admit(request(api.reader["Authorization"]), **asked)
    await keys.revoke(api.database, "reader", NOW)

    clock.now = KEY_CACHE_S
    with pytest.raises(Problem):
        await gate.admit(request(api.reader["Authorization"]), **asked)


@pytest.mark.parametrize("is_known", [True, False])
async def test_an_expired_key_is_refused_like_an_unknown_one(api: Api, is_known: bool) -> None:
    """At the second, also while the gate remembers that it was good."""
    header = (await make_key(api.database, "ending", "ops", expires_at=NOW + 60))["Authorization"]
    gate = Gate(api.database, api.clock, Clock())
    if is_known:
        api.clock.now = NOW + 59.9
        assert await gate.admit(request(header), needs("ops"))

    api.clock.now = NOW + 60
    with pytest.raises(Problem) as refused:
        await gate.admit(request(header), needs("ops"))
    with pytest.raises(Problem) as unknown:
        await gate.admit(request("Bearer axk_unknown"), needs("ops"))

    assert (refused.value.status, refused.value.detail) == (401, unknown.value.detail)
    assert gate._known == {}


async def test_a_key_says_its_rate_and_its_end(api: Api) -> None:
    key = keys.new_key(b"partner".ljust(32, b"."))
    rate = Rate(100, 10)
    await keys.create(
        api.database,
        "partner",
        ["proxy"],
        key=key,
        id="key_partner",
        now=NOW,
        expires_at=NOW + 60,
        rate=rate,
    )

    for _ in range(2):
        admitted = await api.app.state.context.gate.admit(request(f"Bearer {key}"), needs("proxy"))
        assert (admitted.rate, admitted.expires_at) == (rate, NOW + 60)


async def test_a_key_is_changed_for_another_without_a_pause(api: Api) -> None:
    """The new one is good before the old one ends, and a merchant's data is the same to both."""
    old = await make_key(api.database, "shop", "payments:read")
    new = await make_key(api.database, "shop-2", "payments:read")
    gate = Gate(api.database, api.clock, Clock())
    asked = needs("payments:read")
    for headers in (old, new):
        assert await gate.admit(request(headers["Authorization"]), asked)

    assert await keys.revoke(api.database, "shop", NOW)

    gate = Gate(api.database, api.clock, Clock())
    assert await gate.admit(request(new["Authorization"]), asked)
    with pytest.raises(Problem):
        await gate.admit(request(old["Authorization"]), asked)


async def test_a_new_key_works_at_once(api: Api) -> None:
    gate = Gate(api.database, api.clock, Clock())
    header = "Bearer " + keys.new_key(b"late".ljust(32, b"."))
    with pytest.raises(Problem):
        await gate.admit(request(header), needs("ops"))

    made = await make_key(api.database, "late", "ops")

    assert made["Authorization"] == header
    assert await gate.admit(request(header), needs("ops"))


async def test_the_cache_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.auth.KEY_CACHE_ENTRIES_MAX", 2)
    gate = Gate(api.database, api.clock, Clock())
    for number in range(4):
        made = await make_key(api.database, f"n{number}", "ops")
        await gate.admit(request(made["Authorization"]), needs("ops"))

    assert len(gate._known) == 2
    assert KEY_CACHE_ENTRIES_MAX > 2


def url(path: str) -> str:
    return path.replace("{id}", "pay_" + "0" * 26)


async def test_every_route_that_needs_a_scope_asks_for_it(api: Api) -> None:
    """Over HTTP: without a key 401, with every other scope 403, with an unknown key 401."""
    for call in CALLS:
        if not call.access.required:
            continue
        others = await make_key(api.database, call.name, *(keys.SCOPES - {call.access.scope or ""}))
        for headers, expected in (
            ({}, 401),
            ({"Authorization": "Bearer axk_unknown"}, 401),
            (others, 403),
        ):
            async with api.session.request(
                call.method, url(call.path), headers=headers
            ) as response:
                assert response.status == expected, (call.name, headers)
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
                problem = await response.json(content_type=None)
                assert expected == 401 or call.access.scope in problem["detail"]


async def test_every_route_without_a_rule_for_keys_answers_without_one(api: Api) -> None:
    for call in CALLS:
        if call.access.required:
            continue
        async with api.session.request(call.method, url(call.path)) as response:
            assert response.status not in (401, 403), call.name


def test_every_rule_names_a_scope_that_exists() -> None:
    assert {call.access.scope for call in CALLS} <= keys.SCOPES | {None}
    # Whoever sends webhooks has no key of ours, but a secret that his door asks for.
    assert {c.path for c in CALLS if c.method == "POST" and not c.access.required} == {
        "/api/webhooks/helius",
        "/api/webhooks/quicknode",
        "/api/webhooks/paymob",
    }
