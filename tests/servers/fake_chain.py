"""A chain in memory, which the nodes of `fake_rpc` show and the tests move forward."""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Protocol

from indexer.core.types import SYSTEM_PROGRAM
from tests.chain import BLOCK_TIME, key, keys_of, signature_of, transaction


async def eventually(condition: Callable[[], object], *, timeout_s: float = 30.0) -> None:
    """Returns once the condition holds; fails the test when it does not within the limit."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


class Listener(Protocol):
    """What a node does when the chain moves."""

    def ring_slot(self, slot: int) -> None: ...

    def ring_logs(self, landed: Mapping[str, Any], mentions: Iterable[str]) -> None: ...


class FakeChain:
    """What is true. Slots move only when told; every node that is open hears of it.

    Attributes:
        tip, confirmed, finalized: the highest slot at each commitment.
        accounts: key -> the `value` of getAccountInfo.
        block_times: slot -> unix seconds, where it is not the transaction's own.
        genesis_hash: names the cluster.
        skipped: slots without a block; put them in before they come.
        held: nothing more becomes final while slots go by.
    """

    def __init__(self, *, finalized: int = 1_000, confirmed_lag: int = 1, depth: int = 31) -> None:
        self.tip = finalized + depth + confirmed_lag
        self.confirmed = finalized + depth
        self.finalized = finalized
        self.accounts: dict[str, dict[str, Any]] = {}
        self.block_times: dict[int, int | None] = {}
        self.genesis_hash = key("genesis")
        self.skipped: set[int] = set()
        self.held = False
        self.nodes: list[Listener] = []
        self._confirmed_lag = confirmed_lag
        self._depth = depth
        self._landed: dict[str, dict[str, Any]] = {}
        self._mentions: dict[str, frozenset[str]] = {}
        self._times: dict[int, int | None] = {}
        self._unrung: set[str] = set()

    def add(
        self,
        landed: Mapping[str, Any],
        *,
        slot: int | None = None,
        block_time: int | None = None,
        mentions: Iterable[str] | None = None,
    ) -> str:
        """Puts a transaction on the chain; returns its signature.

        Args:
            landed: as `tests.chain` builds it.
            slot: instead of its own.
            block_time: instead of its own.
            mentions: keys under which it is found; all its keys when None.
        """
        own = copy.deepcopy(dict(landed))
        if slot is not None:
            own["slot"] = slot
        if block_time is not None:
            own["blockTime"] = block_time
        assert own["slot"] not in self.skipped, "nothing lands in a slot without a block"
        signature = signature_of(own)
        self._landed[signature] = own
        self._mentions[signature] = frozenset(keys_of(own) if mentions is None else mentions)
        self._times[own["slot"]] = own["blockTime"]
        self._unrung.add(signature)
        self._ring()
        return signature

    def drop(self, signature: str) -> None:
        """A fork lost, and the transaction with it."""
        del self._landed[signature], self._mentions[signature]
        self._unrung.discard(signature)

    def advance(self, slots: int = 1) -> None:
        """New slots; what is old enough becomes confirmed and finalized on the way."""
        for _ in range(slots):
            self.tip += 1
            self.confirmed = max(self.confirmed, self.tip - self._confirmed_lag)
            if not self.held:
                self.finalized = max(self.finalized, self.confirmed - self._depth)
            if self.tip not in self.skipped:
                for node in self.nodes:
                    node.ring_slot(self.tip)
            self._ring()

    def confirm(self, slot: int) -> None:
        """Confirms a slot now, and finalizes nothing."""
        self.tip, self.confirmed = max(self.tip, slot), max(self.confirmed, slot)
        self._ring()

    def finalize(self, slot: int) -> None:
        """Finalizes a slot now."""
        self.confirm(slot)
        self.finalized = max(self.finalized, slot)

    @contextlib.asynccontextmanager
    async def ticking(self, slot_s: float = 0.02) -> AsyncIterator[None]:
        """Slots go by while this is open."""

        async def tick() -> None:
            while True:
                await asyncio.sleep(slot_s)
                self.advance()

        task = asyncio.create_task(tick(), name="fake-chain")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def put_account(
        self,
        key_: str,
        *,
        lamports: int = 1_000_000,
        owner: str = SYSTEM_PROGRAM,
        data_base64: str = "",
        executable: bool = False,
    ) -> None:
        """Stores an account, for getAccountInfo."""
        self.accounts[key_] = {
            "data": [data_base64, "base64"],
            "executable": executable,
            "lamports": lamports,
            "owner": owner,
            "rentEpoch": 18_446_744_073_709_551_615,
            "space": 0,
        }

    def find(self, signature: str) -> dict[str, Any] | None:
        """A transaction, or None."""
        return self._landed.get(signature)

    def naming(self, key_: str) -> list[dict[str, Any]]:
        """The transactions that mention a key, newest first."""
        found = [self._landed[name] for name, keys in self._mentions.items() if key_ in keys]
        return sorted(found, key=_position, reverse=True)

    def block_time(self, slot: int) -> int | None:
        """What getBlockTime says."""
        if slot in self.block_times:
            return self.block_times[slot]
        return self._times.get(slot, BLOCK_TIME + slot * 2 // 5)

    def produced(self, slot: int) -> int:
        """The highest slot with a block, up to that one."""
        while slot in self.skipped:
            slot -= 1
        return slot

    def block(self, slot: int) -> dict[str, Any]:
        """What getBlock answers, each transaction where its `transactionIndex` says.

        Places that nobody claims are filled with votes; who claims a place that is taken, or
        none, gets the next free one.
        """
        placed: dict[int, Mapping[str, Any]] = {}
        for landed in sorted(self._in_slot(slot), key=_position):
            place = landed.get("transactionIndex") or 0
            while place in placed:
                place += 1
            placed[place] = landed
        parent = self.produced(slot - 1)
        return {
            "blockHeight": slot - sum(skipped < slot for skipped in self.skipped),
            "blockTime": self.block_time(slot),
            "blockhash": blockhash(slot),
            "parentSlot": max(parent, 0),
            "previousBlockhash": blockhash(parent),
            "transactions": [
                _without_place(placed[place] if place in placed else _vote(slot, place))
                for place in range(max(placed, default=-1) + 1)
            ],
        }

    def _in_slot(self, slot: int) -> list[dict[str, Any]]:
        return [landed for landed in self._landed.values() if landed["slot"] == slot]

    def _ring(self) -> None:
        ripe = [name for name in self._unrung if self._landed[name]["slot"] <= self.confirmed]
        self._unrung.difference_update(ripe)
        for landed in sorted((self._landed[name] for name in ripe), key=_position):
            for node in self.nodes:
                node.ring_logs(landed, self._mentions[signature_of(landed)])


def blockhash(slot: int) -> str:
    """What names the block of that slot."""
    return key(f"block {slot}")


def _vote(slot: int, place: int) -> dict[str, Any]:
    return transaction([], fee_payer=key("voter"), name=f"vote {slot} {place}", slot=slot)


def _without_place(landed: Mapping[str, Any]) -> dict[str, Any]:
    """A transaction inside a block: what the block says of all of them is not said again."""
    meta = {name: value for name, value in landed["meta"].items() if name != "rewards"}
    return {"meta": meta, "transaction": landed["transaction"], "version": landed["version"]}


def _position(landed: Mapping[str, Any]) -> tuple[int, int]:
    return landed["slot"], landed.get("transactionIndex") or 0
