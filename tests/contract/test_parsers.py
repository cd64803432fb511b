"""Whatever text comes from outside is read, or refused as its parser says it refuses: never else.

And what the description publishes as a pattern is what the parser accepts.
"""

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import pytest
from hypothesis import example, given, settings, strategies as st
from starlette.datastructures import QueryParams
from starlette.requests import Request

from api import deliveries, filters, stream, webhook_events
from api.callers import NOBODY, caller_address, full_address
from api.doors import TurnedAway, check_helius, quicknode_claim
from api.errors import Problem
from api.filters import Parser
from api.hosts import host_of
from api.idempotency import key_of
from api.limits import IDEMPOTENCY_KEY_LENGTH_MAX
from api.schema import IDEMPOTENCY_KEY_SCHEMA, KEY_SCHEMA, NewPaymentBody, line_schema
from indexer import parsers
from indexer.cli import typed
from indexer.core.account import is_key
from indexer.core.amounts import parse_amount
from indexer.core.partner_request import ask
from indexer.core.profile_reader import Faulty, read as read_profiles
from indexer.core.rate import parse_rate
from indexer.core.receiver import check_url
from indexer.core.texts import check_line
from indexer.core.types import AMOUNT_MAX, Provider
from indexer.errors import InvalidInput
from tests.api.running import NOW
from tests.api.test_openapi import schema_of


#: The same cases each time, however busy the machine is.
FUZZED: Final = settings(derandomize=True, deadline=None, max_examples=100)

#: What stands in texts that are nearly right.
SIGNS: Final = "0123456789abcXYZ:/.,;=@%[]()-_+*?&#'\"\\ \t\n\r\0\x7fé٣ⅷ\u2028\ud800🪙"
texts: Final = st.text(max_size=60) | st.text(SIGNS, max_size=60)
#: What a header may be once it has come through the server: any byte but the ends of lines.
header_bytes: Final = st.lists(
    st.integers(0, 255).filter(lambda byte: byte not in b"\0\r\n"), max_size=80
).map(bytes)


def request(
    headers: Mapping[str, bytes] | None = None, *, query: str = "", peer: str = ""
) -> Request:
    """A request of which only this is known."""
    return Request(
        {
            "type": "http",
            "path": "/",
            "query_string": query.encode("ascii", "ignore"),
            "client": (peer, 1) if peer else None,
            "headers": [(name.encode(), raw) for name, raw in (headers or {}).items()],
        }
    )


E = TypeVar("E", bound=Exception)


def outcome(refusal: type[E], read: Callable[..., Any], *given_: Any) -> Any:
    """What was read, or the refusal that was raised in its place. Nothing else may be raised."""
    try:
        return read(*given_)
    except refusal as error:
        return error


# -------------------------------------------------------------------------------------- settings


SETTINGS: Final[dict[str, Callable[[str], Any]]] = {
    "integer": parsers.integer(0, 10**6),
    "integers": parsers.integers(0, 10**6),
    "word": parsers.word,
    "secret": parsers.secret,
    "secrets": parsers.secrets,
    "signing_keys": parsers.signing_keys,
    "networks": parsers.networks,
    "choice": parsers.choice(Provider),
    "urls": parsers.urls("http", "https"),
    "base_url": parsers.base_url,
    "secure_base_url": parsers.secure_base_url,
    "origins": parsers.origins,
    "key": parsers.key,
    "tokens": parsers.tokens,
    "sqlite_url": parsers.database_url,
    "redis_url": parsers.redis_url,
    "rate": parse_rate,
    "rates": parsers.rates,
    "hosts": parsers.hosts,
    "host": parsers.host,
}

BEGINNINGS: Final = ("", "http://", "https://h", "redis://", "sqlite:///", "10.0.0.0/", "USDC=")


@pytest.mark.parametrize("name", SETTINGS)
@FUZZED
@given(beginning=st.sampled_from(BEGINNINGS), text=texts)
@example(beginning="http://", text="[::1")
@example(beginning="http://h:", text="9" * 50)
@example(beginning="http://", text="\u2100.example")  # becomes a/c when it is normalised
def test_a_setting_is_a_value_or_a_sentence(name: str, beginning: str, text: str) -> None:
    value = outcome(ValueError, SETTINGS[name], beginning + text)

    if isinstance(value, ValueError):
        assert str(value)
        assert not isinstance(value, UnicodeError)  # whose text repeats what was given


