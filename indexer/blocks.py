"""Blocks read one after another, with proof that none is missing between them.

A node that says "skipped, or missing" says nothing: it may have lost the block. What proves that
a slot has no block is the block after it, which names its parent. So a range is walked from the
first block beyond its end back to the first block before its beginning, from parent to parent by
slot and by hash. The list of `getBlocks` only says which blocks to fetch ahead: one that it left
out and that is named as a parent is fetched as well, and one that it lists and that the chain
passes over is a contradiction, which another endpoint must resolve.

Where several endpoints must agree on a transaction, as many must agree on each block; what any of
them says names a watched key is looked at.

The local runtime of developers never skips a slot and gives wrong parents: there the list itself
must be without holes.

Source: Solana JSON-RPC, getBlocks and getBlock.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence, Set as AbstractSet
from dataclasses import replace
from typing import Final

from indexer.core.ranges import Slots
from indexer.core.types import SYSTEM_PROGRAM
from indexer.core.watching import Block, read_block
from indexer.errors import AxiomError, DecodeError, SourceError, SourceUnavailable
from indexer.sources.endpoint import Endpoint
from indexer.sources.retry import backoff
from indexer.sources.rpc import Rpc
from indexer.together import together


#: Slots beyond a range in which the block after it is looked for at first, and how often that
#: span grows eightfold; after that, as when nothing beyond is final, it is waited for.
LOOKAHEAD_SLOTS: Final = 64
LOOKAHEAD_GROWTH: Final = 8
#: Seconds that the block after the range is waited for in all, and between two looks.
NEIGHBOUR_WAIT_S: Final = 30.0
NEIGHBOUR_PAUSE_S: Final = 1.0
#: How many times the endpoints are gone through for one block.
ROUNDS_MAX: Final = 4

_Fits = Callable[[Block], bool]


class Blocks:
    """Reads ranges of blocks and matches them against the watched keys."""

    def __init__(self, rpc: Rpc, watched: AbstractSet[str], *, concurrency: int) -> None:
        """Nothing is asked before `read`.

        Args:
            rpc: as many of its endpoints as its quorum must agree.
            watched: base58 of the keys.
            concurrency: blocks that are fetched at once; each takes some 10 MB meanwhile.
        """
        self._rpc = rpc
        self._watched = watched
        self._turn = asyncio.Semaphore(concurrency)
        self._beyond: Block | None = None

    async def read(self, slots: Slots) -> list[Block]:
        """Every block of these slots, ascending. The last slot must be final.

        Raises:
            SourceUnavailable: a block, or the proof that there is none, could not be had; names
                the slot.
        """
        finalized = await self._rpc.finalized_slot(at_least=slots.last)
        end = min(slots.last + LOOKAHEAD_SLOTS, max(finalized, slots.last))
        listed = await self._rpc.blocks(slots.first, end)
        within = [slot for slot in listed if slot in slots]
        if await self._rpc.is_surfnet():
            _check_whole(slots, within)
            found = await self._read_all(within)
            return [found[slot] for slot in within]
        found = await self._read_all(within)
        beyond = next((slot for slot in listed if slot > slots.last), None)
        top = await self._top(slots, listed, beyond)
        if self._beyond is not None and self._beyond.slot == top:
            found.setdefault(top, self._beyond)
        chain = await self._walk(slots, top, listed, found)
        self._beyond = next((block for block in chain if block.slot > slots.last), None)
        return [block for block in reversed(chain) if block.slot <= slots.last]

    # ---------------------------------------------------------------------------- the proof

    async def _top(self, slots: Slots, listed: Sequence[int], beyond: int | None) -> int:
        """Where the walk begins: a block after the range, or the one in its last slot."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + NEIGHBOUR_WAIT_S
        while beyond is None:
            beyond = await self._first_after(slots.last)
            if beyond is not None or slots.last in listed:
                break  # a block in the very last slot leaves nothing after it to be proven
            if loop.time() >= give_up_at:
                raise SourceUnavailable(
                    f"no block after slot {slots.last} is final yet, and only that one shows "
                    "where the range ends; try again, or end at an earlier slot"
                )
            await asyncio.sleep(NEIGHBOUR_PAUSE_S)
        return slots.last if beyond is None else beyond

    async def _first_after(self, slot: int) -> int | None:
        """The first slot after that one of which a final block is listed; None for now."""
        finalized = await self._rpc.finalized_slot(at_least=slot + 1)
        begin, span = slot + 1, LOOKAHEAD_SLOTS
        while begin <= finalized:
            end = min(begin + span - 1, finalized)
            if listed := await self._rpc.blocks(begin, end):
                return listed[0]
            begin, span = end + 1, span * LOOKAHEAD_GROWTH
        return None

    async def _walk(
        self, slots: Slots, top: int, listed: Sequence[int], found: Mapping[int, Block]
    ) -> list[Block]:
        """From parent to parent, descending, until one lies before the range."""
        chain: list[Block] = []
        refused: set[Block] = set()
        problem: SourceUnavailable | None = None
        slot, wanted_hash = top, None
        while True:
            # What is listed between this block and its parent would be passed over.
            below = max((each for each in listed if each < slot), default=-1)
            fits = _fitting(slot, wanted_hash, below, refused)
            block = found.get(slot)
            if block is None or not fits(block):
                try:
                    block = await self._read(slot, fits, _why(slot, chain[-1:], below))
                except SourceUnavailable as error:
                    if problem is not None:
                        raise problem from None
                    if not chain or chain[-1].slot in {block.slot for block in refused}:
                        raise
                    # It may be the block above that is wrong: another endpoint may give it.
                    problem = error
                    refused.add(chain[-1])
                    slot = chain.pop().slot
                    wanted_hash = _hash_of_parent(chain[-1]) if chain else None
                    continue
            problem = None
            chain.append(block)
            if block.parent_slot < slots.first or slot == 0:
                return chain
            slot, wanted_hash = block.parent_slot, _hash_of_parent(block)

    # ------------------------------------------------------------------------------ reading

    async def _read_all(self, slots: Iterable[int]) -> dict[int, Block]:
        found: dict[int, Block] = {}

        async def read(slot: int) -> None:
            found[slot] = await self._read(slot, _anything, "")

        await together(slots, read, expected=(SourceError,), name="read-block")
        return found

    async def _read(self, slot: int, fits: _Fits, why: str) -> Block:
        """The block as enough endpoints give it, among those that fit."""
        async with self._turn:
            answers: dict[Endpoint, Block] = {}
            problem: AxiomError | None = None
            delays = backoff(self._rpc.draw)
            for is_last in (False,) * (ROUNDS_MAX - 1) + (True,):
                for endpoint in await self._rpc.awake():
                    if endpoint in answers:
                        continue
                    try:
                        answers[endpoint] = await self._ask(endpoint, slot)
                    except (SourceError, DecodeError) as error:
                        problem = error
                    if (agreed := self._agreed(answers.values(), fits)) is not None:
                        return agreed
                if len(answers) == len(self._rpc.endpoints) or is_last:
                    break
                await asyncio.sleep(next(delays))
        raise SourceUnavailable(
            f"slot {slot}: {_shortfall(answers.values(), fits, self._rpc.quorum, problem)}{why}"
        ) from problem

    async def _ask(self, endpoint: Endpoint, slot: int) -> Block:
        raw = await self._rpc.block(slot, endpoint=endpoint)
        return read_block(raw, slot=slot, watched=self._watched)

    def _agreed(self, answers: Iterable[Block], fits: _Fits) -> Block | None:
        """The first that `quorum` endpoints gave, with all that any of them found in it."""
        groups: dict[tuple[int, str, str], list[Block]] = {}
        for block in filter(fits, answers):
            place = (block.parent_slot, block.blockhash, block.previous_blockhash)
            same = groups.setdefault(place, [])
            same.append(block)
            if len(same) == self._rpc.quorum:
                named = dict.fromkeys(name for each in same for name in each.named)
                transactions = max(each.transactions for each in same)
                return replace(block, named=tuple(named), transactions=transactions)
        return None


