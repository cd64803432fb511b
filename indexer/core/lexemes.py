"""JSON and queries, read so that nothing of what was signed is reformatted. Pure.

Numbers stay as they were written. What two readers could read in two ways is refused: a name that
stands twice, bytes that are not UTF-8, `NaN`.
"""

import json
from collections import Counter
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from indexer.core.texts import shown_name
from indexer.errors import InvalidInput, MalformedInput


BODY_BYTES_MAX: Final = 256 * 1024
#: How deeply objects and arrays may stand in each other.
DEPTH_MAX: Final = 16
QUERY_CHARS_MAX: Final = 8 * 1024
QUERY_FIELDS_MAX: Final = 128


class Number(str):
    """A number as it was written."""

    __slots__ = ()


class UnfitError(ValueError):
    """Readable as JSON, and in more than one way.

    Attributes:
        name: that stands twice in its object; empty when something else is wrong.
        message: what is wrong with it.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message


def decode_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that a body is; its numbers are `Number`.

    Raises:
        InvalidInput: it is none, or too large, or nested too deeply.
    """
    body = decode(raw)
    if not isinstance(body, dict):
        raise InvalidInput("", "must be an object")
    return body


def decode(raw: bytes, *, bytes_max: int = BODY_BYTES_MAX, depth_max: int = DEPTH_MAX) -> Any:
    """The JSON value that a body is; its numbers are `Number`.

    Raises:
        InvalidInput: it is none, or too large, or nested too deeply.
    """
    if len(raw) > bytes_max:
        raise InvalidInput("", f"has more than {bytes_max} bytes")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            parse_int=Number,
            parse_float=Number,
            parse_constant=refuse_constant,
            object_pairs_hook=object_of,
        )
    except UnicodeDecodeError as error:
        raise MalformedInput("", f"is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise MalformedInput("", f"is nested more than {depth_max} deep") from None
    except json.JSONDecodeError as error:
        raise MalformedInput("", f"is not JSON: {error.msg}") from None
    except UnfitError as error:
        about = f"'{shown_name(error.name)}' " if error.name else ""
        raise MalformedInput("", f"{about}{error.message}") from None
    _check_depth(value, depth_max)
    return value


def encode(value: Any) -> str:
    """The JSON of what `decode` gave: ASCII, each number as it was written."""
    match value:
        case Number():
            return str(value)
        case dict():
            members = (f"{json.dumps(name)}:{encode(each)}" for name, each in value.items())
            return f"{{{','.join(members)}}}"
        case list() | tuple():
            return f"[{','.join(map(encode, value))}]"
        case _:
            return json.dumps(value)


def decode_query(query: str) -> dict[str, str]:
    """The values of `name=value&name=value`, by name.

    Raises:
        InvalidInput: it is none, or too long, or has a name twice.
    """
    if len(query) > QUERY_CHARS_MAX:
        raise InvalidInput("", f"the query is longer than {QUERY_CHARS_MAX} characters")
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError:  # a UnicodeDecodeError is one, too
        raise InvalidInput("", "the query is not name=value&name=value in UTF-8") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise InvalidInput(shown_name(_twice(pairs)), "stands twice in the query")
    return given


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these members; of a name that stands twice nobody knows which one counts.

    Raises:
        UnfitError: one does.
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        raise UnfitError(_twice(pairs), "stands twice in its object")
    return result


def refuse_constant(name: str) -> NoReturn:
    """`NaN` and `Infinity`, which Python takes for JSON.

    Raises:
        UnfitError: always.
    """
    raise UnfitError("", f"{name} is no JSON")


def _twice(pairs: list[tuple[str, Any]]) -> str:
    name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
    return name


def _check_depth(value: Any, depth_max: int) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth_max):
        inner: list[Any] = []
        for each in level:
            inner.extend(each.values() if isinstance(each, dict) else each)
        level = [each for each in inner if isinstance(each, (dict, list))]
    if level:
        raise MalformedInput("", f"is nested more than {depth_max} deep")
