"""The cluster: what is true, slot by slot, and what of it a fork takes away again.

Slots begin at the pace of virtual time; some have no block. A transaction lands in a block, is
confirmed, and then either finalized or lost with its block; who lost its block may land again
in another one, and may fail there. Nothing is ever forgotten here, so that a node which is
behind can be asked what it saw at an earlier tip.
"""

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import msgspec

from tests.chain import keys_of
from tests.simulation.loop import BEGINNING_S, VirtualLoop
from tests.simulation.outcome import Landed, Leg


#: Unix seconds at the beginning of a world.
EPOCH: Final = 1_790_000_000
#: The slot of that moment, and how many slots before it a node can still look back to.
FIRST_SLOT: Final = 5_000
PAST_SLOTS: Final = 400
GENESIS_HASH: Final = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"

NEVER: Final = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a cluster behaves.

    Attributes:
        slot_s: from when on (virtual seconds since the beginning), how long a slot takes.
        confirm_lag: slots from a block to its confirmation.
        depth: slots from there to finality; 0: what is confirmed is final.
        root_step: finality moves by up to that many slots at once.
        skip: chance that a slot has no block.
        fork: chance that a block with transactions is lost after it was confirmed.
        lands_again: chance that a transaction of a lost block lands in another one, and
        fails_there: that it then fails.
        stalls: (from, for how long) the chain stands still, in virtual seconds.
        clock_offset_s: block times less the daemon's clock.
    """

    slot_s: Sequence[tuple[float, float]] = ((0.0, 0.4),)
    confirm_lag: int = 1
    depth: int = 31
    root_step: int = 1
    skip: float = 0.05
    fork: float = 0.0
    lands_again: float = 0.5
    fails_there: float = 0.1
    stalls: Sequence[tuple[float, float]] = ()
    clock_offset_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Sent:
    """A transaction that a wallet signed: what it does where it works, and where it fails.

    Attributes:
        body: as `tests.chain` builds it; slot, index and time are those of the block.
        failed_body: the same signature with `meta.err`; None where it cannot fail by chance.
        inflated: makes the body of a lie: the same transaction with ten times the money.
    """

    signature: str
    body: Mapping[str, Any]
    legs: tuple[Leg, ...]
    failed_body: Mapping[str, Any] | None = None
    inflated: Callable[[], Mapping[str, Any]] | None = None


@dataclass(kw_only=True)  # no slots: it remembers what was made of it
class Placement:
    """A transaction in one block.

    Attributes:
        dropped_at: the tip from which on the block is gone; `NEVER` for most.
    """

    sent: Sent
    body: Mapping[str, Any]
    slot: int
    index: int
    block_time: int
    dropped_at: int = NEVER
    finalized_at_s: float | None = None

    @property
    def signature(self) -> str:
        return self.sent.signature

    @property
    def failed(self) -> bool:
        return self.body["meta"]["err"] is not None

    def landed(self) -> dict[str, Any]:
        """The result of getTransaction."""
        placed = {"slot": self.slot, "blockTime": self.block_time, "transactionIndex": self.index}
        return {**self.body, **placed}

    @cached_property
    def raw(self) -> bytes:
        return msgspec.json.encode(self.landed())

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return keys_of(self.body)

    def truth(self) -> Landed:
        return Landed(
            signature=self.signature,
            slot=self.slot,
            index=self.index,
            block_time=self.block_time,
            failed=self.failed,
            keys=self.keys,
            legs=self.sent.legs,
            finalized_at_s=self.finalized_at_s,
        )


@dataclass(slots=True, kw_only=True)
class Block:
    slot: int
    parent: int
    time: int
    placements: list[Placement] = field(default_factory=list)
    dropped_at: int = NEVER


class Chain:
    """What is true.

    Attributes:
        tip: the newest slot.
        is_calm: no block is lost any more, except those whose fate is sealed.
        blocks: slot -> block, those included that were lost.
        on_slot: called with the tip at each new slot.
        on_confirmed: called with each transaction that was confirmed just now, in order.
        note: takes lines for the trace.
    """

    def __init__(self, loop: VirtualLoop, rng: random.Random, pace: Pace) -> None:
        self.pace = pace
        self.tip = FIRST_SLOT
        self.is_calm = False
        self.blocks: dict[int, Block] = {}
        self.listeners: list[Callable[[int], None]] = []
        self.on_confirmed: Callable[[Sequence[Placement]], None] = lambda _placements: None
        self.note: Callable[[str, str], None] = lambda _who, _what: None
        self._loop = loop
        self._rng = rng
        self._pool: list[Sent] = []
        self._by_signature: dict[str, list[Placement]] = {}
        self._by_key: dict[str, list[Placement]] = {}
        self._doomed: dict[int, Block] = {}
        self._heads: dict[int, tuple[int, int]] = {}
        self._block_slots: list[int] = []
        self._last_filled = 0
        for slot in range(FIRST_SLOT - PAST_SLOTS, FIRST_SLOT + 1):
            self._add_block(slot, EPOCH - (FIRST_SLOT - slot) // 3)
            self._heads[slot] = (slot - pace.confirm_lag, slot - pace.confirm_lag - pace.depth)

    # ----------------------------------------------------------------------------- looking

    @property
    def finalized(self) -> int:
        """The cluster's finalized slot."""
        return self._heads[self.tip][1]

    def heads(self, tip: int) -> tuple[int, int]:
        """Confirmed and finalized slot when the tip was that."""
        return self._heads[max(tip, FIRST_SLOT - PAST_SLOTS)]

    def placed(self, signature: str) -> Sequence[Placement]:
        """Every place where the signature ever stood, in order."""
        return self._by_signature.get(signature, ())

    def naming(self, key: str) -> Sequence[Placement]:
        """Everything that ever named the key, oldest first, as it landed."""
        return self._by_key.get(key, ())

    def block(self, slot: int) -> Block | None:
        """The block of a slot that was not lost."""
        found = self.blocks.get(slot)
        return found if found is not None and found.dropped_at == NEVER else None

    def all_placements(self) -> list[Placement]:
        return [placement for block in self.blocks.values() for placement in block.placements]

    @property
    def time(self) -> float:
        """Unix seconds by the cluster's clock."""
        return EPOCH + self._loop.time() - BEGINNING_S + self.pace.clock_offset_s

    # ------------------------------------------------------------------------------ moving

    @property
    def has_waiting(self) -> bool:
        """Something was sent and is neither final nor lost yet."""
        return bool(self._pool or self._doomed) or self._last_filled > self.finalized

    def submit(self, sent: Sent) -> None:
        """Hands a transaction to the leaders: it lands in the next block."""
        self._pool.append(sent)

    async def run(self) -> None:
        """Makes slots for ever."""
        while True:
            await asyncio.sleep(self._slot_s())
            self.tick()

    def _slot_s(self) -> float:
        now = self._loop.time() - BEGINNING_S
        for start, length in self.pace.stalls:
            if start <= now < start + length:
                return max(0.001, start + length - now)  # rounding must not make it nothing
        begins = [start for start, _ in self.pace.slot_s]
        return self.pace.slot_s[max(0, bisect_right(begins, now) - 1)][1]

    def tick(self) -> None:
        """One slot more."""
        self.tip += 1
        if self._rng.random() >= self.pace.skip:
            block = self._add_block(self.tip, int(self.time))
            self._fill(block)
        for slot in [slot for slot, block in self._doomed.items() if block.dropped_at <= self.tip]:
            self._drop(self._doomed.pop(slot))
        self._move_heads()
        for listener in self.listeners:
            listener(self.tip)

    def _add_block(self, slot: int, time: int) -> Block:
        parent = self._block_slots[-1] if self._block_slots else slot - 1
        time = max(time, self.blocks[parent].time if parent in self.blocks else 0)
        block = self.blocks[slot] = Block(slot=slot, parent=parent, time=time)
        self._block_slots.append(slot)
        return block

    def _fill(self, block: Block) -> None:
        pool, self._pool = self._pool, []
        self._rng.shuffle(pool)
        if not pool:
            return
        self._last_filled = block.slot
        for index, sent in enumerate(pool, start=self._rng.randrange(1_000)):
            self._place(sent, sent.body, block, index)
        if not self.is_calm and self.pace.depth > 4 and self._rng.random() < self.pace.fork:
            lasts = self._rng.randint(self.pace.confirm_lag + 1, self.pace.depth - 1)
            self._doomed[block.slot] = block
            block.dropped_at = block.slot + lasts
            for placement in block.placements:
                placement.dropped_at = block.dropped_at

    def _place(self, sent: Sent, body: Mapping[str, Any], block: Block, index: int) -> None:
        placement = Placement(
            sent=sent, body=body, slot=block.slot, index=index, block_time=block.time
        )
        block.placements.append(placement)
        self._by_signature.setdefault(sent.signature, []).append(placement)
        for key in placement.keys:
            self._by_key.setdefault(key, []).append(placement)
        self.note("chain", f"{sent.signature[:6]} lands in {block.slot}:{index}")

    def _drop(self, block: Block) -> None:
        """A fork lost: its transactions are gone, or land in the next block instead."""
        self._block_slots.remove(block.slot)
        for placement in block.placements:
            sent, again = placement.sent, self._rng.random() < self.pace.lands_again
            self.note("chain", f"{sent.signature[:6]} dropped with {block.slot}, again: {again}")
            if not again:
                continue
            if sent.failed_body is not None and self._rng.random() < self.pace.fails_there:
                sent = Sent(signature=sent.signature, body=sent.failed_body, legs=sent.legs)
            self._pool.append(sent)

    def _move_heads(self) -> None:
        confirmed, finalized = self._heads[self.tip - 1]
        now_confirmed = self._block_at(self.tip - self.pace.confirm_lag)
        wanted = now_confirmed - self.pace.depth
        now_finalized = finalized
        if wanted - finalized >= self.pace.root_step or not self.pace.depth:
            now_finalized = max(finalized, self._block_at(wanted))
        now_confirmed = max(confirmed, now_confirmed)
        self._heads[self.tip] = (now_confirmed, now_finalized)
        for slot in range(finalized + 1, now_finalized + 1):
            if (block := self.block(slot)) is not None:
                for placement in block.placements:
                    placement.finalized_at_s = self._loop.time() - BEGINNING_S
        fresh = [
            placement
            for slot in range(confirmed + 1, now_confirmed + 1)
            if slot in self.blocks
            for placement in self.blocks[slot].placements
        ]
        if fresh:
            self.on_confirmed(fresh)

    def _block_at(self, slot: int) -> int:
        """The newest slot up to this one that has a block."""
        position = bisect_right(self._block_slots, slot)
        return self._block_slots[position - 1]
