"""One complete look at a key: everything finalized that names it, from where we were to now.

What a look may claim follows from whom it asked. It is complete from where the last one ended,
if those who were asked still keep all of that; otherwise there is a hole, and it is said.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from indexer.core.ranges import Slots
from indexer.errors import SourceUnavailable
from indexer.sources.history import history
from indexer.sources.reach import Choice, Reach
from indexer.sources.rpc import Rpc, SignatureRow
from store.cursors import Frontier


#: Slots before the frontier that are read again each time: nodes behind one address differ, and
#: some list a transaction a little after it was finalized. About two minutes. A node that is
#: further behind than this is in trouble.
OVERLAP_SLOTS: Final = 512

#: Seconds before a payment's creation from which on its reference is looked for: clocks differ.
CREATED_MARGIN_S: Final = 86_400

#: Called with rows of one chunk, oldest first; failed transactions are among them.
Examine = Callable[[Sequence[SignatureRow]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one look came to.

    Attributes:
        frontier: where the key is complete to now.
        covered: the slots that were really listed.
        hole: slots that should have been listed and are kept by nobody; None when there are none.
        kept_since: block time (unix seconds) after the hole; None when it is not known.
    """

    frontier: Frontier
    covered: Slots
    hole: Slots | None = None
    kept_since: int | None = None


class Surveyor:
    """Looks at keys."""

    def __init__(self, rpc: Rpc, *, clock: Callable[[], float]) -> None:
        self.reach = Reach(rpc)
        self._rpc = rpc
        self._clock = clock

    async def finalized_after(self, known: Frontier | None) -> int:
        """The finalized slot of now, which may be no later than what is known.

        Raises:
            SourceUnavailable: who is asked is far behind us.
        """
        if known is None:
            return await self._rpc.finalized_slot()
        finalized = await self._rpc.finalized_slot(at_least=known.slot + 1)
        if finalized < known.slot - OVERLAP_SLOTS:
            raise SourceUnavailable(
                f"the finalized slot {finalized} is far behind our frontier {known.slot}"
            )
        return finalized

    async def look(
        self,
        key: str,
        known: Frontier | None,
        finalized: int,
        examine: Examine,
        *,
        created_at: int | None,
        is_reference: bool = False,
    ) -> Survey:
        """Examines everything from the frontier (or the beginning) to a finalized slot.

        Args:
            key: base58.
            known: where the last look ended; None before the first.
            finalized: read before; beyond `known`.
            examine: returns once what it was given is stored.
            created_at: unix seconds; before the first look, the oldest payment that it may find
                money for was created then. None: there is none.
            is_reference: the key is that of one payment, and did not exist before it.

        Raises:
            SourceError: the chain side gave no complete answer, or `examine` got none.
        """
        block_time = await self._rpc.block_time(finalized)
        floor = 0 if known is None else max(0, known.slot - OVERLAP_SLOTS)
        wanted = None if known is None else known.slot + 1
        choice = await self.reach.choose(
            slot=finalized if wanted is None else wanted, time=None if known else created_at
        )
        since = None
        if is_reference and known is None and created_at is not None:
            since = created_at - CREATED_MARGIN_S
        oldest, is_cut = finalized, False
        async for rows in history(
            self._rpc,
            key,
            first_slot=floor,
            last_slot=finalized,
            since=since,
            endpoints=choice.endpoints,
        ):
            oldest = min([oldest, *(row.slot for row in rows)])
            is_cut = is_cut or any(_is_before(row, since) for row in rows)
            await examine(rows)
        choice = await self._still(choice, wanted, finalized)
        frontier = Frontier(
            key=key,
            slot=finalized,
            block_time=max(block_time or 0, known.block_time if known else 0),
            updated_at=int(self._clock()),
        )
        begin = floor if known is not None else oldest
        if choice.first_slot is not None:
            begin = max(floor, choice.first_slot)
        if is_cut:  # the list goes on below its oldest row, and nobody looked there
            begin = max(begin, oldest + 1)
        return Survey(
            frontier=frontier,
            covered=Slots(min(begin, finalized), finalized),
            hole=_hole(choice, wanted, created_at),
            kept_since=choice.first_time,
        )

    async def _still(self, choice: Choice, wanted: int | None, finalized: int) -> Choice:
        """The same choice after the walk, unless what it was made for is gone."""
        choice = await self.reach.again(choice)
        if choice.first_slot is None:
            return choice
        if choice.first_slot > finalized:
            raise SourceUnavailable(f"nothing before slot {choice.first_slot} is kept")
        if choice.reaches and wanted is not None and choice.first_slot > wanted:
            raise SourceUnavailable("the history was cleaned up while it was read")
        return choice


def _hole(choice: Choice, wanted: int | None, created_at: int | None) -> Slots | None:
    """What was wanted and is kept by nobody."""
    if not choice.first_slot:
        return None
    if wanted is not None:
        return Slots(wanted, choice.first_slot - 1) if choice.first_slot > wanted else None
    is_older = (
        created_at is not None and choice.first_time is not None and created_at < choice.first_time
    )
    return Slots(0, choice.first_slot - 1) if is_older else None


def _is_before(row: SignatureRow, since: int | None) -> bool:
    return since is not None and row.block_time is not None and row.block_time < since
