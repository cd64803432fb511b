from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.tally import DoorOutcome
from indexer.core.ranges import Slots
from indexer.core.types import ChargeState, WebhookSource, WebhookVerdict
from indexer.errors import StoreUnavailable
from store import (
    cards,
    cursors,
    dead_letters,
    deliveries,
    gaps,
    health,
    measures,
    webhook_events,
)
from store.cursors import Frontier
from store.dead_letters import DeadLetter
from store.figures import Figures, ReplicaOutcome
from store.gaps import GapReason
from store.measures import Kind, Measure
from store.webhook_events import Outcome
from tests.api.running import NOW, WATCH_KEY, Api
from tests.cards import make_charge, stored_card
from tests.indexer.receiving import arrive
from tests.instructions import signature
from tests.store.sending import register


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def samples(api: Api) -> Samples:
    """Everything that is told, read by the library's own parser."""
    async with api.session.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain")
        text = await response.text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def letter(name: str, reason: str, next_try_at: int | None) -> DeadLetter:
    return DeadLetter(
        signature=signature(name),
        key=WATCH_KEY,
        slot=7,
        reason=reason,
        detail="",
        payload=None,
        attempts=1,
        next_try_at=next_try_at,
        created_at=NOW,
        updated_at=NOW,
    )


async def test_payments_are_counted_by_status(api: Api) -> None:
    await api.create()
    await api.create(amount="1")

    found = await samples(api)

    assert of(found, "axiom_payments", status="pending") == 2
    assert of(found, "axiom_payments", status="settled") == 0
    assert of(found, "axiom_payments_in_review") == 0
    assert of(found, "axiom_events_total") == 2


async def test_the_frontier_and_its_gaps_are_told(api: Api) -> None:
    frontier = Frontier(key=WATCH_KEY, slot=7, block_time=NOW - 13, updated_at=NOW)
    closed = gaps.note(WATCH_KEY, Slots(1, 3), GapReason.START, NOW)
    await api.database.write([cursors.advance(frontier), closed])
    await api.database.write(
        [
            gaps.close_up_to(WATCH_KEY, 3, NOW),
            gaps.note(WATCH_KEY, Slots(8, 17), GapReason.RECONNECT, NOW, source="a"),
            gaps.note(WATCH_KEY, Slots(8, 9), GapReason.RECONNECT, NOW, source="b"),
        ]
    )

    found = await samples(api)

    assert of(found, "axiom_frontier_slot", key=WATCH_KEY) == 7
    assert of(found, "axiom_frontier_lag_seconds", key=WATCH_KEY) == 13
    assert of(found, "axiom_gaps_open", reason="reconnect") == 2
    # Both endpoints missed two of these slots.
    assert of(found, "axiom_gap_slots_open", reason="reconnect") == 10
    assert of(found, "axiom_gaps_open", reason="start") == 0


async def test_dead_letters_are_told_by_who_must_look(api: Api) -> None:
    letters = [
        letter("one", "not_found", NOW + 1),
        letter("two", "not_found", NOW + 1),
        letter("three", "malformed", None),
    ]
    await api.database.write([dead_letters.park(each) for each in letters])

    found = await samples(api)

    assert of(found, "axiom_dead_letters", reason="not_found", waits_for="retry") == 2
    assert of(found, "axiom_dead_letters", reason="malformed", waits_for="person") == 1


async def test_what_the_indexer_says_of_itself_is_passed_on_while_it_is_fresh(api: Api) -> None:
    told = Measure(name="axiom_rings_total", kind=Kind.COUNTER, value=4, labels={"source": "a"})
    slot_s = Measure(name="axiom_slot_seconds", kind=Kind.GAUGE, value=0.25)
    await api.database.write(
        [
            health.report("rpc", "no endpoint answers", NOW),
            health.report("sweep", None, NOW),
            *measures.report([told, slot_s], NOW),
        ]
    )

    found = await samples(api)
    assert of(found, "axiom_rings_total", source="a") == 4
    assert of(found, "axiom_slot_seconds") == 0.25
    assert of(found, "axiom_component_healthy", component="rpc") == 0
    assert of(found, "axiom_component_healthy", component="sweep") == 1

    api.clock.now = NOW + 31
    later = await samples(api)
    assert of(later, "axiom_rings_total", source="a") is None
    assert of(later, "axiom_component_healthy", component="rpc") is None


async def test_each_indexer_has_figures_of_its_own_and_who_is_gone_has_none(api: Api) -> None:
    def rings(count: int) -> Measure:
        return Measure(name="axiom_rings_total", kind=Kind.COUNTER, value=count)

    await api.database.write(
        [
            *measures.report([rings(4)], NOW, instance="one"),
            *measures.report([rings(5)], NOW - 1, instance="two"),
            *measures.report([rings(6)], NOW - 31, instance="gone"),
            health.report("rpc", None, NOW, instance="one"),
            health.report("rpc", "no endpoint answers", NOW - 1, instance="two"),
            health.report("sweep", "behind", NOW - 31, instance="gone"),
        ]
    )

    found = await samples(api)

    told = {labels: n for (name, labels), n in found.items() if name == "axiom_rings_total"}
    assert told == {(("process", "one"),): 4, (("process", "two"),): 5}
    assert of(found, "axiom_component_healthy", component="rpc") == 0
    assert of(found, "axiom_component_healthy", component="sweep") is None


