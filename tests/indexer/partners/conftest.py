"""What all tests of calls to partners have in common."""

import pytest

from store import shared


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is there is waited for: how many tokens are bought depends on it."""
    monkeypatch.setattr(shared, "TIMEOUT_S", 30.0)
