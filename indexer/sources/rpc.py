"""The chain as typed reads, from whichever endpoints answer.

Answers are decoded by the structs below; unknown fields are skipped.

Source: Solana JSON-RPC, HTTP methods.
"""

import asyncio
import base64
import binascii
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from indexer.core.account import Account
from indexer.core.types import Commitment
from indexer.errors import InvariantError, SourceError, SourceRejected, SourceUnavailable
from indexer.sources import wire
from indexer.sources.endpoint import Bounds, Endpoint
from indexer.sources.failover import ROUNDS_MAX, Failover
from indexer.sources.retry import backoff


#: What one `getSignaturesForAddress` may return (the method's own limit).
SIGNATURES_PAGE_MAX: Final = 1_000

#: What one `getSignatureStatuses` may be asked (the method's own limit).
STATUSES_MAX: Final = 256

#: Slots of one `getBlocks` (the method's own limit).
BLOCKS_RANGE_MAX: Final = 500_000

#: Block times that are remembered.
BLOCK_TIMES_MAX: Final = 10_000

#: How long the rent-exempt minimum is remembered, in seconds: it changes with feature gates.
RENT_KEPT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class SignatureRow:
    """One row of `getSignaturesForAddress`.

    Attributes:
        failed: `err` was not null: nothing moved but the fee.
        block_time: unix seconds; None when the node does not know.
        index: position in the block; None from nodes that do not say.
    """

    signature: str
    slot: int
    failed: bool
    block_time: int | None
    index: int | None


@dataclass(frozen=True, slots=True)
class SignatureStatus:
    """What a node knows of one signature's fate.

    Attributes:
        commitment: None while it is only processed.
    """

    slot: int
    failed: bool
    commitment: Commitment | None


class _Row(msgspec.Struct, rename="camel"):
    signature: str
    slot: wire.Slot
    err: Any = None
    block_time: wire.UnixTime | None = None
    transaction_index: int | None = None


class _Status(msgspec.Struct, rename="camel"):
    slot: wire.Slot
    err: Any = None
    confirmation_status: str | None = None


class _Statuses(msgspec.Struct):
    value: list[_Status | None]


class _Account(msgspec.Struct):
    owner: str
    lamports: int
    executable: bool
    data: tuple[str, str]


class _AccountAnswer(msgspec.Struct):
    value: _Account | None


class _Version(msgspec.Struct, rename="kebab"):
    solana_core: str
    surfnet_version: str | None = None


