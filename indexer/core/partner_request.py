"""What a frontend asks for, as the request that a partner is sent. Pure.

The request is made of the profile's constants and of values that were each read as what they must
be: there is no way from a caller's bytes to the URL, a header or the body that does not lead
through a `Field`. What the table does not name is refused, not dropped: a frontend that means
something by it should learn that nobody listens.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from urllib.parse import quote

from indexer.core import lexemes
from indexer.core.lexemes import Number
from indexer.core.profile import Field, Kind, Method, Profile, Route, Where
from indexer.core.texts import check_line, shown_name
from indexer.errors import InvalidInput


#: Of a string, where the field sets no bound.
STRING_CHARS_MAX: Final = 256
#: Of a whole number, in either direction, where the field sets no bound.
INTEGER_MAX: Final = 10**18 - 1
#: Of a value in a path.
SEGMENT_CHARS_MAX: Final = 64
#: Of a body that a frontend sends.
BODY_BYTES_MAX: Final = 64 * 1024

#: A segment of a path, as the table writes one: nothing that a server could read as more than one.
_SEGMENT: Final = re.compile(rf"(?!\.{{1,2}}\Z)[A-Za-z0-9._~\-]{{1,{SEGMENT_CHARS_MAX}}}", re.ASCII)
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_PRINTABLE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)
#: Half of a surrogate pair is no character, and NUL ends a text for half of the world's programs.
_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")
#: Of a number in a value of the kind `json`.
NUMBER_CHARS_MAX: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request to a partner, without what proves who we are.

    Attributes:
        method: of HTTP.
        url: all of it, below the profile's base URL.
        headers: the route's own, and those of the body.
        body: None: there is none.
        key: stands for everything that its answer may depend on: equal ones have equal answers,
            whoever asks. None where asking twice is not the same as asking once.
    """

    method: Method
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    key: str | None


def ask(
    profile: Profile,
    route: Route,
    query: Iterable[tuple[str, str]],
    body: bytes | None,
    headers: Iterable[tuple[str, str]] = (),
) -> Asked:
    """The request that these values make.

    Args:
        profile: whom it goes to.
        route: what is asked for.
        query: names and values as the frontend sent them, decoded once.
        body: as the frontend sent it; None or empty: none.
        headers: as the frontend sent them; those that the table does not name are nothing to us.

    Raises:
        InvalidInput: names the field that is missing, wrong, not known, or there twice.
    """
    texts = _once(query)
    given = {name: _of_text(_known(route, name, _IN_QUERY), text) for name, text in texts.items()}
    members = _members(route, body)
    given |= {name: value_of(_known(route, name, _IN_BODY), each) for name, each in members.items()}
    given |= _of_headers(route, headers)
    values = _complete(route, given)
    url = f"{profile.base_url}{_path(route, values)}{_query(route, values)}"
    content = _body(route, values)
    sent = _headers(route, values, has_body=content is not None)
    key = None
    if route.method is Method.GET or (route.idempotent and route.cache_s):
        key = _key(profile, route, url, sent, content)
    return Asked(method=route.method, url=url, headers=sent, body=content, key=key)


#: Where the values of a request of ours may belong.
_IN_QUERY: Final = frozenset({Where.PATH, Where.QUERY})
_IN_BODY: Final = frozenset({Where.BODY})


