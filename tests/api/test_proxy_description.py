"""What a deployment may ask its partners stands in its description, and is what is checked."""

import json
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, strategies as st
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from api import openapi
from api.routes import CALLS
from indexer.core import profile_reader
from indexer.core.partner_request import ask
from indexer.core.profile import Route
from indexer.errors import InvalidInput
from tests.indexer.partners.calling import shipped


[SHOP] = profile_reader.read(
    r"""
[shop]
base_url = "https://api.shop.example/v1"
[shop.routes.find]
summary = "Find an item"
path = "/items/{kind}/{id}"
cache_s = 60
response = ["items.name", "count"]
response_headers = ["X-Total-Count"]
[shop.routes.find.fields]
kind = { where = "path" }
id = { where = "path", type = "integer", least = 1 }
word = { least = 2, most = 20 }
sort = { choices = ["up", "down"], default = "up" }
size = { type = "number", choices = ["1", "2.50"] }
year = { type = "integer" }
day = { type = "date" }
new = { type = "boolean", default = false }
X-Language = { where = "header", pattern = "[a-z]{2}" }
X-Note = { where = "header" }
[shop.routes.add]
method = "POST"
path = "/items"
[shop.routes.add.fields]
name = { where = "body", required = true }
kind = { where = "body", required = true, default = "tea" }
price = { where = "body", type = "number", least = 0.5, most = 9.5 }
parts = { where = "body", type = "json" }
[shop.routes.note]
method = "PUT"
path = "/note"
fields.text = { where = "body", required = true, default = "none" }
""",
    "shop.toml",
)


def described(*profiles: Any) -> dict[str, Any]:
    document = openapi.document("https://pay.example.com", partners=profiles)
    return dict(msgspec.json.decode(msgspec.json.encode(document)))


DOCUMENT: Final = described(SHOP, shipped("https://partner.example"))


def operation(name: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][f"/api/proxy/shop/{name}"][method]
    return found


def parameters(name: str = "find", method: str = "get") -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in operation(name, method)["parameters"]}


def body_of(name: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = operation(name, method)["requestBody"]
    return found


def test_the_document_is_valid_with_partners() -> None:
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)


def test_each_call_has_a_path_of_its_own() -> None:
    others = set(DOCUMENT["paths"]) - {call.path for call in CALLS}

    assert {path for path in others if path.startswith("/api/proxy/shop/")} == {
        f"/api/proxy/shop/{name}" for name in SHOP.routes
    }
    assert "/api/proxy/amadeus/flight-offers" in others
    assert all(path.startswith("/api/proxy/") for path in others)
    assert {path.count("{") for path in others} == {0}


def test_names_of_operations_are_their_own() -> None:
    names = [
        operation["operationId"]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
    ]

    assert len(set(names)) == len(names)
    assert "shop.find" in names


def test_a_call_says_what_it_is_shows_and_needs() -> None:
    find, add = operation("find", "get"), operation("add", "post")

    assert find["summary"] == "Find an item"
    assert "`items.name`, `count`" in find["description"]
    assert "60 s old" in find["description"]
    assert "is shown: nothing" in add["description"]
    for each in (find, add):
        assert "`proxy`" in each["description"]
        assert each["security"]
        assert {"200", "401", "403", "404", "422", "429", "502", "503", "504"} <= set(
            each["responses"]
        )
    for status in ("200", "201", "202", "204"):
        assert "x-total-count" in find["responses"][status]["headers"]
        assert "x-total-count" not in add["responses"][status].get("headers", {})


def test_nothing_of_where_a_partner_is_stands_there() -> None:
    text = json.dumps(DOCUMENT)

    assert "api.shop.example" not in text
    assert "partner.example" not in text


