"""Keeps the webhook at Helius as wanted: its addresses, and that it is switched on.

Wanted are the watch keys, which stand in every URL made here, and the references that are
watched one by one because their URL lacks one. The list is read, compared as a set, and replaced
only when it differs: each change costs credits. Helius switches a webhook off whose receiver
failed often; it is switched on again, because by then the receiver may be well.

All of this is about being fast. Without it sweeps find every payment a little later.
"""

import asyncio
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import structlog

from indexer.errors import SourceError, SourceRejected, SourceUnavailable, StoreUnavailable
from indexer.sources.helius import ADDRESSES_MAX, Helius, Webhook
from store import watching
from store.database import Database


log = structlog.get_logger(__name__)

#: Seconds between two looks at the webhook.
INTERVAL_S: Final = 600.0
#: Seconds until the next look after one that failed.
RETRY_INTERVAL_S: Final = 60.0
#: Looks in a row that must fail because Helius is out of reach before somebody is told.
FAILURES_TOLD: Final = 5

_WAS_OFF: Final = (
    "the webhook was switched off, as Helius does when its receiver fails often, and was switched "
    "on again; see whether its URL leads here"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What has to change, and what a person should know.

    Attributes:
        added: addresses that the webhook lacks, in order.
        removed: addresses that it has and nobody wants.
        kept: how many stay.
        switches_on: it is off.
        warning: a sentence about what cannot be put right from here; None when all is well.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    kept: int
    switches_on: bool
    warning: str | None

    @property
    def is_empty(self) -> bool:
        """The webhook is as wanted."""
        return not (self.added or self.removed or self.switches_on)


class Upkeep:
    """One webhook, and what it should be.

    Attributes:
        problem: why it cannot be relied on; None while it can.
    """

    def __init__(
        self,
        database: Database,
        helius: Helius,
        webhook_id: str,
        *,
        secrets: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        """Nothing is asked yet.

        Args:
            database: holds the payments.
            helius: the API, open.
            webhook_id: which webhook.
            secrets: what our door accepts as `Authorization`, the first one for new webhooks.
            clock: unix seconds.
        """
        self._database = database
        self._helius = helius
        self._webhook_id = webhook_id
        self._secrets = secrets
        self._clock = clock
        self._failures = 0
        self.problem: str | None = None

    async def run(self) -> NoReturn:
        """Keeps it so for ever."""
        while True:
            pause_s = await self._once()
            await asyncio.sleep(pause_s)

    async def _once(self) -> float:
        """Seconds until the next look."""
        try:
            plan = await self.sync()
        except (SourceError, StoreUnavailable) as error:
            self._failures += 1
            log.warning("helius.sync_failed", error=str(error))
            if isinstance(error, SourceRejected) or self._failures >= FAILURES_TOLD:
                self.problem = str(error)
            pause_s = error.retry_after_s if isinstance(error, SourceUnavailable) else None
            return max(RETRY_INTERVAL_S, pause_s or 0.0)
        self._failures, self.problem = 0, plan.warning
        if plan.switches_on and self.problem is None:
            self.problem = _WAS_OFF
        return INTERVAL_S

    async def sync(self, *, dry_run: bool = False) -> Plan:
        """Makes the webhook what it should be; returns what had to change.

        Args:
            dry_run: changes nothing.

        Raises:
            SourceUnavailable: Helius does not answer; what was done shows the next reading.
            SourceRejected: Helius refuses: the key, the webhook, or what it should be.
            StoreUnavailable: the database does not answer.
        """
        wanted = await self.wanted()
        webhook = await self._helius.read(self._webhook_id)
        plan = self._plan(webhook, wanted)
        if not dry_run and not plan.is_empty:
            await self._carry_out(plan, webhook, wanted)
        return plan

    async def wanted(self) -> frozenset[str]:
        """The addresses that it should watch: of too many the references made last."""
        now = int(self._clock())
        keys = frozenset(await watching.watch_keys(self._database, now=now))
        room = ADDRESSES_MAX - len(keys)
        return keys.union(await watching.foreign(self._database, now=now, limit=max(0, room)))

    async def _carry_out(self, plan: Plan, webhook: Webhook, wanted: frozenset[str]) -> None:
        if plan.added or plan.removed:
            # Helius may not say what it sends. Left out, it would send nothing from now on.
            secret = None if webhook.auth_header else next(iter(self._secrets), None)
            await self._helius.replace(webhook, wanted, auth_header=secret)
        if plan.switches_on:
            await self._helius.switch_on(webhook.id)
        log.info(
            "helius.synced",
            added=len(plan.added),
            removed=len(plan.removed),
            switched_on=plan.switches_on,
        )

    def _plan(self, webhook: Webhook, wanted: frozenset[str]) -> Plan:
        return Plan(
            added=tuple(sorted(wanted - webhook.addresses)),
            removed=tuple(sorted(webhook.addresses - wanted)),
            kept=len(wanted & webhook.addresses),
            switches_on=not webhook.active,
            warning=self._warning(webhook, wanted),
        )

    def _warning(self, webhook: Webhook, wanted: frozenset[str]) -> str | None:
        sent = webhook.auth_header
        if sent is not None and not any(_same(sent, secret) for secret in self._secrets):
            return (
                "the webhook sends an Authorization that is none of AXIOM_HELIUS_WEBHOOK_SECRETS: "
                "our door turns it away"
            )
        if len(wanted) >= ADDRESSES_MAX:
            return f"the webhook takes {ADDRESSES_MAX} addresses, and no more; others are swept"
        return None


def _same(sent: str, secret: str) -> bool:
    return hmac.compare_digest(sent.encode(), secret.encode())
