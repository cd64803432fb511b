"""Log notifications over WebSocket: a doorbell that may fail in every way, and says when.

One connection per endpoint. Notifications are asked for at `confirmed`: at `finalized` nodes
skip slots and repeat others. Nothing is replayed after a reconnect, so `on_subscribed` tells
the owner from which slot on this connection rings; everything before is for a sweep to find.

A socket that is open and silent is as bad as a closed one. The node's slots are the heartbeat,
for it sends no other.

Source: Solana JSON-RPC, WebSocket methods; Agave `rpc/src/rpc_pubsub.rs`.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol

import msgspec
import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from indexer.errors import ConfigError, SourceUnavailable
from indexer.redact import secrets_of
from indexer.sources import wire
from indexer.sources.endpoint import DOWN_LOGGED_EVERY_S
from indexer.sources.retry import backoff


#: Keys that one connection subscribes to; what is beyond is left to the sweep.
SUBSCRIPTIONS_MAX: Final = 1_000

#: The longest frame that is read, in bytes: some notifications carry megabytes of log lines.
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024

#: Silence is measured in slots, but never called silence before this many seconds.
SILENCE_S_MIN: Final = 5.0
SILENCE_SLOTS: Final = 15

#: Taken for the time of a slot until it was measured, in seconds.
SLOT_S_ASSUMED: Final = 0.4

#: The longest that opening a connection may take, and the answers to all subscriptions.
OPEN_S_MAX: Final = 10.0
SUBSCRIBED_S_MAX: Final = 15.0

#: The longest that leaving a connection may take. A node that is far behind never says goodbye.
CLOSE_S_MAX: Final = 0.9

PING_EVERY_S: Final = 20.0

#: A connection that lasted this long, in seconds, is followed by a short delay again.
STEADY_S: Final = 30.0


class Socket(Protocol):
    """What is needed of an open WebSocket; raises `ConnectionClosed` once it is closed."""

    async def send(self, message: bytes, *, text: bool) -> None:
        """Sends one frame."""

    async def recv(self, *, decode: bool) -> bytes:
        """The next frame, as bytes."""


#: Opens a WebSocket: a URL and the options of the library's own `connect`.
Connect = Callable[..., AbstractAsyncContextManager[Any]]

_log = structlog.get_logger()

# The library logs the request line, and with it the key in a node's URL.
_library_log = logging.getLogger(f"{__name__}.websockets")
_library_log.setLevel(logging.WARNING)


class _LogsValue(msgspec.Struct):
    signature: str
    err: Any = None


class _Context(msgspec.Struct):
    slot: wire.Slot


class _LogsResult(msgspec.Struct):
    context: _Context
    value: _LogsValue


class _LogsParams(msgspec.Struct):
    result: _LogsResult


class _SlotResult(msgspec.Struct):
    slot: wire.Slot


class _SlotParams(msgspec.Struct):
    result: _SlotResult


class _Frame(msgspec.Struct):
    id: Any = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw()
    result: Any = None
    error: Any = None


_frame_decoder = msgspec.json.Decoder(_Frame)
_logs_decoder = msgspec.json.Decoder(_LogsParams)
_slot_decoder = msgspec.json.Decoder(_SlotParams)


@dataclass(slots=True)
class _Live:
    """What is true of one connection only.

    Attributes:
        waiting: request id -> the key whose subscription was asked for; None for the slots.
        subscribed: key -> the number that the node gave to its subscription.
        announced: the owner was told from which slot on this connection rings.
        was_live: it was announced at least once.
    """

    socket: Socket
    waiting: dict[int, str | None] = field(default_factory=dict)
    subscribed: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    announced: bool = False
    was_live: bool = False
    asked_at: float = 0.0
    slot: int = 0
    slot_at: float = 0.0


class PubSub:
    """Rings for every successful transaction that mentions one of the keys.

    Attributes:
        problem: why it does not ring, in words for ops; None while all is well.
        last_message_at: the event loop's time of the last frame; None before the first.
        notifications, failed_notifications, ignored: counts since the start; failed ones told
            of a failed transaction and did not ring, ignored frames were nothing known here.
        slot_s: the measured time of a slot, in seconds.
    """

    def __init__(
        self,
        url: str,
        keys: Callable[[], Collection[str]],
        on_signature: Callable[[str, int], object],
        on_subscribed: Callable[[int], object],
        *,
        on_lost: Callable[[int], object] = lambda _slot: None,
        connect: Connect = connect,
        silence_s_min: float = SILENCE_S_MIN,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is opened before `run`.

        Args:
            url: `ws://` or `wss://`; may hold a key, which is never logged.
            keys: what to subscribe to; called again at each connection and `changed()`.
            on_signature: called with a signature and its slot; must not block.
            on_subscribed: called with the first slot from which all present keys ring: after
                each (re)connect, and after `changed()` added keys.
            on_lost: called when a connection ends that was announced so, with the last slot
                heard on it. What rings is confirmed and slots are told as they begin: the last
                few before that slot may not have rung either. Not called by cancellation.
            connect: opens the WebSocket, as the library's own `connect` does.
            silence_s_min: how long no slot is never called silence, in seconds.
            draw: from 0.0 to 1.0, for the jitter of delays.
        """
        self.name = wire.logged_url(url)
        if not url.startswith(("ws://", "wss://")) or self.name == "(no URL)":
            raise ConfigError((f"WebSocket URL {self.name}: must begin with ws:// or wss://",))
        self.problem: str | None = "not connected yet"
        self.last_message_at: float | None = None
        self.notifications = 0
        self.failed_notifications = 0
        self.ignored = 0
        self.slot_s = SLOT_S_ASSUMED
        self._url = url
        self._secrets = secrets_of(url)
        self._keys = keys
        self._on_signature = on_signature
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost
        self._connect = connect
        self._live: _Live | None = None
        self._silence_s_min = silence_s_min
        self._draw = draw
        self._changed = asyncio.Event()
        self._request_id = 0

    def changed(self) -> None:
        """Asks for the subscriptions to follow what `keys` says now."""
        self._changed.set()

    async def run(self) -> NoReturn:
        """Connects, rings, reconnects; ends only by cancellation, within a second."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        delays, logged_at = backoff(self._draw), float("-inf")
        while True:
            opened_at = loop.time()
            try:
                await self._connection()
            except* (OSError, WebSocketException, SourceUnavailable) as group:
                self.problem = self._reason(_first(group))
            if task is not None and task.cancelling():
                # A task group that fails while it is cancelled tells of the failure only.
                raise asyncio.CancelledError
            self._tell_lost()
            was_steady = loop.time() - opened_at > STEADY_S
            if was_steady:
                delays = backoff(self._draw)
            if was_steady or loop.time() - logged_at >= DOWN_LOGGED_EVERY_S:
                logged_at = loop.time()
                _log.warning("pubsub.lost", endpoint=self.name, problem=self.problem)
            await asyncio.sleep(next(delays))

    async def _connection(self) -> None:
        async with (
            self._connect(
                self._url,
                compression=None,
                proxy=None,
                max_size=FRAME_BYTES_MAX,
                open_timeout=OPEN_S_MAX,
                close_timeout=CLOSE_S_MAX,
                ping_interval=PING_EVERY_S,
                ping_timeout=PING_EVERY_S,
                logger=_library_log,
            ) as socket,
            asyncio.TaskGroup() as group,
        ):
            live = self._live = _Live(socket, slot_at=asyncio.get_running_loop().time())
            self._changed.set()
            await self._subscribe(live, {None: ("slotSubscribe", [])})
            group.create_task(self._follow_keys(live), name="pubsub-subscriptions")
            await self._read(live)

    def _tell_lost(self) -> None:
        live, self._live = self._live, None
        if live is not None and live.was_live:
            self._on_lost(live.slot)

    # --------------------------------------------------------------- subscribing

    async def _follow_keys(self, live: _Live) -> NoReturn:
        """Subscribes to what is new and unsubscribes from what is gone, whenever asked."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = list(dict.fromkeys(self._keys()))
            if len(wanted) > SUBSCRIPTIONS_MAX:
                _log.warning("pubsub.too_many_keys", endpoint=self.name, keys=len(wanted))
                wanted = wanted[:SUBSCRIPTIONS_MAX]
            for key in live.subscribed.keys() - set(wanted):
                await self._send(live, "logsUnsubscribe", [live.subscribed.pop(key)])
            live.refused &= set(wanted)
            if live.announced and not live.refused:
                self.problem = None
            asked = {*live.subscribed, *live.waiting.values()}
            await self._subscribe(
                live,
                {
                    key: ("logsSubscribe", [{"mentions": [key]}, {"commitment": "confirmed"}])
                    for key in wanted
                    if key not in asked
                },
            )

    async def _subscribe(
        self, live: _Live, subscriptions: Mapping[str | None, tuple[str, list[Any]]]
    ) -> None:
        """All of them are awaited before the first is sent: none is announced without the rest."""
        if not subscriptions:
            return
        live.announced = False
        live.asked_at = asyncio.get_running_loop().time()
        first_id = self._request_id + 1
        live.waiting |= dict(enumerate(subscriptions, start=first_id))
        for method, params in subscriptions.values():
            await self._send(live, method, params)

    async def _send(self, live: _Live, method: str, params: list[Any]) -> None:
        """One request in one frame: nodes take no more than 4,096 bytes at a time."""
        self._request_id += 1
        await live.socket.send(wire.encode_request(self._request_id, method, params), text=True)

    # ------------------------------------------------------------------- reading

    async def _read(self, live: _Live) -> NoReturn:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(live.slot_at + self._silence_s()) as silence:
                while True:
                    frame = await live.socket.recv(decode=False)
                    self.last_message_at = loop.time()
                    heard_at = live.slot_at
                    self._dispatch(live, frame)
                    if live.slot_at != heard_at:
                        silence.reschedule(live.slot_at + self._silence_s())
        except TimeoutError:
            raise SourceUnavailable(f"no slot for {self._silence_s():.1f} s") from None

    def _silence_s(self) -> float:
        return max(self._silence_s_min, SILENCE_SLOTS * self.slot_s)

    def _dispatch(self, live: _Live, data: bytes) -> None:
        """By method, for a notification can come before the answer that tells its number."""
        try:
            frame = _frame_decoder.decode(data)
            match frame.method:
                case "logsNotification":
                    self._heard_logs(_logs_decoder.decode(frame.params))
                case "slotNotification":
                    self._heard_slot(live, _slot_decoder.decode(frame.params).result.slot)
                case None if frame.id is not None:
                    self._heard_answer(live, frame)
                case None if frame.error is not None:
                    self._heard_notice(frame.error)
                case _:
                    self.ignored += 1
        except wire.UNREADABLE:
            self.ignored += 1

    def _heard_logs(self, params: _LogsParams) -> None:
        self.notifications += 1
        value = params.result.value
        if value.err is not None:
            self.failed_notifications += 1
            return
        self._on_signature(value.signature, params.result.context.slot)

    def _heard_slot(self, live: _Live, slot: int) -> None:
        now = asyncio.get_running_loop().time()
        if live.slot and slot > live.slot:
            measured_s = (now - live.slot_at) / (slot - live.slot)
            self.slot_s += (measured_s - self.slot_s) / 16
        live.slot = max(slot, live.slot)
        live.slot_at = now
        if live.waiting:
            if now - live.asked_at > SUBSCRIBED_S_MAX:
                raise SourceUnavailable(f"no answer to {len(live.waiting)} subscriptions")
            return
        if not live.announced and not self._changed.is_set():
            live.announced = live.was_live = True
            self._announce(live, slot)

    def _announce(self, live: _Live, slot: int) -> None:
        if not live.refused:
            self.problem = None
        _log.info("pubsub.live", endpoint=self.name, slot=slot, keys=len(live.subscribed))
        self._on_subscribed(slot)

    def _heard_answer(self, live: _Live, frame: _Frame) -> None:
        if type(frame.id) is not int or frame.id not in live.waiting:
            return  # to an unsubscribe, or to nothing that was asked here
        key = live.waiting.pop(frame.id)
        if frame.error is None and isinstance(frame.result, int):
            if key is not None:
                live.subscribed[key] = frame.result
                live.refused.discard(key)
            return
        what = "slotSubscribe" if key is None else f"logsSubscribe for {key}"
        error = wire.refused(self._asked(what), frame.error).error
        if key is None:
            raise SourceUnavailable(str(error))
        live.refused.add(key)
        self.problem = str(error)
        _log.error("pubsub.refused", endpoint=self.name, key=key, problem=self.problem)

    def _heard_notice(self, error: Any) -> None:
        """Some servers say why they are about to close, without an id."""
        notice = str(wire.refused(self._asked("notice"), error).error)
        _log.warning("pubsub.notice", endpoint=self.name, notice=notice)

    # -------------------------------------------------------------------- errors

    def _asked(self, what: str) -> wire.Asked:
        return wire.Asked(what, self.name, self._secrets)

    def _reason(self, error: BaseException) -> str:
        """Why a connection ended, without the URL that some of these have in their text."""
        match error:
            case SourceUnavailable():
                what = str(error)
            case InvalidStatus():
                what = f"refused with HTTP {error.response.status_code}"
            case ConnectionClosed(rcvd=received) if received is not None:
                what = f"closed by the node: {received.code} {received.reason}"
            case ConnectionClosed(sent=sent) if sent is not None:
                what = f"closed by us: {sent.code} {sent.reason}"
            case ConnectionClosed():
                what = "connection lost"
            case TimeoutError():
                what = f"not open within {OPEN_S_MAX:g} s"
            case _:
                what = f"{type(error).__name__}: {getattr(error, 'strerror', None) or ''}"
        return self._asked("subscriptions").note(what)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
