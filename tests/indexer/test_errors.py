"""The tree of errors is the one that stands as text above it."""

import inspect
import re

import pytest

from indexer import errors
from indexer.errors import (
    AxiomError,
    ConfigError,
    DecodeError,
    InvalidInput,
    SourceRejected,
    SourceUnavailable,
)


def test_the_text_and_the_classes_are_the_same_tree() -> None:
    assert errors.__doc__ is not None
    parents: dict[str, str] = {}
    path: list[str] = []
    for branch, name in re.findall(r"^    ([│├└─ ]*)(\w+) ?", errors.__doc__, re.MULTILINE):
        depth = len(branch) // 4
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
    classes = {
        name: cls.__bases__[0].__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, AxiomError)
    }

    assert parents == classes


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError(("AXIOM_PORT: no number", "AXIOM_HOST: empty")),
         "AXIOM_PORT: no number; AXIOM_HOST: empty"),
        (InvalidInput("amount", "must be more than 0"), "amount: must be more than 0"),
        (InvalidInput("", "must be an object"), "must be an object"),
    ],
)  # fmt: skip
def test_an_error_says_what_and_which(error: AxiomError, text: str) -> None:
    assert str(error) == text


def test_errors_carry_what_the_caller_needs() -> None:
    assert SourceUnavailable("busy", retry_after_s=2.5).retry_after_s == 2.5
    assert SourceUnavailable("busy").retry_after_s is None
    assert SourceRejected("no", code=-32602).code == -32602
    assert DecodeError("what is this", payload=b"?").payload == b"?"
