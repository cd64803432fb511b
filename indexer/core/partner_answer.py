"""What of a partner's answer is let through, and what its refusals mean. Pure.

A partner's answer is read as JSON and written anew, with the members that the route names and no
others; numbers stay as they were written. Its refusals are told in three short texts each, its
other failures in words of ours. Nothing of it is handed on as it came: neither a header, nor a
link that leads past us, nor a stack trace.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from indexer.core import lexemes
from indexer.core.profile import Route
from indexer.errors import InvalidInput, SourceError


#: How deeply objects and arrays of an answer may stand in each other.
DEPTH_MAX: Final = 64
#: Of a partner's refusal, what is told.
COMPLAINTS_MAX: Final = 5
COMPLAINT_CHARS_MAX: Final = 200
#: Statuses of a success that mean something to a frontend; every other one is 200 to it. What
#: has no body is 204.
PASSED: Final = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED})

_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?", re.ASCII)

Tree = Mapping[str, "Tree | None"]


class Trouble(StrEnum):
    """Why a call to a partner came to nothing."""

    REFUSED = "refused"
    """The values are not to its liking."""
    NOT_FOUND = "not_found"
    BUSY = "busy"
    """It, or the rate that it allows us, wants a pause."""
    AWAY = "away"
    """It cannot be reached, or was left alone because it could not be."""
    SLOW = "slow"
    FAILED = "failed"
    """It answered with an error of its own, or with what cannot be read."""
    LOCKED = "locked"
    """It does not let us in: our credentials there must be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One thing that a partner says is wrong: printable, short.

    Attributes:
        field: what it names, by its own name; empty: nothing.
    """

    code: str
    title: str
    detail: str
    field: str


class PartnerFailed(SourceError):
    """A call to a partner came to nothing.

    Attributes:
        trouble: why.
        retry_after_s: when to try again, in seconds; None: nobody knows.
        complaints: what the partner said of the values.
    """

    def __init__(
        self,
        trouble: Trouble,
        message: str,
        *,
        retry_after_s: float | None = None,
        complaints: tuple[Complaint, ...] = (),
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.retry_after_s = retry_after_s
        self.complaints = complaints


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What a frontend is answered.

    Attributes:
        status: one of `PASSED`; 204 without a body.
        body: JSON.
        headers: those of the partner's that are let through, and ours, such as `Cache-Status`.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def judge(
    route: Route,
    status: int,
    body: bytes,
    retry_after_s: float | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
) -> Passed:
    """The part of an answer that is let through.

    Args:
        route: what was asked for.
        status: of the partner's answer.
        body: of the partner's answer, unpacked and bounded.
        retry_after_s: what it asked us to wait; None: nothing.
        headers: of the partner's answer, by their names in lower case.
        secrets: what it was shown of us, which it may repeat to nobody: token, key.

    Raises:
        PartnerFailed: it is no answer to what was asked.
    """
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise _failure(status, body, retry_after_s, secrets)
    shown_headers = dict(_let_through(route, headers or {}, secrets))
    if not body.strip():
        return Passed(status=HTTPStatus.NO_CONTENT, headers=shown_headers)
    try:
        value = lexemes.decode(body, bytes_max=len(body), depth_max=DEPTH_MAX)
    except InvalidInput as error:
        raise PartnerFailed(Trouble.FAILED, f"the partner's answer {error.message}") from error
    shown = lexemes.encode(_selected(value, _tree(route.response)))
    if _repeats(shown, secrets):
        raise PartnerFailed(Trouble.FAILED, "the partner's answer repeats what proves who we are")
    plain = status if status in PASSED else HTTPStatus.OK
    return Passed(status=plain, body=shown.encode(), headers=shown_headers)


def _let_through(
    route: Route, headers: Mapping[str, str], secrets: Sequence[str]
) -> Iterator[tuple[str, str]]:
    for name in route.response_headers:
        value = headers.get(name, "")
        if _HEADER_VALUE.fullmatch(value) and not _repeats(value, secrets):
            yield name, value


def _repeats(text: str, secrets: Sequence[str]) -> bool:
    """Whether one of them stands in it, as it is or as JSON writes it."""
    return any(secret in text or json.dumps(secret)[1:-1] in text for secret in secrets if secret)


def _tree(paths: tuple[str, ...]) -> Tree:
    """The paths, by their first names; None: everything below."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):  # a path comes before those below it, which it holds
        level, *names = tree, *path.split(".")
        for name in names[:-1]:
            level = level.setdefault(name, {})
            if level is None:
                break
        else:
            level.setdefault(names[-1], None)
    return tree


