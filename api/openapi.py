"""The OpenAPI 3.1 document, made of the route table and the schemas: it cannot drift."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import version
from types import UnionType
from typing import Any, Final

import msgspec

from api import proxy, proxy_description
from api.calls import EVENT_STREAM, JSON, PLAIN, SVG, Answer, Call, Parameter, Proof
from api.errors import PROBLEM_JSON, ProblemBody
from api.hosts import EXEMPT_PATHS
from api.rates import Limit
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
from indexer.core.profile import Profile
from indexer.core.types import EventType


_REF: Final = "#/components/schemas/{name}"
_SECURITY: Final = "apiKey"
_SCHEMES: Final = {
    _SECURITY: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, `axk_…`, made with `axiompay keys create`.",
    },
    str(Proof.HELIUS): {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "The secret that Helius was given as `authHeader`, as it stands.",
    },
    str(Proof.QUICKNODE): {
        "type": "apiKey",
        "in": "header",
        "name": "x-qn-signature",
        "description": "HMAC-SHA256 over nonce, timestamp and body, hexadecimal.",
    },
    str(Proof.PAYMOB): {
        "type": "apiKey",
        "in": "query",
        "name": "hmac",
        "description": "HMAC-SHA512 of Paymob's, 128 hexadecimal digits.",
    },
}


def document(
    public_url: str, calls: Iterable[Call] = CALLS, partners: Iterable[Profile] = ()
) -> dict[str, Any]:
    """The description of an API that is reached under `public_url`, and of its partners."""
    calls = tuple(calls)
    schemas, components = _schemas(calls)
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, schemas)
    paths |= proxy_description.paths(partners, paths.get(proxy.PATH, {}))
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
            "responses": {
                f"Problem{status}": _problem(status, schemas[ProblemBody])
                for status in sorted({status for call in calls for status in _problems(call)})
            },
            "headers": _RATE_HEADERS,
            "securitySchemes": _SCHEMES,
        },
    }


_Described = type | UnionType


def _schemas(calls: Iterable[Call]) -> tuple[dict[_Described, Any], dict[str, Any]]:
    """Where each struct is described, and the descriptions."""
    structs: list[_Described] = [ProblemBody, OutgoingEventBody, OutgoingTestBody]
    for call in calls:
        answers = call.answers.values()
        bodies = [call.body, *(b for answer in answers for b in (answer.body, answer.first))]
        structs += [body for body in bodies if body is not None and body not in structs]
    references, components = msgspec.json.schema_components(structs, ref_template=_REF)
    return dict(zip(structs, references, strict=True)), components


def _operation(call: Call, schemas: dict[_Described, Any]) -> dict[str, Any]:
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
    if call.limit is not Limit.EXEMPT:
        for response in operation["responses"].values():
            response["headers"] = response.get("headers", {}) | _COUNTED
    operation["responses"] |= {
        str(status): {"$ref": f"#/components/responses/Problem{status}"}
        for status in _problems(call)
    }
    if access.scope is not None:
        operation["security"] = [{_SECURITY: []}] if access.required else [{}, {_SECURITY: []}]
    if call.proof is not None:
        operation["security"] = [{str(call.proof): []}]
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
    statuses = {400, 414, 431, 500, 503, *call.problems}
    if call.path not in EXEMPT_PATHS:
        statuses.add(421)
    if call.access.scope is not None:
        statuses.add(401)
    if call.access.required:
        statuses.add(403)
    if call.limit not in {Limit.EXEMPT, Limit.STREAM}:
        statuses.add(429)
    return sorted(statuses - set(call.answers))


def _problem(status: int, schema: Any) -> dict[str, Any]:
    described = _headers(_PROBLEM_HEADERS.get(status, {}))
    return {
        "description": HTTPStatus(status).phrase,
        "headers": described.get("headers", {}) | _COUNTED,
        "content": {PROBLEM_JSON: {"schema": schema}},
    }


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


def _answer(answer: Answer, schemas: dict[_Described, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.media_type is not None:
        schema = _NO_STRUCT[answer.media_type] if answer.body is None else schemas[answer.body]
        if answer.media_type == EVENT_STREAM:
            schema = _message(schema, None if answer.first is None else schemas[answer.first])
        described["content"] = {answer.media_type: {"schema": schema}}
    return described | _headers(answer.headers)


def _headers(meanings: Mapping[str, str]) -> dict[str, Any]:
    """The `headers` of an answer, if it has any of its own."""
    described = {
        name: {"description": meaning, "schema": {"type": "string"}}
        for name, meaning in meanings.items()
    }
    return {"headers": described} if described else {}


def _message(data: Any, first: Any | None) -> dict[str, Any]:
    """One message of a stream: its fields as members of an object, as OpenAPI 3.2 has it."""

    def described(event: dict[str, Any], data: Any) -> dict[str, Any]:
        of_json = {"type": "string", "contentMediaType": JSON, "contentSchema": data}
        return {
            "type": "object",
            "properties": {
                "id": {"type": "string", "pattern": "^[0-9]+$"},
                "event": {"type": "string", **event},
                "data": of_json,
            },
            "required": ["id", "event", "data"],
        }

    later = described({"enum": [str(type_) for type_ in EventType]}, data)
    return later if first is None else {"oneOf": [described({"const": "payment"}, first), later]}


#: Headers that problems of a status have, or may have.
_PROBLEM_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "How a request shows who sends it."},
    403: {"WWW-Authenticate": "The scope that the key lacks."},
    405: {"Allow": "The methods that there are."},
    409: {"Retry-After": "Seconds, when the same request may succeed later."},
    415: {"Accept": "What the body may be."},
    429: {"Retry-After": "Whole seconds after which a request is answered again."},
    503: {"Retry-After": "Seconds after which the same request may succeed."},
}


#: What everyone is told who is counted, whatever the answer. Lists of items of RFC 9651.
_RATE_HEADERS: Final[Mapping[str, Any]] = {
    "RateLimit-Policy": {
        "description": "Each rate that the request was counted against: its name, `q` requests in "
        "any `w` seconds.",
        "schema": {"type": "string"},
        "example": '"default";q=10;w=10',
    },
    "RateLimit": {
        "description": "What is left of each: `r` requests now, one more in `t` seconds.",
        "schema": {"type": "string"},
        "example": '"default";r=9;t=10',
    },
}

_COUNTED: Final = {name: {"$ref": f"#/components/headers/{name}"} for name in _RATE_HEADERS}


#: What an answer is that no struct describes.
_NO_STRUCT: Final = {
    JSON: {"type": "object"},
    PLAIN: {"type": "string"},
    SVG: {"type": "string"},
}


def _examples(body: _Described) -> dict[str, Any]:
    return {"examples": dict(_EXAMPLES[body])} if body in _EXAMPLES else {}


#: Bodies that work as they stand.
_EXAMPLES: Final[Mapping[_Described, Mapping[str, Any]]] = {
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