def _anything(_: Block) -> bool:
    return True


def _fitting(slot: int, wanted_hash: str | None, below: int, refused: AbstractSet[Block]) -> _Fits:
    def fits(block: Block) -> bool:
        is_named = wanted_hash is None or block.blockhash == wanted_hash
        is_above = below <= block.parent_slot < slot or slot == 0  # the first is its own parent
        return is_named and is_above and block not in refused

    return fits


def _hash_of_parent(block: Block) -> str | None:
    """None from a node that has cleaned up the parent and does not know."""
    known = block.previous_blockhash
    return None if known == SYSTEM_PROGRAM else known


def _check_whole(slots: Slots, listed: Sequence[int]) -> None:
    """Every slot has a block, where none is ever skipped."""
    for wanted, slot in zip(range(slots.first, slots.last + 1), [*listed, None], strict=False):
        if slot != wanted:
            raise SourceUnavailable(
                f"slot {wanted}: getBlocks does not list it, and none is skipped"
            )


def _why(slot: int, above: Sequence[Block], below: int) -> str:
    """What the block was wanted for, as an error says it."""
    parts = [f"the block of slot {block.slot} names it as its parent" for block in above]
    if below >= 0:
        parts.append(f"slot {below} has a block, which one of slot {slot} may not pass over")
    return f" ({'; '.join(parts)})" if parts else ""


def _shortfall(
    answers: Iterable[Block], fits: _Fits, quorum: int, problem: AxiomError | None
) -> str:
    """Why no block could be agreed on."""
    given = list(answers)
    fitting = sum(map(fits, given))
    if given and not fitting:
        return "no endpoint gives a block that fits those around it"
    if fitting:
        return f"{fitting} endpoints give a block, and they are not {quorum} that agree"
    return f"no endpoint gives its block: {problem}"
