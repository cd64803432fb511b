"""`/metrics`: what a monitor asks for, in the text format of Prometheus.

What concerns payments is counted in the database at the moment of the question, and what the
indexers say of themselves is read there too: so every API process tells the same, wherever the
indexers run. What an indexer told carries its name as the label `process`, since `instance` is the
monitor's own word for whom it asked. Only the figures of requests, of streams, of what knocked at
the doors for webhooks and of this process's own way to the database are its own: these carry no
such label. A process that is both tells of its writes either way.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from api.context import Context
from api.limits import INDEXER_REPORT_AGE_MAX_S
from api.tally import DoorOutcome
from indexer.core.types import WebhookSource
from store import (
    cards,
    cursors,
    dead_letters,
    deliveries,
    events,
    gaps,
    health,
    measures,
    payments,
    watching,
    webhook_events,
)
from store.keys import ApiKey
from store.measures import Kind, Measure


#: How a request at a door ends that whoever likes can send. Not among the others, so that no
#: stranger sets off an alarm that watches those.
_TURNED_AWAY: Final = frozenset(
    {
        DoorOutcome.UNAUTHENTICATED,
        DoorOutcome.UNCONFIGURED,
        DoorOutcome.MALFORMED,
        DoorOutcome.TOO_LARGE,
    }
)

#: The values of one family, by the values of its labels.
Labelled = Mapping[tuple[str, ...], float]


async def metrics(context: Context, _request: Request, _key: ApiKey | None) -> Response:
    """Everything that is counted."""
    families = [*await _of_store(context), *_of_process(context)]
    registry = CollectorRegistry()
    registry.register(_Told(families))
    text = generate_latest(registry) + generate_latest(context.requests.registry)
    if context.partners is not None:
        text += generate_latest(context.partners.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


class _Told(Collector):
    """Hands over what was read before: the library collects without waiting."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _of_process(context: Context) -> list[Metric]:
    return [
        _gauge("axiom_streams", "Streams that are open.", {(): context.hub.count}),
        *_doors(context.tally.counts),
        *_rates(context),
        _replicas(context),
    ]


def _replicas(context: Context) -> Metric:
    """How those do who answer reads; nothing where there are none."""
    family = CounterMetricFamily(
        "axiom_replica_reads_total",
        "Times that a replica of the database was asked, by what came of it.",
        labels=("replica", "outcome"),
    )
    for (replica, outcome), count in context.database.figures.replica_reads.items():
        family.add_metric((replica, outcome), count)
    return family


def _rates(context: Context) -> list[Metric]:
    """Who was let through by rate limits, and whether processes count together."""
    counted = CounterMetricFamily(
        "axiom_rate_limited_requests_total",
        "Requests that were counted against a rate limit, by what became of them.",
        labels=("policy", "outcome"),
    )
    for (policy, outcome), count in context.rates.counts.items():
        counted.add_metric((policy, outcome), count)
    if context.shared is None:
        return [counted]
    return [
        counted,
        _gauge(
            "axiom_redis_up",
            "1 while Redis answers, 0 while this process counts for itself.",
            {(): int(context.shared.problem is None)},
        ),
        _counter(
            "axiom_rate_limit_fallbacks_total",
            "Requests that this process counted for itself because Redis was away.",
            context.rates.limiter.here_count,
        ),
    ]


def _doors(counts: Mapping[tuple[WebhookSource, DoorOutcome], int]) -> list[Metric]:
    """What knocked at the doors: those who may, and those whom anybody can play."""
    answered = CounterMetricFamily(
        "axiom_webhooks_total",
        "Webhooks that came in, by what was answered.",
        labels=("source", "outcome"),
    )
    turned_away = CounterMetricFamily(
        "axiom_webhooks_turned_away_total",
        "Requests at the doors for webhooks that anybody could have sent.",
        labels=("source", "reason"),
    )
    for (source, outcome), count in counts.items():
        family = turned_away if outcome in _TURNED_AWAY else answered
        family.add_metric((source, outcome), count)
    return [answered, turned_away]


