"""What one libSQL server tells of itself, for whoever compares it with another one."""

from typing import NamedTuple

from indexer.errors import StoreUnavailable
from store.connection import Statement
from store.hrana import ReadRequest, Unreadable
from store.libsql import Server
from store.queries import QUERIES


class Seen(NamedTuple):
    """What it told.

    Attributes:
        revision: how often its data were written to.
        clock: its time, unix seconds.
    """

    revision: int
    clock: float


async def look(server: Server, *, timeout_s: float) -> Seen:
    """Asks the server, and no other in its place; the database is migrated.

    Raises:
        StoreUnavailable: it does not answer, or refuses.
        InvariantError: our tables are not there.
    """
    request = ReadRequest([Statement(QUERIES["revision_get"]), Statement(QUERIES["server_clock"])])
    raw = await server.post(request.body(), timeout_s=timeout_s)
    try:
        [[[revision]], [[clock_ms]]], _ = request.outcome(raw)
    except Unreadable as error:
        raise StoreUnavailable(f"{server.name} answered, but {error}") from error
    return Seen(revision, clock_ms / 1_000)
