"""Log notifications: every way in which they fail, and what is told of it."""

import asyncio
import copy
from typing import Any

import pytest
from structlog.testing import capture_logs

from indexer.sources import pubsub as pubsub_module
from tests import vectors
from tests.chain import key
from tests.indexer.sources.listening import (
    OTHER,
    WATCH,
    Heard,
    listening,
    notification,
    transfer,
)
from tests.servers.fake_rpc import FakeNode, eventually


# ----------------------------------------------------------------------------- ringing


async def test_a_transaction_that_names_a_key_rings() -> None:
    async with listening(WATCH, OTHER) as (node, heard):
        await eventually(lambda: heard.live_from)
        first = node.chain.add(transfer("1", slot=node.chain.tip))
        second = node.chain.add(transfer("2", OTHER, slot=node.chain.tip))
        node.chain.add(transfer("3", key("nobody"), slot=node.chain.tip))

        await eventually(lambda: len(heard.rung) == 2)

        assert {signature for signature, _ in heard.rung} == {first, second}
        assert {slot for _, slot in heard.rung} == {
            node.chain.find(name)["slot"]  # type: ignore[index]  # both were added above
            for name in (first, second)
        }
        assert heard.pubsub.notifications == 2
        assert heard.pubsub.problem is None
        assert heard.pubsub.last_message_at is not None


async def test_it_listens_at_confirmed_with_one_request_in_a_frame() -> None:
    async with listening(WATCH, OTHER) as (node, heard):
        await eventually(lambda: heard.live_from)

        asked = [(call.method, call.params) for call in node.calls]

    assert asked == [
        ("slotSubscribe", []),
        ("logsSubscribe", [{"mentions": [WATCH]}, {"commitment": "confirmed"}]),
        ("logsSubscribe", [{"mentions": [OTHER]}, {"commitment": "confirmed"}]),
    ]


async def test_a_failed_transaction_is_counted_and_does_not_ring() -> None:
    async with listening() as (node, heard):
        await eventually(lambda: heard.live_from)
        node.chain.add(transfer("failed", err={"InstructionError": [0, {"Custom": 7}]}))
        good = node.chain.add(transfer("good"))

        await eventually(lambda: heard.rung)

        assert [signature for signature, _ in heard.rung] == [good]
        assert heard.pubsub.failed_notifications == 1
        assert heard.pubsub.notifications == 2


async def test_a_notification_that_comes_before_its_subscription_is_answered_rings() -> None:
    node = FakeNode()
    node.eager = True
    name = node.chain.add(transfer("early"))
    async with listening(on=node) as (_, heard):
        await eventually(lambda: heard.rung)

        assert heard.rung == [(name, 100)]


async def test_what_is_sent_twice_rings_twice() -> None:
    """The doorbells know what they have heard; here nothing is remembered."""
    async with listening() as (node, heard):
        node.doubled = True
        await eventually(lambda: heard.live_from)
        name = node.chain.add(transfer("1"))

        await eventually(lambda: len(heard.rung) == 2)

        assert heard.rung == [(name, 100)] * 2


async def test_a_frame_of_megabytes_is_read() -> None:
    frame = notification("big")
    frame["params"]["result"]["value"]["logs"] = ["x" * 3_000_000]
    async with listening() as (node, heard):
        await eventually(lambda: heard.live_from)
        node.push(frame)

        await eventually(lambda: heard.rung == [("big", 7)])

        assert node.connections == 1


@pytest.mark.parametrize(
    "noise",
    [
        "pong",
        "",
        "[]",
        "null",
        "{",
        b"\xff\xfe",
        {},
        {"jsonrpc": "2.0", "method": "transactionNotification", "params": {"result": {}}},
        {"jsonrpc": "2.0", "method": "logsNotification"},
        {"jsonrpc": "2.0", "method": "logsNotification", "params": []},
        {"jsonrpc": "2.0", "method": "logsNotification", "params": {"result": None}},
        {"jsonrpc": "2.0", "method": "slotNotification", "params": {"result": {"slot": "7"}}},
        {"jsonrpc": "2.0", "id": 99_999, "result": 1},
        {"jsonrpc": "2.0", "id": None, "result": 1},
        {"jsonrpc": "2.0", "id": [], "result": 1},
        {"jsonrpc": "2.0", "error": {"code": -32701, "message": "notice"}},
        {"jsonrpc": "2.0", "id": None, "error": "notice"},
        {"jsonrpc": "2.0", "id": None, "error": {}},
    ],
    ids=repr,
)
async def test_noise_disturbs_nothing(noise: Any) -> None:
    async with listening() as (node, heard):
        await eventually(lambda: heard.live_from)
        node.push(noise)
        node.push(notification("after"))

        await eventually(lambda: heard.rung == [("after", 7)])

        assert node.connections == 1


async def test_a_notice_of_the_server_is_told() -> None:
    async with listening() as (node, heard):
        await eventually(lambda: heard.live_from)
        with capture_logs() as logs:
            node.push({"error": {"code": -32701, "message": "closing soon"}})
            await eventually(lambda: logs)

        assert [entry["event"] for entry in logs] == ["pubsub.notice"]
        assert "closing soon" in logs[0]["notice"]


