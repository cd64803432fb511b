"""What came to the doors, counted: for a monitor, and of what was turned away a sample.

Whoever likes may knock at a door as often as he likes. So what was turned away costs a number in
memory, and at most one row for each source and hour (`webhook_events.sample`), written by one
task now and then. The number of bytes that are held for strangers is bounded as well, for each
door by itself: who fills one of them shuts out nobody at the others.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from api.errors import unavailable
from api.limits import STORE_RETRY_AFTER_S, WEBHOOK_BYTES_AT_ONCE_MAX, WEBHOOK_SAMPLE_EVERY_S
from indexer.core.types import WebhookSource
from indexer.errors import StoreError
from indexer.log import get_logger
from store import webhook_events
from store.database import Database


log = get_logger(__name__)

#: Is called with each number of bytes that a request brings.
Hold = Callable[[int], None]

_HOUR_S: Final = 3600


class DoorOutcome(StrEnum):
    """How a request at a door ended.

    Refused: authentic, and not about this deployment. Unconfigured: the door has no secret.
    Unavailable: it could not be stored, or too much came at once; it is to be sent again.
    """

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    UNAUTHENTICATED = "unauthenticated"
    UNCONFIGURED = "unconfigured"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNAVAILABLE = "unavailable"


@dataclass(slots=True)
class _Sample:
    """What was turned away at one door and is not stored yet."""

    address: str
    reason: str
    count: int = 0


class Tally:
    """The figures of this process's doors."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._counts: Counter[tuple[WebhookSource, DoorOutcome]] = Counter(
            dict.fromkeys(((s, o) for s in WebhookSource for o in DoorOutcome), 0)
        )
        self._samples: dict[WebhookSource, _Sample] = {}
        self._turned_away = asyncio.Event()
        self._bytes_held: Counter[WebhookSource] = Counter()

    @property
    def counts(self) -> Mapping[tuple[WebhookSource, DoorOutcome], int]:
        """How many requests ended how, since the process began; every pair is there."""
        return self._counts

    def count(self, source: WebhookSource, outcome: DoorOutcome) -> None:
        """One more."""
        self._counts[source, outcome] += 1

    def turn_away(self, source: WebhookSource, address: str, reason: str) -> None:
        """One more that is not authentic, to be seen in the audit trail."""
        self.count(source, DoorOutcome.UNAUTHENTICATED)
        sample = self._samples.setdefault(source, _Sample(address, reason))
        sample.count += 1
        sample.reason = reason
        self._turned_away.set()

    @contextmanager
    def holding(self, source: WebhookSource) -> Iterator[Hold]:
        """Counts bytes that are held for a door until the end of the block.

        Raises:
            Problem: 503, that is more than may be in memory at once; from the call.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self._bytes_held[source] += size
            if self._bytes_held[source] > WEBHOOK_BYTES_AT_ONCE_MAX:
                raise unavailable("busy", "too much arrives at once", STORE_RETRY_AFTER_S)

        try:
            yield hold
        finally:
            self._bytes_held[source] -= held

    async def run(self) -> None:
        """Writes down what was turned away: soon after the first, then now and then."""
        while True:
            await self._turned_away.wait()
            await self.write()
            await asyncio.sleep(WEBHOOK_SAMPLE_EVERY_S)

    async def write(self) -> None:
        """Writes down what was turned away and is not written yet; if it cannot, later."""
        self._turned_away.clear()
        samples, self._samples = self._samples, {}
        now = int(self._clock())
        batch = [
            webhook_events.sample(
                source,
                now // _HOUR_S,
                count=sample.count,
                address=sample.address,
                detail=sample.reason,
                now=now,
            )
            for source, sample in samples.items()
        ]
        try:
            await self._database.write(batch)
        except StoreError as error:
            log.warning("webhooks.sample_failed", error=str(error))
            self._take_back(samples)
            return
        for source, sample in samples.items():
            log.info(
                "webhooks.turned_away", source=source, count=sample.count, reason=sample.reason
            )

    def _take_back(self, samples: Mapping[WebhookSource, _Sample]) -> None:
        for source, sample in samples.items():
            newer = self._samples.setdefault(source, _Sample(sample.address, sample.reason))
            newer.count += sample.count
        self._turned_away.set()
