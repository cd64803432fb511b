"""Many signatures, a batch at a time: what is fetched, judged and written together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from indexer.errors import Conflict, SourceError, StoreUnavailable
from indexer.together import together


_T = TypeVar("_T")

#: Signatures of one batch, and how many batches are under way at once: fetching one overlaps with
#: writing another.
BATCH_SIZE: Final = 100
BATCHES_AT_ONCE: Final = 3


async def in_batches(
    items: Sequence[_T], work: Callable[[Sequence[_T]], Awaitable[object]]
) -> None:
    """Hands all items to `work`, a batch at a time, and returns once it is done with all of them.

    Raises:
        SourceError, StoreUnavailable, Conflict: of one batch, which is enough to say why; those
            still under way were ended, and the others never begun.
    """
    turn = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def examine(batch: Sequence[_T]) -> None:
        async with turn:
            await work(batch)

    batches = [items[start : start + BATCH_SIZE] for start in range(0, len(items), BATCH_SIZE)]
    expected = (SourceError, StoreUnavailable, Conflict)
    await together(batches, examine, expected=expected, name="examine")