async def _of_store(context: Context) -> list[Metric]:
    database, now = context.database, context.now
    return [
        _gauge(
            "axiom_payments",
            "Payments, by status.",
            {(status,): n for status, n in (await payments.counts(database)).items()},
            "status",
        ),
        _gauge(
            "axiom_payments_in_review",
            "Payments that a person must look at.",
            {(): await payments.in_review_count(database)},
        ),
        _counter("axiom_events_total", "Events that were published.", await events.count(database)),
        *await _frontier(context, now),
        *await _gaps(context),
        _gauge(
            "axiom_dead_letters",
            "Transactions that could not be examined, and who will try again.",
            {
                (reason, "person" if is_given_up else "retry"): count
                for reason, is_given_up, count in await dead_letters.by_reason(database)
            },
            "reason",
            "waits_for",
        ),
        _gauge(
            "axiom_component_healthy",
            "1 when a part of the indexer says that it is well, 0 when it has a problem.",
            {
                (report.component,): int(report.problem is None)
                for report in await health.all_of(database)
                if now - report.updated_at <= INDEXER_REPORT_AGE_MAX_S
            },
            "component",
        ),
        *await _webhooks(context, now),
        _gauge(
            "axiom_charges",
            "Charges of cards that were told of, by state.",
            {(state,): n for state, n in (await cards.charge_counts(database)).items()},
            "state",
        ),
        *_told(
            [
                *await measures.told_since(database, now - INDEXER_REPORT_AGE_MAX_S),
                *measures.of_writes(database),
            ]
        ),
    ]


async def _frontier(context: Context, now: int) -> list[Metric]:
    keys = await watching.watch_keys(context.database, now=now)
    frontiers = await cursors.several(context.database, keys)
    return [
        _gauge(
            "axiom_frontier_slot",
            "Everything finalized up to this slot is stored.",
            {(each.key,): each.slot for each in frontiers},
            "key",
        ),
        _gauge(
            "axiom_frontier_lag_seconds",
            "How long ago the block of that slot was made.",
            {(each.key,): now - each.block_time for each in frontiers if each.block_time},
            "key",
        ),
    ]


async def _gaps(context: Context) -> list[Metric]:
    found = await gaps.open_by_reason(context.database)
    counts: Labelled = {(str(reason),): found.get(reason, (0, 0))[0] for reason in gaps.GapReason}
    slots: Labelled = {(str(reason),): found.get(reason, (0, 0))[1] for reason in gaps.GapReason}
    return [
        _gauge(
            "axiom_gaps_open", "Ranges of slots that may hold what was missed.", counts, "reason"
        ),
        _gauge("axiom_gap_slots_open", "The slots of all open gaps.", slots, "reason"),
    ]


async def _webhooks(context: Context, now: int) -> list[Metric]:
    database = context.database
    events_oldest = await webhook_events.oldest_waiting_at(database)
    sent = await deliveries.counts(database)
    states: Labelled = {
        ("waiting",): sent.waiting,
        ("delivered",): sent.delivered,
        ("failed",): sent.failed,
        ("dropped",): sent.dropped,
    }
    return [
        _gauge(
            "axiom_webhook_events",
            "Webhooks that came in and are kept, by what became of them.",
            {(verdict,): n for verdict, n in (await webhook_events.counts(database)).items()},
            "verdict",
        ),
        _gauge(
            "axiom_webhook_events_oldest_waiting_seconds",
            "How long ago the oldest webhook came that is not processed; 0: none waits.",
            {(): _age_s(events_oldest, now)},
        ),
        _gauge(
            "axiom_webhook_deliveries",
            "Webhooks to merchants that are kept, by how they stand.",
            states,
            "state",
        ),
        _gauge(
            "axiom_webhook_deliveries_oldest_waiting_seconds",
            "How long ago the oldest webhook to a merchant was made that waits; 0: none does.",
            {(): _age_s(sent.oldest_waiting_at, now)},
        ),
    ]


def _age_s(at: int | None, now: int) -> int:
    return 0 if at is None else max(0, now - at)


def _told(told: Sequence[Measure]) -> list[Metric]:
    """Figures that processes told of themselves. A label that one of them lacks is empty."""
    labels: dict[str, set[str]] = {}
    for each in told:
        labels.setdefault(each.name, set()).update(each.labels)
    families: dict[str, Metric] = {}
    for each in told:
        names = sorted(labels[each.name])
        family = families.get(each.name)
        if family is None:
            make = CounterMetricFamily if each.kind is Kind.COUNTER else GaugeMetricFamily
            family = families[each.name] = make(each.name, "Told by the process.", labels=names)
        values = [each.labels.get(name, "") for name in names]
        family.add_metric(values, each.value)  # type: ignore[attr-defined]  # both kinds have it
    return list(families.values())


def _gauge(name: str, text: str, values: Labelled, *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text)
    family.add_metric((), value)
    return family
