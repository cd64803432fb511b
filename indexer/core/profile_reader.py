"""Reads profiles of partners out of TOML: everything that is wrong with one, at once. Pure.

    [weather]                                   the name, in our paths and in settings
    base_url = "https://api.weather.example"
    [weather.auth]
    kind = "key"                                none, key, oauth2
    [weather.routes.forecast]
    path = "/v1/forecast/{city}"
    fields.city = { where = "path", pattern = "[a-z]+" }
    fields.days = { type = "integer", least = 1, most = 7, default = 3 }
    response = ["days.date", "days.high"]

What a table does not know is refused: a limit that was misspelt would bound nothing. Secrets are
settings (`AXIOM_UPSTREAM_<NAME>_…`) and have no place here.
"""

import math
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from indexer.core.lexemes import Number
from indexer.core.partner_request import value_of
from indexer.core.profile import (
    RESPONSE_BYTES_MAX,
    TIMEOUT_S,
    Auth,
    AuthKind,
    Field,
    Kind,
    Method,
    Profile,
    Route,
    Where,
)
from indexer.core.rate import Rate, parse_rate
from indexer.errors import InvalidInput


TEXT_BYTES_MAX: Final = 1024 * 1024
PROFILES_MAX: Final = 32
ROUTES_MAX: Final = 200
FIELDS_MAX: Final = 100
CACHE_S_MAX: Final = 24 * 60 * 60
TIMEOUT_S_MAX: Final = 60.0
RESPONSE_BYTES_LIMIT: Final = 16 * 1024 * 1024
#: What `most` of a string may be at most.
STRING_CHARS_LIMIT: Final = 4096

_NAME: Final = re.compile(r"[a-z][a-z0-9\-]{0,31}", re.ASCII)
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
_REPEATABLE: Final = frozenset({Method.GET, Method.PUT, Method.DELETE})
_TEXTS: Final = frozenset({Kind.STRING, Kind.DATE})
_NUMBERS: Final = frozenset({Kind.INTEGER, Kind.NUMBER})


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What may stand in a table of the file."""


class _AuthTable(_Table):
    kind: AuthKind = AuthKind.NONE
    token_path: str = ""
    scope: str | None = None
    header: str = "Authorization"
    scheme: str = "Bearer"


class _FieldTable(_Table):
    where: Where = Where.QUERY
    type: Kind = Kind.STRING
    upstream_name: str | None = None
    required: bool = False
    choices: list[str] = []
    pattern: str | None = None
    least: float | None = None
    most: float | None = None
    default: str | int | float | bool | None = None


class _RouteTable(_Table):
    path: str
    method: Method = Method.GET
    fields: dict[str, Any] = {}
    headers: dict[str, str] = {}
    content_type: str = "application/json"
    cache_s: int = 0
    rate: str | None = None
    timeout_s: float = TIMEOUT_S
    idempotent: bool | None = None
    response: list[str] = []
    response_headers: list[str] = []
    summary: str = ""
    enabled: bool = True


class _ProfileTable(_Table):
    base_url: str
    auth: dict[str, Any] = {}
    rate: str | None = None
    private_networks: list[str] = []
    response_bytes_max: int = RESPONSE_BYTES_MAX
    routes: dict[str, Any] = {}


class Faulty(Exception):
    """A file of profiles that cannot be used.

    Attributes:
        problems: one sentence each, with the place.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read(text: str, origin: str) -> tuple[Profile, ...]:
    """The profiles of a file.

    Args:
        text: TOML.
        origin: the file's name, as problems should call it.

    Raises:
        Faulty: with everything that is wrong.
    """
    if len(text.encode(errors="replace")) > TEXT_BYTES_MAX:
        raise Faulty((f"{origin}: is larger than {TEXT_BYTES_MAX} bytes",))
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # any ValueError: a number may be too long
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Faulty((f"{origin}: is no TOML: {said}",)) from None
    if not 1 <= len(tables) <= PROFILES_MAX:
        raise Faulty((f"{origin}: must hold 1 to {PROFILES_MAX} profiles",))
    reader = _Reader(origin)
    profiles = tuple(reader.profile(name, table) for name, table in tables.items())
    if reader.problems:
        raise Faulty(tuple(reader.problems))
    return tuple(profile for profile in profiles if profile is not None)


T = TypeVar("T", bound=_Table)


