import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message

from api.hub import Follower, Hub, frame
from api.wakeups import Wakeups
from indexer.core.types import Status
from indexer.errors import StoreUnavailable
from store.events import StoredEvent
from tests.api.running import Api


class Connection:
    """A server's `send`: waits before it writes while its client does not read."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.room = asyncio.Event()
        self.room.set()

    async def send(self, message: Message) -> None:
        await self.room.wait()
        self.frames.append(message["body"])


def event(seq: int, type_: str = "payment.review", payment_id: str = "pay_a") -> StoredEvent:
    return StoredEvent(
        seq=seq, payment_id=payment_id, type=type_, version=seq, created_at=0, data="{}"
    )


def follower(connection: Connection, payment_id: str | None = "pay_a") -> Follower:
    """One that has read everything up to event 10."""
    made = Follower(connection.send, payment_id, 10, Status.PENDING)
    made.live, made.behind = True, False
    return made


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------ followers


async def test_an_offer_is_sent_at_once() -> None:
    connection = Connection()
    offered = follower(connection)

    offered.offer(event(11), b"eleven")

    assert connection.frames == [b"eleven"]
    assert (offered.last_seq, offered.live, offered.behind) == (11, True, False)


async def test_what_was_sent_already_is_passed_over() -> None:
    connection = Connection()
    offered = follower(connection)

    offered.offer(event(10), b"ten")

    assert connection.frames == []
    assert offered.live


async def test_a_full_connection_is_left_behind_without_waiting() -> None:
    connection = Connection()
    offered = follower(connection)
    connection.room.clear()

    offered.offer(event(11), b"eleven")
    connection.room.set()
    offered.offer(event(12), b"twelve")

    assert connection.frames == []  # its task reads both: in order, and each once
    assert (offered.last_seq, offered.live, offered.behind) == (10, False, True)


async def test_a_follower_that_still_reads_the_past_is_only_marked() -> None:
    connection = Connection()
    offered = follower(connection)
    offered.live = False

    offered.offer(event(11), b"eleven")

    assert connection.frames == []
    assert offered.behind


async def test_the_final_event_hands_over_to_the_followers_task() -> None:
    connection = Connection()
    offered = follower(connection)

    offered.offer(event(11, "payment.settled"), b"eleven")

    assert connection.frames == [b"eleven"]
    assert offered.final
    assert offered.behind


async def test_no_event_is_final_for_who_follows_all() -> None:
    offered = follower(Connection(), payment_id=None)

    offered.offer(event(11, "payment.settled"), b"eleven")

    assert not offered.final
    assert offered.live


async def test_a_ring_ends_a_wait_and_may_be_repeated() -> None:
    waiting = follower(Connection())

    async def wait() -> None:
        async with asyncio.timeout(60) as waiting.alarm:
            waiting.ring()
            waiting.ring()
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await wait()
    waiting.ring()  # too late, and no harm


# ----------------------------------------------------------------------------------------- hub


@asynccontextmanager
async def hub_of(api: Api, **options: Any) -> AsyncIterator[Hub]:
    """A hub of its own over the API's database."""
    hub = Hub(api.database, api.wakeups, **options)
    running = asyncio.create_task(hub.run())
    yield hub
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_events_go_to_those_who_follow_their_payment(api: Api) -> None:
    mine, other = await api.create(order_id="mine"), await api.create(order_id="other")
    connections = [Connection() for _ in range(3)]
    followers = [
        follower(connection, payment_id)
        for connection, payment_id in zip(connections, (mine["id"], other["id"], None), strict=True)
    ]
    async with hub_of(api) as hub:
        with hub.following(followers[0]), hub.following(followers[1]), hub.following(followers[2]):
            await eventually(lambda: followers[0].behind)  # the hub has begun: read for yourself
            for each in followers:
                each.live, each.behind, each.last_seq = True, False, 2
            await api.publish(mine["id"], 1)
            await eventually(lambda: connections[2].frames)

    assert [len(connection.frames) for connection in connections] == [1, 0, 1]
    data = connections[2].frames[0].split(b"data: ")[1]
    assert json.loads(data)["order_id"] == "mine"
    assert b"order_id" not in connections[0].frames[0]


async def test_the_database_being_away_only_delays(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await api.create()
    connection = Connection()
    following = follower(connection, payment["id"])
    read = api.database.read

    async def fail(_batch: Any) -> Any:
        raise StoreUnavailable("locked")

    async with hub_of(api) as hub:
        with hub.following(following):
            await eventually(lambda: following.behind)
            following.live, following.behind, following.last_seq = True, False, 1
            monkeypatch.setattr(api.database, "read", fail)
            await api.publish(payment["id"], 3)
            await asyncio.sleep(0.05)
            assert connection.frames == []
            monkeypatch.setattr(api.database, "read", read)
            await eventually(lambda: len(connection.frames) == 3)


async def test_places_are_counted(api: Api) -> None:
    hub = Hub(api.database, Wakeups(), clients_max=2)
    one, two = follower(Connection()), follower(Connection())

    with hub.following(one):
        full = [hub.full]
        with hub.following(two):
            full.append(hub.full)
        full.append(hub.full)
    assert full == [False, True, False]

    assert hub._of_payment == {}
    assert [each.live for each in (one, two)] == [False, False]


async def test_order_ids_are_remembered_within_a_bound(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.hub.STREAM_ORDER_IDS_MAX", 2)
    hub = Hub(api.database, Wakeups())
    for number in range(4):
        await api.create(order_id=str(number))

    frames, is_last = await hub.read(Follower(Connection().send, None, 0, Status.PENDING))

    orders = [json.loads(message.split(b"data: ")[1])["order_id"] for _, message in frames]
    assert orders == ["0", "1", "2", "3"]
    assert is_last
    assert len(hub._order_ids) == 2


def test_a_frame_is_one_message() -> None:
    assert frame(7, "payment.settled", '{"a":1}') == (
        b'id: 7\nevent: payment.settled\ndata: {"a":1}\n\n'
    )
