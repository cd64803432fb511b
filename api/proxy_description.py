"""The calls to partners that a deployment allows, as paths of the OpenAPI document."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from indexer.core import lexemes
from indexer.core.partner_request import INTEGER_MAX, STRING_CHARS_MAX
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
            return {
                "type": "integer",
                "minimum": -INTEGER_MAX if field.least is None else field.least,
                "maximum": INTEGER_MAX if field.most is None else field.most,
            }
        case Kind.NUMBER:
            bounds = _given(minimum=field.least, maximum=field.most)
            return {"type": "number", "description": "In plain digits.", **bounds}
        case Kind.DATE:
            return {"type": "string", "format": "date"}
        case Kind.STRING:
            longest = STRING_CHARS_MAX if field.most is None else int(field.most)
            shortest = 1 if field.least is None else int(field.least)
            schema: dict[str, Any] = {
                "type": "string",
                "minLength": shortest,
                "maxLength": longest,
            }
            if field.choices:
                schema["enum"] = list(field.choices)
            pattern = None if field.pattern is None else f"^(?:{field.pattern})$"
            return schema | _given(pattern=pattern)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
