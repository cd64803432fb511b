from typing import Any

import pytest
from starlette.requests import Request

from api.auth import PUBLIC, Access, Gate, needs, shows_more_with
from api.errors import Problem
from api.limits import KEY_CACHE_ENTRIES_MAX, KEY_CACHE_S
from api.routes import CALLS
from store import keys
from tests.api.running import NOW, Api, Clock, make_key


def request(header: str | None) -> Request:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    return Request({"type": "http", "headers": headers})


async def admit(api: Api, header: str | None, access: Access) -> str | None:
    key = await Gate(api.database, Clock()).admit(request(header), access)
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
    gate = Gate(api.database, clock)
    asked: dict[str, Any] = {"access": needs("payments:read")}
    assert await gate.admit(request(api.reader["Authorization"]), **asked)
    await keys.revoke(api.database, "reader", NOW)

    clock.now = KEY_CACHE_S
    with pytest.raises(Problem):
        await gate.admit(request(api.reader["Authorization"]), **asked)


async def test_a_new_key_works_at_once(api: Api) -> None:
    gate = Gate(api.database, Clock())
    header = "Bearer " + keys.new_key(b"late".ljust(32, b"."))
    with pytest.raises(Problem):
        await gate.admit(request(header), needs("ops"))

    made = await make_key(api.database, "late", "ops")

    assert made["Authorization"] == header
    assert await gate.admit(request(header), needs("ops"))


async def test_the_cache_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.auth.KEY_CACHE_ENTRIES_MAX", 2)
    gate = Gate(api.database, Clock())
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
