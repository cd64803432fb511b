"""Amounts: decimal text at the edges, integers of base units inside, never a float.

The text form is narrower than what `int` and `Decimal` accept: those also read signs, exponents,
underscores, digits of other scripts and a trailing newline, and what two programs read differently
is what someone will try.
"""

import re
from typing import Final

from indexer.core.types import AMOUNT_MAX
from indexer.errors import InvalidInput, InvariantError


_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)

#: Digits of the largest amount: no whole part that fits is longer.
_WHOLE_DIGITS_MAX: Final = len(str(AMOUNT_MAX))


def parse_amount(text: str, decimals: int) -> int:
    """The base units that a caller's decimal text stands for, 1 … 2^64-1.

    Digits are counted as written: `1.0` of something that has no decimals is refused, since
    whoever wrote it believes in a finer unit than there is.

    Args:
        text: such as `0.1`; no sign, exponent, grouping, leading zero or bare point.
        decimals: digits after the point of one unit, 0 … 255.

    Raises:
        InvalidInput: field `amount`.
    """
    if len(text) > _WHOLE_DIGITS_MAX + 1 + decimals:
        raise InvalidInput("amount", f"is {len(text)} characters long, which no amount needs")
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise InvalidInput(
            "amount", f"{text!r} is not a plain decimal number such as '12' or '0.5'"
        )
    whole, fraction = match[1], match[2] or ""
    if len(fraction) > decimals:
        raise InvalidInput(
            "amount", f"{text!r} has {len(fraction)} decimals, the token has {decimals}"
        )
    amount = int(whole + fraction.ljust(decimals, "0"))
    if amount == 0:
        raise InvalidInput("amount", "is zero: there would be nothing to pay")
    if amount > AMOUNT_MAX:
        raise InvalidInput(
            "amount",
            f"{text} is more than the {format_amount(AMOUNT_MAX, decimals)} that can be moved",
        )
    return amount


def format_amount(amount: int, decimals: int) -> str:
    """The shortest decimal text that says the amount exactly: `1`, `0.5`, never an exponent.

    Sums of amounts are fine: there is no upper bound.
    """
    if amount < 0 or decimals < 0:
        raise InvariantError(f"{amount} with {decimals} decimals is no amount")
    digits = str(amount).rjust(decimals + 1, "0")
    point = len(digits) - decimals
    whole, fraction = digits[:point], digits[point:].rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole
