"""What a row of the route table says: one method of one path, who may call it, what it answers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.types import ASGIApp

from api.auth import Access
from api.context import Context
from store.keys import ApiKey


Handler = Callable[[Context, Request, ApiKey | None], Awaitable[ASGIApp]]

JSON: Final = "application/json"
SVG: Final = "image/svg+xml"
EVENT_STREAM: Final = "text/event-stream"
PLAIN: Final = "text/plain"


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
        headers: name to meaning, of those headers that a client needs.
    """

    description: str
    media_type: str | None = JSON
    body: type | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One method of one path.

    Attributes:
        name: stable, for programs that are made from the description.
        description: what the summary cannot say; Markdown.
        answers: by status, successes only.
        problems: statuses of problems, beside those that every such call can have.
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
    body: type | None = None
