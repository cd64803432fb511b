"""A profile says what it allows, or everything that is wrong with it."""

import contextlib
import re
from importlib.resources import files
from ipaddress import ip_network
from typing import Final

import pytest
from hypothesis import given, strategies as st

from indexer.core import profile_reader
from indexer.core.profile import Auth, AuthKind, Field, Kind, Method, Profile, Route, Where
from indexer.core.profile_reader import Faulty, read
from indexer.core.rate import Rate


#: The least that is one.
LEAST: Final = """
[shop]
base_url = "https://api.shop.example"
[shop.routes.find]
path = "/find"
"""


def one(text: str) -> Profile:
    [profile] = read(text, "shop.toml")
    return profile


def route_of(text: str) -> Route:
    """The route of a profile that says this of it."""
    return one(LEAST + text).routes["find"]


def faults(text: str) -> tuple[str, ...]:
    with pytest.raises(Faulty) as caught:
        read(text, "shop.toml")
    return caught.value.problems


def test_the_least_that_may_be_said() -> None:
    assert one(LEAST) == Profile(
        name="shop",
        base_url="https://api.shop.example",
        auth=Auth(kind=AuthKind.NONE, scheme="Bearer"),
        routes={"find": Route(name="find", method=Method.GET, path="/find")},
    )


#: All that may be said, and what it means.
MOST: Final = """
[my-shop]
base_url = "http://10.1.2.3:8080/api/"
rate = "10/1s"
private_networks = ["10.0.0.0/8", "fd00::/8"]
response_bytes_max = 1000
[my-shop.auth]
kind = "oauth2"
token_path = "/oauth/token"
scope = "read:all write"
[my-shop.routes.change]
summary = "Change an item"
method = "PATCH"
path = "/items/{id}"
headers = { X-Mode = "fast" }
content_type = "application/merge-patch+json"
rate = "1/m"
timeout_s = 2.5
response = ["data.id", "data.items.name"]
response_headers = ["X-Total-Count"]
[my-shop.routes.change.fields]
id = { where = "path", pattern = "[0-9]+" }
mode = { upstream_name = "m", choices = ["a", "b"], default = "a" }
count = { where = "body", type = "integer", least = 0, most = 9, default = 3 }
ratio = { where = "body", type = "number", default = 0.5 }
Idempotency-Key = { where = "header", required = true }
[my-shop.routes.off]
path = "/off"
enabled = false
"""
MOST_FIELDS: Final = (
    Field(
        name="id",
        upstream_name="id",
        where=Where.PATH,
        required=True,
        pattern="[0-9]+",
    ),
    Field(
        name="mode",
        upstream_name="m",
        where=Where.QUERY,
        choices=("a", "b"),
        default="a",
    ),
    Field(
        name="count",
        upstream_name="count",
        where=Where.BODY,
        kind=Kind.INTEGER,
        least=0,
        most=9,
        default="3",
    ),
    Field(
        name="ratio",
        upstream_name="ratio",
        where=Where.BODY,
        kind=Kind.NUMBER,
        default="0.5",
    ),
    Field(
        name="Idempotency-Key",
        upstream_name="Idempotency-Key",
        where=Where.HEADER,
        required=True,
    ),
)
MOST_MEANT: Final = Profile(
    name="my-shop",
    base_url="http://10.1.2.3:8080/api",
    auth=Auth(kind=AuthKind.OAUTH2, token_path="/oauth/token", scope="read:all write"),
    rate=Rate(10, 1),
    private_networks=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
    response_bytes_max=1000,
    routes={
        "change": Route(
            name="change",
            method=Method.PATCH,
            path="/items/{id}",
            fields={field.name: field for field in MOST_FIELDS},
            headers={"X-Mode": "fast"},
            content_type="application/merge-patch+json",
            rate=Rate(1, 60),
            timeout_s=2.5,
            idempotent=False,
            response=("data.id", "data.items.name"),
            response_headers=("x-total-count",),
            summary="Change an item",
        )
    },
)


def test_all_that_may_be_said() -> None:
    assert one(MOST) == MOST_MEANT


