"""What webhooks of Helius and QuickNode are good for: doorbells that were stored.

Of a body only signatures count, and of these only those that may concern us: one of the keys
they are said to name is a watch key, or the reference or the destination of a payment for which
money may still count. Each of them is looked at as any doorbell's is; what the chain says of it,
and nothing of what the body says, may change a payment.

An element that says no keys mentions nothing, with one exception: a stream of QuickNode sends
what the merchant's own filter made, often bare signatures. Whoever filtered has chosen already,
and a look costs a request, never the truth.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from indexer.core.notice import Mention, Notice, read_notice
from indexer.core.types import WebhookSource, WebhookVerdict
from indexer.errors import InvalidInput
from indexer.inbox import Later
from indexer.pipeline import Unread
from indexer.sources.doorbells import Doorbell
from store import watching
from store.database import Database
from store.webhook_events import Outcome, WebhookEvent


#: Signatures of one event that are looked at. A block in which more pay us is for the sweep.
LOOKS_MAX: Final = 200
#: Bytes of a body that are read without a thread of their own. Larger ones are read one by one:
#: read, a body may take twenty times its size, and threads would not be faster.
INLINE_BYTES_MAX: Final = 64 * 1024


class Looking(Protocol):
    """What `Live` does with doorbells that cannot wait for their turn."""

    async def look(self, bells: Sequence[Doorbell]) -> list[Unread]:
        """Those of which nothing could be learned yet."""


class Notices:
    """The handler of webhooks that speak of transactions."""

    def __init__(self, database: Database, live: Looking, *, clock: Callable[[], float]) -> None:
        """Nothing is read yet.

        Args:
            database: holds the payments.
            live: looks at signatures.
            clock: unix seconds.
        """
        self._database = database
        self._live = live
        self._clock = clock
        self._large = asyncio.Lock()

    async def handle(self, event: WebhookEvent) -> Outcome:
        """Looks at what the event mentions of ours, and says which payments that was about.

        Raises:
            Later: no node knows one of the transactions yet, or it is not final enough to say.
            SourceError: the chain is out of reach.
            StoreUnavailable: the database is.
            Conflict: the payments changed meanwhile.
        """
        try:
            notice = await self._read(event.body)
        except InvalidInput as error:
            return Outcome(verdict=WebhookVerdict.REFUSED, detail=str(error))
        ours = await self._ours(notice.mentions, event.source)
        looked_at, remark = ours[:LOOKS_MAX], _remark(notice, len(ours))
        if not looked_at:
            return Outcome(verdict=WebhookVerdict.IGNORED, detail=f"it names nobody here{remark}")
        unread = await self._live.look([Doorbell(each.signature, 0) for each in looked_at])
        ids = await watching.touched(self._database, [each.signature for each in looked_at])
        if unread:
            raise Later(_reason(unread, len(looked_at)), payment_ids=ids)
        if not ids:
            return Outcome(
                verdict=WebhookVerdict.IGNORED, detail=f"by the chain it pays nobody here{remark}"
            )
        detail = f"transactions looked at: {len(looked_at)}{remark}"
        return Outcome(verdict=WebhookVerdict.DONE, detail=detail, payment_ids=ids)

    async def _read(self, body: bytes) -> Notice:
        if len(body) <= INLINE_BYTES_MAX:
            return read_notice(body)
        async with self._large:
            return await asyncio.to_thread(read_notice, body)  # everybody else goes on meanwhile

    async def _ours(self, mentions: Sequence[Mention], source: WebhookSource) -> list[Mention]:
        """Those that are worth a look, in the order of the body."""
        keys = {key for mention in mentions for key in mention.accounts}
        known = await watching.worth_a_look(self._database, keys, now=int(self._clock()))
        takes_bare = source is WebhookSource.QUICKNODE
        return [
            mention
            for mention in mentions
            if not known.isdisjoint(mention.accounts) or (takes_bare and not mention.accounts)
        ]


def _reason(unread: Sequence[Unread], looks: int) -> str:
    first = unread[0]
    return f"{len(unread)} of {looks}: {first.found.signature}: {first.detail}"


def _remark(notice: Notice, ours: int) -> str:
    """What was left to the sweep, as the end of a sentence."""
    left = [
        f"elements that cannot be read: {notice.skipped}" if notice.skipped else "",
        f"transactions beyond the bound: {notice.beyond}" if notice.beyond else "",
        f"left to the sweep: {ours - LOOKS_MAX}" if ours > LOOKS_MAX else "",
    ]
    return "".join(f"; {each}" for each in left if each)
