"""Nothing that a frontend sends leads to a request that the table does not name."""

import json
import re
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given, strategies as st

from indexer.core import profile_reader
from indexer.core.partner_request import (
    BODY_BYTES_MAX,
    INTEGER_MAX,
    NUMBER_CHARS_MAX,
    STRING_CHARS_MAX,
    Asked,
    ask,
)
from indexer.core.profile import Profile
from indexer.errors import InvalidInput


TEXT: Final = """
[shop]
base_url = "https://api.shop.example:8443/v1"

[shop.routes.find]
path = "/items/{id}/offers"
headers = { X-HTTP-Method-Override = "GET" }
cache_s = 60
[shop.routes.find.fields]
id = { where = "path" }
q = { upstream_name = "query", least = 1, most = 40 }
word = { least = 2, most = 3 }
"page[limit]" = { type = "integer", least = 1, most = 50, default = 10 }
price = { type = "number", least = 0.5 }
day = { type = "date" }
fresh = { type = "boolean" }
sort = { choices = ["up", "down"] }
code = { pattern = "[A-Z]{3}" }
Accept-Language = { where = "header", pattern = "[A-Za-z,;=.0-9-]+", most = 60 }

[shop.routes.search]
method = "POST"
path = "/search"
content_type = "application/vnd.shop+json"
idempotent = true
[shop.routes.search.fields]
text = { where = "body", upstream_name = "q", required = true }
count = { where = "body", type = "integer" }
ratio = { where = "body", type = "number" }
fresh = { where = "body", type = "boolean" }
filters = { where = "body", type = "json" }
page = { type = "integer" }

[shop.routes.order]
method = "POST"
path = "/orders"
fields.item = { where = "body", required = true }

[shop.routes.ping]
path = "/ping"
"""

[SHOP] = profile_reader.read(TEXT, "shop.toml")
FIND: Final = "https://api.shop.example:8443/v1/items/7/offers?page%5Blimit%5D=10"


def asked(
    name: str,
    *query: tuple[str, str],
    body: Any = None,
    headers: tuple[tuple[str, str], ...] = (),
    profile: Profile = SHOP,
) -> Asked:
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return ask(profile, profile.routes[name], query, raw, headers)


def refusal(name: str, *query: tuple[str, str], **others: Any) -> tuple[str, str]:
    """The field that is at fault, and what is said of it."""
    with pytest.raises(InvalidInput) as caught:
        asked(name, *query, **others)
    return caught.value.field, caught.value.message


def find(name: str, value: str) -> Asked:
    return asked("find", ("id", "7"), (name, value))


# --------------------------------------------------------------------------------- what is sent


def test_a_request_is_made_of_constants_and_values() -> None:
    request = asked("find", ("q", "red shoes"), ("id", "7"), ("fresh", "true"))

    assert request.method == "GET"
    assert request.url == (
        "https://api.shop.example:8443/v1/items/7/offers"
        "?query=red%20shoes&page%5Blimit%5D=10&fresh=true"
    )
    assert request.body is None
    assert request.headers == {"X-HTTP-Method-Override": "GET", "Accept": "application/json"}


def test_a_body_is_written_anew() -> None:
    request = asked("search", body=b' {"count":7,"text":"a\\u00e9", "ratio": 1.50} ')

    assert request.body == b'{"q":"a\\u00e9","count":7,"ratio":1.50}'
    assert request.headers["Content-Type"] == "application/vnd.shop+json"


def test_numbers_go_on_as_they_came() -> None:
    raw = b'{"text":"a","ratio":0.10,"filters":{"n":[1e400,18446744073709551616,-0.0,1E+2]}}'

    assert asked("search", body=raw).body == (
        b'{"q":"a","ratio":0.10,"filters":{"n":[1e400,18446744073709551616,-0.0,1E+2]}}'
    )


