"""WebSockets in memory: they ring, and double, lose, reorder, fall silent, or break."""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from tests.simulation.chain import Placement
from tests.simulation.life import Life
from tests.simulation.loop import VirtualLoop
from tests.simulation.node import Node


#: A slot is told at most this often, in virtual seconds: more would only cost time.
SLOT_EVERY_S: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is wrong with the WebSockets of one node. Chances from 0 to 1.

    Attributes:
        loses, doubles, delays: chances for one notification.
        falls_silent, breaks, speaks_out: chances for one slot: nothing is heard any more, the
            connection ends, a notice without id comes.
        refuses: chance that a connection is not opened.
        is_dead: none is ever opened.
    """

    loses: float = 0.0
    doubles: float = 0.0
    delays: float = 0.0
    falls_silent: float = 0.0
    breaks: float = 0.0
    speaks_out: float = 0.0
    refuses: float = 0.0
    is_dead: bool = False


class Socket:
    """One connection, as the product sees it."""

    def __init__(self, exchange: "Exchange", life: Life) -> None:
        self.is_silent = False
        self.is_broken = False
        self._exchange = exchange
        self._life = life
        self._frames: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._numbers = itertools.count(7_001)
        self._slots: int | None = None
        self._logs: dict[int, str] = {}

    # what the product calls

    async def send(self, message: bytes | str, *, text: bool = True) -> None:
        if self.is_broken:
            raise ConnectionClosedError(None, None)
        asked = msgspec.json.decode(message)
        result: Any
        match asked["method"], asked["params"]:
            case "slotSubscribe", _:
                result = self._slots = next(self._numbers)
            case "logsSubscribe", [{"mentions": [key]}, _]:
                result = next(self._numbers)
                self._logs[result] = key
            case "logsUnsubscribe", [number]:
                result = self._logs.pop(number, None) is not None
            case _:
                raise AssertionError(asked)
        self.push({"jsonrpc": "2.0", "result": result, "id": asked["id"]})

    async def recv(self, *, decode: bool = False) -> bytes:
        while not self._frames:
            if self.is_broken:
                raise ConnectionClosedError(Close(1011, "going down (simulated)"), None)
            self._arrived.clear()
            await self._arrived.wait()
        if self._life.is_over:
            await asyncio.Event().wait()
        return self._frames.popleft()

    async def close(self) -> None:
        self.break_()

    # what the node calls

    def push(self, frame: Any, *, early: bool = False) -> None:
        if self.is_silent or self.is_broken:
            return
        data = msgspec.json.encode(frame)
        if early:
            self._frames.appendleft(data)
        else:
            self._frames.append(data)
        self._arrived.set()

    def ring_slot(self, slot: int) -> None:
        if self._slots is not None:
            heard = {"slot": slot, "parent": slot - 1, "root": slot - 32}
            self._notify("slotNotification", heard, self._slots)

    def ring_logs(self, placement: Placement, *, early: bool = False) -> None:
        for number, key in self._logs.items():
            if key in placement.keys:
                value = {
                    "signature": placement.signature,
                    "err": placement.body["meta"]["err"],
                    "logs": [],
                }
                heard = {"context": {"slot": placement.slot}, "value": value}
                self._notify("logsNotification", heard, number, early=early)

    def break_(self) -> None:
        self.is_broken = True
        self._arrived.set()

    def _notify(self, method: str, heard: Any, number: int, *, early: bool = False) -> None:
        params = {"result": heard, "subscription": number}
        self.push({"jsonrpc": "2.0", "method": method, "params": params}, early=early)


class Exchange:
    """The WebSocket side of one node: all its connections."""

    def __init__(self, node: Node, loop: VirtualLoop, rng: random.Random, line: Line) -> None:
        self.node = node
        self.line = line
        self._loop = loop
        self._rng = rng
        self._sockets: list[Socket] = []
        self._rung: dict[str, int] = {}
        self._slot_at = float("-inf")

    def connect(self, life: Life) -> Callable[..., Any]:
        """What a `PubSub` is given as `connect`."""

        @asynccontextmanager
        async def opened(_url: str, **_options: Any) -> AsyncIterator[Socket]:
            await asyncio.sleep(0.05)
            if self.line.is_dead or self.node.is_down or self._chance(self.line.refuses):
                raise ConnectionRefusedError(111, "Connection refused")
            socket = Socket(self, life)
            self._sockets.append(socket)
            try:
                yield socket
            finally:
                self._sockets.remove(socket)

        return opened

    def on_slot(self, _tip: int) -> None:
        """The chain has a new slot."""
        if not self._sockets:
            return
        if self.node.is_down:
            self._break_all("node is down")
            return
        if self._loop.time() - self._slot_at < SLOT_EVERY_S:
            return
        self._slot_at = self._loop.time()
        if self._chance(self.line.breaks):
            self._break_all("connection cut")
        if self._chance(self.line.falls_silent):
            self.node.note(self.node.name, "sockets fall silent")
            for socket in self._sockets:
                socket.is_silent = True
        for socket in self._sockets:
            socket.ring_slot(self.node.tip)
            if self._chance(self.line.speaks_out):
                notice = {"code": -32701, "message": "Client is too slow"}
                socket.push({"jsonrpc": "2.0", "error": notice})

    def on_confirmed(self, placements: Sequence[Placement]) -> None:
        """These were confirmed just now."""
        for placement in placements:
            if self._chance(self.line.loses):
                self.node.note(self.node.name, f"does not ring for {placement.signature[:6]}")
                continue
            delay_s = 3 * self._rng.random() if self._chance(self.line.delays) else 0.0
            times = 2 if self._chance(self.line.doubles) else 1
            for _ in range(times):
                self._loop.call_later(delay_s, self._ring, placement)

    def _ring(self, placement: Placement) -> None:
        early = self._chance(self.line.delays)
        for socket in self._sockets:
            socket.ring_logs(placement, early=early)

    def _break_all(self, why: str) -> None:
        self.node.note(self.node.name, why)
        for socket in self._sockets:
            socket.break_()

    def _chance(self, of: float) -> bool:
        return of > 0 and not self.node.is_calm and self._rng.random() < of
