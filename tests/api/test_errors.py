import json

import pytest
from starlette.exceptions import HTTPException

from api.errors import FieldError, Problem, as_problem, internal, invalid
from indexer.errors import (
    Conflict,
    DecodeError,
    InvalidInput,
    InvariantError,
    SchemaMismatch,
    SourceRejected,
    SourceUnavailable,
    StoreUnavailable,
)
from tests.api.running import Api


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidInput("amount", "is zero"), 422, "invalid_input"),
        (SourceUnavailable("https://node/?api-key=secret"), 503, "chain_unavailable"),
        (SourceRejected("secret"), 503, "chain_unavailable"),
        (DecodeError("secret"), 503, "chain_unavailable"),
        (StoreUnavailable("secret"), 503, "store_unavailable"),
        (Conflict("secret"), 503, "store_unavailable"),
        (SchemaMismatch("secret"), 503, "store_unavailable"),
        (HTTPException(404), 404, "no_such_path"),
        (HTTPException(405, headers={"Allow": "GET"}), 405, "method_not_allowed"),
        (HTTPException(418), 418, "i'm_a_teapot"),
        (Problem(409, "busy", "wait"), 409, "busy"),
    ],
)
def test_an_error_becomes_a_problem(error: Exception, status: int, code: str) -> None:
    problem = as_problem(error)

    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    assert b"secret" not in problem.response().body
    assert ("Retry-After" in problem.headers) == (status == 503)


@pytest.mark.parametrize("error", [InvariantError("a bug"), KeyError("x"), RuntimeError()])
def test_our_own_fault_is_no_problem_of_the_callers(error: Exception) -> None:
    assert as_problem(error) is None


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    response = invalid(FieldError("amount", "is zero"), FieldError("", "no object")).response()

    assert response.media_type == "application/problem+json"
    assert json.loads(bytes(response.body)) == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "code": "invalid_input",
        "detail": "amount: is zero; no object",
        "errors": [
            {"field": "amount", "message": "is zero"},
            {"field": "", "message": "no object"},
        ],
    }


def test_an_internal_error_says_nothing_of_the_inside() -> None:
    body = json.loads(bytes(internal().response().body))

    assert body.keys() == {"type", "title", "status", "code", "detail"}


async def test_every_error_over_http_is_a_problem(api: Api) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/api/pay/", 404),
        ("GET", "/api/pay/../../etc/passwd", 404),
        ("DELETE", "/api/pay", 405),
        ("HEAD", "/api/sse/events", 405),
        ("POST", "/livez", 405),
        ("GET", "/api/pay", 401),
    ):
        async with api.session.request(method, path) as response:
            assert response.status == status, (method, path)
            assert response.content_type == "application/problem+json"
            assert method == "HEAD" or (await response.json(content_type=None))["status"] == status
            if status == 405:
                assert response.headers["Allow"]


async def test_a_wrong_method_learns_of_all_the_right_ones(api: Api) -> None:
    async with api.session.delete("/api/pay") as response:
        assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}