def test_a_header_goes_on_only_where_the_table_names_it() -> None:
    given_headers = (
        ("authorization", "Bearer axk_secret"),
        ("cookie", "a=b"),
        ("host", "evil.example"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-http-method-override", "DELETE"),
        ("transfer-encoding", "chunked"),
        ("accept-language", "de-DE,de;q=0.9"),
    )

    assert asked("find", ("id", "7"), headers=given_headers).headers == {
        "X-HTTP-Method-Override": "GET",
        "Accept": "application/json",
        "Accept-Language": "de-DE,de;q=0.9",
    }
    assert (
        "Accept-Language" not in asked("search", body={"text": "a"}, headers=given_headers).headers
    )


def test_what_a_route_accepts_may_be_its_own() -> None:
    route = replace(SHOP.routes["ping"], headers={"accept": "application/hal+json"})

    assert ask(SHOP, route, (), None).headers == {"accept": "application/hal+json"}


def test_a_default_stands_in_for_what_is_not_given() -> None:
    assert asked("find", ("id", "7")).url == FIND
    assert find("page[limit]", "20").url.endswith("?page%5Blimit%5D=20")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page[limit]", "1"),
        ("page[limit]", "50"),
        ("price", "0.5"),
        ("price", "999999999999999.999999999999999"),
        ("word", "ab"),
        ("word", "abc"),
        ("word", "\u00e4\U0001f4a3"),
        ("q", "x" * 40),
        ("day", "2028-02-29"),
        ("sort", "down"),
        ("fresh", "false"),
    ],
)
def test_bounds_are_within(name: str, value: str) -> None:
    upstream = SHOP.routes["find"].fields[name].upstream_name
    query = dict(parse_qsl(urlsplit(find(name, value).url).query))

    assert query[upstream] == value


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("id", "..", "letters"),
        ("id", ".", "letters"),
        ("id", "", "is empty"),
        ("id", "a/b", "letters"),
        ("id", "a%2fb", "letters"),
        ("id", "a\\b", "letters"),
        ("id", "a?b", "letters"),
        ("id", "a#b", "letters"),
        ("id", "user@host", "letters"),
        ("id", "a;b", "letters"),
        ("id", "x" * 65, "letters"),
        ("id", "\uff17", "letters"),
        ("q", "", "is empty"),
        ("word", "a", "2 characters at the least"),
        ("word", "abcd", "4 characters"),
        ("q", "x" * 41, "41 characters"),
        ("q", "a\r\nHost: evil.example", "one line"),
        ("q", "a\0", "one line"),
        ("q", "\ud800", "one line"),
        ("q", "a\u2028b", "one line"),
        ("page[limit]", "0", "1 at the least"),
        ("page[limit]", "51", "50 at the most"),
        ("page[limit]", "1.0", "whole number"),
        ("page[limit]", "07", "whole number"),
        ("page[limit]", "+7", "whole number"),
        ("page[limit]", " 7", "whole number"),
        ("page[limit]", "7\n", "whole number"),
        ("page[limit]", "\u0667", "whole number"),
        ("page[limit]", "1e1", "whole number"),
        ("page[limit]", str(2**64), "whole number"),
        ("price", "NaN", "a number"),
        ("price", "Infinity", "a number"),
        ("price", "0.4", "0.5 at the least"),
        ("price", "1_0", "a number"),
        ("price", "9" * 400, "a number"),
        ("day", "2026-02-30", "a day"),
        ("day", "2026-1-1", "a day"),
        ("day", "20261122", "a day"),
        ("day", "2026-W47-7", "a day"),
        ("fresh", "True", "true or false"),
        ("fresh", "1", "true or false"),
        ("sort", "UP", "one of up, down"),
        ("code", "abc", "must match"),
        ("code", "ABCD", "must match"),
        ("code", "ABC\n", "one line"),
        ("code", "ÀBC", "must match"),
    ],
)
def test_a_value_of_another_form_is_refused(name: str, value: str, why: str) -> None:
    field, message = refusal("find", *({"id": "7"} | {name: value}).items())

    assert field == name
    assert why in message


