"""What is typed behind a command, made into values; for argparse, which says what is wrong with it.

All of them raise ArgumentTypeError. Nothing that is typed, however long, takes long to refuse.
"""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime
from typing import Final

import base58

from indexer.core.rate import Rate, parse_rate


#: What a slot column can hold.
_SLOT_MAX: Final = 2**63 - 1
#: Requests a second: fewer are as good as none, and more cannot be sent.
_RATE_MIN: Final = 0.01
_RATE_MAX: Final = 100_000

_SECONDS: Final = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})([mhdw])", re.ASCII)
#: Ten years: more is meant to be for ever.
_DURATION_S_MAX: Final = 3_650 * 86_400


def number(first: int, last: int, what: str = "") -> Callable[[str], int]:
    """Takes a whole number between two, both included.

    Args:
        first: not negative.
        last: the highest.
        what: the number is, as an error says it.
    """
    wanted = f"{what}: a number" if what else "number"

    def parse(text: str) -> int:
        is_short = text.isascii() and text.isdigit() and len(text) <= len(str(last))
        if not is_short or not first <= int(text) <= last:
            raise ArgumentTypeError(f"{text!r:.60} is no {wanted} from {first} to {last}")
        return int(text)

    return parse


slot: Final = number(0, _SLOT_MAX, "slot")


def rate(text: str) -> float:
    """Requests a second."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not _RATE_MIN <= value <= _RATE_MAX:
        bounds = f"{_RATE_MIN} to {_RATE_MAX}"
        raise ArgumentTypeError(f"{text!r:.60} is no number of requests from {bounds}")
    return value


def quota(text: str) -> Rate:
    """So many in so long, such as `100/10s`."""
    try:
        return parse_rate(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def duration_s(text: str) -> int:
    """A time such as `90d`, in seconds."""
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _DURATION_S_MAX:
        wanted = "a number and one of m, h, d, w, at most ten years"
        raise ArgumentTypeError(f"{text!r:.60} is no time such as 90d: {wanted}")
    return seconds


def unix_s(text: str) -> int:
    """A time, RFC 3339 with a zone, in unix seconds."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ArgumentTypeError(f"{text!r} is no time such as 2026-11-22T20:00:00Z")
    return int(time.timestamp())


def signature(text: str) -> str:
    """Base58 of a transaction's signature, as it was typed."""
    return _base58(text, 64, "signature")


def key(text: str) -> str:
    """Base58 of a key, as it was typed."""
    return _base58(text, 32, "key")


def _base58(text: str, size: int, what: str) -> str:
    try:
        # Decoding takes time with the square of the length; nothing right is longer than this.
        length = len(base58.b58decode(text)) if len(text) <= 2 * size else 0
    except ValueError:
        length = 0
    if length != size:
        raise ArgumentTypeError(f"{text!r:.120} is no {what}: base58 of {size} bytes")
    return text
