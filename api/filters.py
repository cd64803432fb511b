"""The query string of a list, checked: a misspelt filter is an error, not all payments."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.datastructures import QueryParams

from api.errors import FieldError, invalid
from api.limits import FIELD_ERRORS_MAX, FILTER_LENGTH_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from indexer.core.account import is_key
from indexer.core.ids import PAYMENT_ID
from indexer.core.types import Status
from indexer.errors import InvalidInput


#: Of the text of a parameter: the name that its value has with us, and the value.
Parser = Callable[[str], tuple[str, object]]

_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_CURSOR: Final = re.compile(rf"(\d{{1,12}}):({PAYMENT_ID.pattern})", re.ASCII)
_LIMIT: Final = re.compile(r"\d{1,3}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which payments to list.

    Attributes:
        created_after: unix seconds.
        before: creation and id of the last payment of the page before.
        limit: how many at most.
    """

    status: Status | None = None
    order_id: str | None = None
    reference: str | None = None
    created_after: int | None = None
    before: tuple[int, str] | None = None
    limit: int = PAGE_SIZE_DEFAULT


def parse(query: QueryParams) -> Filters:
    """The filters of a query string.

    Raises:
        Problem: 422 with every parameter that is unknown, doubled or wrong.
    """
    return Filters(**parsed(query, PARSERS))


def parsed(query: QueryParams, parsers: Mapping[str, Parser]) -> dict[str, Any]:
    """The values of a query string, by the names that their parsers give them.

    Raises:
        Problem: 422 with every parameter that is unknown, doubled or wrong.
    """
    values: dict[str, Any] = {}
    errors = []
    for name in query:
        given = query.getlist(name)
        if name not in parsers:
            errors.append(FieldError(name[:64], f"no such parameter; known: {', '.join(parsers)}"))
        elif len(given) > 1:
            errors.append(FieldError(name, "is given more than once"))
        else:
            try:
                field, value = parsers[name](given[0])
                values[field] = value
            except InvalidInput as error:
                errors.append(FieldError(name, error.message))
    if errors:
        raise invalid(*errors[:FIELD_ERRORS_MAX])
    return values


def cursor(created_at: int, payment_id: str) -> str:
    """Where the next page begins. Opaque: its form may change."""
    return base64.urlsafe_b64encode(f"{created_at}:{payment_id}".encode()).decode().rstrip("=")


def _status(text: str) -> tuple[str, Status]:
    try:
        return "status", Status(text)
    except ValueError:
        raise InvalidInput("status", f"must be one of {', '.join(Status)}") from None


def _order_id(text: str) -> tuple[str, str]:
    if not text or len(text) > FILTER_LENGTH_MAX or "\0" in text:
        raise InvalidInput("order_id", f"must be 1 to {FILTER_LENGTH_MAX} characters")
    return "order_id", text


def _reference(text: str) -> tuple[str, str]:
    if not is_key(text):
        raise InvalidInput("reference", "must be a key: base58 of 32 bytes")
    return "reference", text


def _created_after(text: str) -> tuple[str, int]:
    return "created_after", time_of("created_after", text)


def time_of(name: str, text: str) -> int:
    """Unix seconds of a time by RFC 3339, which is the value of that parameter.

    Raises:
        InvalidInput: it is none.
    """
    # A `+` that was not escaped arrives as a space.
    text = text.replace(" ", "+")
    if _RFC_3339.fullmatch(text):
        try:
            return int(datetime.fromisoformat(text.upper()).timestamp())
        except (ValueError, OverflowError):
            pass
    raise InvalidInput(name, "must be a time by RFC 3339, such as 2026-11-22T20:00:00Z")


def _cursor(text: str) -> tuple[str, tuple[int, str]]:
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        match = _CURSOR.fullmatch(plain.decode("ascii"))
    except (binascii.Error, ValueError):
        match = None
    if match is None:
        raise InvalidInput("cursor", "must be the `next_cursor` of the page before")
    return "before", (int(match[1]), match[2])


def limit(text: str) -> tuple[str, int]:
    """How many to list.

    Raises:
        InvalidInput: less than one, or more than a page has.
    """
    if not _LIMIT.fullmatch(text) or not 1 <= int(text) <= PAGE_SIZE_MAX:
        raise InvalidInput("limit", f"must be 1 to {PAGE_SIZE_MAX}")
    return "limit", int(text)


#: Parameter by parameter: the field of `Filters` that it sets, and its value.
PARSERS: Final[dict[str, Parser]] = {
    "status": _status,
    "order_id": _order_id,
    "reference": _reference,
    "created_after": _created_after,
    "cursor": _cursor,
    "limit": limit,
}
