"""Ids of our own: what they are about, and 26 characters that nobody can guess.

The alphabet is Crockford's base32 in lower case: no two characters look alike when read aloud.
"""

import re
from typing import Final

from indexer.errors import InvariantError


BYTES: Final = 16

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_CHARS: Final = 26

#: What has the form of a payment's id, and of a receiver's; to be matched as a whole.
PAYMENT_ID: Final = re.compile(r"pay_[0-9a-z]{26}", re.ASCII)
ENDPOINT_ID: Final = re.compile(r"we_[0-9a-z]{26}", re.ASCII)


def payment_id(random_bytes: bytes) -> str:
    """`pay_…` out of 16 random bytes."""
    return "pay_" + _spelled(random_bytes)


def endpoint_id(random_bytes: bytes) -> str:
    """`we_…` out of 16 random bytes."""
    return "we_" + _spelled(random_bytes)


def _spelled(random_bytes: bytes) -> str:
    if len(random_bytes) != BYTES:
        raise InvariantError(f"an id takes {BYTES} bytes, not {len(random_bytes)}")
    number = int.from_bytes(random_bytes, "big")
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in range(_CHARS - 1, -1, -1))