def test_a_value_has_the_form_that_is_checked() -> None:
    found = parameters()

    assert {name: each["in"] for name, each in found.items() if each["in"] != "query"} == {
        "X-Language": "header",
        "X-Note": "header",
    }
    assert [name for name, each in found.items() if each["required"]] == ["kind", "id"]
    assert {name: found[name]["schema"] for name in ("word", "sort", "size", "day", "new")} == {
        "word": {"type": "string", "minLength": 2, "maxLength": 20},
        "sort": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            "enum": ["up", "down"],
            "default": "up",
        },
        "size": {"type": "number", "description": "In plain digits.", "enum": [1, 2.5]},
        "day": {"type": "string", "format": "date"},
        "new": {"type": "boolean", "default": False},
    }


def test_what_has_a_default_is_not_needed() -> None:
    add = body_of("add", "post")

    assert add["required"] is True
    schema = add["content"]["application/json"]["schema"]
    assert schema["required"] == ["name"]
    assert schema["additionalProperties"] is False
    assert body_of("note", "put")["required"] is False
    assert "requestBody" not in operation("find", "get")


# ---------------------------------------------------- the description, and what is really accepted


def accepts(route: Route, name: str, value: Any) -> bool:
    """Whether this value, beside others that are right, makes a request."""
    query = {"kind": "tea", "id": "1"} if route.name == "find" else {}
    headers, body = {}, {"name": "tea"}
    match route.fields[name].where:
        case "body":
            body[name] = value
        case "header":
            headers[name] = value
        case _:
            query[name] = value
    raw = json.dumps(body).encode() if route.name == "add" else None
    try:
        ask(SHOP, route, query.items(), raw, headers.items())
    except InvalidInput:
        return False
    return True


def fits(schema: dict[str, Any], value: Any) -> bool:
    checker = OAS31Validator.FORMAT_CHECKER
    return bool(OAS31Validator(schema, format_checker=checker).is_valid(value))


#: Where a description and a check can part: ends of bounds, and what looks like a value.
TEXTS: Final = (
    "", "a", "ab", "up", "a" * 20, "a" * 21, "a" * 64, "a" * 65, "a" * 256, "a" * 257, ".", "..",
    "...", "a/b", "a%2Fb", " a", "a ", "a b", "é", "2026-02-28", "2026-02-30", "2026-2-3",
    "20260228", "de", "DE", "~_-.",
)  # fmt: skip


@pytest.mark.parametrize("name", ["kind", "word", "sort", "day", "X-Language", "X-Note"])
def test_a_text_is_accepted_if_it_is_as_described(name: str) -> None:
    schema = parameters()[name]["schema"]

    said = {text: fits(schema, text) for text in TEXTS}

    assert {text: accepts(SHOP.routes["find"], name, text) for text in TEXTS} == said
    assert set(said.values()) == {True, False}


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["C", "Zl", "Zp"]), max_size=70))
def test_any_line_is_accepted_if_it_is_as_described(text: str) -> None:
    for name in ("kind", "word", "sort", "day", "X-Language", "X-Note"):
        schema = parameters()[name]["schema"]
        assert accepts(SHOP.routes["find"], name, text) == fits(schema, text)


@pytest.mark.parametrize("name", ["id", "year", "size"])
@pytest.mark.parametrize(
    "number", [0, 1, -1, 2.5, 2, 10**18 - 1, 10**18, -(10**18), -(10**18) + 1, 1.25]
)
def test_a_number_is_accepted_if_it_is_as_described(name: str, number: float) -> None:
    schema = parameters()[name]["schema"]
    text = "2.50" if number == 2.5 else str(number)

    assert accepts(SHOP.routes["find"], name, text) == fits(schema, number)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("price", 0.5), ("price", 0.4), ("price", 9.5), ("price", 9.6), ("price", "1"),
        ("price", True), ("price", None), ("name", "a" * 256), ("name", "a" * 257), ("name", 1),
        ("name", ""), ("kind", ["tea"]), ("parts", None), ("parts", {"a": [1, "b"]}),
    ],
)  # fmt: skip
def test_a_member_is_accepted_if_it_is_as_described(name: str, value: Any) -> None:
    schema = body_of("add", "post")["content"]["application/json"]["schema"]

    assert accepts(SHOP.routes["add"], name, value) == fits(schema, {"name": "tea", name: value})
