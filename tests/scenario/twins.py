"""Two API processes on one primary, each with a replica of its own to read from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from indexer.demo.sqld.launcher import Sqld
from tests.api.running import Api, running


@asynccontextmanager
async def two(path: Path) -> AsyncIterator[tuple[Api, Api]]:
    """Two APIs on one primary; each reads from a replica of its own."""
    async with (
        Sqld.running(path / "primary") as primary,
        Sqld.running(path / "one", primary=primary) as of_one,
        Sqld.running(path / "two", primary=primary) as of_two,
        running(path, url=primary.url, replica_urls=(of_one.url,)) as one,
        running(path, url=primary.url, replica_urls=(of_two.url,), beside=one) as other,
    ):
        yield one, other