async def test_this_process_s_writes_stand_beside_those_of_the_indexers(api: Api) -> None:
    theirs = [each for each in measures.of_writes(api.database) if "batches" in each.name]
    await api.database.write(measures.report(theirs, NOW, instance="one"))
    await api.create()

    found = await samples(api)

    own = of(found, "axiom_write_batches_total", process="")
    assert of(found, "axiom_write_batches_total", process="one") == theirs[0].value
    assert own is not None
    assert own > theirs[0].value
    assert of(found, "axiom_write_groups_total") is not None
    assert of(found, "axiom_write_answers_lost_total") == 0


async def test_how_replicas_do_is_told(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = {("db:8080", ReplicaOutcome.ANSWERED): 5, ("db:8080", ReplicaOutcome.FAILED): 1}
    monkeypatch.setattr(api.database, "_figures", lambda: Figures(replica_reads=reads))

    found = await samples(api)

    name = "axiom_replica_reads_total"
    assert of(found, name, replica="db:8080", outcome="answered") == 5
    assert of(found, name, replica="db:8080", outcome="failed") == 1


async def test_what_knocks_at_the_doors_is_counted_and_strangers_apart(api: Api) -> None:
    """Whoever watches the first for failures is not woken by whoever likes to send nonsense."""
    for _ in range(3):
        async with api.session.post("/api/webhooks/helius", data=b"[]") as response:
            assert response.status == 503
    tally = api.app.state.context.tally
    tally.count(WebhookSource.PAYMOB, DoorOutcome.ACCEPTED)
    tally.turn_away(WebhookSource.QUICKNODE, "192.0.2.7", "wrong signature")

    found = await samples(api)

    assert of(found, "axiom_webhooks_total", source="paymob", outcome="accepted") == 1
    turned_away = "axiom_webhooks_turned_away_total"
    assert of(found, turned_away, source="helius", reason="unconfigured") == 3
    assert of(found, turned_away, source="quicknode", reason="unauthenticated") == 1
    outcomes = {dict(labels)["outcome"] for name, labels in found if name == "axiom_webhooks_total"}
    assert outcomes == {"accepted", "duplicate", "refused", "unavailable"}
    assert "192.0.2.7" not in str(found)


async def test_what_came_in_and_what_goes_out_is_told_by_how_it_stands(api: Api) -> None:
    assert of(await samples(api), "axiom_webhook_events_oldest_waiting_seconds") == 0
    receiver = await register(api.database)
    for n, verdict in enumerate(WebhookVerdict):
        event_id = await arrive(api.database, now=NOW - 10 * n, name=str(n))
        if verdict is not WebhookVerdict.WAITING:
            end = Outcome(verdict=verdict, detail="", payment_ids=())
            await api.database.write(webhook_events.finish(event_id, end, NOW))
    await arrive(api.database, now=NOW - 7, name="later")
    for at in (NOW - 40, NOW - 30, NOW - 20):
        [[(delivery_id,)]] = await api.database.write([deliveries.test(receiver, at)])
        if at == NOW - 40:
            await api.database.write([deliveries.failed(delivery_id, NOW)])

    found = await samples(api)

    assert of(found, "axiom_webhook_events", verdict="waiting") == 2
    assert of(found, "axiom_webhook_events", verdict="failed") == 1
    assert of(found, "axiom_webhook_events_oldest_waiting_seconds") == 0
    assert of(found, "axiom_webhook_deliveries", state="waiting") == 2
    assert of(found, "axiom_webhook_deliveries", state="failed") == 1
    assert of(found, "axiom_webhook_deliveries", state="delivered") == 0
    assert of(found, "axiom_webhook_deliveries_oldest_waiting_seconds") == 30

    api.clock.now = NOW + 5
    assert of(await samples(api), "axiom_webhook_events_oldest_waiting_seconds") == 5


async def test_charges_are_counted_by_state(api: Api) -> None:
    record = await stored_card(api.database)
    charges = [make_charge(1), make_charge(2, ChargeState.DECLINED), make_charge(3)]
    await api.database.write(cards.save(record, record.payment, charges=charges))

    found = await samples(api)

    assert of(found, "axiom_charges", state="paid") == 2
    assert of(found, "axiom_charges", state="declined") == 1
    assert of(found, "axiom_charges", state="refunded") == 0


async def test_requests_are_counted_and_streams_are_not_timed(api: Api) -> None:
    payment = await api.create()
    await api.get(f"/api/pay/{payment['id']}")
    async with api.session.get(f"/api/sse/payments/{payment['id']}") as stream:
        await stream.content.readline()
        found = await samples(api)
        assert of(found, "axiom_streams") == 1

    request = {"method": "GET", "route": "/api/pay/{id}", "status": "200"}
    assert of(found, "axiom_http_request_seconds_count", **request) == 1
    assert payment["id"] not in str(found)
    assert not any("sse" in str(labels) for name, labels in await samples(api) if "http" in name)


async def test_a_database_that_does_not_answer_is_no_metric(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_batch: Any) -> Any:
        raise StoreUnavailable("/var/secret/axiom.db is locked")

    monkeypatch.setattr(api.database, "read", fail)
    async with api.session.get("/metrics") as response:
        assert response.status == 503
        assert "secret" not in await response.text()
