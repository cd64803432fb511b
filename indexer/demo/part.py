"""One story under way: its payment, its payer, and what the shop hears of it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from indexer.core.solana_pay import parse
from indexer.core.types import Paid, Status
from indexer.demo.screen import Row
from indexer.demo.stories import Story
from indexer.demo.tokens import Token
from indexer.demo.wallet import LAMPORTS_PER_SOL, Wallet
from indexer.errors import AxiomError


_MORE_THAN_ANYONE_HAS: Final = 10**6 * LAMPORTS_PER_SOL


class DemoFailed(AxiomError):
    """A payment did not end as it must, or not in time."""


class Part:
    """Implements `stories.Payer`.

    Attributes:
        id: the payment's.
        amount: base units that it asks for.
        row: what the screen shows of it.
    """

    def __init__(
        self,
        story: Story,
        payment: Mapping[str, Any],
        wallet: Wallet,
        token: Token | None,
        monotonic: Callable[[], float],
    ) -> None:
        self.story = story
        self.id: str = payment["id"]
        self.amount = int(payment["amount_base_units"])
        self.row = Row(story=story.name, asked=f"{story.amount} {story.symbol}")
        self._url: str = payment["url"]
        self._wallet = wallet
        self._token = token
        self._monotonic = monotonic
        self._heard = asyncio.Condition()
        self._first_sent_at: float | None = None
        self._last_sent_at: float | None = None

    async def pay(self, amount: int | None = None) -> None:
        """Pays the URL, as a wallet does that has scanned it."""
        self._last_sent_at = self._monotonic()
        self._first_sent_at = self._first_sent_at or self._last_sent_at
        await self._wallet.pay(self._url, token=self._token, amount=amount)

    async def fail(self) -> None:
        """Sends more SOL than there is, under the payment's references."""
        request = parse(self._url)
        *_, transfer = self._wallet.instructions(request, _MORE_THAN_ANYONE_HAS, None)
        signature = await self._wallet.send(transfer)
        (landed,) = await self._wallet.cluster.landed([signature])
        if landed.error is None:
            raise DemoFailed(f"{signature} was meant to fail")

    async def until(self, *, status: Status | None = None, paid: Paid | None = None) -> None:
        """Waits until the shop has heard so."""
        async with self._heard:
            await self._heard.wait_for(
                lambda: (
                    (status is None or self.row.status == status)
                    and (paid is None or self.row.paid == paid)
                )
            )

    async def hear(self, payment: Mapping[str, Any]) -> None:
        """Takes over a state that the shop was told of."""
        row, now = self.row, self._monotonic()
        async with self._heard:
            row.status, row.paid = payment["status"], payment["paid"]
            row.late, row.received = payment["late"], payment["received"]
            noticed = row.status in {Status.PROCESSING, Status.SETTLED} or row.paid != Paid.NONE
            if noticed and row.seen_s is None and self._first_sent_at is not None:
                row.seen_s = now - self._first_sent_at
            if row.status == Status.SETTLED and self._last_sent_at is not None:
                row.settled_s = now - self._last_sent_at
            self._heard.notify_all()

    def judge(self, payment: Mapping[str, Any]) -> None:
        """Compares the state that the API says at last with the one the story must end in."""
        expected = {
            "status": Status.SETTLED,
            "paid": self.story.paid,
            "late": self.story.late,
            "received": self.story.received,
            "review": [],
        }
        self.row.right = {name: payment[name] for name in expected} == expected
