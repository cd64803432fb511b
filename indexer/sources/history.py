"""Everything finalized that names a key, read backwards page by page, or an error.

Nodes list the newest signatures first, a thousand at a time. A list that is not known to be
complete is worth nothing to a sweep, and nodes have many ways of giving one: they cut pages
short, lose their place, are behind, or never knew what another node of the same address knows.
So a walk ends only where it reaches back far enough, or where there is nothing more; and where
several endpoints must agree, as many must be walked, because a list is no more to be believed
than a transaction.

Source: Solana JSON-RPC, getSignaturesForAddress.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

import structlog

from indexer.errors import SourceError, SourceRejected, SourceUnavailable
from indexer.sources import wire
from indexer.sources.endpoint import Endpoint
from indexer.sources.retry import backoff
from indexer.sources.rpc import Rpc, SignatureRow


#: Signatures of one page, the most that nodes give.
PAGE_SIZE: Final = 1_000
#: Pages of one walk. Ten million signatures are more than any key should have.
PAGES_MAX: Final = 10_000
#: How often one page is asked of the one endpoint that can give the rest of a walk.
PAGE_TRIES_MAX: Final = 5
#: How often one walk begins again from the top because the node lost its place.
RESTARTS_MAX: Final = 2
#: Rows that are remembered to know them again at the top of the next page.
RECENT_MAX: Final = 2 * PAGE_SIZE
#: Pages that are gathered into one chunk.
CHUNK_PAGES_MAX: Final = 20

_log = structlog.get_logger()


async def history(
    rpc: Rpc,
    key: str,
    *,
    first_slot: int,
    last_slot: int,
    since: int | None = None,
    endpoints: Sequence[Endpoint] | None = None,
) -> AsyncIterator[list[SignatureRow]]:
    """What names the key in these slots, failed transactions included.

    Chunks come from the newest to the oldest, each oldest first. One row may come several
    times: with a quorum once from each endpoint, and once more when a walk had to begin again.

    Args:
        rpc: where to ask; as many of its endpoints as its quorum are walked.
        key: base58.
        first_slot: nothing older is wanted.
        last_slot: a finalized slot that was read before; a node that is behind it is not
            believed, and what is newer is left out.
        since: block time (unix seconds) that ends the walk too; None when only the slot does.
        endpoints: only these are asked (see `reach`); None when any of them will do.

    Raises:
        SourceError: no complete list was given. What was yielded is true all the same.
    """
    # One walk asks one endpoint: where two order a slot differently, a page of the one after a
    # page of the other may leave something out.
    if len(rpc.endpoints) == 1 and endpoints is None:
        async for chunk in _Walk(rpc, key, first_slot, last_slot, since, None).chunks():
            yield chunk
        return
    complete, problem = 0, None
    for endpoint in await rpc.awake() if endpoints is None else endpoints:
        try:
            async for chunk in _Walk(rpc, key, first_slot, last_slot, since, endpoint).chunks():
                yield chunk
        except SourceError as error:
            problem = error
            continue
        complete += 1
        if complete == rpc.quorum:
            return
    raise SourceUnavailable(
        f"{complete} of {rpc.quorum} endpoints listed all signatures: {problem}"
    ) from problem


class _PlaceLost(SourceUnavailable):
    """The node does not know any more, or not yet, where the last page ended."""


class _Walk:
    """One walk back through a key's signatures."""

    def __init__(
        self,
        rpc: Rpc,
        key: str,
        first_slot: int,
        last_slot: int,
        since: int | None,
        endpoint: Endpoint | None,
    ) -> None:
        self._rpc = rpc
        self._key = key
        self._first_slot = first_slot
        self._last_slot = last_slot
        self._since = since
        self._endpoint = endpoint

    async def chunks(self) -> AsyncIterator[list[SignatureRow]]:
        """From the top; again from there, a few times, when the node lost its place."""
        delays = backoff(self._rpc.draw)
        for _ in range(RESTARTS_MAX):
            try:
                async for chunk in self._from_the_top():
                    yield chunk
            except _PlaceLost as error:
                _log.info("history.restarted", key=self._key, problem=str(error))
            else:
                return
            await asyncio.sleep(next(delays))
        async for chunk in self._from_the_top():
            yield chunk

    async def _from_the_top(self) -> AsyncIterator[list[SignatureRow]]:
        chunk: list[SignatureRow] = []
        recent: list[SignatureRow] = []
        for pages in range(1, PAGES_MAX + 1):
            try:
                page = await self._page_after(recent)
            except _PlaceLost:
                yield _oldest_first(chunk)  # listed is listed, though the next walk may lack it
                raise
            known = {row.signature for row in recent}
            chunk += [row for row in page if row.signature not in known and self._is_wanted(row)]
            # A short page proves nothing (nodes cut them as they like): only one that reaches
            # back to what is known, or none at all, is the end.
            is_last = not page or self._is_before(page[-1])
            if is_last or pages % CHUNK_PAGES_MAX == 0:
                yield _oldest_first(chunk)
                chunk = []
            if is_last:
                return
            recent = [*recent, *page][-RECENT_MAX:]
        raise SourceUnavailable(f"the list of signatures has no end after {PAGES_MAX} pages")

    def _is_wanted(self, row: SignatureRow) -> bool:
        return self._first_slot <= row.slot <= self._last_slot

    def _is_before(self, row: SignatureRow) -> bool:
        if row.slot < self._first_slot:
            return True
        return (
            self._since is not None and row.block_time is not None and row.block_time < self._since
        )

    async def _page_after(self, recent: Sequence[SignatureRow]) -> list[SignatureRow]:
        """The next page, which may begin with rows that were seen; empty only at the end.

        Nodes do not agree on the order within a slot, and one address may stand for several of
        them: after the last row of one, another may have listed what the first one lists later.
        So the page begins above the slot that the last one ended in, and lists it once more.
        """
        if not recent:
            return await self._list_before(None)
        last, known = recent[-1], {row.signature for row in recent}
        above = next((row for row in reversed(recent) if row.slot > last.slot), None)
        if above is None:
            return await self._page_in_first_slot(recent, known)
        page = await self._list_before(above.signature)
        names = {row.signature for row in page}
        if page and page[0].slot > above.slot:
            raise _PlaceLost("the list of signatures does not go on where it stopped")
        if page and page[-1].slot < last.slot and last.signature not in names:
            raise _PlaceLost("the node lost its place in the list of signatures")
        if names - known:
            return page
        # Nothing new: the end, or a page that was cut within the slot.
        return await self._page_below(recent, known)

    async def _page_in_first_slot(
        self, recent: Sequence[SignatureRow], known: set[str]
    ) -> list[SignatureRow]:
        """The same, while the newest slot is all that was listed: above it is the top."""
        page = await self._page_below(recent, known)
        if not page:
            return page
        top = await self._list_before(None)
        missed = {row.signature for row in top} - {row.signature for row in page} - known
        return top if missed else page

    async def _page_below(
        self, recent: Sequence[SignatureRow], known: set[str]
    ) -> list[SignatureRow]:
        """What follows the last row; empty only at the end.

        Older nodes answer an unknown `before` with an empty page as well. One that knows it
        lists it, and nothing more, before the row above it.
        """
        before_last, last = recent[-2] if len(recent) > 1 else None, recent[-1]
        for _ in range(PAGE_TRIES_MAX):
            page = await self._list_before(last.signature)
            if not page:
                break
            names = {row.signature for row in page}
            if page[0].slot > last.slot or last.signature in names:
                raise _PlaceLost("the list of signatures does not go on where it stopped")
            if names - known:
                return page
            # Another order within the slot: on from where that one ends.
            before_last, last = [last, *page][-2:]
        else:
            raise _PlaceLost("the list of signatures goes round in circles within a slot")
        rows = await self._list_before(None if before_last is None else before_last.signature)
        order = [row.signature for row in rows]
        if last.signature not in order:
            raise _PlaceLost("the node lost its place in the list of signatures")
        if not known.issuperset(order[: order.index(last.signature)]):
            return rows  # another order: what one lists above the last row, another had below it
        rest = rows[order.index(last.signature) + 1 :]
        if rest and known.issuperset(row.signature for row in rest):
            raise _PlaceLost("the list of signatures goes round in circles within a slot")
        return rest

    async def _list_before(self, signature: str | None) -> list[SignatureRow]:
        """One page. A walk that is under way at one endpoint is not given up at once."""
        delays = backoff(self._rpc.draw)
        tries = 1 if self._endpoint is None or signature is None else PAGE_TRIES_MAX
        for _ in range(tries - 1):
            try:
                return await self._page(signature)
            except _PlaceLost:
                raise
            except SourceUnavailable:
                await asyncio.sleep(next(delays))
        return await self._page(signature)

    async def _page(self, signature: str | None) -> list[SignatureRow]:
        try:
            return await self._rpc.signatures_for_address(
                self._key,
                before=signature,
                limit=PAGE_SIZE,
                min_context_slot=self._last_slot,
                endpoint=self._endpoint,
            )
        except SourceRejected as error:
            if error.code == wire.FILTER_NOT_FOUND:
                raise _PlaceLost(str(error)) from error
            raise


def _oldest_first(rows: Sequence[SignatureRow]) -> list[SignatureRow]:
    """By slot and position. Where nodes say no position, they list a slot's newest first too."""
    ascending = list(reversed(rows))
    ascending.sort(key=lambda row: (row.slot, -1 if row.index is None else row.index))
    return ascending
