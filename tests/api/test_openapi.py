from typing import Any

import msgspec
from openapi_schema_validator import OAS31Validator, validate as validate_value
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from api import openapi
from api.filters import PARSERS
from api.rates import Limit
from api.routes import CALLS
from api.schema import NewPaymentBody, PaymentBody
from indexer.core import delivery, standard_webhooks
from indexer.core.types import EventType, Paid, Provider, Status
from store.database import Statement
from tests.api.running import NOW, SOLD, Api


DOCUMENT: dict[str, Any] = msgspec.json.decode(
    msgspec.json.encode(openapi.document("https://pay.example.com"))
)


def schema_of(name: str) -> dict[str, Any]:
    """One of the document's schemas, able to resolve the others."""
    return {**DOCUMENT["components"]["schemas"][name], "components": DOCUMENT["components"]}


def resolved(response: dict[str, Any]) -> dict[str, Any]:
    """The answer itself, where only its name stands."""
    name = response.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = DOCUMENT["components"]["responses"][name] if name else response
    return found


def test_the_document_is_valid() -> None:
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)


def test_it_describes_every_route_and_no_other() -> None:
    described = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }

    assert described == {(call.method, call.path) for call in CALLS}


def test_every_call_says_which_key_it_needs() -> None:
    for call in CALLS:
        operation = DOCUMENT["paths"][call.path][call.method.lower()]
        assert ("security" in operation) == (call.access.scope is not None or bool(call.proof))
        asks_who = call.access.scope is not None or 401 in call.problems
        assert bool(call.proof) == (call.access.scope is None and asks_who)
        assert ("401" in operation["responses"]) == asks_who
        if call.access.required:
            assert f"`{call.access.scope}`" in operation["description"]


def test_every_call_that_is_counted_says_so() -> None:
    told = {"RateLimit", "RateLimit-Policy"}
    for call in CALLS:
        responses = DOCUMENT["paths"][call.path][call.method.lower()]["responses"]
        headers = [set(resolved(response).get("headers", {})) for response in responses.values()]
        if call.limit is Limit.EXEMPT:
            assert not any("RateLimit" in found for found in headers[: len(call.answers)])
        else:
            assert all(told <= found for found in headers)
        assert ("429" in responses) == (call.limit not in {Limit.EXEMPT, Limit.STREAM})
    assert "Retry-After" in DOCUMENT["components"]["responses"]["Problem429"]["headers"]


async def test_what_receivers_are_sent_is_as_described(api: Api) -> None:
    payment = await api.create()
    await api.settle(payment["id"], 12_500_000)
    statement = Statement("SELECT type, created_at, data FROM events ORDER BY seq")
    [rows] = await api.database.read([statement])

    bodies = [
        delivery.payload(type_, created_at, data, payment["order_id"])
        for type_, created_at, data in rows
    ]

    assert len(bodies) == 2
    for body in bodies:
        said = msgspec.json.decode(body)
        validate_value(said, schema_of("OutgoingEventBody"), cls=OAS31Validator)
        assert said["data"]["order_id"] == "1042"
    test = msgspec.json.decode(delivery.test_payload(NOW))
    validate_value(test, schema_of("OutgoingTestBody"), cls=OAS31Validator)
    types = DOCUMENT["components"]["schemas"]["OutgoingEventBody"]["properties"]["type"]["enum"]
    assert set(types) == set(EventType)


def test_the_headers_of_webhooks_are_described() -> None:
    for webhook in DOCUMENT["webhooks"].values():
        described = {parameter["name"] for parameter in webhook["post"]["parameters"]}
        assert described == {
            standard_webhooks.ID_HEADER,
            standard_webhooks.TIMESTAMP_HEADER,
            standard_webhooks.SIGNATURE_HEADER,
        }


def test_every_filter_is_described() -> None:
    parameters = DOCUMENT["paths"]["/api/pay"]["get"]["parameters"]

    assert [parameter["name"] for parameter in parameters] == list(PARSERS)


def test_the_words_are_those_of_the_core() -> None:
    properties = DOCUMENT["components"]["schemas"]["PaymentBody"]["properties"]

    assert set(properties["status"]["enum"]) == set(Status)
    assert set(properties["paid"]["enum"]) == set(Paid)
    assert set(properties["provider"]["enum"]) == set(Provider)


def test_every_field_of_a_payment_is_described() -> None:
    fields = [field.encode_name for field in msgspec.structs.fields(PaymentBody)]

    assert list(DOCUMENT["components"]["schemas"]["PaymentBody"]["properties"]) == fields


async def test_it_is_served_as_it_is_made(api: Api) -> None:
    assert await api.get("/api/openapi.json") == (200, DOCUMENT)


async def test_the_examples_work(api: Api) -> None:
    body = DOCUMENT["paths"]["/api/pay"]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        msgspec.convert(example["value"], NewPaymentBody)
        await api.create(**{**dict.fromkeys(SOLD), **example["value"]})


async def test_answers_are_as_described(api: Api) -> None:
    payment = await api.create()
    await api.settle(payment["id"], 12_500_000)

    for path, name, headers in (
        (f"/api/pay/{payment['id']}", "PaymentBody", api.reader),
        (f"/api/pay/{payment['id']}", "PaymentBody", None),
        ("/api/pay", "PageBody", api.reader),
        ("/api/pay", "ProblemBody", None),
        ("/livez", "LiveBody", None),
        ("/readyz", "ReadinessBody", None),
    ):
        _, body = await api.get(path, headers)
        validate_value(body, schema_of(name), cls=OAS31Validator)
