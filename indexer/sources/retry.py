"""How long to wait before asking again, and whether to ask again at all. Pure."""

from collections.abc import Callable, Iterator

from indexer.errors import SourceUnavailable


def backoff(
    random: Callable[[], float], *, first_s: float = 0.25, longest_s: float = 30.0
) -> Iterator[float]:
    """Delays without end, in seconds, with full jitter: anything from 0 to a doubling ceiling.

    Full jitter spreads those who failed at the same moment better than a fixed delay with a
    little noise does.

    Args:
        random: draws from 0.0 (included) to 1.0.
        first_s: the first ceiling.
        longest_s: where the ceiling stops doubling.
    """
    ceiling_s = first_s
    while True:
        yield random() * ceiling_s
        ceiling_s = min(longest_s, ceiling_s * 2)


def is_retryable(error: BaseException) -> bool:
    """Whether the same question may be answered later."""
    return isinstance(error, SourceUnavailable)
