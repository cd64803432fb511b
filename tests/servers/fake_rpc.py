"""A cluster in memory, and nodes of it that speak real HTTP and WebSocket on loopback.

    async with FakeNode(FakeChain()) as node:
        signature = node.chain.add(sol_transfer(...))        # slot 100: final from the start
        node.fail("getTransaction", http(429, retry_after="1"), times=2)
        Rpc([node.url]); PubSub(node.ws_url, ...)

The chain says what is true; a node says what it sees of it: it can be behind, hide, lie, ignore
the commitment (as Surfpool does), or fail in any scripted way. Several nodes can share a chain.
Live: `chain.add(sol_transfer(..., slot=chain.tip + 1))`, then `chain.advance()` until it is
confirmed (it rings), then final. Everything else is as Agave does it.
"""

import asyncio
import contextlib
import copy
import itertools
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import WSMsgType, web

from tests.chain import signature_of
from tests.servers.fake_chain import FakeChain, eventually
from tests.servers.faults import (
    Call,
    Fault,
    as_json,
    garbage,
    hang,
    hang_up,
    http,
    null,
    result,
    rpc_error,
    wrong_id,
)


__all__ = [
    "Call",
    "FakeChain",
    "FakeNode",
    "FakeSocket",
    "Fault",
    "eventually",
    "garbage",
    "hang",
    "hang_up",
    "http",
    "null",
    "result",
    "rpc_error",
    "wrong_id",
]


#: Agave drops a client that sends a longer frame.
FRAME_BYTES_MAX: Final = 4_096

PROCESSED, CONFIRMED, FINALIZED = "processed", "confirmed", "finalized"


class _Refused(Exception):
    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error: dict[str, Any] = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


# ----------------------------------------------------------------------------- the node


