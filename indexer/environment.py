"""Reads variables: the process's environment over a `.env` file, and secrets from files.

Knows no setting by name. Collects what is wrong instead of raising at the first thing.
"""

import difflib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, TypeVar

from dotenv import dotenv_values


PREFIX: Final = "AXIOM_"

#: More than any setting needs; a wrong path (a log, a device) is not read into memory.
_SECRET_BYTES_MAX: Final = 64 * 1024

T = TypeVar("T")


def merged(environ: Mapping[str, str], dotenv: Path | None) -> dict[str, str]:
    """Our variables of both, the real environment's where both have one. Empty ones are left out.

    Raises:
        OSError, UnicodeDecodeError: when `dotenv` cannot be read.
    """
    values: dict[str, str | None] = {}
    if dotenv is not None:
        with dotenv.open(encoding="utf-8") as stream:
            # Without interpolation a key that contains `$` means what it says.
            values.update(dotenv_values(stream=stream, interpolate=False))
    values.update(environ)
    return {
        name: value.strip()
        for name, value in values.items()
        if name.startswith(PREFIX) and value and value.strip()
    }


def suspicious(names: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """A sentence for each of our variables that nobody reads: most likely misspelt."""
    sentences = []
    # Without the prefix, which would make any two names look alike.
    words = [name.removeprefix(PREFIX) for name in known]
    for name in sorted(set(names) - set(known)):
        close = difflib.get_close_matches(name.removeprefix(PREFIX), words, n=1)
        hint = f"did you mean {PREFIX}{close[0]}?" if close else "no setting has this name"
        sentences.append(f"{name} is ignored: {hint}")
    return tuple(sentences)


class Reader:
    """Takes typed values out of the variables and remembers what was wrong with them.

    Attributes:
        problems: one sentence for each faulty variable, naming it.
        faulty: the fields whose value was refused.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.problems: list[str] = []
        self.faulty: set[str] = set()

    def take(self, field: str, parse: Callable[[str], T], *, secret: bool = False) -> T | None:
        """The field's value; None when it is not set, or faulty (then noted).

        Args:
            field: the setting's name in lower case.
            parse: makes a value of the text; a ValueError says what would be right.
            secret: `AXIOM_<FIELD>_FILE` may name a file that holds the value.
        """
        name = PREFIX + field.upper()
        text = self._from_file(name) if secret else None
        text = self._variables.get(name, text)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"{name}: {error}")
            self.faulty.add(field)
            return None

    def _from_file(self, name: str) -> str | None:
        path = self._variables.get(f"{name}_FILE")
        if path is None:
            return None
        if name in self._variables:
            self.problems.append(f"{name} and {name}_FILE are both set: keep one of them")
            return None
        try:
            with Path(path).open("rb") as stream:
                content = stream.read(_SECRET_BYTES_MAX + 1)
            text = content.decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.problems.append(f"{name}_FILE: cannot read {path}: {reason}")
            return None
        if not text or len(content) > _SECRET_BYTES_MAX:
            size = "is empty" if not text else f"is larger than {_SECRET_BYTES_MAX} bytes"
            self.problems.append(f"{name}_FILE: {path} {size}")
            return None
        return text