#: Lines that may stand in a file of profiles, each well-formed by itself.
_HEADS: Final = (
    "[a]", "[a.auth]", "[a.routes.r]", "[a.routes.r.fields.x]", "[a.routes.r.headers]", "[b]",
)  # fmt: skip
_NAMES: Final = (
    "base_url", "rate", "private_networks", "response_bytes_max", "kind", "token_path", "header",
    "scheme", "scope", "path", "method", "content_type", "cache_s", "timeout_s", "idempotent",
    "response", "enabled", "where", "type", "upstream_name", "required", "choices", "pattern",
    "least", "most", "default", "routes", "fields", "x-y",
)  # fmt: skip
_VALUES: Final = (
    '"https://h/v1"', '"http://h:99999"', '"https://[::1"', '"/p/{x}"', '"/../{x}"', '"10/10s"',
    '"key"', '"oauth2"', '"path"', '"body"', '"json"', '"integer"', '"number"', '"date"', '"POST"',
    '"[a-z]+"', '"("', '"a{99999999999}"', '"[[a]"', '""', '"a.b"', '["a.b"]', '["10.0.0.0/8"]',
    "true", "7", "-1", "0.5", "inf", "-inf", "nan", "1e400", "9" * 30, "9" * 5_000, "2026-11-22",
    "2026-11-22T20:00:00Z", "[]", "{}", "{ where = 'path' }", "[[[1]]]",
)  # fmt: skip
_lines: Final = st.sampled_from(_HEADS) | st.builds(
    "{} = {}".format, st.sampled_from(_NAMES), st.sampled_from(_VALUES)
)
_PROFILE: Final = """[a]
base_url = "https://h/v1"
[a.routes.r]
path = "/p/{x}"
response = ["a.b"]
[a.routes.r.fields.x]
where = "path"
[a.routes.r.fields.n]
"""


@FUZZED
@given(
    text=st.lists(_lines, max_size=12).map("\n".join)
    | st.lists(_lines, max_size=4).map("\n".join).map(_PROFILE.__add__)
    | st.lists(_lines.filter(lambda line: "=" in line), unique=True, max_size=3)
    .map("\n".join)
    .map(_PROFILE.__add__)
    | texts,
    query=st.lists(st.tuples(st.sampled_from("xn"), st.sampled_from(["7", "a", "", "é", "1e5"]))),
)
@example(text=_PROFILE + "least = inf", query=[("x", "a"), ("n", "a")])
@example(text=_PROFILE + "most = inf", query=[("x", "a"), ("n", "a")])
@example(text=_PROFILE + "most = nan", query=[("x", "a"), ("n", "a")])
@example(text=_PROFILE + "default = nan\ntype = 'number'", query=[("x", "a")])
@example(text=_PROFILE + f"default = {'9' * 5_000}\ntype = 'integer'", query=[("x", "a")])
@example(text=_PROFILE + "default = 1e400\ntype = 'number'", query=[("x", "a")])
@example(text=_PROFILE + "pattern = 'a{99999999999}'", query=[("x", "a"), ("n", "a")])
@example(text="a = " + "[" * 5_000, query=[])
def test_a_profile_is_one_that_calls_can_be_made_with_or_is_faulty(
    text: str, query: list[tuple[str, str]]
) -> None:
    profiles = outcome(Faulty, read_profiles, text, "partner.toml")

    if isinstance(profiles, Faulty):
        assert profiles.problems
        return
    for profile in profiles:
        for route in profile.routes.values():
            asked = outcome(InvalidInput, ask, profile, route, query, None)
            assert isinstance(asked, InvalidInput) or asked.url.startswith(profile.base_url)


ARGUMENTS: Final[dict[str, Callable[[str], Any]]] = {
    "number": typed.number(0, 10**6),
    "rate": typed.rate,
    "quota": typed.quota,
    "duration_s": typed.duration_s,
    "unix_s": typed.unix_s,
    "signature": typed.signature,
    "key": typed.key,
}


@pytest.mark.parametrize("name", ARGUMENTS)
@FUZZED
@given(text=texts)
@example(text="9" * 5_000)
@example(text="nan")
@example(text="9" * 5_000 + "d")
@example(text="0001-01-01T00:00:00+23:59")
@example(text="9999-12-31T23:59:59-23:59")
def test_an_argument_is_a_value_or_a_wrong_usage(name: str, text: str) -> None:
    value = outcome(ArgumentTypeError, ARGUMENTS[name], text)

    assert not isinstance(value, float) or not math.isnan(value)  # which no bound holds