class FakeNode:
    """One node: HTTP and WebSocket on one port. An async context manager.

    Attributes:
        behind: how many slots this node lags; it does not know what is later.
        ignores_commitment: gives transactions before they are final, whatever is asked.
        hidden: signatures that it does not know.
        lies: signature -> a function that edits its answer in place.
        first_available: the lowest slot that this node has not cleaned up.
        block_lies: slot -> a function that edits the answer of getBlock in place.
        calls: every request that was answered or failed, in order.

        silent: nothing is sent over WebSocket, not even slots.
        doubled: every log notification is sent twice.
        eager: a log notification is sent before the answer to its subscribe.
        refused_keys: keys whose subscription is refused.
        unanswered_keys: keys whose subscription is never answered.
        sockets: the WebSockets that are open.
        connections: how many WebSockets were opened so far.
    """

    def __init__(self, chain: FakeChain | None = None) -> None:
        self.chain = chain or FakeChain()
        self.behind = 0
        self.ignores_commitment = False
        self.hidden: set[str] = set()
        self.lies: dict[str, Callable[[dict[str, Any]], object]] = {}
        self.first_available = 0
        self.block_lies: dict[int, Callable[[dict[str, Any]], object]] = {}
        self.calls: list[Call] = []
        self.silent = False
        self.doubled = False
        self.eager = False
        self.refused_keys: set[str] = set()
        self.unanswered_keys: set[str] = set()
        self.sockets: list[FakeSocket] = []
        self.connections = 0
        self.port = 0
        self._faults: dict[str, deque[Fault]] = {}
        self._lasting: dict[str, Fault] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens; on the same port as before, when it is started again."""
        application = web.Application()
        application.router.add_post("/{path:.*}", self._answer_http)
        application.router.add_get("/{path:.*}", self._answer_websocket)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", self.port), backlog=1_024)
        self.port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening).start()
        self.chain.nodes.append(self)

    async def stop(self) -> None:
        """Closes everything at once, as a crash does."""
        if self._runner is None:
            return
        self.chain.nodes.remove(self)
        await self.close_sockets()
        await self._runner.cleanup()
        self._runner = None

    @property
    def url(self) -> str:
        """For RPC."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """For PubSub."""
        return f"ws://127.0.0.1:{self.port}"

    # -- scripts

    def fail(self, method: str, fault: Fault, *, times: int | None = 1) -> None:
        """Lets the next requests for a method fail; all of them, for good, when None."""
        if times is None:
            self._lasting[method] = fault
        else:
            self._faults.setdefault(method, deque()).extend(itertools.repeat(fault, times))

    def heal(self) -> None:
        """Takes back every scripted fault."""
        self._faults.clear()
        self._lasting.clear()

    def count(self, method: str) -> int:
        """How many requests for a method came in."""
        return sum(call.method == method for call in self.calls)

    # -- JSON-RPC over HTTP

    async def _answer_http(self, request: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await request.read())
        call = Call(asked["method"], asked.get("params", []), asked["id"], request)
        self.calls.append(call)
        if faults := self._faults.get(call.method):
            return await faults.popleft()(call)
        if lasting := self._lasting.get(call.method):
            return await lasting(call)
        return as_json(self._answer(call))

    def _answer(self, call: Call) -> dict[str, Any]:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call.id}
        handler: Callable[..., Any] = _HANDLERS.get(call.method, _unknown_method)
        try:
            answer["result"] = handler(self, *call.params)
        except _Refused as refused:
            answer["error"] = refused.error
        return answer

    def _seen(self, commitment: str) -> int:
        heads = {
            PROCESSED: self.chain.tip,
            CONFIRMED: self.chain.confirmed,
            FINALIZED: self.chain.finalized,
        }
        return self.chain.produced(heads[commitment] - self.behind)

    def _knows(self, landed: Mapping[str, Any], commitment: str) -> bool:
        if signature_of(landed) in self.hidden or landed["slot"] < self.first_available:
            return False
        head = PROCESSED if self.ignores_commitment else commitment
        return bool(landed["slot"] <= self._seen(head))

    def _transaction(self, signature: str, options: Mapping[str, Any]) -> Any:
        commitment = _history_commitment(options)
        landed = self.chain.find(signature)
        if landed is None or not self._knows(landed, commitment):
            return None
        if options.get("encoding", "json") != "json":
            raise _Refused(-32602, "only the json encoding is known here")
        _check_version(landed, options)
        lie = self.lies.get(signature)
        if lie is not None:
            landed = copy.deepcopy(landed)
            lie(landed)
        return landed

    # Blocks, as Agave's `rpc/src/rpc.rs` has them (get_block, get_blocks, check_slot_cleaned_up).

    def _block(self, slot: int, options: Mapping[str, Any]) -> Any:
        commitment = _history_commitment(options)
        asked = (options.get("encoding", "json"), options.get("transactionDetails", "full"))
        if asked != ("json", "full") or options.get("rewards", True):
            raise _Refused(-32602, "only full blocks as json without rewards are known here")
        if slot > self._seen(commitment):
            raise _Refused(-32004, f"Block not available for slot {slot}")
        self._check_kept(slot)
        block = self.chain.block(slot)
        hidden = self.hidden
        block["transactions"] = [t for t in block["transactions"] if signature_of(t) not in hidden]
        for landed in block["transactions"]:
            _check_version(landed, options)
        if (lie := self.block_lies.get(slot)) is not None:
            block = copy.deepcopy(block)
            lie(block)
        return block

    def _blocks(self, first: int, last: int, options: Mapping[str, Any]) -> list[int]:
        commitment = _history_commitment(options)
        self._check_context(options, commitment)
        last = min(last, self._seen(commitment))
        if last - first > 500_000:
            raise _Refused(-32602, "Slot range too large; max 500000")
        kept = range(max(first, self.first_available), last + 1)
        return [slot for slot in kept if slot not in self.chain.skipped]

    def _block_time(self, slot: int) -> int | None:
        self._check_kept(slot)
        return self.chain.block_time(slot)

    def _check_kept(self, slot: int) -> None:
        if slot < self.first_available:
            raise _Refused(
                -32001,
                f"Block {slot} cleaned up, does not exist on node. "
                f"First available block: {self.first_available}",
                {"firstAvailableBlock": self.first_available},
            )
        if slot in self.chain.skipped:
            raise _Refused(
                -32007,
                f"Slot {slot} was skipped, or missing due to ledger jump to recent snapshot",
            )

    def _signatures(self, key_: str, options: Mapping[str, Any] | None = None) -> Any:
        options = options or {}
        commitment, limit = _history_commitment(options), options.get("limit", 1_000)
        if not 1 <= limit <= 1_000:
            raise _Refused(-32602, "Invalid limit; max 1000")
        self._check_context(options, commitment)
        rows = [landed for landed in self.chain.naming(key_) if self._knows(landed, commitment)]
        names = [signature_of(landed) for landed in rows]
        if (before := options.get("before")) is not None:
            if before not in names:
                raise _Refused(-32020, "Filter transaction not found")
            rows = rows[names.index(before) + 1 :]
        return [self._signature_row(landed) for landed in rows[:limit]]

    def _signature_row(self, landed: Mapping[str, Any]) -> dict[str, Any]:
        row = {
            "signature": signature_of(landed),
            "slot": landed["slot"],
            "err": landed["meta"]["err"],
            "memo": None,
            "blockTime": self.chain.block_time(landed["slot"]),
            "confirmationStatus": self._status_of(landed["slot"]),
        }
        if "transactionIndex" in landed:
            row["transactionIndex"] = landed["transactionIndex"]
        return row

    def _statuses(
        self, signatures: Sequence[str], _options: Mapping[str, Any] | None = None
    ) -> Any:
        if len(signatures) > 256:
            raise _Refused(-32602, "Too many inputs provided; max 256")
        return self._in_context([self._status(signature) for signature in signatures], PROCESSED)

    def _status(self, signature: str) -> dict[str, Any] | None:
        landed = self.chain.find(signature)
        if landed is None or not self._knows(landed, PROCESSED):
            return None
        status = self._status_of(landed["slot"])
        return {
            "slot": landed["slot"],
            "confirmations": None if status == FINALIZED else 1,
            "err": landed["meta"]["err"],
            "confirmationStatus": status,
        }

    def _status_of(self, slot: int) -> str:
        if slot <= self._seen(FINALIZED):
            return FINALIZED
        return CONFIRMED if slot <= self._seen(CONFIRMED) else PROCESSED

    def _slot(self, options: Mapping[str, Any] | None = None) -> int:
        commitment = (options or {}).get("commitment", FINALIZED)
        self._check_context(options or {}, commitment)
        return self._seen(commitment)

    def _account(self, key_: str, options: Mapping[str, Any]) -> Any:
        return self._in_context(self.chain.accounts.get(key_), options.get("commitment", FINALIZED))

    def _check_context(self, options: Mapping[str, Any], commitment: str) -> None:
        if options.get("minContextSlot", 0) > (seen := self._seen(commitment)):
            raise _Refused(
                -32016, "Minimum context slot has not been reached", {"contextSlot": seen}
            )

    def _in_context(self, value: Any, commitment: str) -> dict[str, Any]:
        return {"context": {"apiVersion": "4.2.0", "slot": self._seen(commitment)}, "value": value}

    # -- WebSocket

    async def _answer_websocket(self, request: web.Request) -> web.StreamResponse:
        if (fault := self._faults.get("connect")) or self._lasting.get("connect"):
            call = Call("connect", [], None, request)
            return await (fault.popleft() if fault else self._lasting["connect"])(call)
        opened = FakeSocket(self)
        self.connections += 1
        self.sockets.append(opened)
        try:
            return await opened.serve(request)
        finally:
            self.sockets.remove(opened)

    def ring_slot(self, slot: int) -> None:
        """Tells the subscribers of slots."""
        for opened in self.sockets:
            opened.ring_slot(slot)

    def ring_logs(self, landed: Mapping[str, Any], mentions: Iterable[str]) -> None:
        """Tells the subscribers of any of the keys."""
        for opened in self.sockets:
            opened.ring_logs(landed, mentions)

    def push(self, frame: Mapping[str, Any] | str | bytes) -> None:
        """Sends a frame of one's own choice to every socket; `bytes` as a text frame, too."""
        for opened in self.sockets:
            opened.push(frame)

    @property
    def subscribed_keys(self) -> list[str]:
        """The keys that log subscriptions are open for, over all sockets."""
        return [name for opened in self.sockets for name in opened.logs.values()]

    async def close_sockets(self, code: int = 1011, reason: str = "") -> None:
        """Closes every WebSocket from this side."""
        for opened in list(self.sockets):
            await opened.response.close(code=code, message=reason.encode(), drain=False)


