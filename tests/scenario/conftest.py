"""Where a story's database is: in a file, and once more on a real libSQL server."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from indexer.demo.sqld.launcher import Sqld
from store.database import path_of


@dataclass(frozen=True)
class Place:
    """Where a database is.

    Attributes:
        server: who has it; None: it is a file.
    """

    url: str
    server: Sqld | None = None

    def integrity(self) -> str:
        """What SQLite says of the whole file: `ok`. Nobody may write meanwhile.

        A server answers no such question: its files are looked at in a copy.
        """
        if self.server is None:
            return _integrity(path_of(self.url))
        copy = self.server.folder / "copy"
        shutil.copytree(self.server.folder / "data", copy)
        try:
            return _integrity(copy / "dbs" / "default" / "data")
        finally:
            shutil.rmtree(copy)


def _integrity(path: Path) -> str:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        return "\n".join(text for (text,) in connection.execute("PRAGMA integrity_check"))
    finally:
        connection.close()


@pytest.fixture(params=["sqlite", "libsql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty database of the test's own."""
    if request.param == "sqlite":
        yield Place(f"sqlite:///{tmp_path}/axiom.db")
        return
    server = Sqld(tmp_path / "sqld")
    server.start()
    yield Place(server.url, server)
    server.kill()


@pytest.fixture
def database_url(place: Place) -> str:
    """The URL of `place`."""
    return place.url
