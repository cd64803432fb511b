"""The OpenAPI 3.1 document, made of the route table and the schemas: it cannot drift."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

import msgspec

from api.calls import Answer, Call, Parameter
from api.errors import PROBLEM_JSON, ProblemBody
from api.routes import CALLS
from api.schema import NewPaymentBody
from api.webhook_schema import (
    EXAMPLE_RECEIVER,
    NewEndpointBody,
    OutgoingEventBody,
    OutgoingTestBody,
    RedeliveryBody,
    RotationBody,
)


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
        "webhooks": {
            "event": {"post": _outgoing("receiveEvent", _EVENT, schemas[OutgoingEventBody])},
            "test": {"post": _outgoing("receiveTest", _TEST, schemas[OutgoingTestBody])},
        },
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
    structs: list[type] = [ProblemBody, OutgoingEventBody, OutgoingTestBody]
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
            "content": {"application/json": {"schema": schemas[call.body]} | _examples(call.body)},
        }
    return operation


def _outgoing(name: str, summary: str, schema: Any) -> dict[str, Any]:
    """What the receivers of `/api/webhooks/endpoints` are sent, as Standard Webhooks has it."""
    return {
        "operationId": name,
        "summary": summary,
        "description": _OUTGOING,
        "security": [],
        "parameters": [
            _parameter(Parameter(name=name, where="header", description=text, required=True))
            for name, text in _OUTGOING_HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "2XX": {"description": "Taken."},
            "410": {"description": "Never again: the receiver is disabled."},
            "default": {"description": "Tried again later, as `Retry-After` asks."},
        },
    }


_EVENT: Final = "An event of a payment"
_TEST: Final = "A test, which is about nothing"
_OUTGOING: Final = (
    "Posted to every receiver that wants its type, at least once: the same `webhook-id` is the "
    "same event. The events of one payment come in order, but for those that are given up or "
    "sent again on demand: `version` of the payment tells which is newer. Check the signature "
    "over the body as it came, before it is read, and that the timestamp is not minutes away. "
    "What is not answered in time with 2xx is tried again for three days; 410 disables the "
    "receiver."
)
_OUTGOING_HEADERS: Final = {
    "webhook-id": "The event's id, the same however often it is sent.",
    "webhook-timestamp": "Unix seconds of this attempt.",
    "webhook-signature": "One or more `v1,` and base64 of HMAC-SHA256, spaces between, over "
    "`<webhook-id>.<webhook-timestamp>.<body>`; the key is what stands behind `whsec_`, decoded. "
    "While a secret is being replaced there is one for each.",
}


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
    if parameter.example is not None:
        described["example"] = parameter.example
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


def _examples(body: type) -> dict[str, Any]:
    return {"examples": dict(_EXAMPLES[body])} if body in _EXAMPLES else {}


#: Bodies that work as they stand.
_EXAMPLES: Final[Mapping[type, Mapping[str, Any]]] = {
    NewPaymentBody: {
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
    },
    NewEndpointBody: {
        "all": {"summary": "Every event", "value": {"url": EXAMPLE_RECEIVER}},
        "some": {
            "summary": "Only what a shop must know to deliver",
            "value": {
                "url": EXAMPLE_RECEIVER,
                "event_types": ["payment.settled", "payment.expired", "payment.review"],
                "description": "the shop",
            },
        },
    },
    RotationBody: {
        "leaked": {"summary": "The old secret is known to others", "value": {"overlap_s": 0}}
    },
    RedeliveryBody: {
        "since": {"summary": "After a bad night", "value": {"since": "2026-11-22T20:00:00Z"}}
    },
}