class FakeSocket:
    """One WebSocket of a node and the subscriptions on it."""

    def __init__(self, node: FakeNode) -> None:
        self.response = web.WebSocketResponse(max_msg_size=FRAME_BYTES_MAX, timeout=0.1)
        self.logs: dict[int, str] = {}
        self.slots: int | None = None
        self._node = node
        self._numbers = itertools.count(673_010)
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        await self.response.prepare(request)
        sender = asyncio.create_task(self._send(), name="fake-socket")
        try:
            async for message in self.response:
                if message.type is WSMsgType.TEXT:
                    asked = msgspec.json.decode(message.data)
                    call = Call(asked["method"], asked.get("params", []), asked["id"])
                    self._node.calls.append(call)
                    self._answer(call)
        finally:
            sender.cancel()
        return self.response

    def push(self, frame: Mapping[str, Any] | str | bytes) -> None:
        if isinstance(frame, bytes):
            frame = frame.decode("latin-1")
        text = frame if isinstance(frame, str) else msgspec.json.encode(frame).decode()
        self._outgoing.put_nowait(text)

    def ring_slot(self, slot: int) -> None:
        if self.slots is None or self._node.silent:
            return
        heard = {"parent": slot - 1, "root": self._node.chain.finalized, "slot": slot}
        self._notify("slotNotification", heard, self.slots)

    def ring_logs(self, landed: Mapping[str, Any], mentions: Iterable[str]) -> None:
        for number, name in self.logs.items():
            if name in mentions:
                self.ring_log(number, landed)

    def ring_log(self, number: int, landed: Mapping[str, Any]) -> None:
        if self._node.silent:
            return
        value = {
            "signature": signature_of(landed),
            "err": landed["meta"]["err"],
            "logs": ["Program 11111111111111111111111111111111 success"],
        }
        heard = {"context": {"slot": landed["slot"]}, "value": value}
        for _ in range(2 if self._node.doubled else 1):
            self._notify("logsNotification", heard, number)

    def _notify(self, method: str, heard: Mapping[str, Any], number: int) -> None:
        params = {"result": heard, "subscription": number}
        self.push({"jsonrpc": "2.0", "method": method, "params": params})

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await self.response.send_str(await self._outgoing.get())

    def _answer(self, call: Call) -> None:
        if self._node.silent:
            return
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call.id}
        try:
            answer["result"] = self._subscribe(call)
        except _Refused as refused:
            answer["error"] = refused.error
        if not any(name in repr(call.params) for name in self._node.unanswered_keys):
            self.push(answer)

    def _subscribe(self, call: Call) -> Any:
        match call.method, call.params:
            case "slotSubscribe", _:
                self.slots = next(self._numbers)
                return self.slots
            case "logsSubscribe", [{"mentions": [name]}, {"commitment": "confirmed"}]:
                if name in self._node.refused_keys:
                    raise _Refused(-32602, "Subscription refused. Node subscription limit reached")
                number = next(self._numbers)
                self.logs[number] = name
                if self._node.eager:
                    for landed in self._node.chain.naming(name):
                        self.ring_log(number, landed)
                return number
            case "logsSubscribe", _:
                raise _Refused(-32602, "Invalid Request: Only 1 address supported")
            case "logsUnsubscribe", [int(number)]:
                return self.logs.pop(number, None) is not None
            case _:
                raise _Refused(-32601, "Method not found")


