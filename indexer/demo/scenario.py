"""The demo: every story at once, and whether each ended as it must."""

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from indexer import log
from indexer.core.solana_pay import parse
from indexer.core.types import Paid, Status
from indexer.demo.instructions import with_references
from indexer.demo.screen import Row, Screen
from indexer.demo.shop import Shop
from indexer.demo.stage import TOKEN, Stage, stage
from indexer.demo.stories import Story, stories
from indexer.demo.tokens import Token
from indexer.demo.wallet import LAMPORTS_PER_SOL, Wallet
from indexer.errors import AxiomError
from indexer.log import LogFormat, LogLevel


#: All stories together. They take 20 seconds; a machine under load may need longer.
LIMIT_S: Final = 100
_LOG_FILE: Final = "axiompay.log"
_ASKS_FOR_MORE: Final = 1_000_000 * LAMPORTS_PER_SOL


class DemoFailed(AxiomError):  # noqa: N818 - reads as a fact
    """A payment did not end as it must, or not in time."""


class Part:
    """One story under way: its payment, its payer, its row on the screen."""

    def __init__(
        self, story: Story, payment: Mapping[str, Any], payer: Wallet, token: Token | None
    ) -> None:
        self.story = story
        self.id: str = payment["id"]
        self.amount = int(payment["amount_base_units"])
        self.row = Row(story=story.name, asked=f"{story.amount} {story.token}")
        self._url: str = payment["url"]
        self._payer = payer
        self._token = token
        self._heard = asyncio.Condition()
        self._first_sent_at: float | None = None
        self._last_sent_at: float | None = None

    async def pay(self, amount: int | None = None) -> None:
        """Pays the URL as a wallet does that scanned it; see `stories.Payer`."""
        await self._payer.pay(self._url, token=self._token, amount=amount)
        self._last_sent_at = time.monotonic()
        self._first_sent_at = self._first_sent_at or self._last_sent_at

    async def fail(self) -> None:
        """More than the payer has, under the payment's references."""
        request = parse(self._url)
        (transfer,) = self._payer.instructions(request, _ASKS_FOR_MORE, None)
        signature = await self._payer.send(transfer)
        (landed,) = await self._payer.cluster.landed([signature])
        if landed.error is None:
            raise DemoFailed(f"{signature} was meant to fail")

    async def until(self, *, status: Status | None = None, paid: Paid | None = None) -> None:
        """Waits for what the shop hears."""
        async with self._heard:
            await self._heard.wait_for(
                lambda: (status is None or self.row.status == status)
                and (paid is None or self.row.paid == paid)
            )

    async def hear(self, payment: Mapping[str, Any]) -> None:
        """Takes over a state that the shop was told."""
        row, now = self.row, time.monotonic()
        async with self._heard:
            row.status, row.paid = payment["status"], payment["paid"]
            row.late, row.received = payment["late"], payment["received"]
            if row.seen_s is None and self._first_sent_at is not None:
                row.seen_s = now - self._first_sent_at
            if row.status == Status.SETTLED and self._last_sent_at is not None:
                row.settled_s = now - self._last_sent_at
            self._heard.notify_all()

    async def judge(self, shop: Shop) -> None:
        """Compares what the API says at last with how the story must end."""
        payment = await shop.get(self.id)
        story = self.story
        expected = {
            "status": Status.SETTLED,
            "paid": story.paid,
            "late": story.late,
            "received": story.received,
            "review": [],
        }
        self.row.right = {name: payment[name] for name in expected} == expected


async def run(*, clock: Callable[[], float], keep: bool) -> int:
    """Plays every story and returns 0 when each ended as it must.

    Args:
        clock: unix seconds.
        keep: stay up until Ctrl-C or SIGTERM.

    Raises:
        SurfnetError: the local runtime cannot be had.
        DemoFailed: a payment did not end as it must.
    """
    screen = Screen(time.monotonic)
    with _folder(screen) as folder:
        async with stage(folder, clock=clock, say=screen.say) as up:
            with _until_stopped() as stopped:
                await _first_of(up, stopped, _play(up, screen))
                if keep:
                    ...
    return 0
