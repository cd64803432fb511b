"""What of a card must never be stored: its number, and whatever stands for it. Pure.

A callback is kept as it came, byte for byte, but for these values: numbers, order and spelling
of everything else stay as they were written.

Source: PCI DSS 4.0, requirement 3.4 (of a card number the last four digits may be shown).
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Final


HIDDEN: Final = "***"

#: A card number has 13 to 19 digits (ISO/IEC 7812), in groups or not.
_DIGITS: Final = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)", re.ASCII)
_SHOWN: Final = 4

#: A string of JSON with its quotes, after the name that it is the value of, where it is one.
_STRING: Final = re.compile(
    r'(?:(?P<name>"(?:[^"\\]|\\.)*")(?P<colon>\s*:\s*))?(?P<value>"(?:[^"\\]|\\.)*")', re.DOTALL
)
#: Where a number may be a card's: elsewhere one of this length is an id.
_NUMBER: Final = re.compile(
    r'(?P<name>"(?:pan|card_num|card_number)"\s*:\s*)(?P<digits>\d{13,19})(?!\d)', re.ASCII
)

#: Members whose value is, or stands for, a card: whoever has it can charge it.
SECRET_NAMES: Final = frozenset(
    {
        "token",
        "card_token",
        "payment_token",
        "client_secret",
        "secure_hash",
        "hmac",
        "cvv",
        "cvc",
        "otp",
    }
)
#: Secrets of this length are also looked for inside of other values: the longest ones, so many.
_SECRET_CHARS_MIN: Final = 8
_INSIDE_MAX: Final = 16


def masked(text: str) -> str:
    """The text with all but the last four digits of every card number hidden."""
    return _DIGITS.sub(lambda match: _masked(match[0]), text)


def _masked(found: str) -> str:
    digits = re.sub("[ -]", "", found)
    return "*" * (len(digits) - _SHOWN) + digits[-_SHOWN:] if _is_card_number(digits) else found


def _is_card_number(digits: str) -> bool:
    """Whether the check digit is right. Source: ISO/IEC 7812-1, annex B (Luhn)."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def without_secrets(body: bytes) -> bytes:
    """The JSON with card numbers masked, and the values of `SECRET_NAMES` hidden everywhere.

    Args:
        body: JSON in UTF-8 that was parsed before.
    """
    text = body.decode("utf-8")
    values = {
        value
        for match in _STRING.finditer(text)
        if _name_of(match) in SECRET_NAMES and (value := json.loads(match["value"], strict=False))
    }
    long = sorted((value for value in values if len(value) >= _SECRET_CHARS_MIN), key=len)
    inside = long[: -_INSIDE_MAX - 1 : -1]
    text = _STRING.sub(lambda match: _hidden(match, values, inside), text)
    return _NUMBER.sub(_hide_number, text).encode("utf-8")


def _name_of(match: re.Match[str]) -> str | None:
    return json.loads(match["name"], strict=False) if match["name"] else None


def _hidden(match: re.Match[str], values: Collection[str], inside: Sequence[str]) -> str:
    """The string as it was written, unless something in it must not be seen."""
    before = json.loads(match["value"], strict=False)
    after = HIDDEN if before in values else before
    for secret in inside:
        after = after.replace(secret, HIDDEN)
    after = masked(after)
    if after == before:
        return match[0]
    return f"{match['name'] or ''}{match['colon'] or ''}{json.dumps(after)}"


def _hide_number(match: re.Match[str]) -> str:
    after = _masked(match["digits"])
    return match[0] if after == match["digits"] else f'{match["name"]}"{after}"'
