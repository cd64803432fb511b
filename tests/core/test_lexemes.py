"""What was signed is read as it was written, and what can be read in two ways is not read."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from indexer.core import lexemes
from indexer.core.lexemes import Number, decode, decode_object, decode_query, encode
from indexer.errors import InvalidInput


@pytest.mark.parametrize("lexeme", ["0", "-0", "1.50", "1e2", "1E+2", "9" * 5_000, "0.10000000000"])
def test_a_number_stays_as_it_was_written(lexeme: str) -> None:
    value = decode_object(f'{{"n": {lexeme}}}'.encode())["n"]

    assert value == lexeme
    assert isinstance(value, Number)


def test_a_text_of_digits_is_no_number() -> None:
    assert not isinstance(decode_object(b'{"n": "12"}')["n"], Number)


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b'"text"', "must be an object"),
        (b"12", "must be an object"),
        (b'{"a": 1, "a": 1}', "'a' stands twice"),
        (b'{"o": {"a": 1, "\\u0061": 2}}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": "line\nbreak"}', "not JSON"),
    ],
)
def test_what_is_no_object_is_refused_in_words(raw: bytes, what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        decode_object(raw)


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def test_nesting_is_bounded() -> None:
    assert decode_object(nested(lexemes.DEPTH_MAX))
    for depth in (lexemes.DEPTH_MAX + 1, 900, 30_000):
        with pytest.raises(InvalidInput, match="nested more than"):
            decode_object(nested(depth))
    with pytest.raises(InvalidInput, match="nested more than"):
        decode_object(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_a_body_is_bounded() -> None:
    fill = lexemes.BODY_BYTES_MAX - len(b'{"a": ""}')
    assert decode_object(b'{"a": "%s"}' % (b"x" * fill))
    with pytest.raises(InvalidInput, match="more than"):
        decode_object(b'{"a": "%s"}' % (b"x" * (fill + 1)))


@given(st.binary(max_size=300))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert isinstance(decode_object(raw), dict)


def test_a_query_is_read_by_name() -> None:
    assert decode_query("a=1&b=&c=%2B+x&d=caf%C3%A9") == {
        "a": "1",
        "b": "",
        "c": "+ x",
        "d": "café",
    }
    assert decode_query("") == {}
    assert decode_query("a=" + "x" * (lexemes.QUERY_CHARS_MAX - 2))
    assert decode_query("&".join(f"a{n}=1" for n in range(lexemes.QUERY_FIELDS_MAX)))


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("a=1&a=1", "a: stands twice"),
        ("a=1&%61=2", "a: stands twice"),
        ("a", "not name=value"),
        ("a=1&&b=2", "not name=value"),
        ("a=%ff", "UTF-8"),
        ("a=" + "x" * lexemes.QUERY_CHARS_MAX, "longer than"),
        ("&".join(f"a{n}=1" for n in range(lexemes.QUERY_FIELDS_MAX + 1)), "not name=value"),
    ],
)
def test_what_is_no_query_is_refused_in_words(query: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        decode_query(query)


@given(st.text(max_size=200))
def test_any_text_is_a_query_or_refused(query: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert isinstance(decode_query(query), dict)


#: Anything that JSON can say, as Python has it.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES.filter(lambda value: "inf" not in json.dumps(value).lower()))
def test_what_was_read_is_written_as_the_same(value: Any) -> None:
    text = encode(decode(json.dumps(value).encode(), depth_max=99))

    assert json.loads(text) == value
    assert text.isascii()
    assert encode(decode(text.encode(), depth_max=99)) == text


@pytest.mark.parametrize(
    "number",
    ["0", "-0", "-0.0", "1.50", "1e2", "1E+02", "9" * 5_000, "0." + "0" * 400 + "1", "1e999999"],
)
def test_a_number_is_written_as_it_was_read(number: str) -> None:
    raw = f'{{"a":[{number},{{"{number}":{number}}}]}}'

    assert encode(decode(raw.encode())) == raw


def test_a_text_is_written_so_that_nothing_can_end_it() -> None:
    text = '"\\\0\n\u2028</script>😀é'

    written = encode({text: text})

    assert json.loads(written) == {text: text}
    assert written.isascii()
    assert not set(written) & set("\0\n")


def test_a_text_of_digits_is_written_as_a_text() -> None:
    assert encode([Number("12"), "12"]) == '[12,"12"]'


@pytest.mark.parametrize(
    ("raw", "value"), [(b"null", None), (b"true", True), (b' "a" ', "a"), (b"[ ]", []), (b"7", "7")]
)
def test_a_value_need_be_no_object(raw: bytes, value: Any) -> None:
    assert decode(raw) == value


def test_bounds_may_be_others() -> None:
    assert decode(b"[[1]]", bytes_max=5, depth_max=2)
    with pytest.raises(InvalidInput, match="more than 4 bytes"):
        decode(b"[[1]]", bytes_max=4)
    with pytest.raises(InvalidInput, match="nested more than 1 deep"):
        decode(b"[[1]]", depth_max=1)
    assert decode(b"1", depth_max=0) == "1"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_refused(raw: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert encode(decode(raw)).isascii()
