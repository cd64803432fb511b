"""A profile cannot say what would open a way past it."""

from dataclasses import replace
from typing import Any, Final

import pytest

from indexer.core.profile import Auth, AuthKind, Field, Kind, Method, Route, Where
from indexer.core.profile_checks import (
    CACHE_S_MAX,
    STRING_CHARS_LIMIT,
    TIMEOUT_S_MAX,
    auth_problems,
    field_problems,
    headers_sent,
    route_problems,
    url_problems,
)


ROUTE: Final = Route(name="find", method=Method.GET, path="/find")


def field(name: str = "a", where: Where = Where.QUERY, **values: Any) -> Field:
    return Field(**({"name": name, "upstream_name": name, "where": where} | values))


def route(*fields: Field, **values: Any) -> Route:
    return replace(ROUTE, fields={each.name: each for each in fields}, **values)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example",
        "https://api.example/",
        "https://api.example:8443/v1/x",
        "https://[2001:db8::1]:8443",
        "https://203.0.113.7",
        "https://api.example/a..b/~c",
    ],
)
def test_an_address_is_a_scheme_a_host_and_a_path(url: str) -> None:
    assert not list(url_problems(url, may_be_http=False))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example",
        "//api.example",
        "ftp://api.example",
        "https://",
        "https:///path",
        "https://user:word@api.example",
        "https://user@api.example",
        "https://:word@api.example",
        "https://api.example:0",
        "https://api.example:99999",
        "https://api.example:port",
        "https://api.example?x=1",
        "https://api.example/#x",
        "https://api.example/a//b",
        "https://api.example/../b",
        "https://api.example/a/..",
        "https://api.example/./a",
        "https://api.example/%2e%2e/a",
        "https://api.example/a\\b",
        "https://api.example/a b",
        "https://api.example\n",
        "https://api.example\r\nHost: evil",
        "https://ex\u00e4mple",
        "https://[::1",
        "HTTPS://api.example",
    ],
)
def test_any_other_address_is_refused(url: str) -> None:
    assert list(url_problems(url, may_be_http=True)) == [
        "must be a scheme, a host and at most a path"
    ]


def test_an_address_without_tls_is_for_networks_of_our_own() -> None:
    assert not list(url_problems("http://10.0.0.1", may_be_http=True))
    assert "https://" in next(url_problems("http://10.0.0.1", may_be_http=False))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"token_path": "/token"}, "token_path"),
        ({"kind": AuthKind.KEY, "token_path": "/token"}, "token_path"),
        ({"kind": AuthKind.OAUTH2}, "token_path"),
        ({"kind": AuthKind.OAUTH2, "token_path": "token"}, "token_path"),
        ({"kind": AuthKind.OAUTH2, "token_path": "//evil.example/token"}, "token_path"),
        ({"kind": AuthKind.OAUTH2, "token_path": "/a/../token"}, "token_path"),
        ({"kind": AuthKind.OAUTH2, "token_path": "/token?x=1"}, "token_path"),
        ({"kind": AuthKind.OAUTH2, "token_path": "/{token}"}, "token_path"),
        ({"kind": AuthKind.OAUTH2, "token_path": "/t", "scope": "a\r\nb"}, "scope"),
        ({"kind": AuthKind.KEY, "scope": "read"}, "scope"),
        ({"header": "Host"}, "header"),
        ({"header": "Cookie"}, "header"),
        ({"header": "X Key"}, "header"),
        ({"header": "X-Key:"}, "header"),
        ({"header": ""}, "header"),
        ({"scheme": "Two words"}, "scheme"),
        ({"scheme": "B\n"}, "scheme"),
    ],
)
def test_a_proof_of_another_form_is_refused(values: dict[str, Any], problem: str) -> None:
    [found] = auth_problems(Auth(**values))

    assert found.startswith(problem)