# --------------------------------------------------------------------------------------- queries


LISTS: Final = (filters.PARSERS, webhook_events.PARSERS, deliveries.PARSERS)
QUERIES: Final[dict[str, Parser]] = {
    f"{number}: {name}": parser
    for number, parsers_ in enumerate(LISTS)
    for name, parser in parsers_.items()
}


@pytest.mark.parametrize("name", QUERIES)
@FUZZED
@given(text=texts)
@example(text="9999-12-31T23:59:59-23:59")
@example(text="0001-01-01T00:00:00+23:59")
@example(text="2026-11-22T20:00:00.123456789Z")
@example(text="whe_" + "9" * 18)
@example(text="9" * 5_000)
def test_a_filter_is_a_value_or_names_its_field(name: str, text: str) -> None:
    read = outcome(InvalidInput, QUERIES[name], text)

    assert isinstance(read, tuple) or read.field == name.partition(": ")[2]


@FUZZED
@given(text=st.text(max_size=200) | st.text("=&+%;0123abclimtcursr", max_size=200))
def test_any_query_string_is_read_or_refused(text: str) -> None:
    for known in LISTS:
        values = outcome(Problem, filters.parsed, QueryParams(text), known)
        assert isinstance(values, dict) or (values.status == 422 and values.response().body)


@FUZZED
@given(created_at=st.integers(0, 10**12 - 1), number=st.integers(0, 36**26 - 1))
def test_a_cursor_that_was_given_out_is_read_as_it_was_meant(created_at: int, number: int) -> None:
    id_ = f"pay_{number % 10**26:026d}"

    given_out = filters.cursor(created_at, id_)

    assert filters.PARSERS["cursor"](given_out) == ("before", (created_at, id_))
    assert re.fullmatch(r"[A-Za-z0-9_-]+", given_out)  # needs no escape in a URL


# --------------------------------------------------------------------------------------- headers


@FUZZED
@given(raw=header_bytes, query=texts, newest=st.integers(0, 2**63 - 1))
@example(raw=b"9" * 5_000, query="", newest=2**63 - 1)
@example(raw="٣".encode(), query="", newest=10)
@example(raw=b"", query="last_event_id=7", newest=7)
def test_a_position_in_a_stream_was_given_out_or_is_none(
    raw: bytes, query: str, newest: int
) -> None:
    position = stream._last_event_id(request({"last-event-id": raw}, query=query), newest)

    assert position is None or 0 <= position <= newest


@FUZZED
@given(raw=header_bytes)
@example(raw=b'"' + b"x" * 255 + b'"')
@example(raw=b'"' + rb"\"" * 255 + b'"')
@example(raw=b'"' + b"x" * 256 + b'"')
@example(raw=b'"x')
@example(raw=b'x"')
@example(raw=b'"a b"')
@example(raw=b'""')
@example(raw=b"x" * 256)
def test_an_idempotency_key_is_one_where_its_description_says_so(raw: bytes) -> None:
    text = raw.decode("latin-1").strip()
    described = re.fullmatch(IDEMPOTENCY_KEY_SCHEMA["pattern"], text) is not None

    key = outcome(Problem, key_of, request({"idempotency-key": raw}))

    assert isinstance(key, str) == described
    if isinstance(key, Problem):
        assert key.status == 400
    else:
        assert re.fullmatch(rf"[!-~]{{1,{IDEMPOTENCY_KEY_LENGTH_MAX}}}", key)


@FUZZED
@given(
    raw=header_bytes | st.text("0123456789abcdef.:,[]% ", max_size=80).map(str.encode),
    peer=st.sampled_from(["", "10.0.0.1", "192.0.2.1", "fd00::1", "a socket"]),
)
@example(raw=b"[", peer="10.0.0.1")
@example(raw=b"::ffff:10.0.0.2, 10.0.0.3", peer="fd00::1")
@example(raw=b"," * 10_000, peer="10.0.0.1")
def test_a_caller_is_one_address_whatever_he_says_of_himself(raw: bytes, peer: str) -> None:
    trusted = parsers.networks("10.0.0.0/8,fd00::/8")
    said = request({"x-forwarded-for": raw}, peer=peer)

    caller = caller_address(said, trusted)

    assert caller == NOBODY or parsers.networks(caller)
    assert (caller == NOBODY) == (full_address(said, trusted) == "")
    if peer == "192.0.2.1":  # no proxy of ours: nothing that it says counts
        assert caller == peer


