"""Ids say what they are about, nobody can guess them, and they have one form."""

from collections.abc import Callable
from re import Pattern

import pytest
from hypothesis import given, strategies as st

from indexer.core.ids import BYTES, ENDPOINT_ID, PAYMENT_ID, endpoint_id, payment_id
from indexer.errors import InvariantError


KINDS = [(payment_id, PAYMENT_ID, "pay_"), (endpoint_id, ENDPOINT_ID, "we_")]

ids = st.binary(min_size=BYTES, max_size=BYTES)
each_kind = pytest.mark.parametrize(("make", "form", "prefix"), KINDS)


@each_kind
def test_an_id_is_its_prefix_and_26_characters_of_crockfords_base32(
    make: Callable[[bytes], str], form: Pattern[str], prefix: str
) -> None:
    assert make(bytes(16)) == prefix + "0" * 26
    assert make(b"\xff" * 16) == prefix + "7" + "z" * 25
    assert make(bytes(15) + b"\x20") == prefix + "0" * 24 + "10"
    assert form.fullmatch(make(b"\xff" * 16))


@each_kind
@given(one=ids, two=ids)
def test_ids_sort_and_differ_as_their_bytes_do(
    make: Callable[[bytes], str], form: Pattern[str], prefix: str, one: bytes, two: bytes
) -> None:
    characters = make(one).removeprefix(prefix)
    assert form.fullmatch(make(one))
    assert set(characters) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert (make(one) < make(two)) == (one < two)


@each_kind
@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_an_id_is_not_made_of_too_little_or_too_much(
    make: Callable[[bytes], str], form: Pattern[str], prefix: str, size: int
) -> None:
    assert form.pattern.startswith(prefix)
    with pytest.raises(InvariantError):
        make(bytes(size))


@each_kind
@pytest.mark.parametrize(
    "tail", ["", "0" * 25, "0" * 27, "0" * 25 + "Z", "0" * 25 + "\n", "\u0660" * 26]
)
def test_what_has_another_form_is_no_id(
    make: Callable[[bytes], str], form: Pattern[str], prefix: str, tail: str
) -> None:
    assert make(bytes(16)) == f"{prefix}{'0' * 26}"
    assert form.fullmatch(prefix + tail) is None
