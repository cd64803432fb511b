"""How many in how long: `10/10s` lets ten through in any ten seconds."""

import re
from dataclasses import dataclass
from typing import Final


#: An exact log keeps one entry for each request of a window: this bounds what a caller may cost.
QUOTA_MAX: Final = 100_000
WINDOW_S_MAX: Final = 24 * 60 * 60

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_RATE: Final = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})?([smh])", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Rate:
    """At most `quota` in any `window_s` seconds.

    Attributes:
        quota: requests, 1 … `QUOTA_MAX`.
        window_s: seconds, 1 … `WINDOW_S_MAX`.
    """

    quota: int
    window_s: int

    def __post_init__(self) -> None:
        if not (1 <= self.quota <= QUOTA_MAX and 1 <= self.window_s <= WINDOW_S_MAX):
            raise ValueError(f"must be 1 to {QUOTA_MAX} in 1 to {WINDOW_S_MAX} seconds")

    def __str__(self) -> str:
        return f"{self.quota}/{self.window_s}s"


def parse_rate(text: str) -> Rate:
    """The rate that `10/10s`, `100/m` or `5/2h` says.

    Raises:
        ValueError: it says none; the message says what would be right.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.40} is no rate: write a number, a slash and a time, as 10/10s")
    return Rate(int(found[1]), int(found[2] or 1) * _SECONDS[found[3]])