@FUZZED
@given(values=st.tuples(header_bytes, header_bytes, header_bytes))
def test_a_stranger_at_a_door_is_turned_away(values: tuple[bytes, bytes, bytes]) -> None:
    names = ("x-qn-nonce", "x-qn-timestamp", "x-qn-signature")
    said = dict(zip(names, values, strict=True)) | {"authorization": values[0]}
    stranger = request(said)

    with pytest.raises(TurnedAway):
        check_helius(stranger.headers, ["a secret"])
    with pytest.raises(TurnedAway):
        quicknode_claim(stranger.headers, NOW)


@FUZZED
@given(raw=header_bytes | st.text("abAB01.:[]-_", max_size=50).map(str.encode))
@example(raw=b"[::1")
@example(raw=b"[::ffff:1.2.3.4]:80")
@example(raw=b"h:99999")
@example(raw=b"h:0")
@example(raw=b"...")
def test_a_host_is_a_name_that_can_be_compared_or_none(raw: bytes) -> None:
    host = host_of(raw)

    if host is not None:
        assert re.fullmatch(r"[a-z0-9._\-]*|[0-9a-f:.]+", host)
        again = f"[{host}]" if ":" in host else host
        assert host.endswith(".") or host in ("", host_of(again.encode()))


# ------------------------------------------------------------------------- values of JSON bodies


@FUZZED
@given(text=texts | st.from_regex(r"[0-9]{1,22}(\.[0-9]{0,9})?", fullmatch=True))
@example(text="18446744073709551615")
@example(text="18446744073709551616")
@example(text="0.0")
@example(text="1.\n")
@example(text="1" * 10_000)
def test_an_amount_is_base_units_or_names_its_field(text: str) -> None:
    pattern = schema_of("NewPaymentBody")["properties"]["amount"]["pattern"]

    amount = outcome(InvalidInput, parse_amount, text, 6)

    if isinstance(amount, InvalidInput):
        assert amount.field == "amount"
    else:
        assert 1 <= amount <= AMOUNT_MAX
        assert re.fullmatch(pattern, text)


@FUZZED
@given(text=st.text(max_size=12) | st.text(SIGNS, max_size=12))
@example(text="")
@example(text="\x85")
@example(text="x" * 11)
def test_a_line_is_one_where_its_description_says_so(text: str) -> None:
    described = line_schema(10)
    is_surrogate = any("\ud800" <= character <= "\udfff" for character in text)  # which no JSON is
    expected = (
        described["minLength"] <= len(text) <= described["maxLength"]
        and re.fullmatch(described["pattern"], text) is not None
        and not is_surrogate
    )

    refusal = outcome(InvalidInput, partial(check_line, chars_max=10), "label", text)

    assert (refusal is None) == expected
    assert refusal is None or refusal.field == "label"


@FUZZED
@given(text=texts | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZ", min_size=31, max_size=45))
@example(text="1" * 32)
@example(text="z" * 44)
def test_a_key_is_never_outside_of_its_pattern(text: str) -> None:
    assert not is_key(text) or re.fullmatch(KEY_SCHEMA["pattern"], text)


@FUZZED
@given(beginning=st.sampled_from(["https://", "http://", "https://h", ""]), text=texts)
@example(beginning="https://", text="[::1")
@example(beginning="https://h:", text="9" * 50)
@example(beginning="https://", text="\u2100.example")
def test_the_url_of_a_receiver_is_good_or_names_its_field(beginning: str, text: str) -> None:
    pattern = schema_of("NewEndpointBody")["properties"]["url"]["pattern"]

    refusal = outcome(InvalidInput, check_url, beginning + text, ())

    if refusal is None:
        assert re.match(pattern, beginning + text)
    else:
        assert refusal.field == "url"


def test_the_bounds_that_are_described_are_those_of_the_payment() -> None:
    """Every text of a new payment has a bound in the description."""
    properties = schema_of("NewPaymentBody")["properties"]

    for name in NewPaymentBody.__struct_fields__:
        bounds = {"maxLength", "enum", "maximum", "maxProperties", "pattern", "propertyNames"}
        assert bounds & set(properties[name]), name
