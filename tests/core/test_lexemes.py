"""What was signed is read as it was written, and what can be read in two ways is not read."""

import contextlib

import pytest
from hypothesis import given, strategies as st

from indexer.core import lexemes
from indexer.core.lexemes import Number, decode_object, decode_query
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
