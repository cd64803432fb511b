"""JSON-RPC over HTTP as bytes, and what every kind of failure means. Pure.

Only here are errors judged: whether asking again helps, whether the endpoint should rest,
whether another endpoint may do better. Messages never hold the secret parts of a URL.

Sources: JSON-RPC 2.0; Agave `rpc-client-api/src/custom_error.rs`; RFC 9110 section 10.2.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from indexer.errors import SourceError, SourceRejected, SourceUnavailable


#: Longest part of a server's own message that is repeated in ours, in characters.
MESSAGE_LENGTH_MAX: Final = 300

#: The longest pause that a server can ask for, in seconds: none may silence us for a day.
RETRY_AFTER_S_MAX: Final = 300.0

UNSUPPORTED_VERSION: Final = -32015
FILTER_NOT_FOUND: Final = -32020
INVALID_PARAMS: Final = -32602

#: Not answered yet, though nothing is wrong with the endpoint: the block or its status is not
#: there yet, or the node is behind the slot that was asked for.
NOT_YET_CODES: Final = frozenset({-32004, -32014, -32016})

#: No block there: "skipped, or missing", and nobody says which. Never a proof by itself.
SKIPPED_CODES: Final = frozenset({-32007, -32009})

#: Cleaned up, or history is not kept at all.
PRUNED_CODES: Final = frozenset({-32001, -32011})

#: This node cannot tell, another may; also where a list is to go on is known to some only.
NOT_KEPT_CODES: Final = SKIPPED_CODES | PRUNED_CODES | {FILTER_NOT_FOUND}

#: Refused by this endpoint for what it is: method unknown or turned off, key not accepted.
NOT_SERVED_CODES: Final = frozenset({-32010, -32601, -32401, -32403, 401, 402, 403, 404, 405})

#: Wrong with the question, whoever is asked.
QUESTION_CODES: Final = frozenset({-32600, INVALID_PARAMS, UNSUPPORTED_VERSION})

#: Too many requests, in the dialects of several providers.
_PACE_CODES: Final = frozenset({429, -32429})
_PACE_WORDS: Final = ("too many requests", "rate limit", "request limit", "exceeded its")


class _Request(msgspec.Struct):
    id: int
    method: str
    params: Sequence[Any]
    jsonrpc: str = "2.0"


class _Answer(msgspec.Struct):
    id: Any = None
    result: msgspec.Raw = msgspec.Raw()
    error: Any = None


#: What a signed 64-bit column can hold; a slot beyond it is no slot.
Slot = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
#: Unix seconds up to the year 9999, the last that a date can be written of.
UnixTime = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]

#: What goes wrong with bytes that are not the JSON they should be; the last is JSON nested
#: without end.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.json.Encoder()
_answer_decoder = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which question, to whom: what an error message begins with.

    Attributes:
        method: the JSON-RPC method.
        host: the endpoint as `logged_url` shows it.
        secrets: parts of its URL that a server may echo and that must not be repeated.
    """

    method: str
    host: str
    secrets: tuple[str, ...] = ()

    def note(self, what: str) -> str:
        """A message that is safe to log."""
        for secret in self.secrets:
            what = what.replace(secret, "…")
        return f"{self.method} at {self.host}: {what}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What a failed request means.

    Attributes:
        error: what to raise.
        rests: the endpoint is in trouble, or asked for a pause: leave it alone for a while.
    """

    error: SourceError
    rests: bool


def encode_request(request_id: int, method: str, params: Sequence[Any]) -> bytes:
    """One request as JSON."""
    return _encoder.encode(_Request(request_id, method, params))


def decode_answer(body: bytes, request_id: int, asked: Asked) -> bytes | Fault:
    """The raw JSON of `result` in a 2xx answer, or what is wrong with the answer."""
    try:
        answer = _answer_decoder.decode(body)
    except UNREADABLE:
        return unreadable(asked, f"no JSON-RPC answer but {_excerpt(body)}")
    if answer.error is not None:
        return refused(asked, answer.error)
    if answer.id != request_id:
        return unreadable(asked, f"an answer to request {answer.id!r:.40}, not {request_id}")
    result = bytes(answer.result)
    return result or unreadable(asked, "an answer with neither result nor error")


def refused(asked: Asked, error: Any, *, retry_after_s: float | None = None) -> Fault:
    """What the `error` member of an answer means."""
    code, message = _code_and_message(error)
    text = asked.note(f"{message} ({code})")
    if code in _PACE_CODES or any(word in message.lower() for word in _PACE_WORDS):
        return Fault(SourceUnavailable(text, retry_after_s=retry_after_s, code=code), rests=True)
    if code in NOT_YET_CODES:
        return Fault(SourceUnavailable(text, code=code), rests=False)
    if code in NOT_KEPT_CODES | NOT_SERVED_CODES | QUESTION_CODES:
        return Fault(SourceRejected(text, code=code), rests=False)
    # -32005 (node unhealthy), -32019 (storage out of reach), -32603 and all that is unknown:
    # nothing can be concluded, so ask again.
    return Fault(SourceUnavailable(text, retry_after_s=retry_after_s, code=code), rests=True)


def failed(asked: Asked, status: int, retry_after_s: float | None, body: bytes) -> Fault:
    """What an HTTP status other than 2xx means; many providers put a JSON-RPC error in it."""
    if status == 429:
        text = asked.note("HTTP 429, too many requests")
        return Fault(SourceUnavailable(text, retry_after_s=retry_after_s), rests=True)
    if status in NOT_SERVED_CODES:
        return Fault(SourceRejected(asked.note(f"HTTP {status}"), code=status), rests=True)
    if (error := _error_in(body)) is not None:
        return refused(asked, error, retry_after_s=retry_after_s)
    if status == 408 or status >= 500:
        text = asked.note(f"HTTP {status}")
        return Fault(SourceUnavailable(text, retry_after_s=retry_after_s), rests=True)
    return Fault(SourceRejected(asked.note(f"HTTP {status}"), code=status), rests=True)


def unreadable(asked: Asked, what: str) -> Fault:
    """An answer that is none: a gateway's page, somebody else's answer, half a body."""
    return Fault(SourceUnavailable(asked.note(what)), rests=True)


def unreachable(asked: Asked, what: str) -> Fault:
    """No answer at all: refused, reset, timed out."""
    return Fault(SourceUnavailable(asked.note(what)), rests=True)


def retry_after_s(
    value: str | None, date: str | None, *, longest_s: float = RETRY_AFTER_S_MAX
) -> float | None:
    """Seconds that `Retry-After` asks for, at most `longest_s`; None when it says none.

    A date is counted from the same answer's own `Date`, so that clocks need not agree.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), longest_s)
    until, now = _http_date(value), _http_date(date)
    if until is None or now is None:
        return None
    return min(max(0.0, (until - now).total_seconds()), longest_s)


def logged_url(url: str) -> str:
    """Scheme, host and port: everything else in a node's URL may be a key."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "(no URL)"
    return f"{parts.scheme}://{host}{port}" if parts.scheme and host else "(no URL)"


def _http_date(value: str | None) -> datetime | None:
    try:
        date = None if value is None else parsedate_to_datetime(value)
    except ValueError:
        return None
    return date if date is None or date.tzinfo is not None else date.replace(tzinfo=UTC)


def _error_in(body: bytes) -> Any:
    try:
        return _answer_decoder.decode(body).error
    except UNREADABLE:
        return None


def _code_and_message(error: Any) -> tuple[int, str]:
    """Of whatever a provider puts into `error`: an object, mostly, or a plain string."""
    if not isinstance(error, dict):
        return 0, f"{error}"[:MESSAGE_LENGTH_MAX]
    code, message = error.get("code"), error.get("message")
    return code if isinstance(code, int) else 0, f"{message}"[:MESSAGE_LENGTH_MAX]


def _excerpt(body: bytes) -> str:
    return repr(body[:80].decode("utf-8", "replace"))
