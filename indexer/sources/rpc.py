"""Several endpoints as one: fail-over in the order given, retries, and typed reads.

Reads are idempotent, so they are asked again, elsewhere or later, up to `ROUNDS_MAX` rounds and
`CALL_S_MAX` seconds. Answers are decoded by the structs below; unknown fields are skipped.

Source: Solana JSON-RPC, HTTP methods.
"""

import asyncio
import base64
import binascii
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
import structlog

from indexer.core.account import Account
from indexer.core.types import Commitment
from indexer.errors import (
    ConfigError,
    InvariantError,
    SourceError,
    SourceRejected,
    SourceUnavailable,
)
from indexer.sources import wire
from indexer.sources.endpoint import Bounds, Endpoint
from indexer.sources.retry import backoff


#: How many times the endpoints are gone through for one call.
ROUNDS_MAX: Final = 5

#: The longest that one call may take, with all its retries and queueing, in seconds.
CALL_S_MAX: Final = 60.0

#: How long a call waits while every endpoint rests, in seconds; then the caller is told.
ALL_REST_S_MAX: Final = 10.0

#: What one `getSignaturesForAddress` may return (the method's own limit).
SIGNATURES_PAGE_MAX: Final = 1_000

#: What one `getSignatureStatuses` may be asked (the method's own limit).
STATUSES_MAX: Final = 256

#: Slots of one `getBlocks` (the method's own limit).
BLOCKS_RANGE_MAX: Final = 500_000

#: No transaction version can be higher: it is seven bits on the wire.
VERSION_MAX: Final = 127

#: How often one question is asked because a node named a higher version: a block may hold several.
VERSION_TRIES_MAX: Final = 4

#: Block times that are remembered.
BLOCK_TIMES_MAX: Final = 10_000

#: How long the rent-exempt minimum is remembered, in seconds: it changes with feature gates.
RENT_KEPT_S: Final = 600.0

_NAMED_VERSION: Final = re.compile(r'"maxSupportedTransactionVersion":\s*(\d{1,3})\b')

_T = TypeVar("_T")

_log = structlog.get_logger()


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