class _Reader:
    """Reads tables, and goes on after what is wrong."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.problems: list[str] = []

    def _wrong(self, place: str, sentence: str) -> None:
        self.problems.append(f"{self._origin}: {place}: {sentence}")

    def _table(self, place: str, table: Any, form: type[T]) -> T | None:
        try:
            return msgspec.convert(table, form)
        except msgspec.ValidationError as error:
            self._wrong(place, str(error))
            return None

    def _rate(self, place: str, text: str | None) -> Rate | None:
        try:
            return None if text is None else parse_rate(text)
        except ValueError as error:
            self._wrong(f"{place}.rate", str(error))
            return None

    def profile(self, name: str, table: Any) -> Profile | None:
        """One partner; None when it could not be read at all."""
        if not _NAME.fullmatch(name):
            self._wrong(repr(name)[:80], "is no name: small letters, digits and - only")
        found = self._table(name, table, _ProfileTable)
        if found is None:
            return None
        networks = []
        for text in found.private_networks:
            try:
                networks.append(ip_network(text))
            except ValueError:
                self._wrong(f"{name}.private_networks", f"{text!r:.60} is no network")
        for sentence in url_problems(found.base_url, may_be_http=bool(networks)):
            self._wrong(f"{name}.base_url", sentence)
        if not 1 <= found.response_bytes_max <= RESPONSE_BYTES_LIMIT:
            self._wrong(f"{name}.response_bytes_max", f"must be 1 to {RESPONSE_BYTES_LIMIT}")
        if not 1 <= len(found.routes) <= ROUTES_MAX:
            self._wrong(f"{name}.routes", f"there must be 1 to {ROUTES_MAX}")
        auth = self._auth(f"{name}.auth", found.auth)
        read_routes = [self._route(f"{name}.routes", *each) for each in found.routes.items()]
        routes = [route for route in read_routes if route is not None]
        for route in routes:
            if auth.kind is not AuthKind.NONE and auth.header.lower() in set(_sent(route)):
                self._wrong(f"{name}.routes.{route.name}", f"{auth.header} is what proves who asks")
        return Profile(
            name=name,
            base_url=found.base_url.rstrip("/"),
            auth=auth,
            rate=self._rate(name, found.rate),
            private_networks=tuple(networks),
            response_bytes_max=found.response_bytes_max,
            routes={route.name: route for route in routes},
        )

    def _auth(self, place: str, table: Any) -> Auth:
        found = self._table(place, table, _AuthTable)
        if found is None:
            return Auth()
        is_oauth2 = found.kind is AuthKind.OAUTH2
        if is_oauth2 != bool(found.token_path) or (
            is_oauth2 and not _PATH.fullmatch(found.token_path)
        ):
            self._wrong(
                place, "token_path, a path with / before it, belongs to oauth2 and to no other"
            )
        if not _HEADER.fullmatch(found.header) or found.header.lower() in _OURS - {"authorization"}:
            self._wrong(f"{place}.header", "is no header that may hold a key")
        if found.scheme and not _HEADER.fullmatch(found.scheme):
            self._wrong(f"{place}.scheme", "must be one word, or empty")
        if found.scope is not None and not _HEADER_VALUE.fullmatch(found.scope):
            self._wrong(f"{place}.scope", "must be printable ASCII")
        return Auth(**msgspec.structs.asdict(found))

    def _route(self, place: str, name: str, table: Any) -> Route | None:
        place = f"{place}.{name}"
        if not _NAME.fullmatch(name):
            self._wrong(place, "is no name: small letters, digits and - only")
        found = self._table(place, table, _RouteTable)
        if found is None or not found.enabled:
            return None
        if len(found.fields) > FIELDS_MAX:
            self._wrong(f"{place}.fields", f"there may be {FIELDS_MAX}")
        read_fields = [self._field(f"{place}.fields", *each) for each in found.fields.items()]
        fields = {field.name: field for field in read_fields if field is not None}
        idempotent = found.method in _REPEATABLE if found.idempotent is None else found.idempotent
        for sentence in _route_problems(found, fields, idempotent=idempotent):
            self._wrong(place, sentence)
        return Route(
            name=name,
            method=found.method,
            path=found.path,
            fields=fields,
            headers=found.headers,
            content_type=found.content_type,
            cache_s=found.cache_s,
            rate=self._rate(place, found.rate),
            timeout_s=found.timeout_s,
            idempotent=idempotent,
            response=tuple(found.response),
            response_headers=tuple(name.lower() for name in found.response_headers),
            summary=found.summary,
        )

    def _field(self, place: str, name: str, table: Any) -> Field | None:
        place = f"{place}.{name}"
        found = self._table(place, table, _FieldTable)
        if found is None:
            return None
        field = Field(
            name=name,
            upstream_name=name if found.upstream_name is None else found.upstream_name,
            where=found.where,
            kind=found.type,
            required=found.required or found.where is Where.PATH,
            choices=tuple(found.choices),
            pattern=found.pattern,
            least=found.least,
            most=found.most,
        )
        sentences = list(_field_problems(field))
        for sentence in sentences:
            self._wrong(place, sentence)
        if found.default is None or sentences:
            return field
        try:
            default = value_of(field, _as_json(found.default))
        except InvalidInput as error:
            self._wrong(f"{place}.default", error.message)
            return field
        return replace(field, default=default)


def _as_json(value: bool | str | float) -> Any:
    """A value of TOML, as one of JSON would have been read."""
    if isinstance(value, (bool, str)):
        return value
    if not math.isfinite(value):
        raise InvalidInput("", f"{value} is no number of JSON")
    return Number(value)


def _sent(route: Route) -> Iterator[str]:
    """The names of all headers that a route sends, in lower case."""
    yield from (name.lower() for name in route.headers)
    for field in route.fields.values():
        if field.where is Where.HEADER:
            yield field.upstream_name.lower()


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


def _route_problems(
    found: _RouteTable, fields: dict[str, Field], *, idempotent: bool
) -> Iterator[str]:
    """What is wrong with a route, beyond each of its fields."""
    places = _PLACE.findall(found.path)
    of_path = sorted(field.name for field in fields.values() if field.where is Where.PATH)
    if not _PATH.fullmatch(found.path) or "{" in _PLACE.sub("", found.path):
        yield "path must begin with / and have letters, digits and . _ ~ - : and {field} only"
    if sorted(places) != of_path:
        yield f"path has the places {sorted(places)}, and the fields of the path are {of_path}"
    if any(field.where is Where.BODY for field in fields.values()) and found.method is Method.GET:
        yield "a GET has no body, and no fields of one"
    is_search = found.method is Method.POST and idempotent
    if not 0 <= found.cache_s <= CACHE_S_MAX:
        yield f"cache_s must be 0 to {CACHE_S_MAX}"
    if found.cache_s and found.method is not Method.GET and not is_search:
        yield "cache_s is for a GET, and for a POST that is idempotent: a search"
    if found.method is Method.GET and not idempotent:
        yield "a GET is idempotent"
    if not 0.1 <= found.timeout_s <= TIMEOUT_S_MAX:
        yield f"timeout_s must be 0.1 to {TIMEOUT_S_MAX:g}"
    yield from _header_problems(found, fields)
    for path in found.response:
        if not _RESPONSE.fullmatch(path):
            yield f"response: {path!r:.60} is no path: names with dots between them"
    in_place = Counter(
        (each.where, each.upstream_name) for each in fields.values() if each.where is not Where.PATH
    )
    for (where, name), count in in_place.items():
        if count > 1:
            yield f"{count} fields are {name} in the {where} at the partner"


def _header_problems(found: _RouteTable, fields: dict[str, Field]) -> Iterator[str]:
    """What is wrong with the headers of a route, both ways."""
    if not _JSON_TYPE.fullmatch(found.content_type):
        yield "content_type must be one of JSON, such as application/json"
    for name, value in found.headers.items():
        if not _HEADER.fullmatch(name) or name.lower() in _OURS:
            yield f"headers: {name!r:.60} is no header that a route may set"
        if not _HEADER_VALUE.fullmatch(value):
            yield f"headers: the value of {name!r:.60} must be printable ASCII"
    of_fields = [each for each in fields.values() if each.where is Where.HEADER]
    for each in of_fields:
        for name in {each.name.lower(), each.upstream_name.lower()} & (_OURS | _OVERRIDES):
            yield f"fields: {name} is no header that a frontend may set"
    sent = [name.lower() for name in found.headers] + [e.upstream_name.lower() for e in of_fields]
    asked = [each.name.lower() for each in of_fields]
    for name, count in (Counter(sent) | Counter(asked)).items():
        if count > 1:
            yield f"the header {name} stands there twice"
    for name in found.response_headers:
        low = name.lower()
        is_ours = low in _NOT_FOR_FRONTENDS or low.startswith(_NOT_FOR_FRONTENDS_BEFORE)
        if not _HEADER.fullmatch(name) or is_ours:
            yield f"response_headers: {name!r:.60} is no header that is let through"


def _field_problems(field: Field) -> Iterator[str]:
    """What is wrong with a field by itself: also a bound that would bound nothing."""
    form = _HEADER if field.where is Where.HEADER else _FIELD_NAME
    for name in (field.name, field.upstream_name):
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
    if field.choices and field.kind not in _TEXTS | _NUMBERS:
        yield "choices are for strings and numbers"
    yield from _bound_problems(field)


def _bound_problems(field: Field) -> Iterator[str]:
    bounds = [bound for bound in (field.least, field.most) if bound is not None]
    if bounds and field.kind not in {Kind.STRING} | _NUMBERS:
        yield "least and most are for strings and numbers"
    if not all(map(math.isfinite, bounds)):
        yield "least and most must be numbers"
    elif field.kind is Kind.STRING and not all(
        bound.is_integer() and 1 <= bound <= STRING_CHARS_LIMIT for bound in bounds
    ):
        yield f"least and most of a string are lengths, 1 to {STRING_CHARS_LIMIT}"
    if len(bounds) > 1 and bounds[0] > bounds[1]:
        yield "least is more than most"
