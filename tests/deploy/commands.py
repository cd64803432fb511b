"""Whether what stands in a file is a command and a setting of the product."""

import contextlib
import io
from collections.abc import Iterable, Sequence

from indexer.cli.arguments import build_parser
from indexer.settings import variable_names


def refusal(arguments: Sequence[str]) -> str | None:
    """Why the command line does not take these arguments; None when it does."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = build_parser().parse_args(list(arguments))
    except SystemExit:
        return said.getvalue() or "it is no command"
    return None if parsed.command is not None else "it is no command"


def no_settings(variables: Iterable[str]) -> list[str]:
    """Those of our variables that nobody reads."""
    return sorted(
        name for name in variables if name.startswith("AXIOM_") and name not in variable_names()
    )


def has_registry(image: str) -> bool:
    """Whether an image's name begins with the host that it comes from."""
    first, slash, _ = image.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")