def _unknown_method(_node: FakeNode, *_params: Any) -> Any:
    raise _Refused(-32601, "Method not found")


def _check_version(landed: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    version, highest = landed["version"], options.get("maxSupportedTransactionVersion")
    if version != "legacy" and (highest is None or version > highest):
        raise _Refused(
            -32015,
            f"Transaction version ({version}) is not supported by the requesting client. "
            "Please try the request again with the following configuration parameter: "
            f'"maxSupportedTransactionVersion": {version}',
        )


def _history_commitment(options: Mapping[str, Any]) -> str:
    commitment = str(options.get("commitment", FINALIZED))
    if commitment == PROCESSED:
        raise _Refused(-32602, "Method does not support commitment below `confirmed`")
    return commitment


_HANDLERS: Final[Mapping[str, Callable[..., Any]]] = {
    "getTransaction": FakeNode._transaction,
    "getSignaturesForAddress": FakeNode._signatures,
    "getSignatureStatuses": FakeNode._statuses,
    "getSlot": FakeNode._slot,
    "getBlock": FakeNode._block,
    "getBlocks": FakeNode._blocks,
    "getBlockTime": FakeNode._block_time,
    "getFirstAvailableBlock": lambda node: node.first_available,
    "getAccountInfo": FakeNode._account,
    "getMinimumBalanceForRentExemption": lambda _node, size: 6_960 * (128 + size),
    "getGenesisHash": lambda node: node.chain.genesis_hash,
    "getVersion": lambda _node: {"feature-set": 1, "solana-core": "4.2.0"},
    "getHealth": lambda _node: "ok",
}