@pytest.mark.parametrize(
    ("body", "name", "why"),
    [
        (b"[]", "", "must be an object"),
        (b'"text"', "", "must be an object"),
        (b"{", "", "not JSON"),
        (b'{"text":"a","text":"b"}', "", "stands twice"),
        (b'{"text":"a","filters":{"x":1,"\\u0078":2}}', "", "stands twice"),
        (b'{"text":"a","count":NaN}', "", "NaN"),
        (b'{"text":"a","count":-Infinity}', "", "Infinity"),
        (b'\xef\xbb\xbf{"text":"a"}', "", "not JSON"),
        (b'{"text":"\xff"}', "", "not UTF-8"),
        (b'{"text":"\\ud800"}', "text", "one line"),
        (b'{"text":"a\\r\\nb"}', "text", "one line"),
        (b'{"text":12}', "text", "must be a string"),
        (b'{"text":null}', "text", "must be a string"),
        (b'{"text":"a","count":"7"}', "count", "must be a number"),
        (b'{"text":"a","count":true}', "count", "must be a number"),
        (b'{"text":"a","count":18446744073709551616}', "count", "whole number"),
        (b'{"text":"a","count":1.0}', "count", "whole number"),
        (b'{"text":"a","ratio":1e2}', "ratio", "a number"),
        (b'{"text":"a","fresh":1}', "fresh", "must be a boolean"),
        (b'{"text":"a","fresh":"true"}', "fresh", "must be a boolean"),
        (b'{"text":"a","filters":"\\udc00"}', "filters", "Unicode"),
        (b'{"text":"a","filters":{"a\\u0000":1}}', "filters", "NUL"),
        (b'{"text":"a","filters":' + b"9" * 41 + b"}", "filters", "digits"),
        (b'{"text":"a","filters":' + b"[" * 20 + b"]" * 20 + b"}", "", "nested more than"),
        (b'{"text":"a","filters":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "", "nested more than"),
        (b'{"text":"a","page":7}', "page", "no such field"),
        (b'{"text":"a","other":7}', "other", "there are text"),
        (b"{}", "text", "is missing"),
        (b"", "text", "is missing"),
        (b'{"text":"' + b"a" * BODY_BYTES_MAX + b'"}', "", "bytes"),
    ],
)
def test_a_body_of_another_form_is_refused(body: bytes, name: str, why: str) -> None:
    field, message = refusal("search", body=body)

    assert field == name
    assert why in message


def test_a_name_that_nobody_knows_is_refused() -> None:
    assert refusal("find", ("id", "7"), ("debug", "1"))[0] == "debug"
    assert refusal("find", ("id", "7"), ("query", "a"))[0] == "query", "as the partner calls it"
    assert refusal("find", ("id", "7"), ("Accept-Language", "de"))[0] == "Accept-Language"
    assert refusal("search", ("text", "a"))[0] == "text"
    assert refusal("ping", ("a", "b"))[1].endswith("there are none")


def test_an_unknown_name_is_shown_short_and_printable() -> None:
    field, _ = refusal("ping", ("\r\n\u202e" + "x" * 500, "b"))

    assert re.fullmatch(r"[ -~]{1,120}", field)


def test_what_stands_twice_is_refused() -> None:
    assert refusal("find", ("id", "7"), ("id", "8")) == ("id", "stands twice in the query")
    twice = (("accept-language", "de"), ("Accept-Language", "en"))
    assert refusal("find", ("id", "7"), headers=twice)[0] == "Accept-Language"


@pytest.mark.parametrize("value", ["de\r\nX-Evil: 1", "", "dé", "de\t", "a" * 61])
def test_a_header_is_one_line_of_ascii(value: str) -> None:
    assert refusal("find", ("id", "7"), headers=(("accept-language", value),))[0] == (
        "Accept-Language"
    )


def test_a_header_without_a_pattern_is_ascii_all_the_same() -> None:
    fields = dict(SHOP.routes["find"].fields)
    fields["Accept-Language"] = replace(fields["Accept-Language"], pattern=None)
    shop = replace(SHOP, routes={"find": replace(SHOP.routes["find"], fields=fields)})

    for value in ("dé", " de", "de ", "\x7f"):
        headers = (("accept-language", value),)
        assert refusal("find", ("id", "7"), headers=headers, profile=shop)[1].startswith(
            ("must be printable", "has ")
        )


def test_a_body_where_none_belongs_is_refused() -> None:
    assert refusal("ping", body=b"{}") == ("", "this call takes no body")
    assert refusal("find", ("id", "7"), body=b"x") == ("", "this call takes no body")
    assert asked("ping", body=b"").body is None


def test_bounds_that_no_field_sets_are_set_all_the_same() -> None:
    assert asked("search", body={"text": "x" * STRING_CHARS_MAX}).body
    assert refusal("search", body={"text": "x" * (STRING_CHARS_MAX + 1)})[0] == "text"
    assert asked("search", body={"text": "x", "count": -INTEGER_MAX}).body
    assert refusal("search", body={"text": "x", "count": INTEGER_MAX + 1})[0] == "count"
    assert asked("search", body={"text": "x", "filters": 10 ** (NUMBER_CHARS_MAX - 1)}).body
    assert refusal("search", body={"text": "x", "filters": 10**NUMBER_CHARS_MAX})[0] == "filters"


# --------------------------------------------------------------------- what is the same request


def test_equal_questions_have_one_key_and_others_have_others() -> None:
    base = asked("find", ("id", "7"), ("q", "a"))
    same = asked("find", ("q", "a"), ("page[limit]", "10"), ("id", "7"))
    others = [
        asked("find", ("id", "8"), ("q", "a")),
        asked("find", ("id", "7"), ("q", "b")),
        asked("find", ("id", "7"), ("q", "a"), headers=(("accept-language", "de"),)),
        asked("find", ("id", "7"), ("q", "a"), profile=replace(SHOP, name="other")),
        asked("find", ("id", "7"), ("q", "a"), profile=replace(SHOP, base_url="https://b.example")),
        asked("ping"),
    ]

    assert base.key == same.key
    keys = {base.key, *(other.key for other in others)}
    assert len(keys) == len(others) + 1
    assert None not in keys


def test_only_what_may_be_asked_twice_has_a_key() -> None:
    search = replace(SHOP.routes["search"], cache_s=60)

    assert asked("order", body={"item": "a"}).key is None
    assert asked("search", body={"text": "a"}).key is None, "it is not kept"
    keys = [ask(SHOP, search, (), b'{"text":"%s"}' % text).key for text in (b"a", b"b")]
    assert None not in keys
    assert keys[0] != keys[1]


# ------------------------------------------------------------------------------ whatever is sent

#: What has broken out of URLs and headers elsewhere.
NASTY: Final = (
    st.sampled_from(["/", "//", "\\", "//evil.example", "@evil.example", "https://evil.example/"])
    | st.sampled_from(["..", ".", "../", "%2e%2e", "%2f", "{id}", "?", "#", "&x=1", "=", "+", " "])
    | st.sampled_from(["\r\n", "\0", "\ud800", ":", ";", "a", "7"])
)
TEXTS: Final = st.lists(NASTY | st.text(max_size=3), max_size=4).map("".join)
NAMES: Final = st.sampled_from(
    [name for route in SHOP.routes.values() for name in route.fields] + ["x"]
)
JSONS: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(
    name=st.sampled_from(list(SHOP.routes)),
    query=st.lists(st.tuples(NAMES | TEXTS, TEXTS), max_size=4),
    body=st.none() | st.binary(max_size=40) | st.dictionaries(NAMES | TEXTS, JSONS, max_size=4),
    headers=st.lists(st.tuples(st.just("accept-language") | TEXTS, TEXTS), max_size=2),
)
def test_no_input_leaves_the_table(
    name: str,
    query: list[tuple[str, str]],
    body: Any,
    headers: list[tuple[str, str]],
) -> None:
    try:
        request = asked(name, *query, body=body, headers=tuple(headers))
    except InvalidInput:
        return

    stays_inside(name, request)


@given(item=TEXTS, text=TEXTS, limit=TEXTS)
def test_no_value_leaves_its_place(item: str, text: str, limit: str) -> None:
    given_values = [("id", item), ("q", text), ("page[limit]", limit)]
    try:
        request = asked("find", *given_values)
    except InvalidInput:
        return

    stays_inside("find", request)
    sent = dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))
    assert sent == {"query": text, "page[limit]": limit}
    assert urlsplit(request.url).path == f"/v1/items/{item}/offers"


