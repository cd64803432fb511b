"""Where a story's database is: in a file, and once more on a real libSQL server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.demo.sqld.launcher import Sqld


@pytest.fixture(params=["sqlite", "libsql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of the test's own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/axiom.db"
        return
    server = Sqld(tmp_path / "sqld")
    server.start()
    yield server.url
    server.kill()