def test_a_proof_may_be_a_key_in_any_header_or_a_token() -> None:
    for auth in (
        Auth(),
        Auth(kind=AuthKind.KEY),
        Auth(kind=AuthKind.KEY, header="X-Api-Key", scheme=""),
        Auth(kind=AuthKind.OAUTH2, token_path="/v1/oauth2/token", scope="a b:c"),
    ):
        assert not list(auth_problems(auth))


@pytest.mark.parametrize("path", ["/a", "/v1/a-b_c.d~e/", "/a:search", "/a..b/.c"])
def test_a_path_is_segments(path: str) -> None:
    assert not list(route_problems(route(path=path)))


#: By which a path would be another one than it seems.
STRANGE_PATHS: Final = """
a
//a
/a//b
/..
/../a
/a/./b
/a/..
/a?b
/a#b
/%2e
/a\\b
/a@b
https://evil.example/a
/a{
/a}
/{
/\u00e4
"""


@pytest.mark.parametrize("path", ["", "/", "/a\n", "/a b", *STRANGE_PATHS.split()])
def test_a_path_of_another_form_is_refused(path: str) -> None:
    assert any("path must begin with /" in each for each in route_problems(route(path=path)))


def test_the_places_of_a_path_are_its_fields() -> None:
    of_path = field("id", Where.PATH)

    assert not list(route_problems(route(of_path, path="/a/{id}")))
    for wrong in (
        route(of_path, path="/a"),
        route(path="/a/{id}"),
        route(field("id"), path="/a/{id}"),
        route(of_path, path="/a/{id}/{id}"),
        route(of_path, path="/a/{ID}"),
    ):
        assert any("places" in each for each in route_problems(wrong))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (route(field("b", Where.BODY)), "a GET has no body"),
        (route(cache_s=-1), "cache_s must be"),
        (route(cache_s=CACHE_S_MAX + 1), "cache_s must be"),
        (route(method=Method.POST, idempotent=False, cache_s=1), "cache_s is for"),
        (route(method=Method.PUT, cache_s=1), "cache_s is for"),
        (route(method=Method.DELETE, cache_s=1), "cache_s is for"),
        (route(idempotent=False), "a GET is idempotent"),
        (route(timeout_s=0.0), "timeout_s"),
        (route(timeout_s=TIMEOUT_S_MAX + 1), "timeout_s"),
        (route(timeout_s=float("nan")), "timeout_s"),
        (route(timeout_s=float("inf")), "timeout_s"),
        (route(content_type="text/plain"), "content_type"),
        (route(content_type="application/json\r\nX: 1"), "content_type"),
        (route(content_type="application/x+json; charset=utf-16"), "content_type"),
        (route(response=("",)), "response"),
        (route(response=("a..b",)), "response"),
        (route(response=(".a",)), "response"),
        (route(response=("a.*",)), "response"),
        (route(response=(".".join("a" * 17),)), "response"),
        (route(field("a"), field("b", upstream_name="a")), "2 fields are a in the query"),
        (route(headers={"Authorization": "Bearer x"}), "headers: 'Authorization'"),
        (route(headers={"host": "evil.example"}), "headers: 'host'"),
        (route(headers={"Content-Length": "0"}), "headers: 'Content-Length'"),
        (route(headers={"X-A:": "x"}), "headers: 'X-A:'"),
        (route(headers={"X-A": "a\r\nX-B: b"}), "headers: the value of 'X-A'"),
        (route(headers={"X-A": ""}), "headers: the value of 'X-A'"),
        (route(headers={"X-A": " a"}), "headers: the value of 'X-A'"),
        (route(headers={"X-A": "a", "x-a": "b"}), "the header x-a stands there twice"),
        (route(field("X-A", Where.HEADER), headers={"x-a": "b"}), "the header x-a stands"),
        (route(field("Cookie", Where.HEADER)), "fields: cookie"),
        (route(field("a", Where.HEADER, upstream_name="Host")), "fields: host"),
        (route(field("X-HTTP-Method-Override", Where.HEADER)), "fields: x-http-method-override"),
        (
            route(field("a", Where.HEADER), field("A", Where.HEADER, upstream_name="B")),
            "the header a stands there twice",
        ),
        (route(response_headers=("set-cookie",)), "response_headers: 'set-cookie'"),
        (route(response_headers=("location",)), "response_headers: 'location'"),
        (route(response_headers=("content-type",)), "response_headers: 'content-type'"),
        (route(response_headers=("access-control-allow-origin",)), "response_headers: "),
        (route(response_headers=("content-security-policy",)), "response_headers: "),
        (route(response_headers=("cache-status",)), "response_headers: "),
        (route(response_headers=("x y",)), "response_headers: 'x y'"),
    ],
)
def test_a_route_of_another_form_is_refused(changed: Route, problem: str) -> None:
    found = list(route_problems(changed))

    assert len(found) == 1, found
    assert found[0].startswith(problem)


