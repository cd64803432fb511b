"""The bounds of everything that a merchant may write in words.

Label, message and memo are shown by wallets and explorers, and travel in a URL; order id and
metadata come back as they were given. None may hold what a terminal, a log, a database or a
JSON reader would take for something else.
"""

import unicodedata
from collections.abc import Mapping
from typing import Final

from indexer.errors import InvalidInput


LABEL_CHARS_MAX: Final = 100
MESSAGE_CHARS_MAX: Final = 500
#: A transaction has 1,232 bytes. Two references, a compute budget, the creation of the
#: recipient's token account and what wallets add to guard themselves leave no room for the 566
#: bytes that a memo may have where it stands nearly alone. This much always fits.
MEMO_BYTES_MAX: Final = 256
ORDER_ID_CHARS_MAX: Final = 128

METADATA_KEYS_MAX: Final = 50
METADATA_KEY_CHARS_MAX: Final = 40
METADATA_VALUE_CHARS_MAX: Final = 500
#: Of all keys and values together, in UTF-8.
METADATA_BYTES_MAX: Final = 16 * 1024

NAME_CHARS_SHOWN: Final = 64

#: Unicode categories that a line may not contain: control characters, halves of surrogate pairs
#: (no UTF-8 exists for them), and separators that end a line without being control characters.
_NOT_IN_A_LINE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def shown_name(name: str) -> str:
    """A caller's own name for something, fit to be sent back: short, printable ASCII."""
    return name[:NAME_CHARS_SHOWN].encode("unicode_escape").decode("ascii")


def check_line(field: str, text: str | None, *, chars_max: int) -> None:
    """Accepts None, and a text of one line that is not empty and not too long.

    Raises:
        InvalidInput: names the field.
    """
    if text is None:
        return
    if not text:
        raise InvalidInput(field, "is empty: leave it out instead")
    if len(text) > chars_max:
        raise InvalidInput(field, f"is {len(text)} characters long, at most {chars_max} may be")
    for character in text:
        if unicodedata.category(character) in _NOT_IN_A_LINE:
            raise InvalidInput(field, f"has {character!r} in it: only one line of text may be")


def check_memo(memo: str | None) -> None:
    """Accepts None, and a line that fits into a transaction beside everything else.

    Raises:
        InvalidInput: field `memo`.
    """
    check_line("memo", memo, chars_max=MEMO_BYTES_MAX)
    if memo is not None and (size := len(memo.encode())) > MEMO_BYTES_MAX:
        raise InvalidInput(
            "memo", f"is {size} bytes long in UTF-8, at most {MEMO_BYTES_MAX} may be"
        )


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Accepts a bounded number of bounded keys and values. Values may have several lines.

    Raises:
        InvalidInput: field `metadata`.
    """
    if len(metadata) > METADATA_KEYS_MAX:
        raise InvalidInput("metadata", f"has {len(metadata)} keys, at most {METADATA_KEYS_MAX}")
    for key, value in metadata.items():
        check_line("metadata", key, chars_max=METADATA_KEY_CHARS_MAX)
        if len(value) > METADATA_VALUE_CHARS_MAX:
            raise InvalidInput(
                "metadata",
                f"{key!r} is {len(value)} characters long, at most {METADATA_VALUE_CHARS_MAX}",
            )
        if any(c == "\0" or unicodedata.category(c) == "Cs" for c in value):
            raise InvalidInput("metadata", f"{key!r} has a NUL or half a surrogate pair in it")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
    if size > METADATA_BYTES_MAX:
        raise InvalidInput("metadata", f"has {size} bytes in all, at most {METADATA_BYTES_MAX}")