class Rpc(Failover):
    """The chain, read through one or more endpoints."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        bounds: Bounds | None = None,
        quorum: int = 1,
        draw: Callable[[], float] = random.random,
        endpoint: Callable[..., Endpoint] = Endpoint,
    ) -> None:
        """Nothing is opened before `async with`.

        Args:
            urls: `http://` or `https://`, in the order of preference; may hold keys, which are
                never logged.
            bounds: of each endpoint.
            quorum: how many endpoints must agree.
            draw: from 0.0 to 1.0, for the jitter of delays.
            endpoint: makes what speaks to one URL.
        """
        made = [endpoint(url, bounds=bounds, draw=draw) for url in urls]
        super().__init__(made, quorum=quorum, draw=draw)
        self._block_times: dict[int, int] = {}
        self._rent: dict[int, tuple[float, int]] = {}
        self._is_surfnet: bool | None = None

    async def signatures_for_address(
        self,
        key: str,
        *,
        before: str | None = None,
        limit: int = SIGNATURES_PAGE_MAX,
        min_context_slot: int | None = None,
        endpoint: Endpoint | None = None,
    ) -> list[SignatureRow]:
        """One page of the finalized transactions that name `key`, newest first.

        From any endpoint, with retries; or from the one that is given, which is asked once.

        A short page is no proof of the end: a node may keep less history. The page starts after
        the signature `before`; newer nodes refuse one that they do not know (`SourceRejected`,
        code -32020), older ones answer with an empty page. A node that is behind
        `min_context_slot` is not believed.
        """
        options: dict[str, Any] = {"commitment": "finalized", "limit": limit}
        if before is not None:
            options["before"] = before
        if min_context_slot is not None and not await self._takes_it_for_a_filter():
            options["minContextSlot"] = min_context_slot
        rows = await self._read(list[_Row], "getSignaturesForAddress", [key, options], endpoint)
        return [
            SignatureRow(
                row.signature, row.slot, row.err is not None, row.block_time, row.transaction_index
            )
            for row in rows
        ]

    async def signature_statuses(
        self,
        signatures: Sequence[str],
        *,
        search_history: bool = False,
        endpoint: Endpoint | None = None,
    ) -> list[SignatureStatus | None]:
        """The fate of each signature, in order; None where the node knows nothing of it.

        With `search_history` the node also looks beyond the last few minutes, more slowly.
        """
        found: list[SignatureStatus | None] = []
        options = {"searchTransactionHistory": search_history}
        for start in range(0, len(signatures), STATUSES_MAX):
            asked = signatures[start : start + STATUSES_MAX]
            params = [asked, options]
            answer = await self._read(_Statuses, "getSignatureStatuses", params, endpoint)
            if len(answer.value) != len(asked):
                raise SourceUnavailable(
                    f"getSignatureStatuses: {len(answer.value)} statuses for {len(asked)}"
                )
            found += [None if status is None else _status(status) for status in answer.value]
        return found

    async def slot(self, commitment: Commitment) -> int:
        """The highest slot at that commitment."""
        return await self._read(wire.Slot, "getSlot", [{"commitment": commitment}])

    async def finalized_slot(self, *, at_least: int = 0) -> int:
        """The highest slot that `quorum` endpoints say is finalized, at most 2 s old.

        A node that stands still holds nobody up, and one that runs ahead is not believed alone.

        Args:
            at_least: an endpoint whose last word is lower is asked anew; it may still be lower.

        Raises:
            SourceUnavailable: fewer endpoints say anything.
        """
        delays = backoff(self.draw)
        errors: list[SourceError] = []
        for _ in range(ROUNDS_MAX):
            said, failed = await self._from_each(
                lambda endpoint: endpoint.finalized_slot(at_least=at_least)
            )
            slots, errors = sorted(said), failed or errors
            if len(slots) >= self.quorum:
                return slots[-self.quorum]
            await asyncio.sleep(next(delays))
        reason = f": {errors[-1]}" if errors else ""
        raise SourceUnavailable(
            f"{len(slots)} of {self.quorum} endpoints say which slot is finalized{reason}"
        ) from next(iter(errors), None)

    async def block_time(self, slot: int) -> int | None:
        """When the block of that slot was made, in unix seconds, as `quorum` endpoints say.

        It decides what is late and what expires: where one node's word settles nothing, it must
        not decide that either. None when too few can tell, or they disagree (not known yet,
        cleaned up, or no block there).
        """
        if (known := self._block_times.get(slot)) is not None:
            return known
        time = await (self._block_time(slot) if self.quorum == 1 else self._agreed_time(slot))
        if time is not None:
            self._block_times[slot] = time
            if len(self._block_times) > BLOCK_TIMES_MAX:
                del self._block_times[next(iter(self._block_times))]
        return time

    async def _block_time(self, slot: int, endpoint: Endpoint | None = None) -> int | None:
        try:
            return await self._read(wire.UnixTime | None, "getBlockTime", [slot], endpoint)  # type: ignore[arg-type]  # a union is no type to mypy
        except SourceRejected as error:
            if error.code in wire.NOT_KEPT_CODES:
                return None
            raise

    async def _agreed_time(self, slot: int) -> int | None:
        delays = backoff(self.draw)
        for _ in range(ROUNDS_MAX):
            times, errors = await self._from_each(lambda each: self._block_time(slot, each))
            for time, count in Counter(times).most_common(1):
                if count >= self.quorum:
                    return time
            if not errors:
                return None
            await asyncio.sleep(next(delays))
        raise SourceUnavailable(
            f"fewer than {self.quorum} endpoints say the same time of slot {slot}: {errors[-1:]}"
        ) from errors[0]

    async def first_available_block(self, *, endpoint: Endpoint | None = None) -> int:
        """The lowest slot whose block is still kept; by one endpoint, for others may keep more."""
        return await self._read(wire.Slot, "getFirstAvailableBlock", [], endpoint)

    async def blocks(self, first: int, last: int, *, endpoint: Endpoint | None = None) -> list[int]:
        """The slots from `first` to `last` that have a finalized block, ascending.

        A slot that is not among them was skipped, or is not known to that node: nodes leave out
        in silence what they have cleaned up.

        Args:
            first: not below 0.
            last: finalized; a node that is behind it is not believed.
            endpoint: asked once, alone; any of them, with retries, when None.

        Raises:
            SourceUnavailable: no answer, or one that cannot be (unordered, outside of what was
                asked for).
        """
        if not 0 <= first <= last:
            raise InvariantError(f"slots {first} to {last} are no range")
        found: list[int] = []
        for start in range(first, last + 1, BLOCKS_RANGE_MAX):
            end = min(start + BLOCKS_RANGE_MAX - 1, last)
            options: dict[str, Any] = {"commitment": Commitment.FINALIZED}
            if not await self._takes_it_for_a_filter():
                options["minContextSlot"] = end
            slots = await self._read(list[wire.Slot], "getBlocks", [start, end, options], endpoint)
            _check_slots(slots, start, end)
            found += slots
        return found

    async def block(self, slot: int, *, endpoint: Endpoint | None = None) -> bytes:
        """The JSON of a finalized block with its transactions in full, `getBlock` as it is.

        It does not name its own slot: that it is the right one is shown by the block after it,
        whose `parentSlot` and `previousBlockhash` name this one.

        Raises:
            SourceUnavailable: ask again; with a code of `wire.NOT_YET_CODES` it is not final yet.
            SourceRejected: with a code of `wire.SKIPPED_CODES` the node knows of no block there
                (which is no proof of there being none), of `wire.PRUNED_CODES` it is not kept.
        """
        options = {
            "commitment": Commitment.FINALIZED,
            "encoding": "json",
            "transactionDetails": "full",
            "rewards": False,
        }
        raw = await self.call_versioned("getBlock", slot, options, endpoint)
        if raw == b"null":
            raise SourceUnavailable(f"getBlock: no node has the block of slot {slot} yet")
        return raw

    async def account(self, key: str) -> Account | None:
        """What is stored at that key, at `confirmed`; None when there is no such account."""
        options = {"commitment": Commitment.CONFIRMED, "encoding": "base64"}
        found = (await self._read(_AccountAnswer, "getAccountInfo", [key, options])).value
        if found is None:
            return None
        try:
            data = base64.b64decode(found.data[0], validate=True)
        except binascii.Error as error:
            raise SourceUnavailable(f"getAccountInfo: data is no base64: {error}") from error
        return Account(
            owner=found.owner, lamports=found.lamports, executable=found.executable, data=data
        )

    async def rent_exempt_minimum(self, size: int = 0) -> int:
        """The lamports that an account with `size` bytes of data must hold."""
        now = asyncio.get_running_loop().time()
        read_at, lamports = self._rent.get(size, (float("-inf"), 0))
        if now - read_at > RENT_KEPT_S:
            lamports = await self._read(int, "getMinimumBalanceForRentExemption", [size])
            self._rent = {size: (now, lamports)}
        return lamports

    async def genesis_hash(self) -> str:
        """What tells one cluster from another."""
        return await self._read(str, "getGenesisHash", [])

    async def version(self) -> str:
        """The node's software, such as `4.1.2`."""
        return (await self._read(_Version, "getVersion", [])).solana_core

    async def _takes_it_for_a_filter(self) -> bool:
        """Whether `minContextSlot` leaves out older signatures, as it does on Surfnet.

        Everywhere else it only makes a node that is behind refuse.
        """
        return await self.is_surfnet()

    async def is_surfnet(self) -> bool:
        """Whether this is the local runtime of developers, which differs from real clusters.

        All endpoints serve one cluster, so one of them speaks for all.
        """
        if self._is_surfnet is None:
            version = await self._read(_Version, "getVersion", [])
            self._is_surfnet = version.surfnet_version is not None
        return self._is_surfnet


def _check_slots(slots: Sequence[int], first: int, last: int) -> None:
    before = first - 1
    for slot in slots:
        if not before < slot <= last:
            what = f"slot {slot} after {before}, when {first} to {last} was asked for"
            raise SourceUnavailable(f"getBlocks: unexpected result: {what}")
        before = slot


def _status(status: _Status) -> SignatureStatus:
    name = status.confirmation_status
    commitment = Commitment(name) if name in {"confirmed", "finalized"} else None
    return SignatureStatus(status.slot, status.err is not None, commitment)
