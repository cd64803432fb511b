import base64

import pytest
from hypothesis import given, strategies as st
from starlette.datastructures import QueryParams

from api.errors import Problem
from api.filters import PARSERS, Filters, cursor, parse
from indexer.core.types import Status
from tests.instructions import key


ID = "pay_" + "0" * 26


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Filters()),
        ("status=settled", Filters(status=Status.SETTLED)),
        ("order_id=%2042", Filters(order_id=" 42")),
        (f"reference={key('a')}", Filters(reference=key("a"))),
        ("created_after=1970-01-01T00:00:10Z", Filters(created_after=10)),
        ("created_after=1970-01-01t00:00:10.999z", Filters(created_after=10)),
        ("created_after=1970-01-01T02:00:10%2B02:00", Filters(created_after=10)),
        ("created_after=1970-01-01T02:00:10+02:00", Filters(created_after=10)),
        ("limit=1", Filters(limit=1)),
        ("limit=100", Filters(limit=100)),
        (f"cursor={cursor(7, ID)}", Filters(before=(7, ID))),
    ],
)
def test_filters_are_read(query: str, expected: Filters) -> None:
    assert parse(QueryParams(query)) == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cursor=x", "cursor"),
        ("cursor=", "cursor"),
        (f"cursor={encoded('9' * 30 + ':' + ID)}", "cursor"),
        (f"cursor={encoded('-1:' + ID)}", "cursor"),
        (f"cursor={encoded('7:pay_')}", "cursor"),
        (f"cursor={encoded('7:' + ID + 'é')}", "cursor"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=1.5", "limit"),
        ("limit=-1", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=1%0A", "limit"),
        ("status=paid", "status"),
        ("status=", "status"),
        ("status=SETTLED", "status"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-11-22", "created_after"),
        ("created_after=2026-11-22T20:00:00", "created_after"),
        ("created_after=2026-13-22T20:00:00Z", "created_after"),
        ("created_after=2026-11-22T20:00:60Z", "created_after"),
        ("order_id=", "order_id"),
        ("order_id=%00", "order_id"),
        (f"order_id={'x' * 256}", "order_id"),
        ("reference=me", "reference"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
    ],
)
def test_a_bad_filter_is_refused_by_name(query: str, field: str) -> None:
    with pytest.raises(Problem) as refused:
        parse(QueryParams(query))

    assert refused.value.status == 422
    assert [error.field for error in refused.value.errors] == [field]


@given(pairs=st.lists(st.tuples(st.sampled_from(list(PARSERS)) | st.text(), st.text())))
def test_whatever_is_asked_is_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    try:
        answer: Filters | Problem = parse(QueryParams(pairs))
    except Problem as problem:
        answer = problem

    if isinstance(answer, Problem):
        assert answer.status == 422
        assert answer.errors
    else:
        assert 1 <= answer.limit <= 100
