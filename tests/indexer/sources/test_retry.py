"""Delays and the decision to ask again."""

from itertools import islice

import pytest

from indexer.errors import ConfigError, DecodeError, SourceRejected, SourceUnavailable
from indexer.sources.retry import backoff, is_retryable


def test_the_ceiling_doubles_up_to_the_longest() -> None:
    delays = backoff(lambda: 1.0, first_s=0.25, longest_s=1.5)

    assert list(islice(delays, 5)) == [0.25, 0.5, 1.0, 1.5, 1.5]


def test_jitter_is_full() -> None:
    draws = iter([0.0, 0.5, 0.999])

    assert list(islice(backoff(lambda: next(draws), first_s=1.0), 3)) == [0.0, 1.0, 3.996]


def test_delays_never_end_and_never_overflow() -> None:
    assert next(islice(backoff(lambda: 1.0), 5_000, None)) == 30.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SourceUnavailable("busy"), True),
        (SourceRejected("wrong", code=-32602), False),
        (DecodeError("unreadable"), False),
        (ConfigError(("x",)), False),
        (TimeoutError(), False),  # never leaves the edge unwrapped
    ],
)
def test_only_unavailable_is_asked_again(error: Exception, expected: bool) -> None:
    assert is_retryable(error) is expected