def stays_inside(name: str, request: Asked) -> None:
    """The request goes to the partner, to the route's path, with the route's headers."""
    route = SHOP.routes[name]
    parts = urlsplit(request.url)
    assert f"{parts.scheme}://{parts.netloc}" == "https://api.shop.example:8443"
    assert re.fullmatch(r"[!-~]+", request.url)
    assert not parts.fragment
    segments = unquote(parts.path).split("/")
    template = f"/v1{route.path}".split("/")
    assert len(segments) == len(template)
    assert all(
        is_ == meant or (meant.startswith("{") and re.fullmatch(r"[A-Za-z0-9._~\-]+", is_))
        for is_, meant in zip(segments, template, strict=True)
    )
    assert not {".", "..", ""} & set(segments[1:])
    names = {field.upstream_name for field in route.fields.values()}
    assert {pair[0] for pair in parse_qsl(parts.query, keep_blank_values=True)} <= names
    assert request.method is route.method
    fixed = {"Accept", "Content-Type", *route.headers}
    assert set(request.headers) <= fixed | names
    for header, value in request.headers.items():
        assert re.fullmatch(r"[A-Za-z\-]+", header)
        assert re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", value)
        assert route.headers.get(header, value) == value
    if request.body is not None:
        assert set(json.loads(request.body)) <= names
