import pytest
from hypothesis import given, strategies as st

from indexer.core.rate import QUOTA_MAX, WINDOW_S_MAX, Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "quota", "window_s"),
    [("10/10s", 10, 10), ("1/s", 1, 1), ("100/m", 100, 60), ("5/2h", 5, 7200)],
)
def test_a_rate_is_a_number_and_a_time(text: str, quota: int, window_s: int) -> None:
    assert parse_rate(text) == Rate(quota, window_s)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "10/10", "0/10s", "10/0s", "-1/s", "10 / 10s", "10/10S", "1e3/s", "٣/s"),
        *("10/10s\n", f"{QUOTA_MAX + 1}/s", "1/25h", "9" * 400 + "/s"),
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match=r"10/10s|must be 1 to"):
        parse_rate(text)


@given(st.integers(1, QUOTA_MAX), st.integers(1, WINDOW_S_MAX))
def test_a_rate_is_read_as_it_is_written(quota: int, window_s: int) -> None:
    assert parse_rate(str(Rate(quota, window_s))) == Rate(quota, window_s)
