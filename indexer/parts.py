"""All parts that watch the chain, wired together: what runs, what is wrong, what is counted."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NoReturn, Protocol

import structlog

from api.wakeups import Wakeups
from indexer.callbacks import Callbacks
from indexer.charging import Acquirer, Charging
from indexer.cluster import SameCluster
from indexer.core.standard_webhooks import SigningKey
from indexer.core.types import WebhookSource
from indexer.deliveries import Deliveries
from indexer.errors import StoreUnavailable
from indexer.helius import Upkeep
from indexer.inbox import Inbox
from indexer.inquiries import Inquiries
from indexer.live import Live
from indexer.notices import Notices
from indexer.parked import Parked
from indexer.pipeline import Pipeline
from indexer.recipients import Recipients
from indexer.references import References
from indexer.retention import Retention
from indexer.settings import Settings
from indexer.sources import wire
from indexer.sources.doorbells import Doorbells
from indexer.sources.heads import Heads
from indexer.sources.helius import Helius
from indexer.sources.outside import Sender
from indexer.sources.pubsub import PubSub
from indexer.sources.rpc import Rpc
from indexer.survey import Surveyor
from indexer.sweep import Sweeper
from indexer.tenure import Everything, Start, Tenure, while_ours
from indexer.watch import Watched
from store import health, measures
from store.database import Database
from store.gaps import GapReason
from store.measures import Kind, Measure


log = structlog.get_logger(__name__)

#: Seconds between two reports of health and of figures to the store.
REPORT_INTERVAL_S: Final = 2.0

#: Parts that one indexer does alone, among several; all others divide their work.
_DONE_BY_ONE: Final = frozenset({"recipients", "parked", "retention", "cards", "helius"})

Tasks = dict[str, Start]


class Part(Protocol):
    """Something that runs for ever and can say what is wrong."""

    @property
    def problem(self) -> str | None:
        """None when it is well."""

    async def run(self) -> object:
        """Never ends by itself."""


class Indexer:
    """Everything that watches the chain; runs as the tasks that `tasks` names."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        rpc: Rpc,
        watch_keys: Sequence[str],
        wakeups: Wakeups,
        clock: Callable[[], float],
        *,
        sender: Sender,
        keys: Sequence[SigningKey],
        acquirer: Acquirer | None = None,
        helius: Helius | None = None,
        draw: Callable[[], float] = random.random,
        pubsub: Callable[..., PubSub] = PubSub,
        instance: str = "",
        tenure: Tenure | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            settings: what was configured.
            database: migrated.
            rpc: open.
            watch_keys: those that are watched now; read anew while it runs.
            wakeups: told of every commit.
            clock: unix seconds.
            sender: posts webhooks.
            keys: what the secrets of receivers are derived from.
            acquirer: tells of charges; None: no payments by card.
            helius: where a webhook is kept as wanted; None: nowhere.
            draw: 0 … 1, at random.
            pubsub: makes the subscription to one URL.
            instance: names this process among several; empty: it is the only one.
            tenure: which part of the work is done here; None: all of it.
        """
        self._tenure = tenure
        self._share = share = tenure or Everything()
        self._instance = instance
        self._database = database
        self._rpc = rpc
        self._wakeups = wakeups
        self._clock = clock
        self._draw = draw
        self._cluster = SameCluster(database, rpc)
        pipeline = Pipeline(database, rpc, clock=clock, wake=wakeups.wake)
        surveyor = Surveyor(rpc, clock=clock)
        self._watched = Watched(database, watch_keys, clock=clock, share=share)
        self._sweeper = sweeper = self._of_keys(pipeline, surveyor)
        self._references = References(
            database, rpc, pipeline, clock=clock, surveyor=surveyor, share=share
        )
        self._recipients = Recipients(database, rpc, pipeline, clock=clock, surveyor=surveyor)
        self._doorbells = Doorbells(
            on_overflow=lambda slot: sweeper.missed(slot, None, GapReason.OVERFLOW)
        )
        self._live = Live(database, rpc, pipeline, self._doorbells, clock=clock)
        self._inbox = self._of_chain()
        self._options = self._of_cards(settings, acquirer) | self._of_helius(settings, helius)
        self._deliveries = Deliveries(
            database, sender, keys, clock=clock, wait=wakeups.wait, draw=draw, share=share
        )
        self._retention = Retention(database, days=settings.webhook_retention_days, clock=clock)
        self._parked = Parked(database, pipeline, clock=clock)
        self._heads = Heads(rpc)
        self._subscriptions = self._subscribed(settings.ws_urls, pubsub)

    def tasks(self) -> Tasks:
        """What has to run, by name; none of it ends by itself."""
        tasks: Tasks = {
            "watch": partial(
                self._watched.run, changed=self._keys_changed, wait=self._wakeups.wait
            ),
            "cluster": self._cluster.run,
            "sweep": self._once_known(self._sweeper.run),
            "references": self._once_known(self._references.run),
            "recipients": self._once_known(self._only_here("recipients", self._recipients.run)),
            "doorbells": self._once_known(self._live.answer),
            "finality": self._once_known(self._live.settle),
            "parked": self._once_known(self._only_here("parked", self._parked.run)),
            "heads": self._once_known(self._heads.run),
            "inbox": self._once_known(self._inbox.run),
            "deliveries": self._once_shared(self._deliveries.run),
            "retention": self._once_shared(self._only_here("retention", self._retention.run)),
            **{name: self._option(name) for name in self._options},
            "report": self._report,
            **{f"pubsub:{n}": each.run for n, each in enumerate(self._subscriptions)},
        }
        if self._tenure is not None:
            tasks["tenure"] = partial(
                self._tenure.run, self._watched.all, changed=self._share_changed
            )
        return tasks

    async def leave(self) -> None:
        """Gives back what it had to do, once nothing of it runs any more."""
        if self._tenure is not None:
            await self._tenure.leave()

    def problems(self) -> dict[str, str | None]:
        """What each part has to complain of; None when it is well, or works in another process."""
        problems = {
            "indexer": None,
            "tenure": None if self._tenure is None else self._tenure.problem,
            "cluster": self._cluster.problem,
            "rpc": self._rpc.problem,
            **self._heads.problems(),
            "sweep": self._sweeper.problem,
            "references": self._references.problem,
            "recipients": self._recipients.problem,
            "inbox": self._inbox.problem,
            "deliveries": self._deliveries.problem,
            "retention": self._retention.problem,
            **{name: part.problem for name, part in self._options.items()},
            **{f"pubsub:{n}": each.problem for n, each in enumerate(self._subscriptions)},
        }
        elsewhere = [name for name in _DONE_BY_ONE if not self._share.does(name)]
        return problems | {name: None for name in elsewhere if name in problems}

    def measures(self) -> Iterator[Measure]:
        """The figures that only this process knows."""
        yield _gauge("axiom_slot_seconds", self._heads.slot_s)
        for head in self._heads.heads:
            yield _gauge("axiom_endpoint_slot", head.slot, endpoint=head.endpoint.name)
            yield _gauge(
                "axiom_endpoint_behind_seconds", head.behind_s, endpoint=head.endpoint.name
            )
            for outcome, count in sorted(head.endpoint.outcomes.items()):
                name = head.endpoint.name
                yield _counter("axiom_rpc_requests_total", count, endpoint=name, outcome=outcome)
        for each in self._subscriptions:
            for kind, count in (
                ("successful", each.notifications - each.failed_notifications),
                ("failed", each.failed_notifications),
                ("ignored", each.ignored),
            ):
                yield _counter("axiom_notifications_total", count, endpoint=each.name, kind=kind)
        for outcome, count in sorted(self._deliveries.outcomes.items()):
            yield _counter("axiom_webhook_attempts_total", count, outcome=outcome)
        yield from measures.of_writes(self._database)
        if self._tenure is not None:
            yield _gauge("axiom_indexers", 1 + self._tenure.others)
            yield _gauge("axiom_watch_keys_held", len(self._watched.shared()))
            yield _gauge("axiom_shards_held", len(self._share.shards()))
        yield _gauge("axiom_doorbells_waiting", len(self._doorbells))
        yield _counter("axiom_reference_checks_total", self._references.checks)
        yield _counter("axiom_found_by_reference_alone_total", self._references.found_alone)
        if isinstance(cards := self._options.get("cards"), Inquiries):
            yield _counter("axiom_card_checks_total", cards.checks, outcome="answered")
            yield _counter("axiom_card_checks_total", cards.failed_checks, outcome="failed")

    def _subscribed(self, urls: Sequence[str], pubsub: Callable[..., PubSub]) -> list[PubSub]:
        """A subscription to each endpoint; none is open yet."""
        sweeper = self._sweeper
        return [
            pubsub(
                url,
                keys=self._watched.to_subscribe,
                on_signature=self._doorbells.ring,
                on_subscribed=partial(sweeper.subscribed, source=wire.logged_url(url)),
                on_lost=partial(sweeper.lost, source=wire.logged_url(url)),
            )
            for url in urls
        ]

    def _of_keys(self, pipeline: Pipeline, surveyor: Surveyor) -> Sweeper:
        """The sweeps of what is watched here."""
        return Sweeper(
            self._database,
            self._rpc,
            pipeline,
            self._watched.next_to_sweep,
            clock=self._clock,
            shared=self._watched.shared,
            surveyor=surveyor,
        )

    def _of_chain(self) -> Inbox:
        """The inbox of webhooks that speak of transactions."""
        notices = Notices(self._database, self._live, clock=self._clock)
        return Inbox(
            self._database,
            {WebhookSource.HELIUS: notices.handle, WebhookSource.QUICKNODE: notices.handle},
            clock=self._clock,
            wait=self._wakeups.wait,
            share=self._share,
        )

    def _of_cards(self, settings: Settings, acquirer: Acquirer | None) -> dict[str, Part]:
        if acquirer is None or (pins := settings.paymob_pins) is None:
            return {}
        database, clock, wakeups = self._database, self._clock, self._wakeups
        charging = Charging(database, clock=clock, wake=wakeups.wake)
        inquiries = Inquiries(database, acquirer, charging, clock=clock, draw=self._draw)
        callbacks = Callbacks(database, acquirer, charging, pins=pins, clock=clock)
        # An inbox by itself: cards are taken also while nobody says which cluster this is.
        inbox = Inbox(
            database,
            {WebhookSource.PAYMOB: callbacks.handle},
            clock=clock,
            wait=wakeups.wait,
            share=self._share,
        )
        return {"cards": inquiries, "callbacks": inbox}

    def _of_helius(self, settings: Settings, helius: Helius | None) -> dict[str, Part]:
        if helius is None or settings.helius_webhook_id is None:
            return {}
        upkeep = Upkeep(
            self._database,
            helius,
            settings.helius_webhook_id,
            secrets=settings.helius_webhook_secrets,
            clock=self._clock,
        )
        return {"helius": upkeep}

    def _keys_changed(self) -> None:
        for subscription in self._subscriptions:
            subscription.changed()
        self._sweeper.ask()

    def _share_changed(self, *, gained: bool) -> None:
        """Something is done here from now on, or is not any more."""
        if gained and self._tenure is not None and self._tenure.begun.is_set():
            # Whoever did it before may have been gone for a while, with all that it remembered.
            self._sweeper.missed(0, None, GapReason.START)
            self._live.restore()
        self._keys_changed()
        self._wakeups.wake()

    def _option(self, name: str) -> Start:
        run = self._options[name].run
        return self._once_shared(self._only_here(name, run) if name in _DONE_BY_ONE else run)

    def _once_known(self, start: Start) -> Start:
        async def wait_and_start() -> None:
            await self._cluster.known.wait()
            await start()

        return self._once_shared(wait_and_start)

    def _once_shared(self, start: Start) -> Start:
        """Begins when it is known for the first time what is done here."""
        if (tenure := self._tenure) is None:
            return start

        async def wait_and_start() -> None:
            await tenure.begun.wait()
            await start()

        return wait_and_start

    def _only_here(self, name: str, start: Start) -> Start:
        """Runs what one indexer does alone, while that is this one."""
        if self._tenure is None:
            return start
        return partial(while_ours, self._tenure, name, start)

    async def _report(self) -> NoReturn:
        while True:
            now = int(self._clock())
            told = [
                health.report(part, said, now, instance=self._instance)
                for part, said in self.problems().items()
            ]
            told.append(health.forget(now, instance=self._instance))
            told += measures.report(self.measures(), now, instance=self._instance)
            try:
                await self._database.write(told)
            except StoreUnavailable as error:
                log.warning("health.not_stored", error=str(error))
            await asyncio.sleep(REPORT_INTERVAL_S)


def _gauge(name: str, value: float, **labels: str) -> Measure:
    return Measure(name=name, kind=Kind.GAUGE, value=value, labels=labels)


def _counter(name: str, value: float, **labels: str) -> Measure:
    return Measure(name=name, kind=Kind.COUNTER, value=value, labels=labels)
