"""Who may call what: the whole table, by hand, and every row of it tried over HTTP.

It stands here a second time on purpose. A route that is new, or whose rule has changed, fails
until somebody has written down who is meant to call it.
"""

import itertools
from typing import Final

import pytest

from api.auth import PUBLIC, Access, needs, shows_more_with
from api.routes import CALLS
from store.keys import SCOPES
from tests.api.running import Api, make_key


RULES: Final = {
    "POST /api/pay": needs("payments:write"),
    "GET /api/pay": needs("payments:read"),
    "POST /api/pay/{id}/cancel": needs("payments:write"),
    "GET /api/sse/events": needs("payments:read"),
    # Whoever knows the id may see the payment; who has the scope also what is the merchant's.
    "GET /api/pay/{id}": shows_more_with("payments:read"),
    "GET /api/pay/{id}/qr.svg": PUBLIC,
    "GET /api/sse/payments/{id}": PUBLIC,
    # Whoever knocks shows a secret that is no API key.
    "POST /api/webhooks/helius": PUBLIC,
    "POST /api/webhooks/quicknode": PUBLIC,
    "POST /api/webhooks/paymob": PUBLIC,
    "GET /api/webhooks/paymob": PUBLIC,
    "GET /api/webhooks/events": needs("ops"),
    "GET /api/webhooks/events/{id}": needs("ops"),
    "POST /api/webhooks/events/{id}/retry": needs("ops"),
    "GET /api/webhooks/endpoints": needs("webhooks"),
    "POST /api/webhooks/endpoints": needs("webhooks"),
    "GET /api/webhooks/endpoints/{id}": needs("webhooks"),
    "DELETE /api/webhooks/endpoints/{id}": needs("webhooks"),
    "POST /api/webhooks/endpoints/{id}/rotate": needs("webhooks"),
    "POST /api/webhooks/endpoints/{id}/enable": needs("webhooks"),
    "POST /api/webhooks/endpoints/{id}/disable": needs("webhooks"),
    "POST /api/webhooks/endpoints/{id}/test": needs("webhooks"),
    "GET /api/webhooks/endpoints/{id}/deliveries": needs("webhooks"),
    "POST /api/webhooks/endpoints/{id}/redeliver": needs("webhooks"),
    "GET /api/webhooks/deliveries/{id}": needs("webhooks"),
    "POST /api/webhooks/deliveries/{id}/redeliver": needs("webhooks"),
    "GET /api/proxy/{upstream}/{route}": needs("proxy"),
    "POST /api/proxy/{upstream}/{route}": needs("proxy"),
    "PUT /api/proxy/{upstream}/{route}": needs("proxy"),
    "PATCH /api/proxy/{upstream}/{route}": needs("proxy"),
    "DELETE /api/proxy/{upstream}/{route}": needs("proxy"),
    "GET /api/openapi.json": PUBLIC,
    "GET /livez": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
}

UNKNOWN_ID: Final = "pay_" + "0" * 26

REQUIRED: Final = sorted(name for name, rule in RULES.items() if rule.required)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def path_of(route: str) -> str:
    path = route.split()[1]
    return path.replace("{id}", UNKNOWN_ID).replace("{upstream}", "amadeus").replace("{route}", "x")


def methods_of(route: str) -> tuple[str, ...]:
    """A HEAD is a GET without the body, but for streams, which have none."""
    method, path = route.split()
    return ("GET", "HEAD") if method == "GET" and "/sse/" not in path else (method,)


def test_the_table_is_that_of_the_routes() -> None:
    assert {f"{call.method} {call.path}": call.access for call in CALLS} == RULES
    assert all(isinstance(rule, Access) for rule in RULES.values())


def test_every_scope_opens_something_and_exists() -> None:
    assert {rule.scope for rule in RULES.values()} == SCOPES | {None}


@pytest.mark.parametrize("route", REQUIRED)
async def test_only_a_key_with_the_scope_passes(api: Api, route: str) -> None:
    """Neither no key, nor one of another kind, nor one with all the other scopes."""
    scope = RULES[route].scope
    assert scope is not None
    others = await make_key(api.database, "others", *(SCOPES - {scope}))
    right = await make_key(api.database, "right", scope)
    tries: list[tuple[dict[str, str], int]] = [
        ({}, 401),
        ({"Authorization": "Bearer axk_unknown"}, 401),
        ({"Authorization": right["Authorization"][:-1]}, 401),
        ({"Authorization": right["Authorization"].removeprefix("Bearer ")}, 401),
        ({"X-API-Key": right["Authorization"].removeprefix("Bearer ")}, 401),
        ({"Cookie": f"Authorization={right['Authorization']}"}, 401),
        (others, 403),
    ]
    for (headers, status), method in itertools.product(tries, methods_of(route)):
        async with api.session.request(method, path_of(route), headers=headers) as response:
            assert response.status == status, (method, headers)
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            if method != "HEAD":
                problem = await response.json(content_type="application/problem+json")
                assert status == 401 or scope in problem["detail"]
    for method in methods_of(route):
        async with api.session.request(method, path_of(route), headers=right) as response:
            assert response.status not in (401, 403)


async def test_a_key_in_the_url_is_none(api: Api) -> None:
    """It would stand in the logs of everyone on the way."""
    token = api.reader["Authorization"].removeprefix("Bearer ")
    for name in ("key", "api_key", "access_token", "authorization"):
        assert (await api.get(f"/api/pay?{name}={token}"))[0] == 401


@pytest.mark.parametrize("route", sorted(RULES.keys() - set(REQUIRED)))
async def test_what_is_for_everyone_asks_for_no_key(api: Api, route: str) -> None:
    for method in methods_of(route):
        async with api.session.request(method, path_of(route)) as response:
            assert response.status not in (401, 403), method


async def test_a_method_that_is_not_in_the_table_reaches_nothing(api: Api) -> None:
    everything = await make_key(api.database, "everything", *SCOPES)
    served = {(method, route.split()[1]) for route in RULES for method in methods_of(route)}
    for path, method in itertools.product({route.split()[1] for route in RULES}, METHODS):
        if (method, path) in served:
            continue
        async with api.session.request(method, path_of(f"- {path}"), headers=everything) as refused:
            assert refused.status == 405, (method, path)
            allowed = set(refused.headers["Allow"].split(", "))
            assert allowed == {m for m, p in served if p == path}


async def test_who_lacks_the_scope_does_not_learn_whether_an_id_exists(api: Api) -> None:
    payment = await api.create()
    others = await make_key(api.database, "others", *(SCOPES - {"payments:write"}))

    answers = [
        await api.post(f"/api/pay/{id_}/cancel", others) for id_ in (payment["id"], UNKNOWN_ID)
    ]

    assert answers[0] == answers[1]
    assert answers[0][0] == 403