def _selected(value: Any, tree: Tree) -> Any:
    match value:
        case dict():
            kept = {}
            for name, each in value.items():
                if name not in tree:
                    continue
                below = tree[name]
                if below is None:
                    kept[name] = each
                elif isinstance(each, (dict, list)):
                    kept[name] = _selected(each, below)
            return kept
        case list():
            return [_selected(each, tree) for each in value if isinstance(each, (dict, list))]
        case _:
            return {}


# ------------------------------------------------------------------------------------- failures

#: Statuses by which a partner says that the values are at fault.
_BAD_VALUES: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


def _failure(
    status: int, body: bytes, retry_after_s: float | None, secrets: Sequence[str]
) -> PartnerFailed:
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            # What it says of our credentials may hold them.
            return PartnerFailed(Trouble.LOCKED, f"the partner does not let us in: HTTP {status}")
        case HTTPStatus.NOT_FOUND:
            message = "the partner knows nothing of this"
            return PartnerFailed(Trouble.NOT_FOUND, message, complaints=complaints(body, secrets))
        case HTTPStatus.TOO_MANY_REQUESTS:
            message = "the partner asks for a pause"
            return PartnerFailed(Trouble.BUSY, message, retry_after_s=retry_after_s)
        case _ if status in _BAD_VALUES:
            message = f"the partner refuses the values: HTTP {status}"
            return PartnerFailed(Trouble.REFUSED, message, complaints=complaints(body, secrets))
        case _:
            message = f"the partner answered with HTTP {status}"
            return PartnerFailed(Trouble.FAILED, message, retry_after_s=retry_after_s)


def complaints(body: bytes, secrets: Sequence[str] = ()) -> tuple[Complaint, ...]:
    """What a refusal says is wrong; empty when it cannot be read.

    Read are a list `errors` (as JSON:API and Amadeus have it), and `title` and `detail` at the
    top (RFC 9457). What repeats a secret is left out.
    """
    try:
        said = lexemes.decode(body, bytes_max=len(body), depth_max=DEPTH_MAX)
    except InvalidInput:
        return ()
    # Looked for in what was said, and not in what is left of it: a part of a secret is one, too.
    found = [
        complaint
        for each in _entries(said)
        if not _repeats(lexemes.encode(each), secrets)
        and (complaint := _complaint(each)) is not None
    ]
    return tuple(found[:COMPLAINTS_MAX])


def _entries(said: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(said, dict):
        return
    errors = said.get("errors")
    listed = errors if isinstance(errors, list) else [said]
    yield from (each for each in listed[: 10 * COMPLAINTS_MAX] if isinstance(each, dict))


def _complaint(entry: Mapping[str, Any]) -> Complaint | None:
    source = entry.get("source")
    where = source if isinstance(source, dict) else {}
    complaint = Complaint(
        code=_short(entry.get("code")),
        title=_short(entry.get("title")),
        detail=_short(entry.get("detail")),
        field=_short(where.get("parameter", where.get("pointer"))),
    )
    return complaint if complaint.code or complaint.title or complaint.detail else None


def _short(text: Any) -> str:
    """A text of the partner's as one short printable line; a number is one, too."""
    if not isinstance(text, str):
        return ""
    line = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(line.split())[:COMPLAINT_CHARS_MAX]