async def test_the_frames_of_real_nodes() -> None:
    live = vectors.load("stream/live_2026-09-28_ws_logsSubscribe_frames.json")
    frames = [frame for name, frame in live.items() if name.startswith("notification")]
    others = [
        frame
        for name, frame in live.items()
        if isinstance(frame, dict) and name not in {"subscribeRequest", "subscribeResponse"}
    ]
    async with listening() as (node, heard):
        await eventually(lambda: heard.live_from)
        for frame in others:
            node.push(copy.deepcopy(frame))
        node.push(notification("after"))
        await eventually(lambda: ("after", 7) in heard.rung)

        failed = [f for f in frames if f["params"]["result"]["value"]["err"] is not None]
        good = [f for f in frames if f["params"]["result"]["value"]["err"] is None]
        assert heard.pubsub.failed_notifications == len(failed) > 0
        assert heard.rung[:-1] == [
            (
                f["params"]["result"]["value"]["signature"],
                f["params"]["result"]["context"]["slot"],
            )
            for f in good
        ]
        assert len(good) > 0


# ------------------------------------------------------------------------- subscribing


async def test_it_is_live_only_when_every_subscription_is_answered() -> None:
    node = FakeNode()
    node.unanswered_keys.add(OTHER)
    async with listening(WATCH, OTHER, on=node) as (_, heard):
        await eventually(lambda: WATCH in node.subscribed_keys)
        before = node.chain.tip
        await eventually(lambda: node.chain.tip > before + 5)

        assert heard.live_from == []
        assert heard.pubsub.problem == "not connected yet"


async def test_subscriptions_that_stay_unanswered_end_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pubsub_module, "SUBSCRIBED_S_MAX", 0.02)
    node = FakeNode()
    node.unanswered_keys.add(WATCH)
    async with listening(on=node) as (_, heard):
        await eventually(lambda: node.connections >= 2)

        assert "no answer to 1 subscriptions" in str(heard.pubsub.problem)


async def test_live_means_from_a_slot_after_the_answers() -> None:
    async with listening() as (node, heard):
        before = node.chain.tip
        await eventually(lambda: heard.live_from)

        assert before < heard.live_from[0] <= node.chain.tip


async def test_a_refused_key_is_told_and_the_others_go_on() -> None:
    node = FakeNode()
    node.refused_keys.add(OTHER)
    async with listening(OTHER, WATCH, on=node) as (_, heard):
        with capture_logs() as logs:
            await eventually(lambda: heard.live_from)
            name = node.chain.add(transfer("1"))
            await eventually(lambda: heard.rung)

        assert heard.rung == [(name, 100)]
        assert f"logsSubscribe for {OTHER}" in str(heard.pubsub.problem)
        assert "subscription limit" in str(heard.pubsub.problem)
        refusals = [entry for entry in logs if entry["event"] == "pubsub.refused"]
        assert [entry["key"] for entry in refusals] == [OTHER]


async def test_a_refused_key_is_asked_for_again_when_the_keys_change() -> None:
    node = FakeNode()
    node.refused_keys.add(OTHER)
    async with listening(OTHER, WATCH, on=node) as (_, heard):
        await eventually(lambda: heard.live_from)
        node.refused_keys.clear()
        heard.pubsub.changed()

        await eventually(lambda: sorted(node.subscribed_keys) == sorted([OTHER, WATCH]))
        await eventually(lambda: heard.pubsub.problem is None)


async def test_a_refused_key_that_is_gone_is_no_problem() -> None:
    node = FakeNode()
    node.refused_keys.add(OTHER)
    async with listening(OTHER, WATCH, on=node) as (_, heard):
        await eventually(lambda: heard.live_from)
        heard.keys = [WATCH]
        heard.pubsub.changed()

        await eventually(lambda: heard.pubsub.problem is None)


async def test_keys_come_and_go() -> None:
    async with listening(WATCH) as (node, heard):
        await eventually(lambda: heard.live_from)
        heard.keys = [OTHER]
        heard.pubsub.changed()

        await eventually(lambda: node.subscribed_keys == [OTHER])
        await eventually(lambda: len(heard.live_from) == 2)
        node.chain.add(transfer("old key"))
        name = node.chain.add(transfer("new key", OTHER))
        await eventually(lambda: heard.rung)

        assert heard.rung == [(name, 100)]
        assert node.connections == 1


async def test_nothing_is_asked_when_nothing_changed() -> None:
    async with listening() as (node, heard):
        await eventually(lambda: heard.live_from)
        heard.pubsub.changed()
        node.push(notification("after"))
        await eventually(lambda: heard.rung)

        assert len([call for call in node.calls if call.method == "logsSubscribe"]) == 1
        assert len(heard.live_from) == 1


async def test_many_keys_fit_through_small_frames() -> None:
    keys = [key(f"{number}") for number in range(300)]
    async with listening(*keys) as (node, heard):
        await eventually(lambda: heard.live_from)

        assert sorted(node.subscribed_keys) == sorted(keys)
        assert node.connections == 1


async def test_keys_beyond_the_limit_are_left_to_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pubsub_module, "SUBSCRIPTIONS_MAX", 2)
    with capture_logs() as logs:
        async with listening("a", "b", "c", "b") as (node, heard):
            await eventually(lambda: heard.live_from)

            assert node.subscribed_keys == ["a", "b"]

    assert [e["keys"] for e in logs if e["event"] == "pubsub.too_many_keys"] == [3]


async def test_without_keys_there_is_still_a_heartbeat() -> None:
    async with FakeNode() as node, node.chain.ticking(0.005):
        heard = Heard(node, [])
        task = asyncio.create_task(heard.pubsub.run())
        await eventually(lambda: heard.live_from)
        task.cancel()
        await asyncio.wait([task], timeout=30)

    assert heard.pubsub.problem is None