@pytest.mark.parametrize(
    ("said", "method", "idempotent"),
    [
        ("", Method.GET, True),
        ('method = "PUT"', Method.PUT, True),
        ('method = "DELETE"', Method.DELETE, True),
        ('method = "POST"', Method.POST, False),
        ('method = "PATCH"', Method.PATCH, False),
        ('method = "POST"\nidempotent = true', Method.POST, True),
        ('method = "PUT"\nidempotent = false', Method.PUT, False),
    ],
)
def test_what_may_be_done_twice_is_as_http_says_or_the_profile(
    said: str, method: Method, idempotent: bool
) -> None:
    route = route_of(said)

    assert (route.method, route.idempotent) == (method, idempotent)


def test_a_key_stands_alone_in_a_header_that_is_made_for_it() -> None:
    bearer = one(LEAST + '[shop.auth]\nkind = "key"').auth
    own = one(LEAST + '[shop.auth]\nkind = "key"\nheader = "X-Api-Key"').auth
    said = one(LEAST + '[shop.auth]\nkind = "key"\nheader = "X-Api-Key"\nscheme = "Key"').auth

    assert (bearer.header, bearer.scheme) == ("Authorization", "Bearer")
    assert (own.header, own.scheme) == ("X-Api-Key", "")
    assert (said.header, said.scheme) == ("X-Api-Key", "Key")


def test_one_file_may_hold_several() -> None:
    assert [p.name for p in read(LEAST + LEAST.replace("shop]", "b]").replace("shop.r", "b.r"), "")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "shop.toml: must hold 1 to 32 profiles"),
        ("[shop", "shop.toml: is no TOML: "),
        ("n = " + "9" * 5_000, "shop.toml: is no TOML: "),
        ("n = " + "[" * 5_000, "shop.toml: is no TOML: nested too deeply"),
        ("#" * 1_048_577, "shop.toml: is larger than 1048576 bytes"),
        ("shop = 1", "shop.toml: shop: Expected `object`"),
        ("[shop]", "shop: Object missing required field `base_url`"),
        ('[shop]\nbase_url = "https://a"', "shop.routes: there must be 1 to 200"),
        (LEAST.replace("shop", "Shop"), "'Shop': is no name"),
        (LEAST.replace("shop", "my_shop"), "'my_shop': is no name"),
        (LEAST.replace("find", "Find"), "shop.routes.Find: is no name"),
        (LEAST.replace("https://api.shop.example", "x"), "shop.base_url: must be a scheme"),
        (LEAST.replace("https", "http"), "shop.base_url: must begin with https://"),
        (LEAST + "[shop.auth]\nkinds = 1", "shop.auth: Object contains unknown field `kinds`"),
        (LEAST + '[shop.auth]\nsecret = "s3cr3t"', "shop.auth: Object contains unknown field"),
        (LEAST + '[shop.auth]\nkind = "basic"', "shop.auth: Invalid enum value 'basic'"),
        (LEAST + '[shop.auth]\nkind = "oauth2"', "shop.auth: token_path"),
        (LEAST + 'rate = "fast"', "shop.routes.find.rate: 'fast' is no rate"),
        (LEAST + "cache = 3", "shop.routes.find: Object contains unknown field `cache`"),
        (LEAST + 'cache_s = "3"', "shop.routes.find: Expected `int`, got `str`"),
        (LEAST + 'method = "HEAD"', "shop.routes.find: Invalid enum value 'HEAD'"),
        (LEAST + "cache_s = 99999999999999999999", "shop.routes.find: "),
        (LEAST + "fields.a = 1", "shop.routes.find.fields.a: Expected `object`"),
        (LEAST + "fields.a = { max = 3 }", "fields.a: Object contains unknown field `max`"),
        (LEAST + "fields.a = { type = 'float' }", "fields.a: Invalid enum value 'float'"),
        (LEAST + "fields.a = { default = 2026-01-01 }", "shop.routes.find.fields.a: Expected"),
        (LEAST + "fields.a = { default = 3 }", "fields.a.default: must be a string"),
        (LEAST + "fields.a = { type = 'integer', default = 1.5 }", "a.default: must be a whole"),
        (LEAST + "fields.a = { type = 'number', default = nan }", "a.default: nan is no number"),
        (LEAST + "fields.a = { type = 'integer', most = 3, default = 4 }", "a.default: must be 3"),
        (LEAST + "fields.a = { pattern = '[', default = 'x' }", "a: pattern: "),
        (LEAST + "fields.a = { choices = ['b', ''] }", "a.choices: '' is empty"),
        (LEAST + "fields.a = { choices = ['b', 'C'], pattern = '[a-z]' }", "choices: 'C' must mat"),
        (LEAST + "fields.a = { type = 'integer', choices = ['1', '01'] }", "'01' must be a whole"),
        (LEAST + "fields.a = { type = 'number', choices = ['1e2'] }", "'1e2' must be a number"),
        (
            LEAST + "fields.a = { type = 'date', choices = ['2026-02-30'] }",
            "'2026-02-30' must be a",
        ),
        (
            LEAST.replace("[shop.r", "private_networks = ['10.0.0.1/8']\n[shop.r", 1),
            "shop.private_networks: '10.0.0.1/8' is no network",
        ),
        (
            LEAST.replace("[shop.r", "response_bytes_max = 99999999\n[shop.r", 1),
            "shop.response_bytes_max: must be 1 to 16777216",
        ),
        (
            LEAST + "[shop.auth]\nkind='key'\nheader='X-Key'\n[shop.routes.b]\npath='/b'\n"
            "headers = { x-key = '1' }",
            "shop.routes.b: X-Key is what proves who asks",
        ),
        (
            LEAST + "[shop.auth]\nkind='key'\nheader='X-Key'\n[shop.routes.b]\npath='/b'\n"
            "fields.x-key = { where = 'header' }",
            "shop.routes.b: X-Key is what proves who asks",
        ),
        (LEAST + "".join(f"fields.f{n} = {{}}\n" for n in range(101)), "fields: there may be 100"),
        (
            "".join(f'[a{n}]\nbase_url="https://a"\nroutes.x.path="/"\n' for n in range(33)),
            "must hold 1 to 32 profiles",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, problem: str) -> None:
    found = faults(text)

    assert any(problem in each for each in found), found
    assert all(each.startswith("shop.toml: ") for each in found)
    assert all(len(each) < 400 for each in found)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = faults("""
[shop]
base_url = "ftp://a"
rate = "0/s"
[shop.routes.find]
path = "find"
cache_s = -1
fields.a = { type = "json" }
fields.b = { least = 2, most = 1 }
[other]
""")

    places = [re.sub(r"shop.toml: ([^:]+): .*", r"\1", each) for each in found]
    assert places == [
        "shop.base_url",
        "shop.routes.find.fields.a",
        "shop.routes.find.fields.b",
        "shop.routes.find",
        "shop.routes.find",
        "shop.rate",
        "other",
    ]


