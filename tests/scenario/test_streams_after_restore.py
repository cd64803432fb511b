"""A client that had seen more than the copy holds misses nothing once the copy is in its place."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from indexer.demo.sqld.launcher import Sqld
from store import backup
from store.database import Statement, open_database
from tests.api.running import NOW, Api, running
from tests.api.sse import stream


ALL, OF_ONE = "/api/sse/events", "/api/sse/payments"
AMOUNT = 12_500_000
#: The line of docs/durability.md, for a copy that came back in another way.
BY_HAND = Path(__file__).resolve().parents[2] / "docs" / "durability.md"


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What is known of a database that is gone.

    Attributes:
        api: its callers are in the copy as well.
        mine: a payment that is in the copy, and was seen after it.
        last_id: of the last message that a client of either stream had of it.
        kept: the last number that is in the copy.
    """

    api: Api
    mine: dict[str, Any]
    last_id: str
    kept: int


@pytest.fixture(params=["sqlite", "libsql"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Where the database is, and where the copy of it is to be."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/axiom.db", f"sqlite:///{tmp_path}/restored.db"
        return
    servers = [Sqld(tmp_path / "sqld"), Sqld(tmp_path / "restored")]
    for server in servers:
        server.start()
    yield servers[0].url, servers[1].url
    for server in servers:
        server.kill()


async def lose(folder: Path, url: str) -> Lost:
    """A copy is taken, and more happens than it holds."""
    async with running(folder, url=url) as api:
        mine = await api.create(order_id="mine")
        await api.create(order_id="other")
        await backup.take(url, folder / "copy.db", tell=lambda *_: None)
        for number in range(3):
            await api.create(order_id=f"lost {number}")
        async with stream(api.session, f"{OF_ONE}/{mine['id']}", {"Last-Event-ID": "1"}) as reader:
            await reader.event()
            await api.sight(mine["id"], AMOUNT)
            message = await reader.event()
        assert message is not None
        assert (message.id, message.event) == ("6", "payment.detected")
        return Lost(api=api, mine=mine, last_id=str(message.id), kept=2)


async def happens(api: Api, lost: Lost) -> None:
    """As many events as were lost, and more, before a client comes back."""
    await api.sight(lost.mine["id"], AMOUNT)
    for number in range(6):
        await api.create(order_id=f"new {number}")


async def since(api: Api, lost: Lost, payment_id: str | None = None) -> list[str]:
    """The numbers of what happened since the copy was put back."""
    sql = "SELECT seq FROM events WHERE seq > ?1 AND payment_id = coalesce(?2, payment_id)"
    [rows] = await api.database.read([Statement(f"{sql} ORDER BY seq", (lost.kept, payment_id))])
    return [str(seq) for (seq,) in rows]


async def told(api: Api, path: str, headers: dict[str, str], last: str) -> list[str]:
    """The numbers of the messages up to that one, but for the one that only tells the state."""
    seen: list[str] = []
    async with stream(api.session, path, headers) as reader:
        while not seen or seen[-1] != last:
            message = await reader.event()
            assert message is not None
            if message.event != "payment":
                seen.append(str(message.id))
    return seen


async def test_who_comes_back_late_is_told_each_event_since_the_restore_once(
    tmp_path: Path, urls: tuple[str, str]
) -> None:
    lost = await lose(tmp_path, urls[0])
    await backup.restore(tmp_path / "copy.db", urls[1], now=NOW, tell=lambda *_: None)
    await refuse_to_miss_any(tmp_path, urls[1], lost)


async def test_so_it_is_where_the_copy_came_back_in_another_way(
    tmp_path: Path, urls: tuple[str, str]
) -> None:
    lost = await lose(tmp_path, urls[0])
    await backup.restore(tmp_path / "copy.db", urls[1], now=0, tell=lambda *_: None)
    database = await open_database(urls[1])
    await database.write([Statement(sql) for sql in statements(BY_HAND.read_text())])
    await database.close()
    await refuse_to_miss_any(tmp_path, urls[1], lost)


def statements(page: str) -> list[str]:
    """Those of its block of SQL."""
    [block] = [each.split("```")[0] for each in page.split("```sql\n")[1:]]
    return [each.strip() for each in block.split(";") if each.strip()]


async def refuse_to_miss_any(folder: Path, url: str, lost: Lost) -> None:
    path, before = f"{OF_ONE}/{lost.mine['id']}", {"Last-Event-ID": lost.last_id}
    async with running(folder, url=url, beside=lost.api) as api:
        await happens(api, lost)
        everything = await since(api, lost)
        assert len(everything) == 7
        assert await told(api, ALL, {**api.reader, **before}, everything[-1]) == everything
        await api.settle(lost.mine["id"], AMOUNT)
        of_mine = await since(api, lost, lost.mine["id"])
        assert len(of_mine) == 2
        assert await told(api, path, before, of_mine[-1]) == of_mine
        at_the_end = {"Last-Event-ID": of_mine[-1]}
        async with api.session.get(path, headers=at_the_end) as response:
            assert response.status == 204


async def test_who_comes_back_at_once_is_told_what_happens_from_then_on(
    tmp_path: Path, urls: tuple[str, str]
) -> None:
    lost = await lose(tmp_path, urls[0])
    await backup.restore(tmp_path / "copy.db", urls[1], now=NOW, tell=lambda *_: None)

    async with running(tmp_path, url=urls[1], beside=lost.api) as api:
        headers = {**api.reader, "Last-Event-ID": lost.last_id}
        async with stream(api.session, ALL, headers) as reader:
            greeting = await reader.next()
            assert greeting is not None
            assert greeting.id == str(lost.kept)
            await happens(api, lost)
            messages = [await reader.event() for _ in range(7)]

        assert [message and message.id for message in messages] == await since(api, lost)
