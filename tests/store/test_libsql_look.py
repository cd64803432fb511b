import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web

from indexer.demo.sqld.launcher import Sqld
from indexer.errors import InvariantError, StoreUnavailable
from store import deployment, migrate
from store.database import open_database
from store.libsql import Server
from store.libsql_look import look
from tests.servers.answering import answering


async def test_a_server_tells_how_often_it_was_written_to_and_what_time_it_is(sqld: Sqld) -> None:
    database = await open_database(sqld.url)
    async with Server(sqld.url, None) as server:
        with pytest.raises(InvariantError, match="no such table: revision"):
            await look(server, timeout_s=30)

        await migrate.migrate(database)
        began_at, first = time.time(), await look(server, timeout_s=30)
        await deployment.put_once(database, "genesis_hash", "abc")
        second, ended_at = await look(server, timeout_s=30), time.time()
    await database.close()

    assert second.revision == first.revision + 1
    # The server's clock and ours are one, which both of us round to milliseconds.
    assert began_at - 0.01 <= first.clock <= second.clock <= ended_at + 0.01


async def test_a_replica_answers_for_itself(tmp_path: Path, sqld: Sqld) -> None:
    """It follows within a moment."""
    database = await open_database(sqld.url)
    await migrate.migrate(database)
    await database.close()
    async with (
        Sqld.running(tmp_path / "replica", primary=sqld) as replica,
        Server(sqld.url, None) as one,
        Server(replica.url, None) as other,
    ):
        wanted = (await look(one, timeout_s=30)).revision
        async with asyncio.timeout(60):
            while (await look(other, timeout_s=30)).revision < wanted:
                pass
        assert (await look(other, timeout_s=30)).revision == wanted


async def test_what_is_no_answer_is_told() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(text="{}")

    async with answering(handle) as server:
        with pytest.raises(StoreUnavailable, match="answered, but"):
            await look(server, timeout_s=30)