def test_a_call_that_is_switched_off_is_none() -> None:
    profile = one(LEAST + '[shop.routes.book]\npath = "/book"\nmethod = "POST"\nenabled = false')

    assert list(profile.routes) == ["find"]


def test_the_shipped_profile_books_nothing() -> None:
    text = files("indexer.partners").joinpath("amadeus.toml").read_text()
    [amadeus] = read(text, "amadeus")

    assert set(amadeus.routes) == {
        "locations",
        "location",
        "flight-offers",
        "flight-search",
        "hotels-by-city",
        "hotel-offers",
    }
    assert amadeus.auth.kind is AuthKind.OAUTH2
    assert amadeus.base_url == "https://test.api.amadeus.com"
    for route in amadeus.routes.values():
        assert route.idempotent, route.name
        assert "booking" not in route.path
        assert route.response
        assert not [
            path for path in route.response if path.split(".")[:2] in (["meta"], ["meta", "links"])
        ]
    assert amadeus.routes["flight-search"].headers == {"X-HTTP-Method-Override": "GET"}
    [booking] = set(read(text.replace("enabled = false", ""), "amadeus")[0].routes) - set(
        amadeus.routes
    )
    assert booking == "flight-orders"


@given(st.text(max_size=60) | st.text(alphabet="[]{}=.\"'\n a1#", max_size=60))
def test_any_text_is_a_profile_or_faulty(text: str) -> None:
    with contextlib.suppress(Faulty):
        assert read(text, "any")


def test_bounds_are_those_that_are_told() -> None:
    assert profile_reader.TEXT_BYTES_MAX == 1024 * 1024
    assert len(one(LEAST + "".join(f"fields.f{n} = {{}}\n" for n in range(100))).routes) == 1
