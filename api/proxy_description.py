"""The calls to partners that a deployment allows, as paths of the OpenAPI document."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from indexer.core import lexemes
from indexer.core.partner_request import INTEGER_MAX, SEGMENT_CHARS_MAX, STRING_CHARS_MAX
from indexer.core.profile import Field, Kind, Profile, Route, Where


_BASE: Final = "/api/proxy"
#: Where values stand that are parameters of a request of ours.
_APART: Final = frozenset({Where.PATH, Where.QUERY, Where.HEADER})


def paths(profiles: Iterable[Profile], generic: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """One path for each call.

    Args:
        profiles: what is allowed.
        generic: the operations of any call, by method in small letters.
    """
    return {
        f"{_BASE}/{profile.name}/{route.name}": {
            route.method.lower(): _operation(profile, route, generic[route.method.lower()])
        }
        for profile in profiles
        for route in profile.routes.values()
    }


def _operation(profile: Profile, route: Route, generic: Mapping[str, Any]) -> dict[str, Any]:
    operation = {
        **generic,
        "operationId": f"{profile.name}.{route.name}",
        "summary": route.summary or f"{route.name} of {profile.name}",
        "description": _description(route),
        "parameters": [_parameter(each) for each in route.fields.values() if each.where in _APART],
    }
    operation["responses"] = {
        status: _with_headers(response, route) if status.startswith("2") else response
        for status, response in generic["responses"].items()
    }
    body = [field for field in route.fields.values() if field.where is Where.BODY]
    if body:
        operation["requestBody"] = {
            "required": any(map(_is_needed, body)),
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {each.name: _schema(each) | _default(each) for each in body},
                        "required": [each.name for each in body if _is_needed(each)],
                        "additionalProperties": False,
                    }
                }
            },
        }
    return operation


def _with_headers(response: Mapping[str, Any], route: Route) -> dict[str, Any]:
    """A success, with what is let through of the partner's headers."""
    let_through = {name: {"schema": {"type": "string"}} for name in route.response_headers}
    return {**response, "headers": {**response.get("headers", {}), **let_through}}


def _description(route: Route) -> str:
    shown = ", ".join(f"`{path}`" for path in route.response) or "nothing"
    text = f"Of the partner's answer is shown: {shown}."
    if route.cache_s:
        text += f" An answer may be {route.cache_s} s old."
    return f"{text}\n\nNeeds the scope `proxy`."


def _parameter(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "in": "header" if field.where is Where.HEADER else "query",
        "required": _is_needed(field),
        "schema": _schema(field) | _default(field),
    }


def _is_needed(field: Field) -> bool:
    return field.required and field.default is None


def _default(field: Field) -> dict[str, Any]:
    """What is sent where nothing is given."""
    if field.default is None:
        return {}
    return {"default": msgspec.json.decode(lexemes.encode(field.default))}


def _schema(field: Field) -> dict[str, Any]:
    """JSON Schema of a value."""
    match field.kind:
        case Kind.JSON:
            return {}
        case Kind.BOOLEAN:
            return {"type": "boolean"}
        case Kind.INTEGER:
            least = -INTEGER_MAX if field.least is None else field.least
            most = INTEGER_MAX if field.most is None else field.most
            bounds = {"minimum": least, "maximum": most}
            return {"type": "integer", **bounds, **_choices(field)}
        case Kind.NUMBER:
            bounds = _given(minimum=field.least, maximum=field.most)
            return {
                "type": "number",
                "description": "In plain digits.",
                **bounds,
                **_choices(field),
            }
        case Kind.DATE:
            return {"type": "string", "format": "date", **_choices(field)}
        case Kind.STRING:
            return {"type": "string", **_lengths(field), **_choices(field), **_pattern(field)}


def _lengths(field: Field) -> dict[str, Any]:
    longest = STRING_CHARS_MAX if field.most is None else int(field.most)
    if field.where is Where.PATH:
        longest = min(longest, SEGMENT_CHARS_MAX)
    return {
        "minLength": 1 if field.least is None else int(field.least),
        "maxLength": longest,
    }


def _pattern(field: Field) -> dict[str, Any]:
    if field.pattern is not None:
        return {"pattern": f"^(?:{field.pattern})$"}
    if field.where is Where.PATH:
        return {"pattern": r"^(?!\.{1,2}$)[A-Za-z0-9._~\-]+$"}
    if field.where is Where.HEADER:
        return {"pattern": "^[!-~](?:[ -~]*[!-~])?$"}
    return {}


def _choices(field: Field) -> dict[str, Any]:
    if not field.choices:
        return {}
    is_text = field.kind in {Kind.STRING, Kind.DATE}
    return {"enum": [each if is_text else msgspec.json.decode(each) for each in field.choices]}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
