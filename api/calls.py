"""What a row of the route table says: one method of one path, who may call it, what it answers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import UnionType
from typing import Any, Final

from starlette.requests import Request
from starlette.types import ASGIApp

from api.auth import Access
from api.context import Context
from api.rates import Limit
from store.keys import ApiKey


Handler = Callable[[Context, Request, ApiKey | None], Awaitable[ASGIApp]]

JSON: Final = "application/json"
SVG: Final = "image/svg+xml"
EVENT_STREAM: Final = "text/event-stream"
PLAIN: Final = "text/plain"


class Proof(StrEnum):
    """How a webhook that comes in shows who sent it; the name of a scheme in the description."""

    HELIUS = "heliusSecret"
    QUICKNODE = "quickNodeSignature"
    PAYMOB = "paymobHmac"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A value of a request outside of its body.

    Attributes:
        where: `path`, `query` or `header`.
        schema: JSON Schema of the value.
    """

    name: str
    where: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call may answer.

    Attributes:
        body: the struct that the body is, for JSON and for the data of a stream.
        first: the struct that the data of a stream's first message is, when it is another one.
        headers: name to meaning, of those headers that a client needs.
    """

    description: str
    media_type: str | None = JSON
    body: type | None = None
    first: type | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One method of one path.

    Attributes:
        name: stable, for programs that are made from the description.
        description: what the summary cannot say; Markdown.
        answers: by status, successes only.
        problems: statuses of problems, beside those that every such call can have.
        body: what is read of a request's body; None: nothing.
        proof: what the sender of a webhook needs in place of an API key.
        limit: what it is counted against.
    """

    method: str
    path: str
    name: str
    access: Access
    handler: Handler
    summary: str
    description: str
    answers: Mapping[int, Answer]
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: type | UnionType | None = None
    proof: Proof | None = None
    limit: Limit = Limit.DEFAULT
