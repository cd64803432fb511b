"""Reads a JSON body strictly: bounded while it arrives, and every fault named by its field.

Stricter than JSON asks for, because a client that sends a key twice, or half a surrogate pair,
has a bug that should not decide about money.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from api.errors import FieldError, Problem, invalid
from api.limits import BODY_BYTES_MAX, BODY_TIMEOUT_S, FIELD_ERRORS_MAX
from indexer.core.lexemes import UnfitError, object_of, refuse_constant
from indexer.core.texts import shown_name


T = TypeVar("T", bound=msgspec.Struct)

#: An integer with more digits is no value of any field, and costly to convert.
_DIGITS_MAX: Final = 20
#: Below it every whole number has a float of its own.
_EXACT_MAX: Final = 2**53

_JSON_TYPES: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}

#: How `msgspec` says that a type is wrong: expected, then what was found.
_EXPECTED: Final = re.compile(r"Expected `([^`]+)`, got `[^`]+`")
_WORDS: Final[Mapping[str, str]] = {
    "str": "a string",
    "int": "an integer",
    "object": "an object",
    "null": "null",
}


#: Half of a surrogate pair is no character, and NUL ends a text for half of the world's programs.
_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")


async def read_json_body(request: Request) -> bytes:
    """The raw body of a request that says it is JSON.

    Raises:
        Problem: 415 for another type or a content coding, 413 when it is too large, 408 when it
            does not arrive, 400 when the client went away.
    """
    content_coding(request)
    return await read_body(request, BODY_BYTES_MAX)


def content_coding(request: Request, *others: str) -> str:
    """How the JSON body of a request is coded: `identity`, or one of the others that may be.

    Raises:
        Problem: 415 for another type or another coding.
    """
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if media_type.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Problem(
            415,
            "unsupported_media_type",
            "the body must be JSON in UTF-8, declared as `Content-Type: application/json`",
            headers={"Accept": "application/json"},
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", *others):
        detail = f"the body must be {' or '.join((*others, 'identity'))}"
        raise Problem(
            415,
            "unsupported_content_coding",
            detail if others else "the body must not be compressed",
        )
    return coding


async def read_body(
    request: Request, bytes_max: int, *, on_chunk: Callable[[int], None] | None = None
) -> bytes:
    """The raw body, whatever it says it is.

    Args:
        request: of which nothing was read.
        bytes_max: more of it are not read.
        on_chunk: is told how many bytes have come, for each piece; what it raises ends it.

    Raises:
        Problem: 413 when it is too large, 408 when it does not arrive, 400 when the client went
            away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > bytes_max:
        raise too_large(bytes_max)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise too_large(bytes_max)
                if on_chunk is not None:
                    on_chunk(len(chunk))
    except TimeoutError:
        raise Problem(
            408, "body_timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} s"
        ) from None
    except ClientDisconnect:
        raise Problem(400, "client_gone", "the body ended too early") from None
    return bytes(body)


def too_large(bytes_max: int) -> Problem:
    """A body that is larger than it may be."""
    return Problem(413, "body_too_large", f"a body has at most {bytes_max} bytes")


def decode(raw: bytes, struct: type[T]) -> T:
    """The body as a struct of flat fields.

    Raises:
        Problem: 400 when it is not JSON, 422 with one entry in `errors` for each field that is
            unknown, missing or of a wrong type.
    """
    given = _parse(raw)
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    errors = [FieldError(shown_name(name), "no such field") for name in given if name not in fields]
    values = {}
    for name, field in fields.items():
        if name not in given:
            if field.required:
                errors.append(FieldError(name, "is missing"))
            continue
        try:
            values[field.name] = msgspec.convert(given[name], field.type)
        except msgspec.ValidationError as error:
            errors.append(FieldError(name, _wrong_type(str(error), given[name])))
        else:
            errors += _unwritable(name, given[name])
    if errors:
        raise invalid(*errors[:FIELD_ERRORS_MAX])
    return struct(**values)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        given = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=object_of,
            parse_constant=refuse_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except UnicodeDecodeError as error:
        raise _not_json(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise _not_json("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise _not_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except UnfitError as error:
        raise _not_json(error.message, error.name) from None
    if not isinstance(given, dict):
        raise invalid(FieldError("", f"the body must be an object, not {_kind(given)}"))
    return given


def _not_json(message: str, field: str = "") -> Problem:
    return invalid(FieldError(shown_name(field), message), status=400, code="malformed_json")


def _integer(digits: str) -> int | float:
    # What is too long becomes a float, which no field accepts: the field is then named.
    return int(digits) if len(digits) <= _DIGITS_MAX else float("inf")


def _number(text: str) -> int | float:
    """The number; an integer where it is one. JSON, and JSON Schema, know no other difference."""
    value = float(text)
    is_short = len(text) <= _DIGITS_MAX  # as are the exponents of which `Decimal` knows
    if is_short and abs(value) < _EXACT_MAX and value.is_integer() and Decimal(text) == int(value):
        return int(value)
    return value


def _wrong_type(message: str, value: Any) -> str:
    """A sentence of ours in place of the library's."""
    found = _EXPECTED.match(message)
    if found is None:
        return message
    expected = " or ".join(_WORDS.get(word, word) for word in found[1].split(" | "))
    inside = " - at `$" in message
    return f"{'every value ' if inside else ''}must be {expected}" + (
        "" if inside else f", not {_kind(value)}"
    )


def _kind(value: Any) -> str:
    return _JSON_TYPES.get(type(value), "something else")


def _unwritable(name: str, value: Any) -> list[FieldError]:
    """Text that is no Unicode (half a surrogate pair) or that a database cannot compare."""
    texts = [value] if isinstance(value, str) else []
    if isinstance(value, dict):
        texts = [text for pair in value.items() for text in pair]
    if not any(_UNWRITABLE.search(text) for text in texts):
        return []
    return [FieldError(name, "must be Unicode text without NUL characters")]
