"""RPC nodes: each shows the cluster as it sees it, late, forgetful, moody, or lying.

`SimulatedEndpoint` is the product's own `Endpoint` with memory in the place of HTTP: queueing,
pace, health and the meaning of every failure are the real code, and so is the reading of the
answer's bytes.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from indexer.sources import wire
from indexer.sources.endpoint import Endpoint
from tests.simulation.chain import FIRST_SLOT, GENESIS_HASH, PAST_SLOTS, Chain, Placement, Sent
from tests.simulation.life import Life
from tests.simulation.loop import BEGINNING_S, VirtualLoop


PROCESSED, CONFIRMED, FINALIZED = "processed", "confirmed", "finalized"

#: Slots that a lying node claims to be finalized beyond the tip.
AHEAD_SLOTS: Final = 40

#: Slots that a node with a short memory forgets in one go.
FORGOTTEN_AT_ONCE: Final = 32

#: Honest answers that are no JSON-RPC: a gateway's page, half a body, somebody else's answer.
_GARBAGE: Final = (
    b"<html>502 Bad Gateway</html>",
    b'{"jsonrpc":"2.0","id":1,"res',
    b'{"jsonrpc":"2.0","result":1,"id":"stranger"}',
    b'{"jsonrpc":"2.0","id":1}',
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Temper:
    """What is wrong with one node. Chances are from 0 to 1, times in virtual seconds.

    Attributes:
        latency_s: the longest that an answer takes, mostly much less.
        hangs, busy, broken: chances of no answer at all, of a 429, of any other failure.
        behind: slots that it lags.
        spells: (from, how long, slots) in which it lags that much more.
        restarts: (from, how long) in which nobody is there.
        nulls: chance that it does not find a transaction for a while, though it is final.
        late_index: chance that it does not list a transaction for a while.
        loses_place: chance that it does not know a `before` that it gave itself.
        is_silent_about_before: it then answers with an empty page, not with an error.
        short_pages: it cuts pages as it likes.
        disorder: within a slot it lists in any order.
        says_index: it gives `transactionIndex`.
        ignores_commitment: it gives what is confirmed where finalized was asked for.
        keeps_slots: it forgets what is older than that; 0: nothing.
        lies: which lies it tells: `invent` a transaction, and ring for it; `list` it as well;
            `hide` one in three; `inflate` amounts; be `ahead` with finality; be wrong about the
            `time` of every block.
    """

    latency_s: float = 0.2
    hangs: float = 0.0
    busy: float = 0.0
    broken: float = 0.0
    behind: int = 0
    spells: Sequence[tuple[float, float, int]] = ()
    restarts: Sequence[tuple[float, float]] = ()
    nulls: float = 0.0
    late_index: float = 0.0
    loses_place: float = 0.0
    is_silent_about_before: bool = False
    short_pages: bool = False
    disorder: bool = False
    says_index: bool = True
    ignores_commitment: bool = False
    keeps_slots: int = 0
    lies: frozenset[str] = frozenset()


class Refused(Exception):
    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error: dict[str, Any] = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


class Node:
    """One node's view of the chain.

    Attributes:
        is_calm: nothing goes wrong here any more; lies go on.
        requests: how many were answered or failed.
        listed_late: signatures that it left out of its lists for a while.
    """

    def __init__(
        self, number: int, chain: Chain, loop: VirtualLoop, rng: random.Random, temper: Temper
    ) -> None:
        self.name = f"node{number}"
        self.chain = chain
        self.temper = temper
        self.rng = rng
        self.is_calm = False
        self.requests = 0
        self.listed_late: set[str] = set()
        self.note: Callable[[str, str], None] = chain.note
        self._loop = loop
        self._invented: dict[str, list[Placement]] = {}
        self._unseen_until: dict[tuple[str, str], float] = {}

    # ------------------------------------------------------------------------------- moods

    @property
    def now_s(self) -> float:
        return self._loop.time() - BEGINNING_S

    @property
    def is_down(self) -> bool:
        if self.is_calm:
            return False
        return any(start <= self.now_s < start + span for start, span in self.temper.restarts)

    @property
    def tip(self) -> int:
        """The newest slot that this node has heard of."""
        if self.is_calm:
            return self.chain.tip - min(self.temper.behind, 2)
        more = sum(
            slots for start, span, slots in self.temper.spells if start <= self.now_s < start + span
        )
        return self.chain.tip - self.temper.behind - more

    def head(self, commitment: str) -> int:
        """Its newest slot at that commitment."""
        tip = self.tip
        if commitment == PROCESSED:
            return tip
        confirmed, finalized = self.chain.heads(tip)
        if commitment == FINALIZED and "ahead" in self.temper.lies:
            return tip + AHEAD_SLOTS
        return confirmed if commitment == CONFIRMED else finalized

    def chance(self, of: float) -> bool:
        return of > 0 and not self.is_calm and self.rng.random() < of

    # ------------------------------------------------------------------------------ seeing

    def find(self, signature: str, commitment: str) -> Placement | None:
        """Where it sees the signature; None when it does not."""
        for placement in reversed(self._with_invented(signature)):
            if self._sees(placement, commitment):
                return placement
        return None

    def invent(self, sent: Sent) -> Placement:
        """A transaction that never was; only this node speaks of it."""
        head = self.chain.heads(self.chain.tip)[1]
        block = self.chain.blocks[head]
        placement = Placement(sent=sent, body=sent.body, slot=head, index=0, block_time=block.time)
        for name in (sent.signature, *placement.keys):
            self._invented.setdefault(name, []).append(placement)
        return placement

    def _with_invented(self, name: str) -> list[Placement]:
        return [*self.chain.placed(name), *self._invented.get(name, ())]

    def _sees(self, placement: Placement, commitment: str) -> bool:
        tip = self.tip
        shown = CONFIRMED if self.temper.ignores_commitment else commitment
        if placement.slot > self.head(shown) or placement.slot > tip:
            return False
        if tip >= placement.dropped_at or self._is_pruned(placement.slot):
            return False
        return not ("hide" in self.temper.lies and int(placement.signature[-1], 36) % 3 == 0)

    def _is_pruned(self, slot: int) -> bool:
        return bool(self.temper.keeps_slots) and slot < self._first_block()

    def _is_slow_to_see(
        self, what: str, placement: Placement, chance: float, longest_s: float
    ) -> bool:
        """Whether it does not see something for a while: since it is final, or it is asked."""
        if self.is_calm:
            return False
        name = what, placement.signature
        until = self._unseen_until.get(name)
        if until is None:
            span = self.rng.random() * longest_s if self.chance(chance) else 0.0
            since = placement.finalized_at_s
            until = self._unseen_until[name] = span + (self.now_s if since is None else since)
            if until > self.now_s and what == "index":
                self.listed_late.add(placement.signature)
        return self.now_s < until

    # --------------------------------------------------------------------------- answering

    def result(self, method: str, params: Sequence[Any]) -> bytes:
        """The JSON of `result`; raises `Refused`."""
        handler = _HANDLERS.get(method)
        if handler is None:
            raise Refused(-32601, "Method not found")
        found = handler(self, *params)
        return found if isinstance(found, bytes) else msgspec.json.encode(found)

    def _transaction(self, signature: str, options: Mapping[str, Any]) -> bytes:
        placement = self.find(signature, options["commitment"])
        if placement is None:
            return b"null"
        if self._is_slow_to_see("null", placement, self.temper.nulls, 12.0):
            self.note(self.name, f"null for {signature[:6]}")
            return b"null"
        version = placement.body["version"]
        if version != "legacy" and version > options["maxSupportedTransactionVersion"]:
            raise Refused(
                -32015,
                f"Transaction version ({version}) is not supported by the requesting client. "
                "Please try the request again with the following configuration parameter: "
                f'"maxSupportedTransactionVersion": {version}',
            )
        if "inflate" in self.temper.lies and placement.sent.inflated is not None:
            inflated = {**placement.landed(), **placement.sent.inflated()}
            placed = {"slot": placement.slot, "blockTime": placement.block_time}
            return msgspec.json.encode({**inflated, **placed})
        if not self.temper.says_index:
            landed = placement.landed()
            del landed["transactionIndex"]
            return msgspec.json.encode(landed)
        return placement.raw

    def _signatures(self, key: str, options: Mapping[str, Any]) -> Any:
        commitment, limit = options["commitment"], options.get("limit", 1_000)
        self._check_context(options, commitment)
        # Where a signature stands at all: the last place that is not lost to this node.
        seen = {p.signature: p for p in self._naming(key) if self._sees(p, commitment)}
        rows = sorted(seen.values(), key=self._place, reverse=True)
        rows = [
            row
            for row in rows
            if not self._is_slow_to_see("index", row, self.temper.late_index, 20.0)
        ]
        if (before := options.get("before")) is not None:
            rows = self._after(rows, before)
        if (until := options.get("until")) is not None:
            names = [row.signature for row in rows]
            rows = rows[: names.index(until)] if until in names else rows
        if self.temper.short_pages and rows and not self.is_calm:
            # One row at a time *and* silent about a lost place: nobody could tell that from an end.
            least = 2 if self.temper.is_silent_about_before else 1
            limit = min(limit, self.rng.randint(least, 3))
        return [self._row(row) for row in rows[:limit]]

    def _naming(self, key: str) -> list[Placement]:
        invented = self._invented.get(key, ()) if "list" in self.temper.lies else ()
        return [*self.chain.naming(key), *invented]

    def _place(self, placement: Placement) -> tuple[int, float]:
        if self.temper.disorder:
            # Any order within the slot, but always the same one.
            return placement.slot, hash(placement.index * 7919 + len(self.name)) % 101
        return placement.slot, placement.index

    def _after(self, rows: list[Placement], before: str) -> list[Placement]:
        names = [row.signature for row in rows]
        if before in names and not self.chance(self.temper.loses_place):
            return rows[names.index(before) + 1 :]
        self.note(self.name, f"does not know before={before[:6]}")
        if self.temper.is_silent_about_before:
            return []
        raise Refused(-32020, "Filter transaction not found")

    def _row(self, placement: Placement) -> dict[str, Any]:
        row = {
            "signature": placement.signature,
            "slot": placement.slot,
            "err": placement.body["meta"]["err"],
            "memo": None,
            "blockTime": placement.block_time + self._wrong_s,
            "confirmationStatus": FINALIZED,
        }
        if self.temper.says_index:
            row["transactionIndex"] = placement.index
        return row

    def _statuses(self, signatures: Sequence[str], _options: Any = None) -> Any:
        return self._in_context([self._status(signature) for signature in signatures])

    def _status(self, signature: str) -> dict[str, Any] | None:
        placement = self.find(signature, PROCESSED)
        if placement is None:
            return None
        confirmed, finalized = self.head(CONFIRMED), self.head(FINALIZED)
        status = FINALIZED if placement.slot <= finalized else CONFIRMED
        return {
            "slot": placement.slot,
            "confirmations": None if status == FINALIZED else 1,
            "err": placement.body["meta"]["err"],
            "confirmationStatus": status if placement.slot <= confirmed else PROCESSED,
        }

    def _slot(self, options: Mapping[str, Any] | None = None) -> int:
        commitment = (options or {}).get("commitment", FINALIZED)
        self._check_context(options or {}, commitment)
        return self.head(commitment)

    def _block_time(self, slot: int) -> int | None:
        if slot > self.tip and "ahead" not in self.temper.lies:
            raise Refused(-32004, f"Block not available for slot {slot}")
        self._check_kept(slot)
        block = self.chain.block(min(slot, self.tip))
        if block is None:
            raise Refused(-32009, f"Slot {slot} was skipped, or missing in long-term storage")
        return block.time + self._wrong_s

    @property
    def _wrong_s(self) -> int:
        return 86_400 if "time" in self.temper.lies else 0

    def _blocks(self, first: int, last: int | None = None, _options: Any = None) -> list[int]:
        final = self.head(FINALIZED)
        last = final if last is None else min(last, final)
        first = max(first, self._first_block())
        return [slot for slot in range(first, last + 1) if self.chain.block(slot) is not None]

    def _block(self, slot: int, options: Mapping[str, Any] | None = None) -> Any:
        if slot > self.head(FINALIZED):
            raise Refused(-32004, f"Block not available for slot {slot}")
        self._check_kept(slot)
        block = self.chain.block(slot)
        if block is None:
            raise Refused(-32007, f"Slot {slot} was skipped, or missing due to ledger jump")
        return {
            "blockhash": f"block {slot}",
            "previousBlockhash": f"block {block.parent}",
            "parentSlot": block.parent,
            "blockTime": block.time,
            "blockHeight": slot,
            "transactions": [
                {name: placement.body[name] for name in ("transaction", "meta", "version")}
                for placement in block.placements
            ],
        }

    def _first_block(self) -> int:
        kept = self.temper.keeps_slots
        if not kept:
            return FIRST_SLOT - PAST_SLOTS
        return (self.tip - kept) // FORGOTTEN_AT_ONCE * FORGOTTEN_AT_ONCE

    def _account(self, _key: str, _options: Any = None) -> Any:
        return self._in_context(None)

    def _check_kept(self, slot: int) -> None:
        if self._is_pruned(slot):
            first = self._first_block()
            raise Refused(-32001, f"Block {slot} cleaned up, first available block: {first}")

    def _check_context(self, options: Mapping[str, Any], commitment: str) -> None:
        if options.get("minContextSlot", 0) > (seen := self.head(commitment)):
            raise Refused(
                -32016, "Minimum context slot has not been reached", {"contextSlot": seen}
            )

    def _in_context(self, value: Any) -> dict[str, Any]:
        return {"context": {"apiVersion": "4.2.0", "slot": self.tip}, "value": value}


_HANDLERS: Final[Mapping[str, Callable[..., Any]]] = {
    "getTransaction": Node._transaction,
    "getSignaturesForAddress": Node._signatures,
    "getSignatureStatuses": Node._statuses,
    "getSlot": Node._slot,
    "getBlockTime": Node._block_time,
    "getBlocks": Node._blocks,
    "getBlock": Node._block,
    "getFirstAvailableBlock": Node._first_block,
    "getAccountInfo": Node._account,
    "getMinimumBalanceForRentExemption": lambda _node, size: 6_960 * (128 + size),
    "getGenesisHash": lambda _node: GENESIS_HASH,
    "getVersion": lambda _node: {"feature-set": 1, "solana-core": "4.2.0"},
    "getHealth": lambda _node: "ok",
}


class SimulatedEndpoint(Endpoint):
    """The product's endpoint, answered by a node in memory."""

    def __init__(self, node: Node, life: Life, url: str, **rest: Any) -> None:
        super().__init__(url, **rest)
        self._node = node
        self._life = life

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    async def _ask(self, asked: wire.Asked, params: Sequence[Any]) -> bytes | wire.Fault:
        node = self._node
        rng, temper = node.rng, node.temper
        node.requests += 1
        first = rng.random()
        # The square makes short ways common; the answer is made somewhere on the way.
        way_s = temper.latency_s * rng.random() ** 2
        if first < 0.5:
            await asyncio.sleep(way_s)
            answer = self._outcome(asked, params)
        else:
            answer = self._outcome(asked, params)
            await asyncio.sleep(way_s)
        if answer is None:
            await asyncio.sleep(self.bounds.timeout_s)
            answer = wire.unreachable(asked, f"no answer within {self.bounds.timeout_s:g} s")
        await self._life.answered()
        return answer

    def _outcome(self, asked: wire.Asked, params: Sequence[Any]) -> bytes | wire.Fault | None:
        """What the node says, or how it fails; None for nothing at all."""
        node, temper = self._node, self._node.temper
        if node.is_down:
            return wire.unreachable(asked, "ClientConnectorError: Connection refused")
        if node.chance(temper.hangs):
            node.note(node.name, f"{asked.method} hangs")
            return None
        if node.chance(temper.busy):
            pause_s = node.rng.choice((None, 1.0, 3.0))
            node.note(node.name, f"{asked.method} 429, retry after {pause_s}")
            return wire.failed(asked, 429, pause_s, b"")
        if node.chance(temper.broken):
            return self._broken(asked)
        try:
            result = node.result(asked.method, params)
        except Refused as refused:
            body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "error": refused.error})
        else:
            body = b'{"jsonrpc":"2.0","result":' + result + b',"id":1}'
        return wire.decode_answer(body, 1, asked)

    def _broken(self, asked: wire.Asked) -> bytes | wire.Fault:
        rng, note = self._node.rng, self._node.note
        note(self._node.name, f"{asked.method} broken")
        match rng.randrange(4):
            case 0:
                return wire.failed(asked, rng.choice((500, 502, 503, 504)), None, _GARBAGE[0])
            case 1:
                error = rng.choice(
                    (
                        {"code": -32005, "message": "Node is behind by 42 slots"},
                        {"code": -32603, "message": "Internal error"},
                        {"code": -32014, "message": "Block status not yet available"},
                    )
                )
                body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "error": error})
                return wire.decode_answer(body, 1, asked)
            case _:
                return wire.decode_answer(rng.choice(_GARBAGE), 1, asked)
