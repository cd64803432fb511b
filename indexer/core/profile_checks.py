"""What is wrong with what a profile says, in sentences. Pure.

The form is checked before the meaning: see `profile_reader`. A bound that would bound nothing is
wrong, and so is a header by which a frontend could pass for somebody else.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from indexer.core.profile import Auth, AuthKind, Field, Kind, Method, Route, Where


CACHE_S_MAX: Final = 24 * 60 * 60
TIMEOUT_S_MAX: Final = 60.0
#: What `most` of a string may be at most.
STRING_CHARS_LIMIT: Final = 4096

_FIELD_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\-\[\]]{0,63}", re.ASCII)
_BASE_URL: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(?:/[A-Za-z0-9._~\-]+)*/?", re.ASCII)
_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~\-{}:]+)+/?", re.ASCII)
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_RESPONSE: Final = re.compile(r"[A-Za-z0-9_$@\-]+(?:\.[A-Za-z0-9_$@\-]+){0,15}", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9\-]{0,63}", re.ASCII)
_JSON_TYPE: Final = re.compile(r"application/(?:[a-z0-9.\-]{1,64}\+)?json", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?", re.ASCII)

#: Headers that say how a message is to be read, whom it is for, or who sends it.
_OURS: Final = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    }
)
#: By which one method passes for another: a route may say so, a frontend may not.
_OVERRIDES: Final = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
#: Headers of an answer that say how it is to be read, what a browser may do with it, or what we
#: say ourselves.
_NOT_FOR_FRONTENDS: Final = _OURS | {
    "accept-ranges",
    "age",
    "cache-control",
    "cache-status",
    "clear-site-data",
    "content-encoding",
    "content-range",
    "date",
    "link",
    "location",
    "nel",
    "permissions-policy",
    "ratelimit",
    "ratelimit-policy",
    "referrer-policy",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "retry-after",
    "server",
    "service-worker-allowed",
    "set-cookie",
    "sourcemap",
    "strict-transport-security",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
}
_NOT_FOR_FRONTENDS_BEFORE: Final = ("access-control-", "content-security-", "cross-origin-", "sec-")
_TEXTS: Final = frozenset({Kind.STRING, Kind.DATE})
NUMBERS: Final = frozenset({Kind.INTEGER, Kind.NUMBER})


def url_problems(url: str, *, may_be_http: bool) -> Iterator[str]:
    """What is wrong with the address of a partner.

    Args:
        url: scheme, host, and what else it has.
        may_be_http: the partner is in a network that is not everybody's.
    """
    try:
        parts = urlsplit(url)
        is_safe = not re.search(r"/\.{1,2}(?:/|\Z)", parts.path)
        fits = _BASE_URL.fullmatch(url) and parts.hostname and parts.port != 0 and is_safe
    except ValueError:
        fits = False
    if not fits:
        yield "must be a scheme, a host and at most a path"
    elif parts.scheme == "http" and not may_be_http:
        yield "must begin with https://; http is for partners in private_networks"


def auth_problems(auth: Auth) -> Iterator[str]:
    """What is wrong with how a partner knows us."""
    is_oauth2 = auth.kind is AuthKind.OAUTH2
    is_path = _PATH.fullmatch(auth.token_path) and "{" not in auth.token_path
    if not is_path if is_oauth2 else auth.token_path:
        yield "token_path, a path with / before it, belongs to oauth2 and to no other"
    if not _HEADER.fullmatch(auth.header) or auth.header.lower() in _OURS - {"authorization"}:
        yield "header is no header that may hold a key"
    if auth.scheme and not _HEADER.fullmatch(auth.scheme):
        yield "scheme must be one word, or empty"
    if auth.scope is not None and not (is_oauth2 and _HEADER_VALUE.fullmatch(auth.scope)):
        yield "scope must be printable ASCII, and is for oauth2"


def headers_sent(route: Route) -> Iterator[str]:
    """The names of the headers that a route says are sent, in lower case."""
    yield from (name.lower() for name in route.headers)
    for field in route.fields.values():
        if field.where is Where.HEADER:
            yield field.upstream_name.lower()


def route_problems(route: Route) -> Iterator[str]:
    """What is wrong with a route, beyond each of its fields."""
    places = _PLACE.findall(route.path)
    of_path = sorted(field.name for field in route.fields.values() if field.where is Where.PATH)
    if not _PATH.fullmatch(route.path) or set("{}") & set(_PLACE.sub("", route.path)):
        yield "path must begin with / and have letters, digits and . _ ~ - : and {field} only"
    if sorted(places) != of_path:
        yield f"path has the places {sorted(places)}, and the fields of the path are {of_path}"
    if (
        any(field.where is Where.BODY for field in route.fields.values())
        and route.method is Method.GET
    ):
        yield "a GET has no body, and no fields of one"
    is_search = route.method is Method.POST and route.idempotent
    if not 0 <= route.cache_s <= CACHE_S_MAX:
        yield f"cache_s must be 0 to {CACHE_S_MAX}"
    if route.cache_s and route.method is not Method.GET and not is_search:
        yield "cache_s is for a GET, and for a POST that is idempotent: a search"
    if route.method is Method.GET and not route.idempotent:
        yield "a GET is idempotent"
    if not 0.1 <= route.timeout_s <= TIMEOUT_S_MAX:
        yield f"timeout_s must be 0.1 to {TIMEOUT_S_MAX:g}"
    yield from _header_problems(route)
    for path in route.response:
        if not _RESPONSE.fullmatch(path):
            yield f"response: {path!r:.60} is no path: names with dots between them"
    in_place = Counter(
        (each.where, each.upstream_name)
        for each in route.fields.values()
        if each.where is not Where.PATH
    )
    for (where, name), count in in_place.items():
        if count > 1:
            yield f"{count} fields are {name} in the {where} at the partner"


def _header_problems(route: Route) -> Iterator[str]:
    """What is wrong with the headers of a route, both ways."""
    if not _JSON_TYPE.fullmatch(route.content_type):
        yield "content_type must be one of JSON, such as application/json"
    for name, value in route.headers.items():
        if not _HEADER.fullmatch(name) or name.lower() in _OURS:
            yield f"headers: {name!r:.60} is no header that a route may set"
        if not _HEADER_VALUE.fullmatch(value):
            yield f"headers: the value of {name!r:.60} must be printable ASCII"
    of_fields = [each for each in route.fields.values() if each.where is Where.HEADER]
    for each in of_fields:
        for name in {each.name.lower(), each.upstream_name.lower()} & (_OURS | _OVERRIDES):
            yield f"fields: {name} is no header that a frontend may set"
    asked = Counter(each.name.lower() for each in of_fields)
    for name, count in (Counter(headers_sent(route)) | asked).items():
        if count > 1:
            yield f"the header {name} stands there twice"
    for name in route.response_headers:
        low = name.lower()
        is_ours = low in _NOT_FOR_FRONTENDS or low.startswith(_NOT_FOR_FRONTENDS_BEFORE)
        if not _HEADER.fullmatch(name) or is_ours:
            yield f"response_headers: {name!r:.60} is no header that is let through"


def field_problems(field: Field) -> Iterator[str]:
    """What is wrong with a field by itself: also a bound that would bound nothing."""
    form = _HEADER if field.where is Where.HEADER else _FIELD_NAME
    for name in dict.fromkeys((field.name, field.upstream_name)):
        if not form.fullmatch(name):
            yield f"{name!r:.60} is no name of a field"
    if field.kind is Kind.JSON and field.where is not Where.BODY:
        yield "json belongs into a body"
    if field.pattern is not None:
        if field.kind not in _TEXTS:
            yield "a pattern is for strings"
        try:
            re.compile(field.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            yield f"pattern: {error}"
    if field.choices and field.kind not in _TEXTS | NUMBERS:
        yield "choices are for strings and numbers"
    yield from _bound_problems(field)


def _bound_problems(field: Field) -> Iterator[str]:
    bounds = [bound for bound in (field.least, field.most) if bound is not None]
    if bounds and field.kind not in {Kind.STRING} | NUMBERS:
        yield "least and most are for strings and numbers"
    if not all(map(math.isfinite, bounds)):
        yield "least and most must be numbers"
    elif field.kind is Kind.STRING and not all(
        float(bound).is_integer() and 1 <= bound <= STRING_CHARS_LIMIT for bound in bounds
    ):
        yield f"least and most of a string are lengths, 1 to {STRING_CHARS_LIMIT}"
    if len(bounds) > 1 and bounds[0] > bounds[1]:
        yield "least is more than most"