def test_what_a_route_may_say() -> None:
    search = route(
        field("q", Where.BODY),
        field("q2", Where.QUERY, upstream_name="q"),
        field("Accept-Language", Where.HEADER),
        method=Method.POST,
        cache_s=CACHE_S_MAX,
        timeout_s=TIMEOUT_S_MAX,
        content_type="application/vnd.shop.v2+json",
        headers={"X-HTTP-Method-Override": "GET", "Accept": "application/json"},
        response=("data", "meta.a-b.$c.@d"),
        response_headers=("x-total-count", "etag"),
    )

    assert not list(route_problems(search))
    assert sorted(headers_sent(search)) == ["accept", "accept-language", "x-http-method-override"]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (field("1a"), "'1a' is no name of a field"),
        (field("a" * 65), "'aaa"),
        (field("a\r\n"), "'a\\r\\n' is no name"),
        (field("a", upstream_name="b&c"), "'b&c' is no name"),
        (field("a_b", Where.HEADER), "'a_b' is no name"),
        (field("a", Where.HEADER, upstream_name="a b"), "'a b' is no name"),
        (field(kind=Kind.JSON), "json belongs into a body"),
        (field(kind=Kind.INTEGER, pattern="[0-9]"), "a pattern is for strings"),
        (field(pattern="["), "pattern: "),
        (field(pattern="(?P<a>x)(?P<a>y)"), "pattern: "),
        (field(kind=Kind.BOOLEAN, choices=("true",)), "choices are for"),
        (field(kind=Kind.DATE, least=1), "least and most are for"),
        (field(kind=Kind.BOOLEAN, most=1), "least and most are for"),
        (field(kind=Kind.NUMBER, least=float("nan")), "least and most must be numbers"),
        (field(kind=Kind.INTEGER, most=float("inf")), "least and most must be numbers"),
        (field(kind=Kind.NUMBER, least=2, most=1), "least is more than most"),
        (field(least=2, most=1), "least is more than most"),
        (field(most=0), "least and most of a string"),
        (field(most=1.5), "least and most of a string"),
        (field(most=STRING_CHARS_LIMIT + 1), "least and most of a string"),
    ],
)
def test_a_field_of_another_form_is_refused(changed: Field, problem: str) -> None:
    found = list(field_problems(changed))

    assert len(found) == 1, found
    assert found[0].startswith(problem)


def test_what_a_field_may_say() -> None:
    for good in (
        field("page[limit]", kind=Kind.INTEGER, least=-5, most=5, choices=("1", "2")),
        field("a.b-c_D", least=1, most=STRING_CHARS_LIMIT, pattern="[a-z]+", choices=("a",)),
        field(kind=Kind.DATE, pattern="2026-.*"),
        field("a", Where.BODY, kind=Kind.JSON),
        field("X-Key", Where.HEADER, kind=Kind.BOOLEAN),
        field(kind=Kind.NUMBER, least=0.5, most=0.5),
    ):
        assert not list(field_problems(good)), good