class Rpc:
    """The chain, read through one or more endpoints. An async context manager.

    Attributes:
        endpoints: in the order of preference.
        quorum: how many endpoints must agree on a finalized transaction (see `truth`).
        version_max: `maxSupportedTransactionVersion` of every request; raised when a node names
            a higher one.
        draw: from 0.0 to 1.0, for the jitter of delays.
    """

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
            urls: `http://` or `https://`; may hold keys, which are never logged.
            bounds: of each endpoint.
            quorum: see above.
            draw: see above.
            endpoint: makes what speaks to one URL.
        """
        if not 1 <= quorum <= len(urls):
            raise ConfigError((f"{len(urls)} RPC URLs cannot give a quorum of {quorum}",))
        self.endpoints = tuple(endpoint(url, bounds=bounds, draw=draw) for url in urls)
        self.quorum = quorum
        self.version_max = 1
        self.draw = draw
        self._open = AsyncExitStack()
        self._block_times: dict[int, int] = {}
        self._rent: dict[int, tuple[float, int]] = {}
        self._is_surfnet: bool | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            for endpoint in self.endpoints:
                await opening.enter_async_context(endpoint)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    @property
    def problem(self) -> str | None:
        """Why no endpoint can be asked now; None when at least one can."""
        now = asyncio.get_running_loop().time()
        if any(not endpoint.health.rest_s(now) for endpoint in self.endpoints):
            return None
        return "; ".join(filter(None, (endpoint.health.problem for endpoint in self.endpoints)))

    # ------------------------------------------------------------------ asking

    async def call(self, method: str, params: Sequence[Any]) -> bytes:
        """The JSON of `result` from the first endpoint that answers; may be `null`.

        Raises:
            SourceUnavailable: none did, for now.
            SourceRejected: the question is wrong, or no endpoint serves it.
        """
        try:
            async with asyncio.timeout(CALL_S_MAX):
                return await self._call(method, params)
        except TimeoutError as error:
            raise SourceUnavailable(f"{method}: no answer within {CALL_S_MAX:g} s") from error

    async def _call(self, method: str, params: Sequence[Any]) -> bytes:
        delays = backoff(self.draw)
        unfit: dict[Endpoint, SourceRejected] = {}
        problem = SourceUnavailable(f"{method}: not asked")
        for _ in range(ROUNDS_MAX):
            for endpoint in await self.awake():
                if endpoint in unfit:
                    continue
                try:
                    return await endpoint.call(method, params)
                except SourceUnavailable as error:
                    problem = error
                except SourceRejected as error:
                    unfit[endpoint] = error
                    if error.code in wire.QUESTION_CODES or len(unfit) == len(self.endpoints):
                        raise
            await asyncio.sleep(next(delays))
        raise problem

    async def awake(self) -> list[Endpoint]:
        """The endpoints that do not rest, in order, those that are behind last.

        When all rest, waits for the first.

        Raises:
            SourceUnavailable: the first would be awake only after `ALL_REST_S_MAX`.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + ALL_REST_S_MAX
        while True:
            now = loop.time()
            rests = [(endpoint.health.rest_s(now), endpoint) for endpoint in self.endpoints]
            if awake := [endpoint for rest_s, endpoint in rests if not rest_s]:
                return sorted(awake, key=lambda endpoint: endpoint.behind)
            soonest_s = min(rest_s for rest_s, _ in rests)
            if now + soonest_s > give_up_at:
                raise SourceUnavailable(
                    f"every endpoint rests: {self.problem}", retry_after_s=soonest_s
                )
            await asyncio.sleep(soonest_s)

    async def call_versioned(
        self, method: str, subject: Any, options: Mapping[str, Any], endpoint: Endpoint | None
    ) -> bytes:
        """The JSON of `result` of a method that refuses transactions of unknown versions.

        Raises:
            SourceUnavailable, SourceRejected: as `call`, or as the endpoint that is given.
        """

        async def ask() -> bytes:
            known = {**options, "maxSupportedTransactionVersion": self.version_max}
            call = self.call if endpoint is None else endpoint.call
            return await call(method, [subject, known])

        for _ in range(VERSION_TRIES_MAX - 1):
            try:
                return await ask()
            except SourceRejected as error:
                if error.code != wire.UNSUPPORTED_VERSION or not self._raise_version(str(error)):
                    raise
        return await ask()

    def _raise_version(self, message: str) -> bool:
        """Takes the version from the node's own words; False when they name no usable one."""
        named = _NAMED_VERSION.search(message)
        if named is None or int(named[1]) > VERSION_MAX:
            return False
        version = int(named[1])
        if version > self.version_max:
            # The layout of a new version is read as that of the ones we know, or refused by the
            # decoder: somebody should look.
            _log.warning("transaction_version.raised", version=version, known=self.version_max)
            self.version_max = version
        return True

    async def _read(
        self,
        type_: type[_T],
        method: str,
        params: Sequence[Any],
        endpoint: Endpoint | None = None,
    ) -> _T:
        """From any endpoint, with retries; or from the one that is given, which is asked once."""
        if endpoint is not None:
            return endpoint.decode(await endpoint.call(method, params), type_, method)
        raw = await self.call(method, params)
        try:
            return msgspec.json.decode(raw, type=type_)
        except wire.UNREADABLE as error:
            raise SourceUnavailable(f"{method}: unexpected result: {error}") from error

    # ------------------------------------------------------------------- reads

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
        errors: list[SourceError] = []

        async def ask(endpoint: Endpoint) -> int | None:
            try:
                return await endpoint.finalized_slot(at_least=at_least)
            except SourceError as error:
                errors.append(error)
                return None

        delays = backoff(self.draw)
        for _ in range(ROUNDS_MAX):
            answers = await asyncio.gather(*(ask(endpoint) for endpoint in await self.awake()))
            slots = sorted(slot for slot in answers if slot is not None)
            if len(slots) >= self.quorum:
                return slots[-self.quorum]
            await asyncio.sleep(next(delays))
        raise SourceUnavailable(
            f"{len(slots)} of {self.quorum} endpoints say which slot is finalized: {errors[-1:]}"
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
        errors: list[SourceError] = []

        async def ask(endpoint: Endpoint) -> int | None:
            try:
                return await self._block_time(slot, endpoint)
            except SourceError as error:
                errors.append(error)
                return None

        delays = backoff(self.draw)
        for _ in range(ROUNDS_MAX):
            errors.clear()
            answers = await asyncio.gather(*(ask(endpoint) for endpoint in await self.awake()))
            times = Counter(time for time in answers if time is not None)
            for time, count in times.most_common(1):
                if count >= self.quorum:
                    return time
            if not errors:
                return None
            await asyncio.sleep(next(delays))
        raise SourceUnavailable(
            f"fewer than {self.quorum} endpoints say the same time of slot {slot}: {errors[-1:]}"
        ) from next(iter(errors), None)

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
