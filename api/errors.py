"""Errors as answers: `application/problem+json` (RFC 9457) for every status from 400 up.

Beside the members of the RFC each problem has a `code`, a stable word for programs, and where a
value of the caller's is at fault `errors`, one `{"field", "message"}` for each.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.limits import CHAIN_RETRY_AFTER_S, STORE_RETRY_AFTER_S
from indexer.errors import (
    AxiomError,
    DecodeError,
    InvalidInput,
    MalformedInput,
    SourceError,
    StoreError,
)
from indexer.log import get_logger


log = get_logger(__name__)

PROBLEM_JSON = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one value of the caller's."""

    field: str
    message: str


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An error, as RFC 9457 writes it."""

    type: str = msgspec.field(default_factory=lambda: "about:blank")
    title: str
    status: int
    code: str
    detail: str
    errors: tuple[FieldError, ...] = ()
    violated_policies: tuple[str, ...] = msgspec.field(default=(), name="violated-policies")


class Problem(Exception):
    """A request that cannot be answered as asked.

    Attributes:
        code: a stable word for programs.
        errors: what is wrong with which field; empty when no field is at fault.
        headers: to be sent with the answer.
        type: a URI, of a kind of problem that others know too.
        title: of that kind; None: what the status says.
        violated_policies: names of the rates that are used up.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        type: str = "about:blank",
        title: str | None = None,
        violated_policies: Sequence[str] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.type = type
        self.title = title
        self.violated_policies = tuple(violated_policies)

    def response(self) -> Response:
        """The answer that says it."""
        body = ProblemBody(
            type=self.type,
            title=self.title or HTTPStatus(self.status).phrase,
            status=self.status,
            code=self.code,
            detail=self.detail,
            errors=self.errors,
            violated_policies=self.violated_policies,
        )
        return Response(
            msgspec.json.encode(body), self.status, self.headers, media_type=PROBLEM_JSON
        )


def invalid(*errors: FieldError, status: int = 422, code: str = "invalid_input") -> Problem:
    """A problem with values of the caller's; `detail` repeats them for people."""
    detail = "; ".join(f"{e.field}: {e.message}" if e.field else e.message for e in errors)
    return Problem(status, code, detail, errors=errors)


def unavailable(code: str, detail: str, retry_after_s: int) -> Problem:
    """Nothing was done; the same request may succeed later."""
    return Problem(503, code, detail, headers={"Retry-After": str(retry_after_s)})


def going_down() -> Problem:
    """The server ends before the request was done; whether it had its effect is not known."""
    return unavailable(
        "going_down", "the server is being restarted; try again", STORE_RETRY_AFTER_S
    )


def internal() -> Problem:
    """Our own fault. Says nothing of the inside."""
    return Problem(500, "internal_error", "something went wrong here; it has been logged")


def as_problem(error: Exception) -> Problem | None:
    """What an exception means for the caller; None when it is our own fault."""
    match error:
        case Problem():
            return error
        case MalformedInput():
            found = FieldError(error.field, error.message)
            return invalid(found, status=400, code="malformed_json")
        case InvalidInput():
            return invalid(FieldError(error.field, error.message))
        case SourceError() | DecodeError():
            # What the node said may name its URL, and with it our key: only the log hears it.
            log.warning("chain.unavailable", error=str(error))
            return unavailable(
                "chain_unavailable",
                "the chain could not be read; nothing was stored, try again",
                CHAIN_RETRY_AFTER_S,
            )
        case StoreError():
            log.warning("store.unavailable", error=str(error))
            return unavailable(
                "store_unavailable", "the database did not answer; try again", STORE_RETRY_AFTER_S
            )
        case HTTPException():
            return _of_framework(error)
        case _:
            return None


def _of_framework(error: HTTPException) -> Problem:
    """What Starlette itself refuses: no such route, or not with this method."""
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return Problem(
            405, "method_not_allowed", "this path does not know this method", headers=headers
        )
    if error.status_code == HTTPStatus.NOT_FOUND:
        return Problem(404, "no_such_path", "nothing is served under this path")
    phrase = HTTPStatus(error.status_code).phrase
    return Problem(
        error.status_code, phrase.lower().replace(" ", "_"), error.detail, headers=headers
    )


async def answer(_request: Request, error: Exception) -> Response:
    """Starlette's exception handler for everything in `HANDLERS`."""
    problem = as_problem(error)
    if problem is None:
        raise error
    return problem.response()


#: Passed to Starlette. Whatever is not listed is our own fault: `shell.FailSafe` answers 500.
HANDLERS: Mapping[Any, Any] = {Problem: answer, HTTPException: answer, AxiomError: answer}
