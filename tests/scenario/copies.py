"""Databases that are made once and copied for each case: a file, or the folder of a server."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from indexer.demo.sqld.launcher import Sqld


#: What the place of a database is called, for each backend.
NAMES = ("axiom.db", "sqld")


@asynccontextmanager
async def opened(place: Path) -> AsyncIterator[tuple[str, Sqld | None]]:
    """The URL of the database at that place: a file, or a server over that folder."""
    if place.suffix == ".db":
        yield f"sqlite:///{place}", None
        return
    async with Sqld.running(place) as server:
        yield server.url, server


def copied(template: Path, place: Path) -> Path:
    """A copy at that place, whose name gets what it needs."""
    if template.is_dir():
        shutil.copytree(template, place)
        return place
    return Path(shutil.copy(template, place.with_suffix(".db")))
