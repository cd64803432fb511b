import json

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from api.body import decode
from api.errors import Problem
from api.limits import FIELD_ERRORS_MAX
from api.schema import NewPaymentBody


def refused(raw: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        decode(raw, NewPaymentBody)
    return caught.value


def test_a_body_becomes_its_struct() -> None:
    body = decode(
        '{"amount": "1.50", "token": "USDC", "label": "Café", "metadata": {"a": "b"}}'.encode(),
        NewPaymentBody,
    )

    assert body == NewPaymentBody(amount="1.50", token="USDC", label="Café", metadata={"a": "b"})


def test_null_is_as_good_as_left_out() -> None:
    assert decode(
        b'{"amount": "1", "token": "SOL", "label": null, "expires_in_s": null}', NewPaymentBody
    ) == NewPaymentBody(amount="1", token="SOL")


@pytest.mark.parametrize(
    ("raw", "status", "field", "words"),
    [
        (b"", 400, "", "line 1"),
        (b'\xef\xbb\xbf{"amount": "1"}', 400, "", "BOM"),
        (b'{"amount": "\xff"}', 400, "", "not UTF-8 at byte 12"),
        ('{"amount": "1"}'.encode("utf-16"), 400, "", "not UTF-8"),
        (b'{"a": Infinity}', 400, "", "Infinity is no JSON"),
        (b'{"a": -Infinity}', 400, "", "-Infinity is no JSON"),
        (b'{"metadata": {"k": "1", "k": "2"}}', 400, "k", "stands twice"),
        (b'{"\\ud800": 1, "\\ud800": 2}', 400, "\\ud800", "stands twice"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, 400, "", "nested too deeply"),
        (b"[]", 422, "", "an object, not an array"),
        (b"7", 422, "", "an object, not a number"),
        (b"null", 422, "", "an object, not null"),
        (b'{"amount": 7, "token": "SOL"}', 422, "amount", "a string, not a number"),
        (b'{"amount": "1", "token": ["SOL"]}', 422, "token", "a string, not an array"),
        (b'{"amount": "1", "token": "SOL", "expires_in_s": 1.5}', 422, "expires_in_s",
         "an integer or null, not a number"),
        (b'{"amount": "1", "token": "SOL", "expires_in_s": %b}' % (b"9" * 50_000), 422,
         "expires_in_s", "an integer or null, not a number"),
        (b'{"amount": "1", "token": "SOL", "metadata": {"a": null}}', 422, "metadata",
         "every value must be a string"),
        (b'{"amount": "1", "token": "SOL", "metadata": {"a": "\\udfff"}}', 422, "metadata",
         "Unicode"),
        (b'{"amount": "1", "token": "SOL", "memo": "a\\u0000b"}', 422, "memo", "NUL"),
        (b'{"amount": "1", "token": "SOL", "\\udfff": 1}', 422, "\\udfff", "no such field"),
    ],
)  # fmt: skip
def test_a_bad_body_is_refused(raw: bytes, status: int, field: str, words: str) -> None:
    problem = refused(raw)

    assert (problem.status, problem.errors[0].field) == (status, field)
    assert words in problem.errors[0].message
    assert len(problem.response().body) < 2_000


@pytest.mark.parametrize(
    ("written", "meant"), [("900", 900), ("900.0", 900), ("9e2", 900), ("-0.0", 0), ("1.5e1", 15)]
)
def test_an_integer_may_be_written_in_any_way_that_is_one(written: str, meant: int) -> None:
    """To JSON Schema, by which integers are described, `9e2` is an integer."""
    raw = f'{{"amount": "1", "token": "SOL", "expires_in_s": {written}}}'.encode()

    body = decode(raw, NewPaymentBody)

    assert (body.expires_in_s, type(body.expires_in_s)) == (meant, int)


@pytest.mark.parametrize(
    "written", ["0.5", "1e-1", "1e300", "1e400", "9007199254740993.0", "7.00000000000000000001"]
)
def test_what_is_no_exact_integer_is_refused(written: str) -> None:
    problem = refused(f'{{"amount": "1", "token": "SOL", "expires_in_s": {written}}}'.encode())

    assert [error.field for error in problem.errors] == ["expires_in_s"]


def test_thousands_of_faults_are_not_all_reported() -> None:
    problem = refused(json.dumps({str(number): 1 for number in range(5_000)}).encode())

    assert len(problem.errors) == FIELD_ERRORS_MAX


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(
    raw=st.from_regex(
        rb"\{\"expires_in_s\": -?(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-]?[0-9]{1,30})?\}", fullmatch=True
    )
)
@example(raw=b'{"expires_in_s": 0e%b}' % (b"9" * 18))
@example(raw=b'{"expires_in_s": 0e%b}' % (b"9" * 19))
@example(raw=b'{"expires_in_s": 1e-%b}' % (b"9" * 60_000))
@example(raw=b'{"expires_in_s": 1.%b}' % (b"0" * 60_000))
def test_any_number_is_one_or_is_refused(raw: bytes) -> None:
    fields = {error.field for error in refused(raw).errors}

    assert {"amount", "token"} <= fields <= {"amount", "token", "expires_in_s"}


@given(raw=st.binary() | json_value.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_sent_is_read_or_refused_by_name(raw: bytes) -> None:
    try:
        answer: NewPaymentBody | Problem = decode(raw, NewPaymentBody)
    except Problem as problem:
        answer = problem

    if isinstance(answer, Problem):
        assert answer.status in (400, 422)
        assert answer.errors
        msgspec.json.decode(answer.response().body)
    else:
        assert isinstance(answer.amount, str)
