"""The OpenAPI 3.1 document, made of the route table and the schemas: it cannot drift."""

from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

import msgspec

from api.calls import Answer, Call, Parameter
from api.errors import PROBLEM_JSON, ProblemBody
from api.routes import CALLS
from api.schema import EXAMPLE_ID


_REF: Final = "#/components/schemas/{name}"
_SECURITY: Final = "apiKey"


def document(public_url: str, calls: Iterable[Call] = CALLS) -> dict[str, Any]:
    """The description of an API that is reached under `public_url`."""
    calls = tuple(calls)
    schemas, components = _schemas(calls)
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Axiom Pay",
            "version": version("axiompay"),
            "description": "Payments on Solana: create one, show its QR code, and learn for "
            "certain when it is paid. Amounts are decimal strings, times RFC 3339 in UTC, "
            "errors `application/problem+json` (RFC 9457).",
        },
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                _SECURITY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, `axk_…`, made with `axiompay keys create`.",
                }
            },
        },
    }


def _schemas(calls: Iterable[Call]) -> tuple[dict[type, Any], dict[str, Any]]:
    """Where each struct is described, and the descriptions."""
    structs: list[type] = [ProblemBody]
    for call in calls:
        bodies = [call.body, *(answer.body for answer in call.answers.values())]
        structs += [body for body in bodies if body is not None and body not in structs]
    references, components = msgspec.json.schema_components(structs, ref_template=_REF)
    return dict(zip(structs, references, strict=True)), components


def _operation(call: Call, schemas: dict[type, Any]) -> dict[str, Any]:
    access = call.access
    operation: dict[str, Any] = {
        "operationId": call.name,
        "summary": call.summary,
        "description": call.description
        + (f"\n\nNeeds the scope `{access.scope}`." if access.required else ""),
        "parameters": [_parameter(parameter) for parameter in call.parameters],
        "responses": {
            str(status): _answer(answer, schemas) for status, answer in call.answers.items()
        },
    }
    for status in _problems(call):
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": schemas[ProblemBody]}},
        }
    if access.scope is not None:
        operation["security"] = [{_SECURITY: []}] if access.required else [{}, {_SECURITY: []}]
    if call.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[call.body], **_EXAMPLES}},
        }
    return operation


def _problems(call: Call) -> list[int]:
    """Every status of a problem that the call may answer with."""
    statuses = {500, 503, *call.problems}
    if call.access.scope is not None:
        statuses.add(401)
    if call.access.required:
        statuses.add(403)
    return sorted(statuses - set(call.answers))


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.required,
        "schema": dict(parameter.schema),
    }
    example = parameter.example
    if example is None and parameter.name == "id":
        example = EXAMPLE_ID
    if example is not None:
        described["example"] = example
    return described


def _answer(answer: Answer, schemas: dict[type, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.media_type is not None:
        schema = {"type": "string"} if answer.body is None else schemas[answer.body]
        described["content"] = {answer.media_type: {"schema": schema}}
    if answer.headers:
        described["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in answer.headers.items()
        }
    return described


#: Bodies that work as they stand.
_EXAMPLES: Final = {
    "examples": {
        "token": {
            "summary": "12.50 USDC for an order",
            "value": {"amount": "12.5", "token": "USDC", "order_id": "1042"},
        },
        "sol": {
            "summary": "Half a SOL within five minutes, with what the wallet should show",
            "value": {
                "amount": "0.5",
                "token": "SOL",
                "label": "Coffee House",
                "message": "Order 1042",
                "expires_in_s": 300,
                "metadata": {"table": "7"},
            },
        },
    }
}
