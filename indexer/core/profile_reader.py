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
import re
import tomllib
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final, TypeVar

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
from indexer.core.profile_checks import (
    NUMBERS,
    auth_problems,
    field_problems,
    headers_sent,
    route_problems,
    url_problems,
)
from indexer.core.rate import Rate, parse_rate
from indexer.errors import InvalidInput


TEXT_BYTES_MAX: Final = 1024 * 1024
PROFILES_MAX: Final = 32
ROUTES_MAX: Final = 200
FIELDS_MAX: Final = 100
RESPONSE_BYTES_LIMIT: Final = 16 * 1024 * 1024

_NAME: Final = re.compile(r"[a-z][a-z0-9\-]{0,31}", re.ASCII)

_REPEATABLE: Final = frozenset({Method.GET, Method.PUT, Method.DELETE})


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What may stand in a table of the file."""


class _AuthTable(_Table):
    kind: AuthKind = AuthKind.NONE
    token_path: str = ""
    scope: str | None = None
    header: str = "Authorization"
    scheme: str | None = None


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
                continue
            if networks[-1].prefixlen == 0:
                self._wrong(f"{name}.private_networks", f"{text} is everybody")
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
            if auth.kind is not AuthKind.NONE and auth.header.lower() in set(headers_sent(route)):
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
        scheme = found.scheme
        if scheme is None:
            scheme = "Bearer" if found.header.lower() == "authorization" else ""
        auth = Auth(
            kind=found.kind,
            token_path=found.token_path,
            scope=found.scope,
            header=found.header,
            scheme=scheme,
        )
        for sentence in auth_problems(auth):
            self._wrong(place, sentence)
        return auth

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
        route = Route(
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
        for sentence in route_problems(route):
            self._wrong(place, sentence)
        return route

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
        sentences = list(field_problems(field))
        for sentence in sentences:
            self._wrong(place, sentence)
        if sentences:
            return field
        self._check_choices(place, field)
        if found.default is None:
            return field
        try:
            default = value_of(field, _as_json(found.default))
        except InvalidInput as error:
            self._wrong(f"{place}.default", error.message)
            return field
        return replace(field, default=default)

    def _check_choices(self, place: str, field: Field) -> None:
        """Notes the choices that nobody could make."""
        for choice in field.choices:
            try:
                value_of(field, Number(choice) if field.kind in NUMBERS else choice)
            except InvalidInput as error:
                self._wrong(f"{place}.choices", f"{choice!r:.60} {error.message}")


def _as_json(value: Any) -> Any:
    """A value of TOML, as one of JSON would have been read."""
    if isinstance(value, (bool, str)):
        return value
    if not math.isfinite(value):
        raise InvalidInput("", f"{value} is no number of JSON")
    return Number(value)