def _once(query: Iterable[tuple[str, str]]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, text in query:
        if name in texts:
            raise InvalidInput(shown_name(name), "stands twice in the query")
        texts[name] = text
    return texts


def _known(route: Route, name: str, places: frozenset[Where]) -> Field:
    field = route.fields.get(name)
    if field is None or field.where not in places:
        names = [each.name for each in route.fields.values() if each.where in places]
        there = f"there are {', '.join(names)}" if names else "there are none"
        raise InvalidInput(shown_name(name), f"no such field here: {there}")
    return field


def _members(route: Route, body: bytes | None) -> dict[str, Any]:
    if not body:
        return {}
    if not any(field.where is Where.BODY for field in route.fields.values()):
        raise InvalidInput("", "this call takes no body")
    value = lexemes.decode(body, bytes_max=BODY_BYTES_MAX)
    if not isinstance(value, dict):
        raise InvalidInput("", "must be an object")
    return value


def _of_headers(route: Route, headers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The values that stand in headers; there, and only there, case means nothing."""
    fields = {f.name.lower(): f for f in route.fields.values() if f.where is Where.HEADER}
    given: dict[str, Any] = {}
    for name, text in headers:
        field = fields.get(name.lower())
        if field is None:
            continue
        if field.name in given:
            raise InvalidInput(field.name, "stands twice in the headers")
        given[field.name] = _of_text(field, text)
    return given


def _complete(route: Route, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values and the defaults, in the table's order."""
    values = {}
    for name, field in route.fields.items():
        if name in given:
            values[name] = given[name]
        elif field.default is not None:
            values[name] = field.default
        elif field.required:
            raise InvalidInput(name, "is missing")
    return values


# ------------------------------------------------------------------------------------ one value


def _of_text(field: Field, text: str) -> Any:
    """The value that a text in a query is."""
    if field.kind is Kind.BOOLEAN:
        if text not in {"true", "false"}:
            raise InvalidInput(field.name, "must be true or false")
        return text == "true"
    if field.kind in {Kind.INTEGER, Kind.NUMBER}:
        return _number(field, text)
    return _string(field, text)


def value_of(field: Field, value: Any) -> Any:
    """The value that a member of a body is; it has the kind that the table says.

    Raises:
        InvalidInput: it has not, or is out of its bounds.
    """
    expected: type | tuple[type, ...]
    match field.kind:
        case Kind.JSON:
            _check_json(field, value)
            return value
        case Kind.BOOLEAN:
            expected, named = bool, "a boolean"
        case Kind.INTEGER | Kind.NUMBER:
            expected, named = Number, "a number"
        case Kind.STRING | Kind.DATE:
            expected, named = str, "a string"
    # `Number` is a string by its class, and none by its meaning.
    if not isinstance(value, expected) or (isinstance(value, Number) and expected is str):
        raise InvalidInput(field.name, f"must be {named}")
    if isinstance(value, Number):
        return _number(field, value)
    return value if isinstance(value, bool) else _string(field, value)


def _check_json(field: Field, value: Any) -> None:
    """Accepts what every reader of JSON reads alike."""
    for part in _scalars(value):
        if isinstance(part, Number) and len(part) > NUMBER_CHARS_MAX:
            raise InvalidInput(field.name, f"has a number of more than {NUMBER_CHARS_MAX} digits")
        if _UNWRITABLE.search(part):
            raise InvalidInput(field.name, "must be Unicode text without NUL characters")


def _scalars(value: Any) -> Iterator[str]:
    """Every text, name and number in it."""
    match value:
        case str():
            yield value
        case dict():
            yield from value
            for each in value.values():
                yield from _scalars(each)
        case list():
            for each in value:
                yield from _scalars(each)
        case _:
            pass


def _number(field: Field, text: str) -> Number:
    form, named = (
        (_INTEGER, "a whole number") if field.kind is Kind.INTEGER else (_NUMBER, "a number")
    )
    if not form.fullmatch(text):
        raise InvalidInput(field.name, f"must be {named} in plain digits")
    if field.least is not None and float(text) < field.least:
        raise InvalidInput(field.name, f"must be {field.least:g} at the least")
    if field.most is not None and float(text) > field.most:
        raise InvalidInput(field.name, f"must be {field.most:g} at the most")
    if field.choices and text not in field.choices:
        raise InvalidInput(field.name, f"must be one of {', '.join(field.choices)}")
    return Number(text)


def _string(field: Field, text: str) -> str:
    most = STRING_CHARS_MAX if field.most is None else int(field.most)
    check_line(field.name, text, chars_max=most)
    if field.least is not None and len(text) < field.least:
        raise InvalidInput(field.name, f"must have {field.least:g} characters at the least")
    if field.choices and text not in field.choices:
        raise InvalidInput(field.name, f"must be one of {', '.join(field.choices)}")
    if field.pattern is not None and not re.fullmatch(field.pattern, text, re.ASCII):
        raise InvalidInput(field.name, f"must match {field.pattern}")
    if field.kind is Kind.DATE and not _is_date(text):
        raise InvalidInput(field.name, "must be a day, such as 2026-11-22")
    if field.where is Where.PATH and not _SEGMENT.fullmatch(text):
        raise InvalidInput(
            field.name, f"must be 1 to {SEGMENT_CHARS_MAX} letters, digits or . _ ~ -"
        )
    if field.where is Where.HEADER and not _PRINTABLE.fullmatch(text):
        raise InvalidInput(field.name, "must be printable ASCII")
    return text


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------------------- the request


def _path(route: Route, values: Mapping[str, Any]) -> str:
    return _PLACE.sub(lambda place: quote(_text(values[place[1]]), safe=""), route.path)


def _query(route: Route, values: Mapping[str, Any]) -> str:
    pairs = [
        f"{quote(field.upstream_name, safe='')}={quote(_text(values[name]), safe='')}"
        for name, field in route.fields.items()
        if field.where is Where.QUERY and name in values
    ]
    return f"?{'&'.join(pairs)}" if pairs else ""


def _headers(route: Route, values: Mapping[str, Any], *, has_body: bool) -> dict[str, str]:
    headers = dict(route.headers)
    if not any(name.lower() == "accept" for name in headers):
        headers["Accept"] = "application/json"
    if has_body:
        headers["Content-Type"] = route.content_type
    for name, field in route.fields.items():
        if field.where is Where.HEADER and name in values:
            headers[field.upstream_name] = _text(values[name])
    return headers


def _body(route: Route, values: Mapping[str, Any]) -> bytes | None:
    members = {
        field.upstream_name: values[name]
        for name, field in route.fields.items()
        if field.where is Where.BODY and name in values
    }
    return lexemes.encode(members).encode() if members else None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _key(
    profile: Profile, route: Route, url: str, headers: Mapping[str, str], body: bytes | None
) -> str:
    digest = hashlib.sha256()
    said = [profile.name, route.name, route.method, url]
    said += [part for name in sorted(headers) for part in (name, headers[name])]
    # Each with its length before it, so that no two requests are written alike.
    for part in [*(text.encode() for text in said), body or b""]:
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()
