"""Log notifications: how a connection ends, what is told of it, and how the next one begins."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from websockets.utils import accept_key

from indexer.errors import ConfigError
from indexer.sources.pubsub import PubSub
from tests.indexer.sources.listening import (
    OTHER,
    WATCH,
    Heard,
    listening,
    notification,
    transfer,
)
from tests.servers.fake_rpc import FakeNode, eventually, http


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1013])
async def test_a_closed_connection_is_opened_again(code: int) -> None:
    async with listening() as (node, heard):
        await eventually(lambda: heard.live_from)
        first = heard.live_from[0]

        await node.close_sockets(code, "Connection timeout exceeded")
        await eventually(lambda: len(heard.live_from) == 2)
        name = node.chain.add(transfer("after"))
        await eventually(lambda: heard.rung)

        assert heard.rung == [(name, 100)]
        assert heard.live_from[1] > first
        assert node.subscribed_keys == [WATCH]


async def test_the_end_of_a_live_connection_is_told_with_its_last_slot() -> None:
    async with listening() as (node, heard):
        for number in (1, 2, 3):
            await eventually(lambda n=number: len(heard.live_from) == n)  # type: ignore[misc]  # a default binds the number
            until = heard.live_from[-1] + 10
            await eventually(lambda n=until: node.chain.tip > n)  # type: ignore[misc]  # as above
            await node.close_sockets()
            await eventually(lambda n=number: len(heard.lost) == n)  # type: ignore[misc]  # as above
            assert heard.live_from[-1] <= heard.lost[-1] <= node.chain.tip

    assert len(heard.lost) == 3, "and none when it is cancelled"
    assert all(lost < live for lost, live in zip(heard.lost, heard.live_from[1:], strict=False))


async def test_the_end_of_a_connection_that_fell_silent_is_told_too() -> None:
    async with listening(silence_s_min=0.05) as (node, heard):
        await eventually(lambda: heard.live_from and heard.pubsub.slot_s < 0.05)
        node.silent = True
        last = node.chain.tip

        await eventually(lambda: heard.lost)

        assert heard.live_from[0] <= heard.lost[0] <= last


async def test_the_end_is_told_though_new_keys_were_just_asked_for() -> None:
    async with listening() as (node, heard):
        await eventually(lambda: heard.live_from)
        node.unanswered_keys.add(OTHER)
        heard.keys = [WATCH, OTHER]
        heard.pubsub.changed()
        await eventually(lambda: OTHER in node.subscribed_keys)
        await node.close_sockets()

        await eventually(lambda: heard.lost)

        assert len(heard.live_from) == 1


async def test_a_connection_that_was_never_live_is_not_lost() -> None:
    node = FakeNode()
    node.unanswered_keys.add(WATCH)
    async with listening(on=node) as (_, heard):
        for number in (1, 2, 3):
            await eventually(lambda n=number: node.connections >= n and node.sockets)  # type: ignore[misc]  # a default binds the number
            await node.close_sockets()
        node.unanswered_keys.clear()
        await eventually(lambda: heard.live_from)

        assert heard.lost == []


async def test_the_socket_can_be_opened_by_somebody_else() -> None:
    """Anything that sends and receives frames will do."""
    frames: asyncio.Queue[bytes] = asyncio.Queue()
    opened: list[str] = []

    class Line:
        async def send(self, message: bytes, *, text: bool) -> None:
            asked = msgspec.json.decode(message)
            frames.put_nowait(msgspec.json.encode({"id": asked["id"], "result": asked["id"]}))
            slot = {"method": "slotNotification", "params": {"result": {"slot": asked["id"]}}}
            frames.put_nowait(msgspec.json.encode(slot))

        async def recv(self, *, decode: bool) -> bytes:
            return await frames.get()

        async def close(self) -> None:
            """Nothing to do."""

    @asynccontextmanager
    async def connect(url: str, **_options: Any) -> AsyncIterator[Line]:
        opened.append(url)
        yield Line()

    live: list[int] = []
    pubsub = PubSub("ws://nowhere", lambda: [WATCH], lambda *_: None, live.append, connect=connect)
    task = asyncio.create_task(pubsub.run())
    await eventually(lambda: live)
    frames.put_nowait(msgspec.json.encode(notification("1")))
    await eventually(lambda: pubsub.notifications == 1)
    task.cancel()
    await asyncio.wait([task], timeout=30)

    assert opened == ["ws://nowhere"]
    assert live == [2]


async def test_a_node_that_restarts_is_found_again() -> None:
    async with listening() as (node, heard):
        await eventually(lambda: heard.live_from)
        await node.stop()
        await eventually(lambda: "ConnectionRefused" in str(heard.pubsub.problem))
        await node.start()

        await eventually(lambda: len(heard.live_from) == 2)
        assert heard.pubsub.problem is None


async def test_an_open_socket_without_slots_is_left() -> None:
    async with listening(silence_s_min=0.05) as (node, heard):
        await eventually(lambda: heard.live_from)
        await eventually(lambda: heard.pubsub.slot_s < 0.05)
        node.silent = True

        await eventually(lambda: "no slot for" in str(heard.pubsub.problem))
        await eventually(lambda: node.connections >= 2)

        node.silent = False
        await eventually(lambda: len(heard.live_from) >= 2)
        await eventually(lambda: heard.pubsub.problem is None)


async def test_notifications_are_no_heartbeat() -> None:
    """A stuck node may go on repeating what it knows."""
    async with FakeNode() as node, node.chain.ticking(0.005):
        heard = Heard(node, [WATCH], silence_s_min=0.05)
        heard.pubsub.slot_s = 0.001
        task = asyncio.create_task(heard.pubsub.run())
        await eventually(lambda: heard.live_from)
        node.silent = True
        before = node.connections

        async def repeat() -> None:
            while node.connections <= before or not heard.rung:
                node.push(notification("again"))
                await asyncio.sleep(0.005)

        await asyncio.wait_for(repeat(), 30)
        task.cancel()
        await asyncio.wait([task], timeout=30)

    assert ("again", 7) in heard.rung


async def test_the_time_of_a_slot_is_measured() -> None:
    async with listening() as (_, heard):
        await eventually(lambda: heard.pubsub.slot_s < 0.1)


async def test_a_refused_connection_is_told_without_the_key_in_the_url(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    node = FakeNode()
    node.fail("connect", http(401), times=None)
    with capture_logs() as logs:
        async with listening(on=node, path="/SEKRIT?api-key=SEKRIT") as (_, heard):
            await eventually(lambda: "HTTP 401" in str(heard.pubsub.problem))
            node.heal()
            await eventually(lambda: heard.live_from)

    assert heard.pubsub.problem is None
    assert "SEKRIT" not in f"{logs} {heard.pubsub.name} {caplog.text}"
    assert [entry["event"] for entry in logs] == ["pubsub.lost", "pubsub.live"]


async def test_a_flapping_connection_is_logged_once_a_minute() -> None:
    with capture_logs() as logs:
        async with listening() as (node, heard):
            for number in range(1, 6):
                await eventually(lambda n=number: len(heard.live_from) == n)  # type: ignore[misc]  # a default binds the number
                await node.close_sockets()

    assert [entry["event"] for entry in logs].count("pubsub.lost") == 1


@pytest.mark.parametrize("shakes_hands", [True, False])
async def test_it_ends_though_the_node_says_nothing(shakes_hands: bool) -> None:
    """A node that is stuck answers neither the opening nor the closing handshake."""
    writers: list[asyncio.StreamWriter] = []

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        if shakes_hands:
            asked = re.search(r"(?i)sec-websocket-key: (\S+)", request)
            assert asked is not None
            head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            keys = f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept_key(asked[1])}\r\n\r\n"
            writer.write((head + keys).encode())
            await reader.readexactly(10)  # the first bytes of a subscription
        writers.append(writer)

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pubsub = PubSub(f"ws://127.0.0.1:{port}", lambda: [WATCH], lambda *_: None, lambda _: None)
    task = asyncio.create_task(pubsub.run())
    await eventually(lambda: writers)

    task.cancel()
    done, _ = await asyncio.wait([task], timeout=30)
    for writer in writers:
        writer.transport.abort()
    server.close()
    await server.wait_closed()

    assert done


async def test_a_fault_of_the_owner_is_not_swallowed() -> None:
    """A callback that raises is a bug, not a lost connection."""

    def broken(_signature: str, _slot: int) -> None:
        raise ZeroDivisionError

    async with FakeNode() as node, node.chain.ticking(0.005):
        live: list[int] = []
        pubsub = PubSub(node.ws_url, lambda: [WATCH], broken, live.append)
        task = asyncio.create_task(pubsub.run())
        await eventually(lambda: live)
        node.chain.add(transfer("1"))

        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(task, 30)

    assert caught.value.subgroup(ZeroDivisionError) is not None


@pytest.mark.parametrize("url", ["", "http://node.example", "ws://", "node.example"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="must begin with ws"):
        PubSub(url, list, lambda *_: None, lambda _: None)
